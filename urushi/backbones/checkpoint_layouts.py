"""Which of the tensors in a released checkpoint are the network's, and by what names.

Trainers leave it under wrappings and prefixes of their own, beside averaged copies, losses and
counters. All of that is told by names: `generator_ema.module.intro.weight` is `intro.weight` of an
averaged copy, whether dots join the parts or mappings within mappings do.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product, takewhile
from typing import NamedTuple

from torch import Tensor

from urushi.backbones.checkpoint_averages import (
    SWAPPED,
    are_averaged,
    is_averaged,
    is_swapped,
    spelled_plainly,
    with_dots,
)
from urushi.backbones.checkpoint_leaves import Leaves, Parts, leaves_of, nothing_in, same_numbers
from urushi.backbones.folded_norms import Folded, folded
from urushi.backbones.released_networks import kind_of, known_kinds, likenesses
from urushi.errors import FileFormatError
from urushi.names import counted

__all__ = ["Chosen", "choose_network"]

# In the order in which a file that has several is to be read.
_WRAPPINGS = (
    "params", "state_dict", "model_state_dict", "model", "net", "net_g", "netg", "generator", "gen",
    "g", "network", "weights", "module", "student",
)  # fmt: skip
# Left by torch itself, in the middle of names too.
_TRANSPARENT = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Tensors that programs count with: profilers beside every layer, averaging, batch normalisation.
_COUNTERS = {
    "total_ops", "total_params", "n_averaged", "num_updates", "step_counter", "_extra_state",
}  # fmt: skip
# What lists of trained tensors may lack: nothing, buffers, or what is frozen as well.
_NOT_TRAINED = ((), ("attn_mask",), ("attn_mask", "sub_mean.", "add_mean."))
# First parts of the names of those checkpoints of LoRA-IR that are no single network.
_SEVERAL = ("cls_head", "de_extractor", "intro_de")
# First parts of the names of what trains beside a network.
_BESIDE = re.compile(
    r"^cri(_|terion)|loss|vgg|lpips|perceptual|discriminator|^net_?d$|^d$|metric|psnr|ssim|log_vars|"
    r"optim|sched|^ema_$",
    re.IGNORECASE,
)
_LIKE, _SOMEWHAT_LIKE = 0.5, 0.25
# The prefix of a network that has none, as the user gives it.
_NO_PREFIX = "."
_NO_PREFIX_TOLD = "no prefix"


class Chosen(NamedTuple):
    """The network's tensors in a checkpoint.

    Attributes:
        tensors: by the names that the authors' code gives them.
        notes: what the user should know of what was left out, a sentence each.
    """

    tensors: dict[str, Tensor]
    notes: tuple[str, ...]


class _Group(NamedTuple):
    """What stands under one prefix."""

    prefix: Parts
    tensors: dict[str, Tensor]
    likeness: float
    shared: int = 0
    swapped: bool = False
    by_order: bool = False
    twice: str = ""

    @property
    def averaged(self) -> bool:
        swap = SWAPPED if self.swapped else {}
        return are_averaged([swap.get(part, part) for part in self.prefix[self.shared :]])

    @property
    def trained(self) -> set[str]:
        """Names without those of buffers, which averages may lack."""
        floats = {name for name, tensor in self.tensors.items() if tensor.is_floating_point()}
        return {n for n in floats if not any(part in n for part in _NOT_TRAINED[-1])}

    @property
    def told(self) -> str:
        return ".".join(self.prefix)[:100] or _NO_PREFIX_TOLD

    @property
    def asked(self) -> str:
        """As `told`, to be given by the user."""
        return ".".join(self.prefix)[:100] or _NO_PREFIX

    @property
    def rank(self) -> tuple[bool, int]:
        """Averaged copies first, then by the order of wrappings."""
        known = [_WRAPPINGS.index(p) for p in map(spelled_plainly, self.prefix) if p in _WRAPPINGS]
        return not self.averaged, min(known, default=len(_WRAPPINGS))


def choose_network(content: object, source: str, copy: str | None = None) -> Chosen:
    """Find the network in what a checkpoint holds.

    Weights that are kept as a product (weight and spectral normalisation, pruning) are computed.

    Args:
        content: mappings and lists of tensors, as they were read.
        source: what messages call the file.
        copy: what the names begin with, of several networks alike, or "." for the one whose names
            begin with nothing else; None takes the averaged one.

    Raises:
        FileFormatError: there are no named tensors, something else stands among them, or there
            are several networks alike and nothing tells which is meant.
    """
    leaves = leaves_of(content, source)
    stored = {parts: value for parts, value in leaves.values.items() if isinstance(value, Tensor)}
    _refuse_parts_of_networks(stored, source)
    plain = folded(stored)
    counters = [parts for parts, tensor in plain.weights.items() if _is_counter(parts[-1], tensor)]
    left = set(counters)
    weights = with_dots({p: tensor for p, tensor in plain.weights.items() if p not in left})
    if not weights:
        raise nothing_in(content, leaves, source)
    groups = _groups(weights)
    if is_swapped(content):
        groups = [group._replace(swapped=True) for group in groups]
    groups += _averages_by_order(leaves.lists, groups)
    fit = _fit(groups) if copy is None else _named(groups, copy, source)
    group, groups = _completed(_best(fit, source), groups)
    _check(group, leaves, plain, source)
    return Chosen(group.tensors, tuple(_notes(group, groups, counters, plain, leaves)))


def _check(group: _Group, leaves: Leaves, plain: Folded, source: str) -> None:
    """That each of the network's tensors is one, that there are no two, and that it is plain."""
    for name, tensor in group.tensors.items():
        if why := plain.refused.get(id(tensor)):
            raise FileFormatError(
                f"{source}: {name!r:.200} is of {why}: make plain weights of it, with torch.nn."
                "utils.parametrize.remove_parametrizations or the like, and save those"
            )
        if where := leaves.twice.get(id(tensor)):
            raise FileFormatError(
                f"{source} has two tensors of one name, {name!r:.200}, at {where}: save each copy "
                "of the network under a name of its own, or alone"
            )
    if group.twice:
        raise FileFormatError(
            f"{source} has two tensors of one name, {group.twice!r:.200}, once with and once "
            "without a wrapper's part such as _orig_mod in it: save each copy of the network alone"
        )
    first = {name.partition(".")[0] for name in group.tensors}
    for parts, value in leaves.values.items():
        inside = parts[: len(group.prefix)] == group.prefix and not isinstance(value, Tensor)
        if inside and len(parts) > len(group.prefix) + 1 and parts[len(group.prefix)] in first:
            raise FileFormatError(
                f"{source}: {'.'.join(parts)[:200]!r} is no tensor: a state dict was expected"
            )


