"""What teaching and mending share of low-rank adapters: how a product becomes a delta.

`W + scale * view(B @ A)`; see `urushi.adapters.low_rank` for the two layouts and their sources.
"""

import math
from typing import Literal

__all__ = ["Layout", "Scaling", "product_scale"]

Layout = Literal["flat", "loralib"]
Scaling = Literal["alpha/r", "alpha/sqrt(r)", "alpha"]


def product_scale(scaling: Scaling, alpha: float | None, rank: int) -> float:
    """Return the factor of `B @ A` for a layer of that rank; 1 where `alpha` is None."""
    if alpha is None:
        return 1.0
    divisor = {"alpha/r": rank, "alpha/sqrt(r)": math.sqrt(rank), "alpha": 1}[scaling]
    return alpha / divisor
