"""JPEG: what libjpeg writes and reads again, in batches and on any device.

Only entropy coding is left out, which changes nothing. All else is done as libjpeg does it, in
the same integers: the cosine transforms in int32, and colour, chroma filters and quantization in
float32 on integers below 2^24, which is exact. The result is libjpeg's to the bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from urushi.degradations.base import (
    Degradation,
    Parameters,
    check_range,
    check_share,
    coin,
    integers,
)
from urushi.errors import DegradationError

_FIXED = 2.0**-16  # libjpeg's colour constants are integers over 2^16

# ITU-T T.81, tables K.1 (luminance) and K.2 (chrominance), row by row.
# fmt: off
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61,
    12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77,
    24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)
_CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
)
# fmt: on


@dataclass(frozen=True)
class JPEGCompression(Degradation):
    """Baseline JPEG as libjpeg compresses and decodes it, rounded to 8 bits before and after.

    Args:
        quality: libjpeg's, whole numbers, uniform; within [1, 100]. DegAE uses (30, 95); the
            benchmarks of artefact removal begin at 10.
        subsampled_share: share of images with chroma of half the size in both directions (4:2:0);
            the others keep it whole (4:4:4).

    Raises:
        DegradationError: a range or share is not one, or a quality is not a whole number.
    """

    quality: tuple[int, int] = (10, 95)
    subsampled_share: float | int = 0.5

    name: ClassVar[str] = "jpeg"
    reference: ClassVar[str] = (
        "ITU-T T.81 with libjpeg's tables, padding and chroma filters; quality 30 to 95 in DegAE"
        " (CVPR 2023), from 10 in ARCNN (ICCV 2015)"
    )

    def __post_init__(self) -> None:
        check_range("JPEGCompression", "quality", self.quality, 1, 100)
        if any(value != int(value) for value in self.quality):
            raise DegradationError(
                f"JPEGCompression: quality={self.quality} is not whole; give two integers, 1 to 100"
            )
        check_share("JPEGCompression", "subsampled_share", self.subsampled_share)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        low, high = self.quality
        return {
            "quality": integers(int(low), int(high), batch, generator),
            "subsampled": coin(self.subsampled_share, batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        return jpeg(images, parameters["quality"], parameters["subsampled"])


def jpeg(
    images: Float[Tensor, "b 3 h w"], quality: Int64[Tensor, " b"], subsampled: Bool[Tensor, " b"]
) -> Float[Tensor, "b 3 h w"]:
    """Images compressed and decoded.

    Args:
        images: RGB in [0, 1], of any size.
        quality: 1 to 100, on the CPU.
        subsampled: True for chroma 4:2:0, False for 4:4:4, on the CPU.

    Returns:
        RGB in [0, 1], multiples of 1/255.
    """
    tables = quantization_tables(quality).to(images.device)
    whole, halved = (torch.nonzero(rows)[:, 0].tolist() for rows in (~subsampled, subsampled))
    if not halved or not whole:
        return _jpeg(images, tables, halved=bool(halved))
    out = torch.empty_like(images)
    for rows, half in ((whole, False), (halved, True)):
        index = torch.tensor(rows, device=images.device)
        out[index] = _jpeg(images[index], tables[index], halved=half)
    return out


def quantization_tables(quality: Int64[Tensor, " b"]) -> Float[Tensor, "b 2 64"]:
    """libjpeg's luminance and chrominance tables for a quality, baseline (1 to 255)."""
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    base = torch.tensor([_LUMINANCE, _CHROMINANCE])
    tables = (base * percent[:, None, None] + 50) // 100
    return tables.clamp(1, 255).float()


def _jpeg(
    images: Float[Tensor, "b 3 h w"], tables: Float[Tensor, "b 2 64"], halved: bool
) -> Float[Tensor, "b 3 h w"]:
    height, width = images.shape[-2:]
    luma, chroma = _to_ycc(images.float().mul(255.0).round_().clamp_(0.0, 255.0))
    if halved:
        chroma = _downsample(chroma)
    luma = _code(luma, tables[:, :1])
    chroma = _code(chroma, tables[:, 1:])
    if halved:
        chroma = _upsample(chroma[..., : math.ceil(width / 2)])[..., :height, :width]
    return _to_rgb(luma, chroma).clamp_(0.0, 255.0).div_(255.0).to(images.dtype)


