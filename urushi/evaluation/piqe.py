"""PIQE: how much noise and blockiness is where a picture has structure, without a reference.

Venkatanath et al., "Blind image quality evaluation using perception based features", NCC 2015:
luma less its local mean, divided by its local deviation, is cut into blocks; a block whose variance
is above a threshold is active, and counts as distorted where a stretch of its border is flat, as
coding leaves it, or where its middle is as lively as the rest, as noise is.

Ours, for the paper does not tell: luma is that of BT.601, not stretched to its largest value; the
local window has 7 pixels and repeats the border; and blocks that the border cuts do not count.
"""

import numpy as np
from jaxtyping import Float
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["BLOCK", "piqe_of_luma"]

BLOCK = 16
_SEGMENT = 6  # pixels of a border that must be flat together
_ACTIVE, _FLAT = 0.1, 0.1
_WINDOW, _SIGMA = 7, 7 / 6


def piqe_of_luma(luma: Float[np.ndarray, "h w"]) -> float:
    """The score of luma in 0 to 255, with at least one whole block; 0 to 100, lower is better.

    A picture without any structure has 100 by the definition.
    """
    blocks = _blocks(_normalised(luma))
    variance = _variance(blocks)
    active = variance > _ACTIVE
    blocks, variance = blocks[active], variance[active]
    flat = _has_flat_border(blocks)
    # Both may be true of a block; what it is distorted by is then 1.
    distortion = np.where(flat, 1 - variance, 0) + np.where(_is_noise(blocks), variance, 0)
    score = 100 * (distortion.sum() + 1) / (len(blocks) + 1)
    return float(np.clip(score, 0, 100))


def _normalised(luma: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    mean = _smoothed(luma)
    deviation = np.sqrt(np.abs(_smoothed(luma * luma) - mean * mean))
    return (luma - mean) / (deviation + 1)


def _smoothed(plane: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    half = _WINDOW // 2
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * _SIGMA**2))
    taps /= taps.sum()
    for axis in (0, 1):
        widths = [(half, half) if axis == at else (0, 0) for at in (0, 1)]
        windows = sliding_window_view(np.pad(plane, widths, mode="edge"), _WINDOW, axis=axis)
        plane = windows @ taps
    return plane


def _blocks(plane: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "n b b"]:
    rows, columns = (side // BLOCK for side in plane.shape)
    whole = plane[: rows * BLOCK, : columns * BLOCK]
    split = whole.reshape(rows, BLOCK, columns, BLOCK).swapaxes(1, 2)
    return split.reshape(rows * columns, BLOCK, BLOCK)


def _variance(blocks: Float[np.ndarray, "n a b"]) -> Float[np.ndarray, " n"]:
    return blocks.var(axis=(1, 2), ddof=1)


def _has_flat_border(blocks: Float[np.ndarray, "n b b"]) -> np.ndarray:
    borders = [blocks[:, 0], blocks[:, -1], blocks[:, :, 0], blocks[:, :, -1]]
    segments = sliding_window_view(np.stack(borders, axis=1), _SEGMENT, axis=2)
    return (segments.std(axis=-1, ddof=1) < _FLAT).any(axis=(1, 2))


def _is_noise(blocks: Float[np.ndarray, "n b b"]) -> np.ndarray:
    """Whether a block's deviation is more than twice what its middle differs by from the rest."""
    middle = [BLOCK // 2 - 1, BLOCK // 2]
    centre = np.sqrt(_variance(blocks[:, :, middle]))
    rest = np.sqrt(_variance(np.delete(blocks, middle, axis=2)))
    own = np.sqrt(_variance(blocks))
    # An active block whose rest is even has all of its structure in the middle.
    ratio = np.divide(centre, rest, out=np.full_like(rest, np.inf), where=rest > 0)
    larger = np.maximum(own, ratio)
    apart = np.divide(np.abs(own - ratio), larger, out=np.ones_like(own), where=larger < np.inf)
    return own > 2 * apart