def _refuse_parts_of_networks(tensors: Iterable[Parts], source: str) -> None:
    """Names networks that something else stands in, or that are spread over files."""
    for parts in tensors:
        if "base_layer" in parts:
            raise FileFormatError(
                f"{source} holds a network with adapters of PEFT within, such as "
                f"{'.'.join(parts)[:100]!r}: save the network after merge_and_unload(), or the "
                "adapter alone with save_pretrained, which  urushi import-peft  reads"
            )
        if parts[:2] == ("base_model", "model") and parts[-2].startswith("lora_"):
            raise FileFormatError(
                f"{source} holds an adapter of PEFT and no network: give its folder to  urushi "
                "import-peft"
            )
        if parts[-1] in ("_flat_param", "flat_param"):
            raise FileFormatError(
                f"{source} holds the flat parameters of FSDP, of which each process has a part: "
                "save a full state dict (FULL_STATE_DICT) and import that"
            )


def _is_counter(last: str, tensor: Tensor) -> bool:
    if last in _COUNTERS:
        return True
    whole = not tensor.is_floating_point() and tensor.numel() == 1
    return whole or (tensor.ndim == 0 and last not in _last_parts())


@cache
def _last_parts() -> set[str]:
    """What names of tensors of networks end with."""
    return {kind.rpartition(".")[2] for kinds in known_kinds().values() for kind in kinds}


def _averages_by_order(
    lists: Mapping[Parts, list[Tensor]], groups: Sequence[_Group]
) -> Iterator[_Group]:
    """Averages that are lists of tensors: in the order of those of the network beside them."""
    wholes = [group for group in groups if group.likeness >= _LIKE]
    for parts, tensors in lists.items():
        shapes = [tensor.shape for tensor in tensors]
        for group, leave in product(wholes if are_averaged(parts) else (), _NOT_TRAINED):
            floats = {n: t for n, t in group.tensors.items() if t.is_floating_point()}
            names = [name for name in floats if not any(part in name for part in leave)]
            if shapes == [floats[name].shape for name in names]:
                found = group.tensors | dict(zip(names, tensors, strict=True))
                yield _Group(parts, found, group.likeness, by_order=True)
                break