def _to_ycc(
    rgb: Float[Tensor, "b 3 h w"],
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 2 h w"]]:
    """Luma and chroma as integers 0..255 (JFIF), with libjpeg's constants and rounding."""
    red, green, blue = rgb.split(1, dim=1)
    luma = 19595 * red + 38470 * green + 7471 * blue + 32768
    offset = 128 * 65536 + 32767
    cb = 32768 * blue - 11059 * red - 21709 * green + offset
    cr = 32768 * red - 27439 * green - 5329 * blue + offset
    chroma = torch.cat([cb, cr], dim=1)
    return luma.mul_(_FIXED).floor_(), chroma.mul_(_FIXED).floor_()


def _to_rgb(
    luma: Float[Tensor, "b 1 h w"], chroma: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, "b 3 h w"]:
    cb, cr = (chroma - 128.0).split(1, dim=1)
    red = (91881 * cr + 32768).mul_(_FIXED).floor_()
    green = (-22554 * cb - 46802 * cr + 32768).mul_(_FIXED).floor_()
    blue = (116130 * cb + 32768).mul_(_FIXED).floor_()
    return torch.cat([red, green, blue], dim=1).add_(luma)


def _downsample(planes: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 h2 w2"]:
    """Means of 2x2, rounded down and up in alternate columns as libjpeg does.

    To the right, libjpeg repeats the last column of the picture until the blocks are full; at the
    bottom only until the height is even, and then repeats the last row of means (`_code` does).
    """
    height, width = planes.shape[-2:]
    right = 16 * math.ceil(width / 16) - width
    planes = F.pad(planes, (0, right, 0, height % 2), mode="replicate")
    rows = planes[..., 0::2, :] + planes[..., 1::2, :]
    sums = rows[..., 0::2] + rows[..., 1::2]
    sums[..., 0::2] += 1.0
    sums[..., 1::2] += 2.0
    return sums.mul_(0.25).floor_()[..., : 8 * math.ceil(width / 16)]


def _upsample(planes: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 h2 w2"]:
    """Twice the size by libjpeg's "fancy" triangle filter: 9/16, 3/16, 3/16, 1/16."""
    if planes.shape[-1] <= 2:  # libjpeg repeats pixels when there are so few
        return planes.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    batch, channels, height, width = planes.shape
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    near = 3.0 * padded[..., 1:-1, :]
    rows = torch.stack([near + padded[..., :-2, :], near + padded[..., 2:, :]], dim=3)
    near = 3.0 * rows[..., 1:-1]
    left, right = near + rows[..., :-2] + 8.0, near + rows[..., 2:] + 7.0
    out = torch.stack([left, right], dim=-1).mul_(1 / 16).floor_()
    return out.view(batch, channels, 2 * height, 2 * width)


def _code(
    planes: Float[Tensor, "b c h w"], tables: Float[Tensor, "b 1 64"]
) -> Float[Tensor, "b c h w"]:
    """Blocks of 8x8 through cosine transform, quantization and back, as integers 0..255."""
    batch, channels, height, width = planes.shape
    down, across = math.ceil(height / 8), math.ceil(width / 8)
    padded = F.pad(planes, (0, 8 * across - width, 0, 8 * down - height), mode="replicate")
    blocks = padded.reshape(batch, channels, down, 8, across, 8).permute(3, 5, 0, 1, 2, 4)
    blocks = blocks.to(torch.int32, memory_format=torch.contiguous_format) - 128
    numbers = _transform(_transform(blocks, 1, _BITS - 2), 0, _BITS + 2)
    # The two passes leave numbers 8 times too large. Halves are rounded away from zero.
    steps = tables.view(batch, 8, 8).permute(1, 2, 0)[..., None, None, None]
    sizes = numbers.abs().float().add_(4 * steps).div_(8 * steps).floor_().mul_(steps)
    numbers = sizes.copysign_(numbers).to(torch.int32)
    blocks = _restore(_restore(numbers, 0, _BITS - 2), 1, _BITS + 5)
    blocks = blocks.add_(128).clamp_(0, 255).to(planes.dtype).permute(2, 3, 4, 0, 5, 1)
    return blocks.reshape(batch, channels, 8 * down, 8 * across)[..., :height, :width]


# The cosine transform times sqrt(8), in 13 bits: even frequencies from the sums of mirrored pixels,
# odd ones from their differences. The last digits are those that come out of the factors of
# Loeffler, Ligtenberg and Moschytz (ICASSP 1989) when each is rounded to 13 bits, as in libjpeg.
_BITS = 13
_EVEN = (
    (8192, 8192, 8192, 8192),
    (10703, 4433, -4433, -10703),
    (8192, -8192, -8192, 8192),
    (4433, -10704, 10704, -4433),
)
_ODD = (
    (11363, 9633, 6437, 2260),
    (9633, -2259, -11362, -6436),
    (6437, -11362, 2261, 9633),
    (2260, -6436, 9633, -11363),
)


def _transform(blocks: Int32[Tensor, "8 8 *n"], axis: int, shift: int) -> Int32[Tensor, "8 8 *n"]:
    """Pixels to frequencies along one axis, divided by 2^shift and rounded once, at the end."""
    lines = blocks.unbind(axis)
    out = torch.empty_like(blocks)
    targets = out.unbind(axis)
    sums = [lines[k] + lines[7 - k] for k in range(4)]
    differences = [lines[k] - lines[7 - k] for k in range(4)]
    for k in range(4):
        _combine(_EVEN[k], sums, targets[2 * k])
        _combine(_ODD[k], differences, targets[2 * k + 1])
    return _round_shift_(out, shift)


def _restore(blocks: Int32[Tensor, "8 8 *n"], axis: int, shift: int) -> Int32[Tensor, "8 8 *n"]:
    """Frequencies to pixels along one axis: the transposed matrix, rounded like `_transform`."""
    lines = blocks.unbind(axis)
    out = torch.empty_like(blocks)
    targets = out.unbind(axis)
    odd = torch.empty_like(lines[0])
    for k in range(4):
        _combine([row[k] for row in _ODD], lines[1::2], odd)
        _combine([row[k] for row in _EVEN], lines[0::2], targets[k])
        torch.sub(targets[k], odd, out=targets[7 - k])
        targets[k].add_(odd)
    return _round_shift_(out, shift)


def _combine(factors: Sequence[int], lines: Sequence[Tensor], out: Tensor) -> None:
    torch.mul(lines[0], factors[0], out=out)
    for factor, line in zip(factors[1:], lines[1:], strict=True):
        out.add_(line, alpha=factor)


def _round_shift_(numbers: Int32[Tensor, "*n"], shift: int) -> Int32[Tensor, "*n"]:
    return numbers.add_(1 << (shift - 1)).bitwise_right_shift_(shift)
