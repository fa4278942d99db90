"""Crops of clean pictures, and the same made worse, from which ranges for 8 bits are measured."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from urushi.data.pack import read_8bit
from urushi.data.pairs import find_pictures
from urushi.errors import DataError, PictureError

__all__ = ["Crops", "calibration_crops"]

# What bad pictures suffer from most. A network's feature maps are largest on bad pictures: ranges
# from clean ones alone cut them off; docs/log.md has the numbers.
_DEGRADATION = {
    "name": "chain",
    "order": "random",
    "count": [1, 2],
    "steps": [
        {"name": "gaussian_noise", "sigma_255": [0, 50], "weight": 2},
        {"name": "jpeg", "quality": [10, 90]},
    ],
}


class Crops(NamedTuple):
    """Inputs for a network and what should come out.

    Attributes:
        clean: `(N, 3, side, side)` float32 in [0, 1].
        inputs: the same; the first half as they are, the second half degraded.
        pictures: number of pictures they were cut from.
    """

    clean: Float[np.ndarray, "n 3 side side"]
    inputs: Float[np.ndarray, "n 3 side side"]
    pictures: int


def calibration_crops(folder: Path, *, count: int, side: int, seed: int) -> Crops:
    """Cut crops at random out of the pictures of a folder, as evenly as their number allows.

    Args:
        folder: clean pictures, at any depth; unreadable and too small ones are passed over.
        count: number of crops, at least 2.
        side: of a crop, in pixels.
        seed: of everything random; the same gives the same crops.

    Raises:
        DataError: there is no such folder, or no picture in it is large enough.
    """
    paths = find_pictures(folder)
    rng = np.random.default_rng(seed)
    crops: list[np.ndarray] = []
    used = 0
    for path in (paths[i] for i in rng.permutation(len(paths))):
        if used == count:
            break
        pixels = _read(path)
        if pixels is None or min(pixels.shape[:2]) < side:
            continue
        used += 1
        # As many of each as are needed if all those to come are large enough, too.
        share = -(-count // min(count, len(paths)))
        crops += [_cut(pixels, side, rng) for _ in range(share)]
    if not crops:
        raise DataError(
            f"no picture in {folder} has at least {side} x {side} pixels: name a folder of clean "
            "pictures"
        )
    # Where pictures were passed over there may be too few: then some serve twice.
    chosen = np.stack([crops[i % len(crops)] for i in range(count)])
    clean = chosen.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    half = count // 2
    return Crops(clean, np.concatenate([clean[:half], _degraded(clean[half:], seed)]), used)


def _read(path: Path) -> np.ndarray | None:
    try:
        return read_8bit(path)
    except PictureError:
        return None


def _cut(pixels: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def _degraded(images: np.ndarray, seed: int) -> np.ndarray:
    """`(N, 3, h, w)` -> the same made worse, rounded to 8 bits."""
    import torch

    from urushi.degradations import create_degradation

    degradation = create_degradation(**_DEGRADATION)
    generator = torch.Generator().manual_seed(seed)
    height, width = images.shape[2:]
    parameters = degradation.sample((len(images), 3, height, width), generator)
    worse = degradation.apply(torch.from_numpy(images), parameters).numpy()
    return np.rint(worse * 255).astype(np.float32) / np.float32(255)
