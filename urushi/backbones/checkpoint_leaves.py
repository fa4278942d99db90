"""What stands in a checkpoint, by its name: mappings and lists, however they lie in one another.

Dots and mappings say the same in names, so that `{'a.b': x}` and `{'a': {'b': x}}` are both
`a.b`. Lists and tuples count their entries from 0.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from urushi.backbones.pickled import class_of
from urushi.errors import FileFormatError

__all__ = [
    "Leaves",
    "Parts",
    "holds_numbers",
    "is_plain",
    "leaves_of",
    "nothing_in",
    "same_numbers",
]

Parts = tuple[str, ...]
"""A name, taken apart at its dots."""

_MOST_DEPTH = 8
# Longer lists are of samples and losses.
_LONGEST_LIST = 100_000
_MOST_ENTRIES = 10_000_000
# In what optimizers and schedules keep, numbers count parameters, and lists hold anything.
_OF_TRAINING = re.compile(r"^opts?(?:$|_)|optim|sched", re.IGNORECASE)


class Leaves(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        values: tensors, and whatever else has a name.
        lists: tensors without names, by what the list is called.
        twice: of the tensors (by `id`) whose name another tensor has as well: where both lie.
    """

    values: dict[Parts, Any]
    lists: dict[Parts, list[Tensor]]
    twice: dict[int, str]


def leaves_of(content: object, source: str) -> Leaves:
    """Everything under its name.

    Args:
        content: what was read.
        source: what messages call the file.

    Raises:
        FileFormatError: a few values stand for millions.
    """
    found = Leaves({}, {}, {})
    where: dict[Parts, tuple[object, ...]] = {}
    known: set[int] = set()
    for count, (keys, value) in enumerate(_walked(content, (), frozenset(), False)):
        if count > _MOST_ENTRIES:
            raise FileFormatError(
                f"{source} holds the same mappings millions of times: it was made to exhaust "
                "memory, get it again"
            )
        parts = tuple(part for key in keys for part in str(key).split("."))
        if isinstance(value, list):
            found.lists[parts] = value
            continue
        if id(value) in known and isinstance(value, Tensor) and is_plain(value):
            # One tensor under two names: whatever holds of it under one holds of that one alone.
            value = value.detach()
        known.add(id(value))
        before = found.values.setdefault(parts, value)
        if not isinstance(before, Tensor):
            found.values[parts] = value
        elif isinstance(value, Tensor) and not same_numbers(before, value):
            found.twice[id(before)] = f"{_place(where[parts])} and {_place(keys)}"
        where.setdefault(parts, keys)
    return found


def _walked(
    content: Any, above: tuple[object, ...], seen: frozenset[int], of_training: bool
) -> Iterator[tuple[tuple[object, ...], Any]]:
    """Keys and value of all that is no mapping or list; lists of nothing but tensors as such."""
    if len(seen) >= _MOST_DEPTH or id(content) in seen:
        return
    if isinstance(content, Mapping) and {"param_groups", "state"} <= content.keys():
        return  # an optimizer's
    seen = seen | {id(content)}
    for key, value in _entries(content):
        keys = (*above, key)
        named = isinstance(key, str)
        inside = of_training or (named and _OF_TRAINING.search(str(key)) is not None)
        if isinstance(value, Mapping | list | tuple):
            if inside and (not named or not isinstance(value, Mapping)):
                continue
            if _is_list_of_tensors(value):
                yield keys, list(value)
            else:
                yield from _walked(value, keys, seen, inside)
        elif named:
            yield keys, value


def _entries(content: Any) -> Iterator[tuple[object, Any]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
                yield key, value
    elif isinstance(content, list | tuple) and len(content) <= _LONGEST_LIST:
        pairs = [(entry[0], entry[1]) for entry in content if _is_pair(entry)]
        whole = len(pairs) == len(content)
        yield from iter(pairs) if whole else enumerate(content)


def _is_pair(entry: Any) -> bool:
    """Whether it is a name and a tensor, as in `list(state_dict.items())`."""
    pair = isinstance(entry, list | tuple) and len(entry) == 2
    return pair and isinstance(entry[0], str) and isinstance(entry[1], Tensor)


def _is_list_of_tensors(value: Any) -> bool:
    sequence = isinstance(value, list | tuple) and 0 < len(value) <= _LONGEST_LIST
    return sequence and all(isinstance(entry, Tensor) for entry in value)


def _place(keys: tuple[object, ...]) -> str:
    return "".join(f"[{key!r:.60}]" for key in keys)[:200]


def is_plain(tensor: Tensor) -> bool:
    """Whether it lies in memory as numbers in rows and columns, as weights do."""
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.is_meta:
        return False
    return tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested


def holds_numbers(tensor: Tensor) -> bool:
    """Whether it has a number in memory for each of its elements."""
    if not is_plain(tensor):
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, of those that hold numbers at all."""
    if one is other:
        return True
    if one.shape != other.shape or not (is_plain(one) and is_plain(other)):
        return False
    if one.data_ptr() == other.data_ptr() and one.stride() == other.stride():
        return one.dtype == other.dtype
    if not (holds_numbers(one) and holds_numbers(other)):
        return False
    try:
        return torch.equal(one, other)
    except RuntimeError:  # of kinds with which torch does not calculate
        return False


def nothing_in(content: object, leaves: Leaves, source: str) -> FileFormatError:
    """What to say of a file without weights: the likeliest of what lies in it instead."""
    if isinstance(content, Tensor):
        return FileFormatError(
            f"{source} holds one tensor without a name: a state dict was expected"
        )
    if any(isinstance(value, Tensor) for value in leaves.values.values()):
        return FileFormatError(f"{source} holds single numbers alone: a state dict was expected")
    tops = [str(key) for key in content] if isinstance(content, Mapping) else []
    if "param_groups" in tops or any(map(_OF_TRAINING.search, tops)):
        return FileFormatError(
            f"{source} holds the state of an optimizer and no named tensors: give the file with "
            "the weights that the trainer saved beside it"
        )
    objects = {parts: class_of(value) for parts, value in leaves.values.items()}
    objects = {parts: kind for parts, kind in objects.items() if kind}
    if any(kind.startswith("numpy") and "_reconstruct" in kind for kind in objects.values()):
        return FileFormatError(
            f"{source} holds arrays of NumPy and no named tensors: save them again as tensors, made"
            " with torch.from_numpy"
        )
    for parts, kind in objects.items():
        if not kind.startswith("numpy"):
            return FileFormatError(
                f"{source} holds no named tensors, and at {'.'.join(parts)[:100]!r} an object of "
                f"the class {kind[:100]}, which would have to be executed: save the network's "
                "state_dict() where that class is known, and import that"
            )
    if leaves.lists or (isinstance(content, list | tuple) and _is_list_of_tensors(content)):
        return FileFormatError(
            f"{source} holds no named tensors, but a list of tensors without names: a state dict "
            "was expected"
        )
    return FileFormatError(f"{source} holds no named tensors: a state dict was expected")
