"""Mending what lies outside [0, 1]: colours that sRGB has not, and lights brighter than white.

Networks learn from values in [0, 1]. A little noise beyond does no harm, but a field that lies
there as a whole comes back with its colour off. So such fields are seen once more: in primaries
wide enough for their colours, and where that does not suffice, through a window of values as wide
as it must be. What is still outside of the window is added again as it was.
"""

from collections import deque
from collections.abc import Callable

import numpy as np

from urushi.image.colour.primaries import REC2020, to_primaries
from urushi.image.colour.profiles import srgb_decode, srgb_encode
from urushi.inference.tiling import ReadRows

__all__ = ["Values", "mend_beyond", "reaches_beyond"]

Run = Callable[[np.ndarray], np.ndarray]
Window = tuple[float, float]

# Noise on black or white leaves [0, 1] as well. It averages out over a square of so many pixels,
# and a field's own colour does not.
_SQUARE = 15
_TOLERANCE = 0.02
# The largest of a tile's means lies about so many of their standard deviations away.
_DEVIATIONS = 5.0
# Of neighbours that differ by Gaussian noise, half differ by less than this times its deviation.
_MEDIAN_DIFFERENCE = 0.6745 * 2**0.5
# The widest window: an encoded 8 is 120 times as bright as white.
_WIDEST = (-1.0, 8.0)
_SRGB_TO_WIDE = to_primaries(REC2020)


class Values:
    """The range of a picture, as far as it was read; at least [0, 1].

    Args:
        read_rows: gives the picture's next rows.
    """

    def __init__(self, read_rows: ReadRows) -> None:
        self._read_rows = read_rows
        self._count = 0
        # From which row on, and the range of all rows before the next of these.
        self._ranges: deque[tuple[int, float, float]] = deque([(0, 0.0, 1.0)])

    def read(self, count: int) -> np.ndarray:
        """The next rows."""
        rows = self._read_rows(count)
        if rows.size:
            # What is no number changes nothing here, and is told when its tile is restored.
            _, low, high = self._ranges[-1]
            least, most = min(low, float(rows.min())), max(high, float(rows.max()))
            if (least, most) != (low, high):
                self._ranges.append((self._count, least, most))
            self._count += len(rows)
        return rows

    def clip(self, rows: np.ndarray, seen: int) -> np.ndarray:
        """Rows of the result, in place, within the range of the picture's first `seen` rows.

        `seen` never becomes less, and those rows were read.
        """
        while len(self._ranges) > 1 and self._ranges[1][0] < seen:
            self._ranges.popleft()
        _, low, high = self._ranges[0]
        return np.clip(rows, low, high, out=rows)


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
    tolerance = _TOLERANCE + _DEVIATIONS * _noise(tile) / _SQUARE
    outside = _leaves(_means(tile), tolerance)
    if not outside.any():
        return _through(tile, (0.0, 1.0), run)
    wide, back = _convert(tile, _SRGB_TO_WIDE), np.linalg.inv(_SRGB_TO_WIDE)
    means = _means(wide)
    # Vivid colours have many between them and sRGB's, which are better off there, too.
    if (outside & ~_leaves(means, tolerance)).any():
        restored = _convert(_through(wide, (0.0, 1.0), run), back)
    else:
        restored = _through(tile, (0.0, 1.0), run)
    above, below = means.max(axis=0) > 1.0 + tolerance, means.min(axis=0) < -tolerance
    _replace(restored, outside & ~above & below, wide, means, run, back)
    # The mixing of primaries would carry a small error of a strong light into dark channels.
    means = _means(tile)
    below = means.min(axis=0) < -tolerance
    _replace(restored, outside & above & below, tile, means, run)
    _replace(restored, outside & above & ~below, tile, means, run)
    return restored


def _replace(
    restored: np.ndarray,
    chosen: np.ndarray,
    values: np.ndarray,
    means: np.ndarray,
    run: Run,
    back: np.ndarray | None = None,
) -> None:
    """Puts in what pixels become through a window that holds all of them.

    Args:
        restored: of the whole tile, changed in place.
        chosen: `(h, w)`, which pixels of the input.
        values: the input, perhaps in other primaries.
        means: of the values.
        run: what restores.
        back: leads from those primaries to sRGB's.
    """
    if not chosen.any():
        return
    seen = _through(values, _window(means[:, chosen]), run)
    seen = seen if back is None else _convert(seen, back)
    factor = seen.shape[1] // values.shape[1]
    chosen = chosen.repeat(factor, axis=0).repeat(factor, axis=1)
    restored[:, chosen] = seen[:, chosen]


def _window(means: np.ndarray) -> Window:
    """Which values are shown to the network as 0 and 1."""
    least, greatest = float(means.min()), float(means.max())
    return max(min(least, 0.0), _WIDEST[0]), min(max(greatest, 1.0), _WIDEST[1])


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


def _leaves(means: np.ndarray, tolerance: float) -> np.ndarray:
    """`(h, w)`: where any channel lies outside [0, 1]."""
    return (means.min(axis=0) < -tolerance) | (means.max(axis=0) > 1.0 + tolerance)


def _noise(tile: np.ndarray) -> float:
    """The standard deviation of its noise; more where there is texture."""
    steps = np.abs(np.diff(tile, axis=2))
    return float(np.median(steps)) / _MEDIAN_DIFFERENCE if steps.size else 0.0


def _means(tile: np.ndarray) -> np.ndarray:
    """Means over squares with each pixel in the middle, or nearer to an edge of the tile."""
    result = tile
    for axis in (1, 2):
        length = tile.shape[axis]
        size = min(_SQUARE, length)
        first = np.clip(np.arange(length) - size // 2, 0, length - size)
        sums = np.insert(np.cumsum(result, axis=axis), 0, 0.0, axis=axis)
        result = (sums.take(first + size, axis) - sums.take(first, axis)) / np.float32(size)
    return result


def _convert(tile: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Into other primaries, `(3, h, w)`, under the same curve."""
    light = srgb_decode()(tile).reshape(3, -1)
    return srgb_encode()(matrix.astype(np.float32) @ light).reshape(tile.shape)
