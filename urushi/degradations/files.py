"""Degrading picture files: what `apply` makes of one, written back as its source was."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from urushi.degradations.base import Degradation
from urushi.image import (
    AS_FOUND,
    DEFAULT_MAX_PIXELS,
    Samples,
    inspect_picture,
    read_picture,
    write_picture,
)

__all__ = ["degrade_file", "degrade_pixels", "picture_seed"]

Picture = Float32[np.ndarray, "_ _ 3"]


def picture_seed(seed: int, name: str) -> int:
    """63 bits that depend on both and on nothing else, the same on every machine.

    Args:
        seed: of the whole set.
        name: of the picture: its path below the folder, without suffix, with `/`.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def degrade_pixels(picture: Picture, degradation: Degradation, seed: int) -> Picture:
    """Degrades one picture held in memory.

    Args:
        picture: RGB in [0, 1].
        degradation: what is done to it.
        seed: of the draw.
    """
    images = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    height, width = picture.shape[:2]
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        parameters = degradation.sample((1, 3, height, width), generator)
        worse = degradation.apply(images, parameters)
    return np.ascontiguousarray(worse[0].numpy().transpose(1, 2, 0))


def degrade_file(
    source: Path,
    target: Path,
    degradation: Degradation,
    seed: int,
    *,
    overwrite: bool = False,
    quality: int | None = None,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    samples: Samples = AS_FOUND,
) -> None:
    """Degrades the picture `source` into the file `target`.

    Bit depth, colour profile, transparency and metadata stay the source's; where the degradation
    changes the picture's size, only the bit depth.

    Args:
        source: any picture that can be read; it is held in memory whole.
        target: its name decides the format.
        degradation: what is done.
        seed: of the draw; see `picture_seed`.
        overwrite: replace a target that is there.
        quality: of lossy formats, 1 to 100; None takes the writer's choice.
        max_pixels: refuse pictures with more; None for no limit.
        samples: what is known about the samples of the source.

    Raises:
        PictureError: the source cannot be read, or the target not be written.
    """
    info = inspect_picture(source, max_pixels=max_pixels, samples=samples)
    white, linear, _ = samples
    picture = read_picture(source, max_pixels=max_pixels, white=white, linear=linear)
    picture = np.clip(picture, 0.0, 1.0)
    worse = degrade_pixels(picture, degradation, seed)
    like = info if worse.shape == picture.shape else None
    write_picture(target, worse, like=like, bits=info.bits, overwrite=overwrite, quality=quality)
