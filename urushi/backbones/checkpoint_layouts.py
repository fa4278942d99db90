"""Which of the tensors in a released checkpoint are the network's, and by what names.

Trainers leave it under wrappings and prefixes of their own, beside averaged copies, losses and
counters. All of that is told by names: `generator_ema.module.intro.weight` is `intro.weight` of an
averaged copy, whether dots join the parts or mappings within mappings do.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, NamedTuple

from torch import Tensor

from urushi.backbones.released_networks import kind_of, known_kinds, likenesses
from urushi.errors import FileFormatError

__all__ = ["Chosen", "choose_network"]

# In the order in which a file that has several is to be read.
_WRAPPINGS = (
    "params", "state_dict", "model_state_dict", "model", "net", "net_g", "netg", "generator", "gen",
    "g", "network", "weights", "module", "student",
)  # fmt: skip
# Left by torch itself, in the middle of names too.
_TRANSPARENT = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Tensors that programs count with: profilers beside every layer, averaging, batch normalisation.
_COUNTERS = {"total_ops", "total_params", "n_averaged", "num_updates", "step_counter"}
# Parts of names of averaged copies; `ema` may be written together with another part.
_AVERAGED = re.compile(r"(?:^|_)(ema|swa|averaged?|shadow)(?:_|$)|ema$|^ema")
# First parts of the names of those checkpoints of LoRA-IR that are no single network.
_SEVERAL = ("cls_head", "de_extractor", "intro_de")
# First parts of the names of what trains beside a network.
_BESIDE = re.compile(
    r"^cri(_|terion)|loss|vgg|lpips|perceptual|discriminator|^net_?d$|^d$|metric|psnr|ssim|log_vars|"
    r"optim|sched",
    re.IGNORECASE,
)
_LIKE, _SOMEWHAT_LIKE = 0.5, 0.25
_MOST_DEPTH = 8


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

    prefix: tuple[str, ...]
    tensors: dict[str, Tensor]
    likeness: float
    shared: int = 0

    @property
    def averaged(self) -> bool:
        return any(_is_averaged(part) for part in self.prefix[self.shared :])

    @property
    def told(self) -> str:
        return ".".join(self.prefix)[:100] or "no prefix"

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Averaged copies first, then by the order of wrappings, then the largest."""
        known = [_WRAPPINGS.index(p) for p in map(_plain, self.prefix) if p in _WRAPPINGS]
        return not self.averaged, min(known, default=len(_WRAPPINGS)), -len(self.tensors)


def choose_network(content: object, source: str, copy: str | None = None) -> Chosen:
    """Find the network in what a checkpoint holds.

    Args:
        content: mappings of mappings of tensors, as they were read.
        source: what messages call the file.
        copy: what the names begin with, of several networks alike; None takes the averaged one.

    Raises:
        FileFormatError: there are no named tensors, something else stands among them, or there
            are several networks alike and nothing tells which is meant.
    """
    if not isinstance(content, Mapping):
        raise FileFormatError(f"{source} holds no named tensors: a state dict was expected")
    leaves = dict(_leaves(content))
    tensors = {parts: value for parts, value in leaves.items() if isinstance(value, Tensor)}
    counted = [parts for parts, tensor in tensors.items() if _is_counter(parts[-1], tensor)]
    weights = {parts: tensor for parts, tensor in tensors.items() if parts not in set(counted)}
    weights = _with_dots(weights)
    if not weights:
        what = "single numbers alone" if tensors else "no named tensors"
        raise FileFormatError(f"{source} holds {what}: a state dict was expected")
    groups = _groups(weights)
    fit = _fit(groups) if copy is None else _named(groups, copy, source)
    group, groups = _completed(_best(fit, source), groups)
    first = {name.partition(".")[0] for name in group.tensors}
    for parts in leaves.keys() - tensors.keys():
        inside = parts[: len(group.prefix)] == group.prefix
        if inside and len(parts) > len(group.prefix) + 1 and parts[len(group.prefix)] in first:
            raise FileFormatError(
                f"{source}: {'.'.join(parts)[:200]!r} is no tensor: a state dict was expected"
            )
    return Chosen(group.tensors, tuple(_notes(group, groups, counted)))


def _with_dots(weights: dict[tuple[str, ...], Tensor]) -> dict[tuple[str, ...], Tensor]:
    """Averaged copies whose names have lost their dots get them back from the others' names.

    Latent diffusion's trainer keeps its average so, as `model_ema.encoders00conv1weight`.
    """
    bare: list[tuple[str, ...]] = [p for p in weights if len(p) > 1 and _is_averaged(p[-2])]
    if not bare:
        return weights
    ends = {"".join(p[i:]): p[i:] for p in weights for i in range(len(p)) if p not in set(bare)}
    found = {parts: (*parts[:-1], *ends[parts[-1]]) for parts in bare if parts[-1] in ends}
    return {found.get(parts, parts): tensor for parts, tensor in weights.items()}


