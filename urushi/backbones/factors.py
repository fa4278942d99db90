"""Weights of a pass that are sums of a frozen weight and of a product of thin factors.

Who makes such a sum can leave the factors at it; who multiplies by it can then give the factors
their gradients without that of the whole. Nobody has to do either: the sum is an ordinary tensor.
"""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Factors", "factors_of", "leave_factors"]

_NAME = "_urushi_factors"


class Factors(NamedTuple):
    """Of `weight = frozen + scale * up @ down`, read as a matrix.

    Attributes:
        down: `(r, in)`, trained.
        up: `(out, r)`, trained.
        scale: of the product.
    """

    down: Tensor
    up: Tensor
    scale: float


def leave_factors(weight: Tensor, factors: Factors) -> None:
    """Leaves factors at the tensor that they make, for as long as it lives."""
    setattr(weight, _NAME, factors)


def factors_of(weight: Tensor) -> Factors | None:
    """The factors that were left at this tensor; None where it is no such sum."""
    found = getattr(weight, _NAME, None)
    return found if isinstance(found, Factors) else None
