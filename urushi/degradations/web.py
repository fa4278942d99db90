"""What the web makes of pictures: resized, sharpened, compressed, and compressed again."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from urushi.degradations.base import (
    Degradation,
    Parameters,
    Range,
    check_range,
    check_share,
    choice,
    coin,
    integers,
    uniform,
)
from urushi.degradations.jpeg import jpeg
from urushi.errors import DegradationError

__all__ = ["KERNELS", "Web"]

KERNELS = ("bicubic", "bilinear", "area")
"""Kernels of resizing; all average where they make a picture smaller."""

_BLOCK = 8


@dataclass(frozen=True)
class Web(Degradation):
    """Resized and brought back, perhaps sharpened, compressed once or twice; the size stays.

    A picture that is compressed once is so at its other size, or after it was brought back. What
    was larger when it was compressed has smaller blocks in the end, of another width than 8. The
    blocks of JPEG need not begin at the picture's corner: what is shared is often a part of what
    was stored.

    Args:
        resized_share: share of pictures that are resized; the others keep every pixel.
        factor: of the other size, uniform; within [0.25, 2].
        kernels: names from `KERNELS`; one is drawn for the way there and one for the way back.
        sharpened_share: share of pictures sharpened after the resizing, by an unsharp mask.
        sharpening: strength of that mask, uniform; within [0, 3].
        quality: of JPEG, libjpeg's, whole numbers, uniform; within [1, 100].
        twice_share: share of pictures compressed twice, each time with another quality and grid.
        subsampled_share: share of compressions with chroma of half the size (4:2:0).

    Raises:
        DegradationError: a range or share is not one, or a name is unknown.
    """

    resized_share: float | int = 0.7
    factor: Range = (0.5, 1.0)
    kernels: tuple[str, ...] = KERNELS
    sharpened_share: float | int = 0.3
    sharpening: Range = (0.2, 1.2)
    quality: tuple[int, int] = (40, 90)
    twice_share: float | int = 0.3
    subsampled_share: float | int = 0.7

    name: ClassVar[str] = "web"
    reference: ClassVar[str] = (
        "the second-order resizing and JPEG of Real-ESRGAN (ICCVW 2021) at one size; ranges ours"
    )

    def __post_init__(self) -> None:
        check_share(self.name, "resized_share", self.resized_share)
        check_range(self.name, "factor", self.factor, 0.25, 2.0)
        unknown = not isinstance(self.kernels, tuple) or [
            kernel for kernel in self.kernels if kernel not in KERNELS
        ]
        if unknown or not self.kernels:
            raise DegradationError(
                f"{self.name}: kernels={self.kernels} are not kernels; give some of"
                f" {', '.join(KERNELS)}"
            )
        check_share(self.name, "sharpened_share", self.sharpened_share)
        check_range(self.name, "sharpening", self.sharpening, 0.0, 3.0)
        check_range(self.name, "quality", self.quality, 1, 100)
        if any(quality != int(quality) for quality in self.quality):
            raise DegradationError(f"{self.name}: quality={self.quality}; give whole numbers")
        check_share(self.name, "twice_share", self.twice_share)
        check_share(self.name, "subsampled_share", self.subsampled_share)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        low, high = self.quality
        resized = coin(self.resized_share, batch, generator)
        sharpened = coin(self.sharpened_share, batch, generator)
        twice = coin(self.twice_share, batch, generator)
        early = coin(0.5, batch, generator)
        kernels = range(len(self.kernels))
        return {
            "factor": torch.where(resized, uniform(*self.factor, batch, generator), 1.0),
            "kernels": choice(kernels, 2 * batch, generator).view(batch, 2),
            "sharpening": uniform(*self.sharpening, batch, generator) * sharpened,
            "compressed": torch.stack([twice | early, twice | ~early], 1),
            "quality": integers(int(low), int(high), 2 * batch, generator).view(batch, 2),
            "subsampled": coin(self.subsampled_share, 2 * batch, generator).view(batch, 2),
            "offset": integers(0, _BLOCK - 1, 4 * batch, generator).view(batch, 2, 2),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        size = (images.shape[2], images.shape[3])
        there, back = parameters["kernels"].T.tolist()
        sizes = [
            (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
            for factor in parameters["factor"].tolist()
        ]
        parts = [
            self._resized(image, own, kernel)
            for image, own, kernel in zip(images.split(1), sizes, there, strict=True)
        ]
        # As large as the range needs, so that a picture does not depend on its batch.
        most = max(1.0, self.factor[1])
        self._compress(parts, (round(size[0] * most), round(size[1] * most)), parameters, 0)
        parts = [
            self._resized(part, size, kernel) for part, kernel in zip(parts, back, strict=True)
        ]
        parts = [
            _sharpened(part, strength)
            for part, strength in zip(parts, parameters["sharpening"].tolist(), strict=True)
        ]
        self._compress(parts, size, parameters, 1)
        return torch.cat(parts).clamp_(0.0, 1.0)

    def _resized(
        self, image: Float[Tensor, "1 3 h w"], size: tuple[int, int], kernel: int
    ) -> Float[Tensor, "1 3 h2 w2"]:
        before = (image.shape[2], image.shape[3])
        if size == before:
            return image
        name = self.kernels[kernel]
        if name == "area" and size[0] > before[0]:
            name = "bilinear"  # larger by area would be a repetition of pixels
        if name == "area":
            return F.interpolate(image, size, mode="area")
        return F.interpolate(image, size, mode=name, antialias=True).clamp_(0.0, 1.0)

    def _compress(
        self,
        parts: list[Tensor],
        size: tuple[int, int],
        parameters: Parameters,
        time: int,
    ) -> None:
        """Compresses those pictures whose turn it is, together, in place of the list."""
        rows = parameters["compressed"][:, time].cpu().nonzero()[:, 0]
        if len(rows) == 0:
            return
        offset = parameters["offset"][rows, time].tolist()
        canvas = torch.cat(
            [
                _on_canvas(parts[row], top, left, size)
                for row, (top, left) in zip(rows.tolist(), offset, strict=True)
            ]
        )
        quality: Int64[Tensor, " n"] = parameters["quality"][rows, time].cpu()
        subsampled: Bool[Tensor, " n"] = parameters["subsampled"][rows, time].cpu()
        canvas = jpeg(canvas, quality, subsampled)
        for image, row, (top, left) in zip(canvas.split(1), rows.tolist(), offset, strict=True):
            height, width = parts[row].shape[2:]
            parts[row] = image[..., top : top + height, left : left + width]


def _on_canvas(
    image: Float[Tensor, "1 3 h w"], top: int, left: int, size: tuple[int, int]
) -> Float[Tensor, "1 3 h2 w2"]:
    """The picture a little away from the corner of a canvas that is the same for all of a size.

    Its edges are repeated to the borders, as JPEG does it with pictures that end within a block.
    """
    bottom = size[0] + _BLOCK - 1 - top - image.shape[2]
    right = size[1] + _BLOCK - 1 - left - image.shape[3]
    return F.pad(image, (left, right, top, bottom), mode="replicate")


def _sharpened(image: Float[Tensor, "1 3 h w"], strength: float) -> Float[Tensor, "1 3 h w"]:
    """By an unsharp mask of three pixels."""
    if strength == 0:
        return image
    blurred = F.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    return (image + strength * (image - blurred)).clamp_(0.0, 1.0)
