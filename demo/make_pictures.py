"""Makes the demo's pictures: parts of Kodak pictures, spoiled in ways known and unknown.

    python demo/make_pictures.py FOLDER_WITH_KODAK24

Kodak24 is released for unrestricted use. Every picture follows from the seed below, so that the
folder `pictures` can be made again.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyvips
import torch

from urushi.degradations import create_degradation
from urushi.image import read_picture

HERE = Path(__file__).parent / "pictures"
SEED = 24
HEIGHT, WIDTH = 288, 432


@dataclass(frozen=True)
class Item:
    """One demo picture.

    Attributes:
        name: of the input file; its suffix is the format.
        kodak: number of the Kodak picture.
        top, left: corner of the part that is taken.
        steps: degradations, applied in this order.
        kind: `plain`, `deep` (16 bits), `alpha`, `wide` (Display P3), `turned` (EXIF), `grey`.
    """

    name: str
    kodak: int
    top: int
    left: int
    steps: tuple[dict, ...]
    kind: str = "plain"


def noise(sigma: float) -> dict:
    return {"name": "gaussian_noise", "sigma_255": (sigma, sigma), "grey_share": 0.0}


def jpeg(quality: float) -> dict:
    return {"name": "jpeg", "quality": (quality, quality), "subsampled_share": 1.0}


ITEMS = (
    Item("noise-25.webp", 23, 120, 200, (noise(25),)),
    Item("noise-50.webp", 7, 120, 220, (noise(50),)),
    Item(
        "photon-noise-16bit.png",
        5,
        120,
        200,
        ({"name": "poisson_noise", "peak": (60, 60)},),
        "deep",
    ),
    Item("film-grain-grey.tif", 15, 60, 150, (noise(30),), "grey"),
    Item("noise-alpha.png", 3, 60, 250, (noise(25),), "alpha"),
    Item("noise-display-p3.png", 2, 60, 150, (noise(20),), "wide"),
    Item("jpeg-10.jpg", 21, 120, 250, (jpeg(10),)),
    Item("jpeg-20-turned.jpg", 19, 200, 40, (jpeg(20),), "turned"),
    Item(
        "rain.webp",
        24,
        100,
        200,
        ({"name": "rain_streaks", "coverage": (0.12, 0.12), "angle": (15, 15)},),
    ),
    Item(
        "rain-noise-jpeg.jpg",
        8,
        100,
        200,
        ({"name": "rain_streaks", "coverage": (0.2, 0.2)}, noise(10), jpeg(40)),
    ),
    Item("haze.webp", 16, 120, 200, ({"name": "haze", "beta": (1.6, 1.6), "near": (0.3, 0.3)},)),
    Item(
        "low-light.webp",
        12,
        160,
        200,
        ({"name": "low_light", "exposure": (0.03, 0.03), "gamma": (1.1, 1.1)},),
    ),
    Item("snow.webp", 22, 60, 150, ({"name": "snow", "coverage": (0.2, 0.2)},)),
    Item("raindrops.webp", 14, 120, 200, ({"name": "raindrops", "density": (0.5, 0.5)},)),
)


def main(folder: Path) -> None:
    (HERE / "input").mkdir(parents=True, exist_ok=True)
    (HERE / "reference").mkdir(parents=True, exist_ok=True)
    for index, item in enumerate(ITEMS):
        make(item, index, folder)


def make(item: Item, index: int, folder: Path) -> None:
    source = next(p for p in folder.iterdir() if p.stem == f"kodim{item.kodak:02d}")
    whole = read_picture(source)
    height, width = (WIDTH, HEIGHT) if item.kind == "turned" else (HEIGHT, WIDTH)
    clean = whole[item.top : item.top + height, item.left : item.left + width]
    if item.kind == "grey":
        grey = clean @ np.array([0.2126, 0.7152, 0.0722], np.float32)
        clean = np.repeat(grey[:, :, None], 3, axis=2)
    assert clean.shape[:2] == (height, width), item.name
    reference = as_vips(clean, 8)
    reference.webpsave(str(HERE / "reference" / f"{Path(item.name).stem}.webp"), lossless=True)
    images = torch.from_numpy(np.ascontiguousarray(clean.transpose(2, 0, 1)))[None]
    generator = torch.Generator().manual_seed(SEED + index)
    # A JPEG picture is compressed by the file itself.
    steps = item.steps[:-1] if item.steps[-1]["name"] == "jpeg" else item.steps
    for step in steps:
        options = dict(step)
        degradation = create_degradation(options.pop("name"), **options)
        images = degradation.apply(images, degradation.sample((1, 3, height, width), generator))
    spoiled = images[0].numpy().transpose(1, 2, 0)
    write(item, spoiled, HERE / "input" / item.name)


def write(item: Item, pixels: np.ndarray, path: Path) -> None:
    image = as_vips(pixels, 16 if item.kind in ("deep", "wide") else 8)
    if item.kind == "alpha":
        image = image.bandjoin(oval(image.width, image.height))
    if item.kind == "wide":
        image = image.icc_transform("p3", input_profile="srgb", depth=8)
    if item.kind == "grey":
        image = as_vips(pixels[:, :, :1], 16).copy(interpretation="grey16")
    if item.kind == "turned":
        # Stored lying on its side: a reader has to turn it by 90 degrees clockwise.
        image = image.rot270().copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    if path.suffix == ".jpg":
        quality = int(item.steps[-1]["quality"][0])
        image.jpegsave(str(path), Q=quality, subsample_mode="on")
    elif path.suffix == ".webp":
        image.webpsave(str(path), lossless=True)
    elif path.suffix == ".tif":
        image.tiffsave(str(path), compression="deflate", predictor="horizontal")
    else:
        image.pngsave(str(path), compression=9)


def as_vips(pixels: np.ndarray, bits: int) -> pyvips.Image:
    white, dtype = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    values = np.rint(np.clip(pixels, 0, 1) * white).astype(dtype)
    image = pyvips.Image.new_from_array(np.ascontiguousarray(values))
    return image.copy(interpretation="srgb" if bits == 8 else "rgb16")


def oval(width: int, height: int) -> pyvips.Image:
    """A soft-edged oval, 0 outside and 255 inside."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    alpha = np.clip((1 - np.hypot(x, y)) * 8, 0, 1) * 255
    return pyvips.Image.new_from_array(np.rint(alpha).astype(np.uint8))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
