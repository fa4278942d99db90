"""Whether the two pictures of a pair lie on each other, and the shift between them if not.

By phase correlation (Kuglin and Hines, 1975): the spectra's phases alone, so that a target that is
brighter, sharper or less noisy than its input still correlates.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped, UInt8

__all__ = ["Shift", "aligned", "estimate_shift"]

# Noise has its energy at high frequencies, where a degraded picture has lost the picture's.
_LOW_PASS = 0.12  # cycles per pixel at which weights fall to exp(-1/2)
_LARGEST_PART = 512  # pixels: more tell nothing new and cost time
# A peak this many times above what the rest of the map reaches is no accident.
_CLEAR = 1.25


@dataclass(frozen=True)
class Shift:
    """How far a target lies from its input.

    Attributes:
        down: rows by which the target's content lies below the input's.
        right: columns by which it lies to the right.
        certainty: the correlation there relative to the greatest elsewhere; below 1.25 it is no
            more than a guess.
    """

    down: int
    right: int
    certainty: float

    @property
    def clear(self) -> bool:
        """Whether the pictures correlate clearly enough to believe it."""
        return self.certainty >= _CLEAR

    @property
    def size(self) -> int:
        """The greater of both, in pixels."""
        return max(abs(self.down), abs(self.right))


def estimate_shift(
    degraded: UInt8[np.ndarray, "h w 3"], target: UInt8[np.ndarray, "h w 3"], limit: int = 16
) -> Shift:
    """The whole-pixel shift of a target against its input.

    Args:
        degraded: the input.
        target: of the same size.
        limit: shifts of more pixels are not looked for.
    """
    assert degraded.shape == target.shape
    height, width = (min(side, _LARGEST_PART) for side in degraded.shape[:2])
    top, left = (
        (full - part) // 2 for full, part in zip(degraded.shape, (height, width), strict=False)
    )
    part = np.s_[top : top + height, left : left + width]
    window = np.outer(np.hanning(height), np.hanning(width))
    spectra = []
    for picture in (degraded[part], target[part]):
        grey = picture.astype(np.float64).mean(2)
        # Differences, so that a change of brightness across the picture does not count as content.
        rows, columns = np.gradient(grey)
        spectra.append(np.fft.fft2((rows + 1j * columns) * window))
    cross = spectra[1] * spectra[0].conj()
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    weight = np.exp(-0.5 * (frequency / _LOW_PASS) ** 2)
    correlation = np.fft.ifft2(weight * cross / np.maximum(np.abs(cross), 1e-9)).real
    return _peak(correlation, min(limit, height // 4, width // 4))


def _peak(correlation: np.ndarray, limit: int) -> Shift:
    offsets = np.arange(-limit, limit + 1)
    near = correlation[np.ix_(offsets, offsets)]
    row, column = np.unravel_index(np.argmax(near), near.shape)
    # The peak is as wide as the low pass makes it: what lies within is the same peak.
    apart = max(3, round(1 / (2 * np.pi * _LOW_PASS)) * 4)
    rest = correlation.copy()
    down, right = int(offsets[row]), int(offsets[column])
    around = np.arange(-apart, apart + 1)
    rest[np.ix_((down + around) % len(rest), (right + around) % rest.shape[1])] = -np.inf
    elsewhere = max(float(rest.max()), 1e-12)
    return Shift(down, right, float(near[row, column]) / elsewhere)


def aligned(
    degraded: Shaped[np.ndarray, "h w c"], target: Shaped[np.ndarray, "h w c"], shift: Shift
) -> tuple[Shaped[np.ndarray, "h2 w2 c"], Shaped[np.ndarray, "h2 w2 c"]]:
    """What both pictures show, cut out of each: `|down|` rows and `|right|` columns less."""
    height, width = degraded.shape[:2]
    down, right = shift.down, shift.right
    first = np.s_[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    second = np.s_[max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)]
    return degraded[first], target[second]