def _leaves(
    content: Mapping[Any, Any], above: tuple[str, ...] = (), seen: frozenset[int] = frozenset()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All values under their names, in parts; names that are no text are passed by."""
    seen = seen | {id(content)}
    for name, value in content.items():
        if not isinstance(name, str):
            continue
        parts = (*above, *name.split("."))
        if not isinstance(value, Mapping):
            yield parts, value
        elif len(seen) < _MOST_DEPTH and id(value) not in seen:
            yield from _leaves(value, parts, seen)


def _is_counter(last: str, tensor: Tensor) -> bool:
    whole = not tensor.is_floating_point() and tensor.numel() == 1
    return tensor.ndim == 0 or whole or last in _COUNTERS


def _plain(part: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part).lower().replace("-", "_")


def _is_averaged(part: str) -> bool:
    return _AVERAGED.search(_plain(part)) is not None


def _is_wrapping(part: str) -> bool:
    plain = _plain(part)
    return plain in _WRAPPINGS or plain.replace("_", "") in _WRAPPINGS or _is_averaged(part)


def _groups(weights: Mapping[tuple[str, ...], Tensor]) -> list[_Group]:
    """The tensors by their prefix, which is taken off."""
    bare: dict[tuple[str, ...], tuple[str, ...]] = {}
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
            first = min(found, key=lambda prefix: not any(map(_is_averaged, prefix)))
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


def _grouped_by_names(
    weights: Mapping[tuple[str, ...], Tensor], bare: Mapping[tuple[str, ...], tuple[str, ...]]
) -> list[_Group]:
    """Groups by what stands before names that a network is known to have, whatever that is."""
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
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


def _before_known(parts: tuple[str, ...], kinds: set[str]) -> tuple[str, ...] | None:
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
    weights: Mapping[tuple[str, ...], Tensor],
    prefixes: Mapping[tuple[str, ...], tuple[str, ...]],
) -> list[_Group]:
    found: dict[tuple[str, ...], dict[str, Tensor]] = {}
    for parts, prefix in prefixes.items():
        rest = [part for part in parts[len(prefix) :] if part not in _TRANSPARENT]
        found.setdefault(prefix, {})[".".join(rest)] = weights[parts]
    return [_Group(p, tensors, likenesses(tensors)[0][1]) for p, tensors in found.items()]


def _named(groups: list[_Group], copy: str, source: str) -> list[_Group]:
    """The groups whose prefix is what the user says, or begins so."""
    wanted = tuple(copy.split("."))
    found = [group for group in groups if group.prefix[: len(wanted)] == wanted]
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
    most = max(len(group.tensors) for group in fit)
    # An averaged copy of a part of the network is none of the network.
    return [g for g in fit if len(g.tensors) >= 0.9 * most]


def _best(fit: list[_Group], source: str) -> _Group:
    # A wrapping around all copies tells none from another, whatever it is called.
    steps = zip(*(g.prefix for g in fit), strict=False) if len(fit) > 1 else ()
    shared = len([*takewhile(lambda parts: len(set(parts)) == 1, steps)])
    first, *others = sorted((g._replace(shared=shared) for g in fit), key=lambda g: g.rank)
    same = [g for g in others if g.rank == first.rank and g.tensors.keys() == first.tensors.keys()]
    if same:
        raise FileFormatError(
            f"{source} holds networks alike under {', '.join(g.told for g in (first, *same[:6]))}, "
            f"and no name tells which is meant: say so with --set copy={same[0].told}"
        )
    return first


def _notes(group: _Group, groups: list[_Group], counted: list[tuple[str, ...]]) -> Iterator[str]:
    others = [other for other in groups if other is not group]
    copies = [other for other in others if other.tensors.keys() == group.tensors.keys()]
    if copies:
        kind = "the averaged copy of the weights" if group.averaged else "one copy of the weights"
        names = ", ".join(other.told for other in copies)
        yield f"{kind} is taken ({group.told}), and another one left out ({names})"
    for other in others:
        if other not in copies:
            first = ".".join(filter(None, (*other.prefix, next(iter(other.tensors)))))[:100]
            count = len(other.tensors)
            yield f"left out: {count} {'tensor' if count == 1 else 'tensors'}, the first is {first}"
    if counted:
        count, first = len(counted), ".".join(counted[0])[:100]
        yield f"left out: {count} {'counter' if count == 1 else 'counters'}, the first is {first}"
