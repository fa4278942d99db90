"""What a method is: settings, what training begins with, and one formula on arrays.

Nothing here needs torch. The formula of a method whose effect weights can hold is written once and
used twice: by `urushi.adapters.deltas` on the tensors of a training, and by `urushi.adapters.fold`
on the arrays of files.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from urushi.errors import AdapterError
from urushi.settings import Settings

if TYPE_CHECKING:
    from urushi.adapters.base import Adapter

__all__ = [
    "Array",
    "Arrays",
    "Branch",
    "Fresh",
    "Groups",
    "Method",
    "Start",
    "UnfitError",
    "array_like",
    "constant",
    "linear",
    "needed",
    "zeros",
]

Site = TypeVar("Site")

Array: TypeAlias = Any
"""An array of numpy or a tensor of torch. Formulas use what both have: arithmetic, `@`, `.T`,
`.shape`, `.ndim`, `.reshape`, `.swapaxes`, `.sum`."""
Arrays: TypeAlias = Mapping[str, Array]
"""Weights of a backbone, by their dotted names."""
Groups: TypeAlias = Mapping[str, Arrays]
"""Tensors of an adapter: by group, and then by the dotted name of what each belongs to."""


class Branch(str):
    """Where a method is that torch alone can run: nobody imports it to fold adapters."""

    __slots__ = ()


class UnfitError(AdapterError):
    """The tensors or settings of an adapter are not those its method has on this base."""


@dataclass(frozen=True)
class Fresh:
    """A tensor as training begins with it: uniform within `bound` of `value`, zero by default."""

    shape: tuple[int, ...]
    bound: float = 0.0
    value: float = 0.0


Start: TypeAlias = dict[tuple[str, str], Fresh]
"""What training begins with: by group and by the dotted name of what each tensor belongs to."""


def zeros(*shape: int) -> Fresh:
    """A tensor of zeros."""
    return Fresh(shape)


def linear(*shape: int, inputs: int) -> Fresh:
    """A tensor as the weight of a linear layer with so many inputs begins in torch."""
    # Kaiming's uniform with a slope of the root of 5, as torch calculates it: to the last bit.
    gain = math.sqrt(2.0 / (1 + math.sqrt(5) ** 2))
    return Fresh(shape, math.sqrt(3.0) * (gain / math.sqrt(inputs)))


def array_like(values: np.ndarray, like: Array) -> Array:
    """Numbers as an array of the kind, dtype and device of another."""
    if isinstance(like, np.ndarray):
        return values.astype(like.dtype)
    return like.new_tensor(values)


def constant(values: Array) -> Array:
    """The same numbers, through which no gradient passes."""
    return values if isinstance(values, np.ndarray) else values.detach()


def _always(config: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Method:
    """An entry of `urushi.adapters.METHODS`.

    A method acts by `deltas` of the backbone's weights, or is an `adapter` of torch with branches
    of its own, or has both: the formula, and a class that trains it in another way.

    Args:
        settings: class of its settings.
        paper: reference.
        groups: groups of its tensors, as files name them.
        start: called with a backbone and settings; returns what each tensor is at first. Needed
            where no `adapter` is given.
        deltas: the formula: called with the tensors, the settings and the base's weights; returns
            what is added to weights at strength 1, by name. The tensors may come from a file that
            nobody has checked: raises `UnfitError` where they do not fit the base.
        offsets: called with the tensors, the settings and the shapes of the base's parameters;
            returns what is added to outputs of modules, by module, in shapes that broadcast.
        foldable: whether weights can hold what an adapter of such settings does, which are those
            of a file.
        whole: whether the tensors are the deltas themselves, which training then adds in one step.
        adapter: class of the torch module, or where it is, `"MODULE:NAME"`; called with a backbone
            and settings.
        identity: whether a fresh one changes nothing yet.
    """

    settings: type[Settings]
    paper: str
    groups: tuple[str, ...] = ()
    start: Callable[[Any, Any], Start] | None = None
    deltas: Callable[[Groups, Any, Arrays], dict[str, Array]] | None = None
    offsets: Callable[[Groups, Any, Mapping[str, tuple[int, ...]]], dict[str, Array]] | None = None
    foldable: Callable[[Mapping[str, Any]], bool] = _always
    whole: bool = False
    adapter: "Callable[[Any, Any], Adapter] | str | None" = None
    identity: bool = True

    def __post_init__(self) -> None:
        assert self.adapter is not None or (self.start and self.deltas), "nothing to be trained"
        assert self.deltas is None or self.groups, "a formula without tensors"

    @property
    def mergeable(self) -> bool:
        """Whether its effect can be put into the backbone's weights, with fitting settings."""
        return self.deltas is not None


def needed(sites: tuple[Site, ...], what: str, method: str) -> tuple[Site, ...]:
    """The sites, of which a method needs at least one.

    Raises:
        AdapterError: the backbone has none.
    """
    if not sites:
        raise AdapterError(
            f"method {method} needs {what}, which this backbone does not have: choose another "
            "method"
        )
    return sites