def _is_wrapping(part: str) -> bool:
    plain = spelled_plainly(part)
    return plain in _WRAPPINGS or plain.replace("_", "") in _WRAPPINGS or is_averaged(part)


def _groups(weights: Mapping[Parts, Tensor]) -> list[_Group]:
    """The tensors by their prefix, which is taken off."""
    bare: dict[Parts, Parts] = {}
    for parts in weights:
        length = 0
        while length < len(parts) - 1 and (
            _is_wrapping(parts[length]) or parts[length] in _TRANSPARENT
        ):
            length += 1
        bare[parts] = parts[:length]
    for marker in _SEVERAL:
        # Their parts belong together, whatever they are called.
        if found := [bare[parts] for parts in weights if parts[len(bare[parts])] == marker]:
            first = min(found, key=lambda prefix: not any(map(is_averaged, prefix)))
            return _grouped(weights, {p: first for p in weights if p[: len(first)] == first})
    known = _grouped_by_names(weights, bare)
    if max((group.likeness for group in known), default=0) >= _LIKE:
        return known
    groups = _grouped(weights, bare)
    if max(group.likeness for group in groups) < _LIKE:
        # Under a name of the user's own, perhaps.
        for more in (1, 2, 3):
            deeper = {parts: parts[: len(bare[parts]) + more] for parts in weights}
            deeper = {parts: prefix for parts, prefix in deeper.items() if len(prefix) < len(parts)}
            trial = _grouped(weights, {**bare, **deeper})
            if max(group.likeness for group in trial) >= _LIKE:
                return trial
    return groups


def _grouped_by_names(weights: Mapping[Parts, Tensor], bare: Mapping[Parts, Parts]) -> list[_Group]:
    """Groups by what stands before names that a network is known to have, whatever that is."""
    found: dict[Parts, Parts] = {}
    for kinds in known_kinds().values():
        prefixes = {parts: _before_known(parts, kinds) for parts in weights}
        known = {parts: prefix for parts, prefix in prefixes.items() if prefix is not None}
        if len(known) > len(found):
            found = known
    tops = sorted(set(found.values()), key=len, reverse=True)
    for parts in weights.keys() - found.keys():
        # Under a prefix of the network: its own in another form, or what trained beside it.
        top = next((top for top in tops if parts[: len(top)] == top), None)
        if top is None:
            found[parts] = bare[parts]
        elif _BESIDE.search(parts[len(top)]) is None:
            found[parts] = top
        else:
            found[parts] = parts[: len(top) + 1]
    return _grouped(weights, {parts: found[parts] for parts in weights})


def _before_known(parts: Parts, kinds: set[str]) -> Parts | None:
    for length, part in enumerate(parts):
        rest = [one for one in parts[length:] if one not in _TRANSPARENT]
        if part not in _TRANSPARENT and kind_of(".".join(rest)) in kinds:
            return parts[:length]
    return None


def _completed(group: _Group, groups: list[_Group]) -> tuple[_Group, list[_Group]]:
    """The group with those of its tensors that other prefixes hold, and all groups then."""
    kinds = known_kinds()[likenesses(group.tensors)[0][0]]
    tensors, left = dict(group.tensors), []
    for other in sorted(groups, key=lambda other: -len(other.tensors)):
        if other.prefix == group.prefix:
            continue
        other = other._replace(shared=group.shared)
        known = any(kind_of(name) in kinds for name in other.tensors)
        if known and other.averaged == group.averaged and not other.tensors.keys() & tensors.keys():
            tensors |= other.tensors
        else:
            left.append(other)
    whole = group._replace(tensors=tensors)
    return whole, [whole, *left]


def _grouped(
    weights: Mapping[Parts, Tensor],
    prefixes: Mapping[Parts, Parts],
) -> list[_Group]:
    found: dict[Parts, dict[str, Tensor]] = {}
    twice: dict[Parts, str] = {}
    for parts, prefix in prefixes.items():
        name = ".".join(part for part in parts[len(prefix) :] if part not in _TRANSPARENT)
        kept = found.setdefault(prefix, {}).setdefault(name, weights[parts])
        if not same_numbers(kept, weights[parts]):
            twice.setdefault(prefix, name)
    return [
        _Group(p, tensors, likenesses(tensors)[0][1], twice=twice.get(p, ""))
        for p, tensors in found.items()
    ]


