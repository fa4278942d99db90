"""Mending what lies outside [0, 1]: colours that sRGB has not, and lights brighter than white.

Networks learn from values in [0, 1]. A little noise beyond does no harm, but a field that lies
there as a whole comes back with its colour off. So such fields are seen once more: in primaries
wide enough for their colours, and where that does not suffice, through a window of values as wide
as it must be. What is still outside of the window is added again as it was.
"""

from collections.abc import Callable

import numpy as np

from urushi.image.matrix_profile import srgb_decode, srgb_encode
from urushi.image.primaries import REC2020, to_primaries

__all__ = ["mend_beyond", "reaches_beyond"]

Run = Callable[[np.ndarray], np.ndarray]
Window = tuple[float, float]

# Noise on black or white leaves [0, 1] as well. It averages out over a square of so many pixels,
# and a field's own colour does not.
_SQUARE = 15
_TOLERANCE = 0.02
# The widest window: an encoded 8 is 120 times as bright as white.
_WIDEST = (-1.0, 8.0)
_SRGB_TO_WIDE = to_primaries(REC2020)


def reaches_beyond(tile: np.ndarray) -> bool:
    """Whether any value lies outside [0, 1]."""
    return bool(tile.min() < 0.0 or tile.max() > 1.0)


def mend_beyond(tile: np.ndarray, run: Run) -> np.ndarray:
    """Restores a tile with values outside [0, 1].

    Args:
        tile: `(3, h, w)` float32, encoded as sRGB is.
        run: what restores `(3, h, w)`, and may enlarge by a whole factor.

    Returns:
        The restored tile; where the input lay outside [0, 1], it may, too.
    """
    restored = _through(tile, (0.0, 1.0), run)
    outside = _leaves(_means(tile), (0.0, 1.0))
    if not outside.any():
        return restored
    wide = _convert(tile, _SRGB_TO_WIDE)
    above = _means(wide).max(axis=0) > 1.0 + _TOLERANCE
    for bright in (False, True):
        # The mixing of primaries would carry a small error of a strong light into dark channels.
        values, back = (tile, None) if bright else (wide, np.linalg.inv(_SRGB_TO_WIDE))
        means = _means(values)
        below = means.min(axis=0) < -_TOLERANCE
        for dark in (False, True):
            chosen = outside & (above == bright) & (below == dark)
            if not chosen.any():
                continue
            seen = _through(values, _window(means[:, chosen], dark, bright), run)
            seen = seen if back is None else _convert(seen, back)
            factor = seen.shape[1] // tile.shape[1]
            chosen = chosen.repeat(factor, axis=0).repeat(factor, axis=1)
            restored[:, chosen] = seen[:, chosen]
    return restored


def _window(means: np.ndarray, below: bool, above: bool) -> Window:
    """Which values are shown to the network as 0 and 1."""
    return (
        max(float(means.min()), _WIDEST[0]) if below else 0.0,
        min(float(means.max()), _WIDEST[1]) if above else 1.0,
    )


def _through(tile: np.ndarray, window: Window, run: Run) -> np.ndarray:
    """Restores with the values of a window as [0, 1]; noise may reach as far again on each side."""
    low, high = window
    span = high - low
    inside = np.clip(tile, low - span, high + span)
    restored = run((inside - np.float32(low)) / np.float32(span))
    restored = restored * np.float32(span) + np.float32(low)
    rest = tile - inside
    if rest.any():
        factor = restored.shape[1] // tile.shape[1]
        restored += rest.repeat(factor, axis=1).repeat(factor, axis=2)
    return restored


def _leaves(means: np.ndarray, window: Window) -> np.ndarray:
    """`(h, w)`: where any channel lies outside."""
    low, high = window
    return np.any((means < low - _TOLERANCE) | (means > high + _TOLERANCE), axis=0)


def _means(tile: np.ndarray) -> np.ndarray:
    """Means over the squares around all pixels, cut off at the edges."""
    result = tile.astype(np.float64)
    for axis in (1, 2):
        length = tile.shape[axis]
        at = np.arange(length)
        first = np.maximum(at - _SQUARE // 2, 0)
        last = np.minimum(at + _SQUARE // 2 + 1, length)
        sums = np.cumsum(result, axis=axis)
        sums = np.insert(sums, 0, 0.0, axis=axis)
        shape = [1, 1, 1]
        shape[axis] = length
        result = (sums.take(last, axis) - sums.take(first, axis)) / (last - first).reshape(shape)
    return result


def _convert(tile: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Into other primaries, `(3, h, w)`, under the same curve."""
    light = srgb_decode()(tile).reshape(3, -1)
    return srgb_encode()(matrix.astype(np.float32) @ light).reshape(tile.shape)
