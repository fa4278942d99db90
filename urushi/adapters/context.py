"""What adapters know of a pass besides feature maps, and which pictures share one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from urushi.errors import AdapterError
from urushi.names import counted

__all__ = ["Context", "check_vector", "divided", "one_route"]

Route = tuple[float, ...]


@dataclass(frozen=True)
class Context:
    """One batch, as it goes through a backbone.

    Attributes:
        sides: height and width in pixels of the pictures, padded to what the backbone needs.
        again: the pass is calculated a second time, to save memory: running statistics have seen
            it already.
        vector: degradation vectors `(B, d)`, or `(1, d)` for all pictures alike; None if unknown.
        weights: of the experts, one for each; the pictures of a pass have one route. None if
            unknown, all 0 for the plain backbone.
        known: what an adapter has worked out from the vector, for as long as the vector is that
            of the pass; by adapter.
    """

    sides: tuple[int, int]
    again: bool = False
    vector: Tensor | None = None
    weights: tuple[float, ...] | None = None
    known: dict[Any, Any] = field(default_factory=dict)


def check_vector(vector: Tensor | None, pictures: int, reads: frozenset[str]) -> None:
    """Checks degradation vectors: one for each picture, or one for all.

    Raises:
        AdapterError: they are not, or no adapter acts by them.
    """
    if vector is None:
        return
    if "vector" not in reads:
        raise AdapterError("a degradation vector is given, but no guidance is attached")
    if vector.ndim != 2 or len(vector) not in (1, pictures):
        raise AdapterError(
            f"degradation vectors of shape {tuple(vector.shape)} for "
            f"{counted(pictures, 'picture')}: give one "
            "for each, or one for all"
        )


def divided(
    weights: Tensor | None, pictures: int, reads: frozenset[str]
) -> list[tuple[Route | None, list[int]]]:
    """The routes of a batch, each with the rows of its pictures.

    Args:
        weights: of the experts, `(B, n)`, or None.
        pictures: how many there are.
        reads: what the attached adapters act by.

    Raises:
        AdapterError: no experts are attached, or the weights are not finite or of another shape.
    """
    if weights is None:
        return [(None, list(range(pictures)))]
    if weights.ndim != 2 or len(weights) != pictures:
        raise AdapterError(
            f"weights of shape {tuple(weights.shape)} for {counted(pictures, 'picture')}: give "
            "every picture "
            "one for each expert"
        )
    found: dict[Route, list[int]] = {}
    for row, route in enumerate(weights.tolist()):
        found.setdefault(_checked(route, reads), []).append(row)
    return list(found.items()) or [(None, [])]


def one_route(weights: Sequence[float | int] | None, reads: frozenset[str]) -> Route | None:
    """The route of a single picture.

    Raises:
        AdapterError: as `divided`.
    """
    return None if weights is None else _checked(weights, reads)


def _checked(weights: Sequence[float | int], reads: frozenset[str]) -> Route:
    if "weights" not in reads:
        raise AdapterError("weights of experts are given, but no experts are attached")
    route = tuple(float(weight) for weight in weights)
    if not all(math.isfinite(weight) for weight in route):
        raise AdapterError(f"weights of experts are {route}, expected numbers such as 0.5")
    return route
