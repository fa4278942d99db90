"""What marks on film and prints are drawn with: noise in cells, and curves as clouds of points."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from urushi.degradations.base import uniform_field
from urushi.degradations.fields import scattered

__all__ = ["along", "drawn", "fibres", "lattice", "marks_of"]

_AREA = 128 * 128  # numbers of marks are for that many pixels


def lattice(
    seeds: Int64[Tensor, " n"],
    cell: Float[Tensor, " n"],
    least: float,
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Uniform numbers on a grid whose cells have a side of their own in each picture, bilinear.

    Args:
        seeds: one per picture.
        cell: side of a cell in pixels, one per picture.
        least: no cell is smaller, in any batch.
        size: height and width of the result.
        device: where the result is made.
    """
    nodes = [int(side / least) + 3 for side in size]
    numbers = uniform_field(seeds, (1, *nodes), device)
    shift = uniform_field(seeds ^ 0x5EED, (2,), device)
    cell = cell.to(device)[:, None]
    axes = []
    for axis, (side, count) in enumerate(zip(size, nodes, strict=True)):
        place = torch.arange(side, device=device) / cell + shift[:, axis : axis + 1]
        axes.append(place * (2 / (count - 1)) - 1)
    down, right = axes[0][:, :, None], axes[1][:, None, :]
    grid = torch.stack(torch.broadcast_tensors(right, down), -1)
    return F.grid_sample(numbers, grid, mode="bilinear", align_corners=True)


def marks_of(
    seeds: Int64[Tensor, " n"],
    density: Float[Tensor, " n"],
    columns: int,
    size: tuple[int, int],
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Numbers of as many marks as fit the area, at least one; see `scattered`."""
    counts = (density.cpu() * (size[0] * size[1] / _AREA)).round().clamp_min(1).long()
    return scattered(seeds, counts, columns, device)


def fibres(
    seeds: Int64[Tensor, " n"],
    rows: Float[Tensor, "n m 8"],
    there: Tensor,
    length: Float[Tensor, "n m"],
    width: Float[Tensor, "n m"],
    points: int,
    size: tuple[int, int],
    wave: float = 0.7,
    gain: float = 1.8,
) -> Float[Tensor, "n 1 h w"]:
    """Curves as clouds of points: along a path that bends, spread over its width.

    Args:
        seeds: of where the points lie across the paths.
        rows: of each curve: two numbers for its place, two used by the caller, four for its shape.
        there: which curves count.
        length: of the curves in pixels.
        width: of the curves in pixels, 1 or a little less at least.
        points: of each curve.
        size: height and width of the result.
        wave: how strongly the curves wind.
        gain: how dense the curves are.
    """
    batch, curves = length.shape
    time = torch.linspace(-0.5, 0.5, points, device=rows.device)
    turn, bend, winding, phase = (rows[..., 4 + k, None] for k in range(4))
    angle = 6.2832 * turn + 4.0 * (bend - 0.5) * time
    for frequency, strength in ((2.3, 1.1), (5.1, 0.5), (11.0, 0.25)):
        angle = angle + wave * strength * winding * torch.sin(
            frequency * (6.2832 * time + 9 * phase)
        )
    step = (length / points)[..., None]
    x, y = (torch.cumsum(f(angle), -1) * step for f in (torch.cos, torch.sin))
    middle = points // 2
    side = uniform_field(seeds, (curves, points), rows.device) - 0.5
    # Thinner towards the ends.
    side = side * (width - 0.9).clamp_min(0)[..., None] * (1 - (2 * time).abs() ** 4)
    x = x - x[..., middle, None] + rows[..., 1, None] * size[1] - side * angle.sin()
    y = y - y[..., middle, None] + rows[..., 0, None] * size[0] + side * angle.cos()
    # So much that a pixel in the middle of a curve gets 1 in the mean, however wide it is.
    weight = (length * width.clamp_min(1) / points * there)[..., None].expand_as(x)
    field = drawn(x.reshape(batch, -1), y.reshape(batch, -1), weight.reshape(batch, -1), size)
    return 1 - torch.exp(-gain * field)


def drawn(
    x: Float[Tensor, "n p"], y: Float[Tensor, "n p"], weight: Float[Tensor, "n p"], size: tuple
) -> Float[Tensor, "n 1 h w"]:
    """Points spread bilinearly over four pixels each, and softened a little."""
    height, width = size
    left, top = x.floor(), y.floor()
    right_part, lower_part = x - left, y - top
    inside = (left >= -1) & (left < width) & (top >= -1) & (top < height)
    weight = weight * inside
    # A border of one pixel takes what falls beside the picture.
    start = (top.clamp(-1, height - 1) + 1) * (width + 2) + left.clamp(-1, width - 1) + 1
    start = start.long()
    field = torch.zeros(len(x), (height + 2) * (width + 2), device=x.device)
    field.scatter_add_(1, start, weight * (1 - right_part) * (1 - lower_part))
    field.scatter_add_(1, start + 1, weight * right_part * (1 - lower_part))
    field.scatter_add_(1, start + width + 2, weight * (1 - right_part) * lower_part)
    field.scatter_add_(1, start + width + 3, weight * right_part * lower_part)
    field = field.view(-1, 1, height + 2, width + 2)
    for axis in (2, 3):
        count = field.shape[axis]
        middle = field.narrow(axis, 1, count - 2) * 0.64
        beside = field.narrow(axis, 0, count - 2) + field.narrow(axis, 2, count - 2)
        field = middle + 0.18 * beside
    return field


def along(
    seeds: Int64[Tensor, " n"],
    curves: int,
    cell: Float[Tensor, "n 1"],
    least: float,
    length: int,
    device: torch.device | str,
) -> Float[Tensor, "n curves length"]:
    """Uniform numbers along lines of their own, linear between nodes.

    Args:
        seeds: one per picture.
        curves: lines of a picture.
        cell: steps between two nodes, one number per picture.
        least: no cell is smaller, in any batch.
        length: steps of a line.
        device: where the result is made.
    """
    nodes = int(length / least) + 3
    numbers = uniform_field(seeds, (curves, nodes), device)
    place = torch.arange(length, device=device) / cell.to(device)
    left = place.long()
    part = (place - left)[:, None]
    left = left[:, None].expand(-1, curves, -1)
    return numbers.gather(2, left) * (1 - part) + numbers.gather(2, left + 1) * part
