"""Random fields the weather models share, each made from one seed a picture."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from urushi.degradations.base import uniform_field
from urushi.errors import DegradationError

__all__ = ["blur", "check_count", "fast_length", "scattered", "smooth_field"]


def check_count(owner: str, field: str, value: int, low: int, high: int) -> None:
    """Raises `DegradationError` unless `value` is a whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise DegradationError(
            f"{owner}: {field}={value} is not a count; give a whole number from {low} to {high}"
        )


def scattered(
    seeds: Int64[Tensor, " b"],
    counts: Int64[Tensor, " b"],
    columns: int,
    device: torch.device | str,
) -> tuple[Float[Tensor, "b n k"], Bool[Tensor, "b n"]]:
    """Rows of numbers uniform in (0, 1), counts[i] of them for picture i, and which rows count.

    The rows of a picture are the same whatever the other pictures of the batch need.

    Args:
        seeds: one per picture.
        counts: rows wanted for each picture, on the CPU.
        columns: numbers in a row.
        device: where both results lie.
    """
    most = max(1, int(counts.max())) if len(counts) else 1
    rows = uniform_field(seeds, (most, columns), device)
    return rows, torch.arange(most, device=device)[None] < counts.to(device)[:, None]


def smooth_field(
    seeds: Int64[Tensor, " b"], size: tuple[int, int], cells: int, device: torch.device | str
) -> Float[Tensor, "b 1 h w"]:
    """A smooth random field in [-1, 1]: uniform numbers on a grid, interpolated bicubically.

    Args:
        seeds: one per picture.
        size: height and width of the result.
        cells: cells of the grid along the longer side.
        device: where the result is made.
    """
    grid = tuple(max(1, round(cells * side / max(size))) + 1 for side in size)
    numbers = uniform_field(seeds, (1, *grid), device) * 2 - 1
    return F.interpolate(numbers, size, mode="bicubic", align_corners=True).clamp_(-1, 1)


def blur(
    images: Float[Tensor, "b c h w"], radius: int, passes: int = 2
) -> Float[Tensor, "b c h w"]:
    """Repeated box blur, close to a Gaussian, whose windows shrink at the borders.

    Args:
        images: what is blurred.
        radius: half width of the box in pixels; below 1 the images stay as they are.
        passes: how often; two make a triangle.
    """
    if radius < 1:
        return images
    rows, cols = (min(radius, side - 1) for side in images.shape[2:])
    for _ in range(passes):
        images = F.avg_pool2d(images, (2 * rows + 1, 1), 1, (rows, 0), count_include_pad=False)
        images = F.avg_pool2d(images, (1, 2 * cols + 1), 1, (0, cols), count_include_pad=False)
    return images


def fast_length(least: int) -> int:
    """The smallest even length from `least` on whose only prime factors are 2, 3 and 5."""
    length = least + least % 2
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2