def _named(groups: list[_Group], copy: str, source: str) -> list[_Group]:
    """The groups whose prefix is what the user says, or begins so."""
    wanted = tuple(part for part in copy.split(".") if part)
    found = [group for group in groups if group.prefix == wanted]
    if wanted and not found:
        found = [group for group in groups if group.prefix[: len(wanted)] == wanted]
        # As it is told, which may be cut off.
        found = found or [group for group in groups if group.told == copy]
    if not found:
        told = ", ".join(group.told for group in groups[:8])
        raise FileFormatError(
            f"{source} has no network under {copy!r:.100}: its tensors stand under {told}"
        )
    return found


def _fit(groups: list[_Group]) -> list[_Group]:
    """The groups that are whole networks."""
    likest = max(group.likeness for group in groups)
    fit = [g for g in groups if g.likeness >= max(_SOMEWHAT_LIKE, 0.9 * likest)] or groups
    most = max(len(group.trained) for group in fit)
    # An averaged copy of a part of the network is none of the network.
    return [group for group in fit if len(group.trained) >= 0.9 * most]


def _best(fit: list[_Group], source: str) -> _Group:
    # A wrapping around all copies tells none from another, whatever it is called.
    steps = zip(*(g.prefix for g in fit), strict=False) if len(fit) > 1 else ()
    shared = len([*takewhile(lambda parts: len(set(parts)) == 1, steps)])
    known = [group._replace(shared=shared) for group in fit]
    first, *others = sorted(known, key=lambda group: (group.rank, -len(group.tensors)))
    same = [g for g in others if g.rank == first.rank and _is_another(g, first)]
    if same:
        bare = any(not group.prefix for group in (first, *same))
        raise FileFormatError(
            f"{source} holds networks alike under {', '.join(g.told for g in (first, *same[:6]))}, "
            f"and no name tells which is meant: say so with --set copy={same[0].asked}"
            + (f" ({_NO_PREFIX} stands for {_NO_PREFIX_TOLD})" if bare else "")
        )
    return first


def _is_another(group: _Group, first: _Group) -> bool:
    """Whether it may be meant as well: it has the same names, or nearly, and other numbers."""
    both = group.tensors.keys() & first.tensors.keys()
    alike = len(both) >= 0.9 * len(first.tensors)
    return alike and not all(same_numbers(group.tensors[n], first.tensors[n]) for n in both)


def _notes(
    group: _Group,
    groups: list[_Group],
    counters: Sequence[Parts],
    plain: Folded,
    leaves: Leaves,
) -> Iterator[str]:
    others = [other for other in groups if other is not group]
    copies = [other for other in others if other.trained == group.trained]
    if copies:
        kind = "the averaged copy of the weights" if group.averaged else "one copy of the weights"
        names = ", ".join(other.told for other in copies)
        another = "another one" if any(_is_another(c, group) for c in copies) else "an equal one"
        yield f"{kind} is taken ({group.told}), and {another} left out ({names})"
    if group.swapped:
        yield (
            "the trainer was MMEngine, which saves the averaged copy of the weights as state_dict, "
            "and the other one as ema_state_dict"
        )
    if group.by_order:
        yield "the tensors of that copy have no names, and were taken in the order of the others"
    for how, count in Counter(
        plain.how[id(tensor)] for tensor in group.tensors.values() if id(tensor) in plain.how
    ).items():
        first = next(n for n, t in group.tensors.items() if plain.how.get(id(t)) == how)
        layers = f"1 layer, {first}" if count == 1 else f"{count} layers, the first is {first}"
        yield f"plain weights were made of {how} in {layers}"
    for other in others:
        if other not in copies:
            first = ".".join(filter(None, (*other.prefix, next(iter(other.tensors)))))[:100]
            count = len(other.tensors)
            yield f"left out: {count} {'tensor' if count == 1 else 'tensors'}, the first is {first}"
    for parts, tensors in leaves.lists.items():
        if are_averaged(parts) and not any(one.prefix == parts for one in groups):
            yield (
                f"left out: an averaged copy without names ({'.'.join(parts)[:100]}), whose "
                f"{counted(len(tensors), 'tensor does', 'tensors do')} not go with those of the "
                "network"
            )
    if counters:
        first = ".".join(counters[0])[:100]
        yield f"left out: {counted(len(counters), 'counter')}, the first is {first}"
