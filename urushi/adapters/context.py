"""What the adapters of one pass know besides their feature maps."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

__all__ = ["Context"]


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
