"""Tensors that are read or calculated by their first use, and are known by a hash before."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

__all__ = ["Named", "Tensors", "identity_of"]


if TYPE_CHECKING:
    _Base = Mapping[str, np.ndarray]
else:
    # Without parameters: checkers of types look into what a class says that it holds, which would
    # read it.
    _Base = Mapping


class Tensors(_Base):
    """Tensors by name, not there before someone asks for one.

    Args:
        identity: names their content: equal ones mean equal tensors.
        make: reads or calculates them, and raises where they are not what `identity` says; the
            next use then tries again.
    """

    def __init__(self, identity: str, make: Callable[[], Mapping[str, np.ndarray]]) -> None:
        self.identity = identity
        self._make: Callable[[], Mapping[str, np.ndarray]] | None = make
        self._made: Mapping[str, np.ndarray] = {}

    @classmethod
    def made(cls, identity: str, tensors: Mapping[str, np.ndarray]) -> "Tensors":
        """Tensors that are there."""
        made = cls(identity, lambda: tensors)
        made._all()
        return made

    @property
    def ready(self) -> bool:
        """Whether they have been read or calculated."""
        return self._make is None

    def _all(self) -> Mapping[str, np.ndarray]:
        # Two threads may both make them, which gives the same twice.
        make = self._make
        if make is not None:
            self._made = make()
            self._make = None
        return self._made

    def __getitem__(self, name: str) -> np.ndarray:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __reduce__(self) -> tuple[Any, ...]:
        # The file may not be there where this is sent.
        return Tensors.made, (self.identity, dict(self._all()))


Named = Tensors | Mapping[str, np.ndarray]
"""Tensors by name. The class comes first: whoever checks types then does not look into them."""


def identity_of(tensors: Named) -> str | None:
    """What names the content of tensors; None where nothing does, as for those made in memory."""
    return tensors.identity if isinstance(tensors, Tensors) else None
