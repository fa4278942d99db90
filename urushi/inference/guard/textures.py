"""How strong the damage in a picture can be at most, from some squares of it.

Each way overestimates where a picture is busy, in its own way, so the least of them counts. What is
wanted is a bound: a change that is larger takes away more than damage.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Texture", "measure_texture"]

# A fifth of the magnitudes of Gaussian numbers lie below so many of their standard deviations.
_FIFTH = 0.2
_FIFTH_OF_NORMAL = 0.2533
# Noise of equal strength in all channels makes so much of itself in the weighted sum; the same
# noise in all channels makes 1.
_OF_SUM = 0.83
_CUT = 1.5
# Of a part that is noisier: how alike both ways are, in codes and as a share of the squares.
_ALIKE, _SEEN, _PART = 0.8, 4, 0.3
_LAGS = (
    (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (2, 0), (3, 0), (4, 0), (1, 1), (1, -1),
    (2, 2), (2, -2),
)  # fmt: skip
_EDGE = 24
_REACH = 4
_PERIODS = 28  # pixels, along rows and columns


@dataclass(frozen=True)
class Texture:
    """Standard deviations, in codes of 255.

    Attributes:
        noise: what noise has at most.
        ringing: half of what lies between 3x3 pixels beside edges, in the median.
        repeats: how like itself the picture is some pixels further on, 0 to 1.
        parts: what noise has at most in a quarter of the squares, where it is far stronger there
            and is noise, not texture; else None.
    """

    noise: float
    ringing: float
    repeats: float
    parts: float | None = None


def measure_texture(squares: Sequence[np.ndarray], one: int) -> Texture | None:
    """Measures squares of one size, `(h, w)` whole numbers, `one` of them a code; None of none."""
    alike = [square for square in squares if square.shape == squares[0].shape]
    if not alike:
        return None
    values = np.stack(alike).astype(np.float32) / np.float32(one)
    repeats, left = _repeated(values)
    noise = min(_from_bends(values), _from_pairs(values))
    if repeats >= 0.9:
        noise = min(noise, 1.5 * left)
    # On white and on black half of the noise is cut off, and what is left looks weaker than it is.
    if np.mean((values < 2 * noise) | (values > 255 - 2 * noise)) > 0.5:
        noise *= _CUT
    return Texture(noise, _ringing(values), repeats, _of_parts(values, noise))


def _of_parts(values: np.ndarray, noise: float) -> float | None:
    """Of a part of the picture alone, or of its shadows; None where noise is alike everywhere.

    Both ways agree about noise, whose pixels know nothing of one another. In texture, pixels do.
    """
    bends = np.array([_from_bends(square[None]) for square in values])
    pairs = np.array([_from_pairs(square[None]) for square in values])
    ratio = bends / np.maximum(pairs, 1e-6)
    alike = (ratio > _ALIKE) & (ratio < 1 / _ALIKE) & (bends > _SEEN)
    strong = float(np.quantile(np.minimum(bends, pairs), 0.75))
    return strong if alike.mean() >= _PART and strong > 1.5 * noise else None


def _from_bends(values: np.ndarray) -> float:
    """From second differences along rows, where the picture is not exactly flat."""
    middle = values[:, :, 1:-1]
    bends = np.abs(2 * middle - values[:, :, :-2] - values[:, :, 2:])
    some = (bends > 0) | (values[:, :, :-2] != middle)
    return _sigma(bends[some & ~_clipped(middle, values[:, :, 2:])], 6**0.5)


def _from_pairs(values: np.ndarray) -> float:
    """From pixels some way apart, of which a fifth at least have the same ground."""
    height, width = values.shape[1:]
    found = []
    for down, across in _LAGS:
        first = values[:, : height - down, max(0, -across) : width - max(0, across)]
        other = values[:, down:, max(0, across) : width + min(0, across)]
        found.append(_sigma(np.abs(first - other)[~_clipped(first, other)], 2**0.5))
    return min(found)


def _clipped(first: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Black or white in both."""
    return ((first >= 254) & (other >= 254)) | ((first <= 1) & (other <= 1))


def _sigma(magnitudes: np.ndarray, factor: float) -> float:
    if magnitudes.size < 50:
        return 0.0
    place = int(_FIFTH * magnitudes.size)
    least = float(np.partition(magnitudes, place)[place])
    return least / (_FIFTH_OF_NORMAL * factor * _OF_SUM)


def _ringing(values: np.ndarray) -> float:
    high = low = values
    for how in (0, 1):
        cut = [
            part[:, at : part.shape[1] - 2 + at]
            if how == 0
            else part[:, :, at : part.shape[2] - 2 + at]
            for part in (high, low)
            for at in range(3)
        ]
        high, low = np.maximum.reduce(cut[:3]), np.minimum.reduce(cut[3:])
    span = high - low
    edge = span > _EDGE
    near = edge.copy()
    for axis in (1, 2):
        done = near.copy()
        for step in range(1, _REACH + 1):
            ahead, behind = (np.roll(done, way * step, axis) for way in (1, -1))
            near |= ahead | behind
    beside = span[near & ~edge & (span > 1)]
    return float(np.median(beside)) / 2 if beside.size >= 50 else 0.0


def _repeated(values: np.ndarray) -> tuple[float, float]:
    """How well each square is foretold by itself some pixels further on, and what is left."""
    count, height, width = values.shape
    centred = values - values.mean((1, 2), keepdims=True)
    # Slopes are like themselves anywhere: what repeats has to swing about them.
    centred = centred[:, 1:, 1:] - centred[:, :-1, :-1]
    height, width = height - 1, width - 1
    power = np.abs(np.fft.rfft2(centred, s=(2 * height, 2 * width))) ** 2
    both = np.fft.irfft2(power, s=(2 * height, 2 * width))
    reach = min(_PERIODS, height // 2, width // 2)
    sides = np.r_[0 : reach + 1, -reach:0]
    down = np.arange(reach + 1)
    both = both[:, : reach + 1][:, :, sides]
    both /= np.outer(height - down, width - np.abs(sides))
    zero = both[:, :1, :1]
    far = (np.maximum(down[:, None], np.abs(sides)[None]) >= 2)[None]
    alike = np.where(far, both / np.maximum(zero, 1e-6), 0).reshape(count, -1).max(1)
    alike = np.clip(alike, 0, 1)
    # Of a difference of two pixels; the noise of one is less by the root of two.
    left = np.sqrt(np.maximum(zero.ravel(), 0) * (1 - alike) / 2)
    return float(np.median(alike)), float(np.median(left)) / _OF_SUM
