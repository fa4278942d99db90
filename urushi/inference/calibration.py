"""Crops of clean pictures, and the same made worse, from which ranges for 8 bits are measured."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from urushi.data.pack import read_8bit
from urushi.data.pairs import find_pictures
from urushi.errors import DataError, PictureError

if TYPE_CHECKING:
    from urushi.degradations import Degradation

__all__ = ["Crops", "calibration_crops"]

# What bad pictures suffer from most. A network's feature maps are largest on bad pictures: ranges
# from clean ones alone cut them off; docs/log.md has the numbers.
_COMMON = {
    "name": "chain",
    "order": "random",
    "count": [1, 2],
    "steps": [
        {"name": "gaussian_noise", "sigma_255": [0, 50], "weight": 2},
        {"name": "jpeg", "quality": [10, 90]},
    ],
}
# Of so many crops one is a page.
_PAGES = 8
_WORDS = "Sphinx of black quartz judge my vow 0123456789 (12.5 %) Lacquer & gold = 380 EUR"


class Crops(NamedTuple):
    """Inputs for a network and what should come out.

    Attributes:
        clean: `(N, 3, side, side)` float32 in [0, 1]; one of eight is a page of text and lines.
        inputs: the same; the first half as they are, the second half degraded: one by noise and
            JPEG, the next by a degradation of the table, each in its turn.
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
    for index in range(_PAGES // 2, count, _PAGES):
        chosen[index] = _page(side, rng)
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


def _page(side: int, rng: np.random.Generator) -> np.ndarray:
    """A page with text, rules and a chart, dark on light or light on dark, `(side, side, 3)`."""
    paper, ink = (int(v) for v in rng.integers([200, 0], [256, 60]))
    if rng.random() < 0.25:
        paper, ink = ink, paper
    page = Image.new("RGB", (side, side), (paper,) * 3)
    draw = ImageDraw.Draw(page)
    top = int(rng.integers(-8, 4))
    while top < side:
        size = int(rng.choice((9, 11, 14, 22)))
        start, colour = int(rng.integers(len(_WORDS) // 2)), (ink,) * 3
        if rng.random() < 0.2:
            colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        if rng.random() < 0.15:
            for offset in range(0, size, 2 * int(rng.integers(1, 4))):
                draw.line((0, top + offset, side, top + offset), fill=colour)
        else:
            font = ImageFont.load_default(size)
            draw.text((int(rng.integers(-9, 9)), top), _WORDS[start:], fill=colour, font=font)
        top += int(size * 1.3)
    return np.asarray(page)


def _can_restore(degradation: type) -> bool:
    """Whether it can bring what it made smaller back to its size."""
    return "restore_size" in inspect.signature(degradation).parameters


def _degraded(images: np.ndarray, seed: int) -> np.ndarray:
    """`(N, 3, h, w)` -> the same made worse, rounded to 8 bits."""
    from urushi.degradations import DEGRADATIONS, create_degradation

    common, worse = create_degradation(**_COMMON), []
    rare = [
        create_degradation(name, **({"restore_size": True} if _can_restore(entry) else {}))
        for name, entry in DEGRADATIONS.items()
    ]
    # Without those that make pictures smaller, which is another network's task.
    rare = [one for one in rare if _apply(one, images[0], seed).shape == images[0].shape]
    for index, image in enumerate(images):
        degradation = rare[index // 2 % len(rare)] if index % 2 else common
        # Each with a seed of its own, so that a crop does not depend on how many there are.
        worse.append(_apply(degradation, image, seed * 100_003 + index))
    return np.rint(np.stack(worse) * 255).astype(np.float32) / np.float32(255)


def _apply(degradation: "Degradation", image: np.ndarray, seed: int) -> np.ndarray:
    import torch

    parameters = degradation.sample((1, *image.shape), torch.Generator().manual_seed(seed))
    return degradation.apply(torch.from_numpy(image[None]), parameters).clamp(0, 1).numpy()[0]
