"""What every expert would change in a picture, as evidence of what is wrong with it.

An expert has learnt to take one kind of damage away and to leave alone what is none. So what it
takes away from a few views of a picture says whether that damage is there, and transfers to
photographs better than features do: streaks that the rain expert finds are streaks. Each change is
described by a few statistics; on arrays, without torch.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

__all__ = ["NUMBERS", "SCALES", "describe_change", "pool_scales"]

NUMBERS = 23
"""Statistics of one change of one view."""
SCALES = 3
"""The whole picture reduced, windows of it less reduced, and windows at its own resolution."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
_FLOOR = 1e-6  # of energies: a quarter of a step of 8 bits, so that rounding says nothing
_BOX = 9  # pixels over which a change counts as slow
_QUANTILES = (0.005, 0.05, 0.5, 0.95, 0.995)
_SMALL, _LARGE = 0.03, 0.1


def describe_change(
    change: Float[np.ndarray, "3 s s"], reference: Float[np.ndarray, "3 s s"]
) -> Float[np.ndarray, " 23"]:
    """Statistics of what was taken away from a view.

    Mean of each colour; logarithms of the energies of slow changes, of detail and of colour;
    skewness and kurtosis of the detail; the shares of its gradients in four directions and how far
    these lie apart; quantiles of the change of luma; how detail and slow changes correlate with
    those of the reference; the energy of detail relative to the reference's; how much of the view
    changes by more than 0.03 and 0.1.

    Args:
        change: input minus output, in pixel values of [0, 1].
        reference: what it was taken away from.
    """
    luma, against = (change * _LUMA).sum(0), (reference * _LUMA).sum(0)
    slow, slow_against = _boxed(luma), _boxed(against)
    detail, own = luma - slow, against - slow_against
    energy, own_energy = _energy(detail), _energy(own)
    directions = [
        _energy(np.diff(detail, axis=1)),
        _energy(np.diff(detail, axis=0)),
        _energy(detail[1:, 1:] - detail[:-1, :-1]),
        _energy(detail[1:, :-1] - detail[:-1, 1:]),
    ]
    size = np.abs(luma)
    numbers = [
        *change.mean((1, 2)),
        _log(slow.var()),
        _log(energy),
        _log(np.square(change - luma).mean()),
        np.arcsinh(np.clip((detail**3).mean() / (energy + _FLOOR) ** 1.5, -20, 20)),
        np.log1p(np.clip((detail**4).mean() / (energy + _FLOOR) ** 2, 0, 500)),
        *(_log(one) - _log(energy) for one in directions),
        _log(max(directions)) - _log(min(directions)),
        *np.quantile(luma, _QUANTILES),
        (detail * own).mean() / np.sqrt((energy + _FLOOR) * (own_energy + _FLOOR)),
        _correlation(slow, slow_against),
        _log(energy) - _log(own_energy),
        (size > _SMALL).mean(),
        (size > _LARGE).mean(),
    ]
    return np.array(numbers, np.float32)


def pool_scales(
    rows: Float[np.ndarray, "v e k"], scales: Sequence[int]
) -> Float[np.ndarray, " n"]:
    """One row of all evidence of a picture: mean and maximum over the views of each scale.

    Args:
        rows: statistics of each view and each expert.
        scales: of each view; each scale has one at least.
    """
    where = np.asarray(scales)
    pooled = [
        how(rows[where == scale], axis=0).ravel()
        for scale in range(SCALES)
        for how in (np.mean, np.max)
    ]
    return np.concatenate(pooled).astype(np.float32)


def collect(
    views: Float[np.ndarray, "v 3 s s"],
    base: Callable[[np.ndarray], np.ndarray],
    experts: Sequence[Callable[[np.ndarray], np.ndarray]],
) -> Float[np.ndarray, "v e k"]:
    """Statistics of what the base changes in each view, and each expert beyond it.

    Args:
        views: in [0, 1].
        base: restores `(1, 3, s, s)`.
        experts: the same with an expert each.
    """
    found = []
    for view in views:
        plain = base(view[None])[0]
        changes = [describe_change(view - plain, plain)]
        changes += [describe_change(plain - run(view[None])[0], plain) for run in experts]
        found.append(np.stack(changes))
    return np.stack(found)


def _boxed(plane: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "s s"]:
    """Mean over a square around every pixel, over what of it is in the plane at borders mirrored."""
    half = _BOX // 2
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (half, half)
        sums = np.cumsum(np.pad(plane, padding, mode="symmetric"), axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis)
        count = plane.shape[axis]
        ends = sums.take(range(_BOX, _BOX + count), axis) - sums.take(range(count), axis)
        plane = (ends / _BOX).astype(np.float32)
    return plane


def _energy(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).mean())


def _log(energy: float) -> float:
    return float(np.log(energy + _FLOOR))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    shared = ((a - a.mean()) * (b - b.mean())).mean()
    return float(shared / np.sqrt((a.var() + _FLOOR) * (b.var() + _FLOOR)))
