"""From contributions to a rank for every layer, under a budget of parameters.

CoLoRA (ECCV 2024, arXiv 2408.01099): each layer i gets a share `delta_i` of its parameters to
train, which grows with its contribution `c_i`; two numbers, alpha and beta, scale it. The equation
is in a part of the paper that could not be read, and no code was released: what follows is ours.
`delta_i = clip(alpha c_i + beta, 0, 1)`, with contributions relative to the greatest; a low-rank
delta of rank r has `r (d + k)` parameters where the weight, as a matrix, has `d k`, so
`r_i = delta_i d k / (d + k)`, and the weight itself is trained where that is no more.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from urushi.errors import AdapterError
from urushi.settings import Settings

__all__ = ["Allocation", "DeltaSettings", "Spread", "WeightSize", "allocate", "relative"]

Spread = Literal["share", "rank"]

_GOLDEN = (math.sqrt(5) - 1) / 2
_BISECTIONS = 100
_EPSILON = 1e-9
# Logarithms between which an unknown factor is looked for: from nothing to everything.
_LOG_RANGE = (-60.0, 60.0)
_HIGHEST_POWER = 60.0


class DeltaSettings(Settings):
    """The map from contributions to shares of parameters.

    Attributes:
        map: `affine`: `alpha c + beta`; `power`: `alpha c ** beta`, ours; both clipped to [0, 1].
        alpha, beta: null is solved for the budget. With a budget one of them is given, or
            neither: `affine` then has an alpha of 1 and `power` a beta of 1. Without, both are.
        clip: contributions above this quantile of the layers count as equal to it, so that one
            layer alone does not make all others small; 1 clips none. Ours.
        inverted: give most where least is contributed: a control for comparisons.
    """

    map: Literal["affine", "power"] = "affine"
    alpha: Annotated[float, Field(ge=0)] | None = None
    beta: float | None = None
    clip: Annotated[float, Field(gt=0, le=1)] = 0.95
    inverted: bool = False

    @model_validator(mode="after")
    def _falls_with_no_contribution(self) -> "DeltaSettings":
        if self.map == "power" and self.beta is not None and self.beta < 0:
            raise ValueError("beta is negative: with map power a small contribution would get most")
        return self

    @property
    def complete(self) -> bool:
        """Whether both numbers are given."""
        return self.alpha is not None and self.beta is not None

    def delta(
        self, contributions: Float[np.ndarray, " n"], alpha: float, beta: float
    ) -> Float[np.ndarray, " n"]:
        """Shares in [0, 1] for contributions in [0, 1]."""
        contributions = 1 - contributions if self.inverted else contributions
        if self.map == "affine":
            return np.clip(alpha * contributions + beta, 0.0, 1.0)
        return np.minimum(alpha * contributions**beta, 1.0)


@dataclass(frozen=True)
class WeightSize:
    """What a layer's weight costs.

    Attributes:
        name: of the layer.
        full: parameters of the weight.
        per_rank: parameters of two factors of rank 1.
    """

    name: str
    full: int
    per_rank: int

    @property
    def full_rank(self) -> float:
        """The rank, not whole, at which two factors have as many parameters as the weight."""
        return self.full / self.per_rank

    def cost(self, rank: int) -> int:
        """Parameters at that rank; never more than those of the weight."""
        return min(rank * self.per_rank, self.full)


@dataclass(frozen=True)
class Allocation:
    """How a budget is spent.

    Attributes:
        ranks: of every layer that is not dense, by name; 0 leaves it alone.
        dense: layers whose weight is trained whole.
        parameters: trained in all, those included that are tuned whole.
        alpha, beta: of the map, given or solved.
    """

    ranks: dict[str, int]
    dense: tuple[str, ...]
    parameters: int
    alpha: float
    beta: float


def relative(contributions: Sequence[float], clip: float) -> Float[np.ndarray, " n"]:
    """Contributions in [0, 1], relative to the greatest, outliers clipped; see `DeltaSettings`.

    Raises:
        AdapterError: all are zero.
    """
    values = np.asarray(contributions, np.float64)
    greatest = float(values.max())
    if greatest <= 0:
        raise AdapterError(
            "no layer contributes anything by this profile: measure it with a target that does "
            "better than the base"
        )
    # Where most layers contribute nothing, the quantile is no measure of what is usual.
    usual = float(np.quantile(values, clip)) or greatest
    return np.minimum(values / usual, 1.0)


def allocate(
    sizes: Sequence[WeightSize],
    contributions: Mapping[str, float],
    settings: DeltaSettings,
    *,
    budget: int | None,
    tuned: int = 0,
    min_rank: int = 1,
    spread: Spread = "share",
) -> Allocation:
    """Gives every layer its rank.

    With alpha and beta given, ranks are rounded to the nearest. With a budget, the number that is
    missing is solved for ranks that need not be whole; these are rounded down, and what is left
    goes, a rank at a time, to the layers that lost most by rounding, then to any that it is enough
    for, the most expensive first. So a budget is never exceeded, and what is left of it is not
    enough for a rank of any layer: less than 0.1 % of a backbone unless it is tiny.

    Args:
        sizes: the layers.
        contributions: 0 or more, by layer, in any unit.
        settings: the map.
        budget: parameters to train in all, `tuned` included; None takes the map as it is.
        tuned: parameters that are trained whole besides: biases, norms, scales.
        min_rank: least rank of every layer.
        spread: what `delta` is a share of: `share`: of the layer's own parameters; `rank`: of the
            greatest rank there is, so that equal contributions get equal ranks, as in LoRA.

    Raises:
        AdapterError: the budget is less than the least, or more than all that the map can spend;
            or nothing contributes.
    """
    assert sizes
    assert (budget is None) == settings.complete
    shares = relative([contributions[size.name] for size in sizes], settings.clip)
    full = np.array([size.full_rank for size in sizes])
    per_rank = np.array([size.per_rank for size in sizes])
    whole = full if spread == "share" else full.max()

    def ideal(alpha: float, beta: float) -> Float[np.ndarray, " n"]:
        return np.minimum(np.maximum(settings.delta(shares, alpha, beta) * whole, min_rank), full)

    if budget is None:
        assert settings.alpha is not None
        assert settings.beta is not None
        alpha, beta = settings.alpha, settings.beta
        ranks = _whole(ideal(alpha, beta), full, 0.5)
    else:
        alpha, beta = _solve(
            settings, lambda a, b: float(ideal(a, b) @ per_rank), budget - tuned, tuned
        )
        ranks = _within(sizes, shares, ideal(alpha, beta), budget - tuned)
    costs = [size.cost(rank) for size, rank in zip(sizes, ranks, strict=True)]
    dense = tuple(s.name for s, cost in zip(sizes, costs, strict=True) if cost == s.full)
    low = {s.name: r for s, r in zip(sizes, ranks, strict=True) if s.name not in dense}
    return Allocation(low, dense, tuned + sum(costs), alpha, beta)


def _solve(
    settings: DeltaSettings, cost: Callable[[float, float], float], budget: int, tuned: int
) -> tuple[float, float]:
    """The alpha and beta, of which one is given, whose ranks cost the budget."""
    alpha, beta = settings.alpha, settings.beta
    if settings.map == "affine" and beta is None:
        slope = 1.0 if alpha is None else alpha
        # From where the greatest contribution gets nothing to where the least gets everything.
        return slope, _bisect(lambda x: cost(slope, x), -slope, 1.0, budget, tuned)
    if settings.map == "power" and alpha is not None:
        factor = alpha
        power = _bisect(lambda x: cost(factor, -x), -_HIGHEST_POWER, 0.0, budget, tuned)
        return factor, -power
    fixed = 1.0 if beta is None else beta
    log_alpha = _bisect(lambda x: cost(math.exp(x), fixed), *_LOG_RANGE, budget, tuned)
    return math.exp(log_alpha), fixed


def _bisect(
    cost: Callable[[float], float], low: float, high: float, budget: int, tuned: int
) -> float:
    """Where a cost that never falls reaches the budget, from below."""
    least, most = math.ceil(cost(low) - 0.5), math.floor(cost(high) + 0.5)
    if not least <= budget <= most:
        raise AdapterError(
            f"a budget of {budget + tuned:,} parameters cannot be had: {least + tuned:,} to "
            f"{most + tuned:,} can, with these min_rank, tune, layers and delta"
        )
    if cost(high) <= budget:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if cost(middle) <= budget:
            low = middle
        else:
            high = middle
    return low


def _whole(ideal: Float[np.ndarray, " n"], full: Float[np.ndarray, " n"], up: float) -> list[int]:
    """Ranks rounded down, after `up` is added; a rank that is as good as the weight is the weight.

    The rounding errors of a sum do not count.
    """
    ranks = np.where(ideal >= full - _EPSILON, np.ceil(full - _EPSILON), np.floor(ideal + up))
    return [int(rank) for rank in ranks]


def _within(
    sizes: Sequence[WeightSize],
    shares: Float[np.ndarray, " n"],
    ideal: Float[np.ndarray, " n"],
    budget: int,
) -> list[int]:
    """Whole ranks for those that are not, within the budget; see `allocate`."""
    ranks = _whole(ideal, np.array([size.full_rank for size in sizes]), _EPSILON)
    left = budget - sum(size.cost(rank) for size, rank in zip(sizes, ranks, strict=True))

    def step(index: int) -> int:
        """What one more rank costs; 0 where the weight is trained already."""
        size, rank = sizes[index], ranks[index]
        return size.cost(rank + 1) - size.cost(rank)

    def in_turn(index: int) -> float:
        """Multiples of the golden ratio: they spread layers that are equal over the depth."""
        return index * _GOLDEN % 1

    by_loss = sorted(
        range(len(sizes)),
        key=lambda i: (round(ranks[i] - float(ideal[i]), 9), -shares[i], in_turn(i)),
    )
    for index in by_loss:
        if ideal[index] > ranks[index] and 0 < step(index) <= left:
            left -= step(index)
            ranks[index] += 1
    while affordable := [i for i in range(len(sizes)) if 0 < step(i) <= left]:
        index = max(affordable, key=lambda i: (step(i), shares[i], -in_turn(i)))
        left -= step(index)
        ranks[index] += 1
    return ranks
