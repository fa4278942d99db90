"""What lies on scanned film and prints, as opacity: dust, flecks, scratches, fibres, stains.

Each maker draws one kind for a batch of pictures, from a seed and two factors for each: how much
of it there is, and how large its marks are. Numbers of marks go with the area of the picture.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from urushi.degradations.base import uniform_field
from urushi.degradations.fields import scattered
from urushi.degradations.streaks import streak_field

__all__ = ["MARKS", "Maker"]

# A maker gets the seeds, the amounts and the sizes of its pictures (around 1), the least and the
# greatest size there may be, the height and width, and the device.
Maker = Callable[
    [Tensor, Tensor, Tensor, tuple[float, float], tuple[int, int], torch.device | str], Tensor
]

_AREA = 128 * 128  # numbers of marks are for that many pixels
_OCTAVES = 5


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


def _dust(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Specks of one to three pixels, in clouds."""
    grain = uniform_field(seeds ^ 11, (2,), "cpu")
    fine = lattice(seeds, (1.0 + 1.2 * grain[:, 0]) * scale, sizes[0], size, device)
    # Coarser noise keeps the grid of the fine one out of the shapes.
    coarse = lattice(seeds ^ 13, 3.1 * scale, 3.1 * sizes[0], size, device)
    fine = fine + 0.4 * (coarse - 0.7)
    clouds = lattice(seeds ^ 12, 28 * scale, 28 * sizes[0], size, device)
    clouds = (1.6 * clouds - 0.4).clamp(0, 1).square()
    share = (
        (0.5 * amount * (0.1 + grain[:, 1].square())).clamp(max=0.5).to(device).view(-1, 1, 1, 1)
    )
    # Of bilinear noise much less than `share` is above 1 - share: its square is about the area.
    edge = 1 - (share * clouds + 4e-4).sqrt() * 0.6
    return ((fine - edge) * 8).clamp(0, 1)


def _flecks(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Single flecks of a few pixels, round to long, in two directions."""
    numbers = uniform_field(seeds ^ 21, (2, 2), "cpu")
    width = scale[:, None] * (1.6 + 1.8 * numbers[:, 0])
    field = streak_field(
        seeds ^ 22,
        numbers[:, 1] * 180 - 90,
        width * (1.2 + 2.5 * numbers[:, 0].flip(1)),
        width,
        0.003 * amount,
        size,
        (12, 12),
        device,
    )
    return (field * 2.5).clamp(0, 1)


def _scratches(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Bundles of thin broken lines; in a third of the pictures, lines along the film instead."""
    numbers = uniform_field(seeds ^ 31, (6,), "cpu")
    along = numbers[:, 0] < 1 / 3
    spread = torch.where(along, 0.4, 14.0)[:, None] * torch.tensor([-1.0, 1.0])
    base = torch.where(along, 4 * numbers[:, 1] - 2, 180 * numbers[:, 1] - 90)
    length = torch.where(along, 150 + 250 * numbers[:, 2], 15 + 75 * numbers[:, 2]) * scale
    width = (1.0 + 0.7 * numbers[:, 3]) * scale.clamp(max=2).sqrt()
    wanted = amount * torch.where(along, 0.02, 0.06)
    layers = (len(seeds), 2)
    field = streak_field(
        seeds ^ 32,
        base[:, None] + spread,
        length[:, None].expand(layers),
        width[:, None].expand(layers),
        wanted,
        size,
        (24, 24),
        device,
    )
    # Broken where the film touched something; lines along the film hardly are.
    gaps = lattice(seeds ^ 33, 2.2 * scale, 2.2 * sizes[0], size, device)
    patches = lattice(seeds ^ 34, 40 * scale, 40 * sizes[0], size, device)
    broken = (0.15 + 0.75 * numbers[:, 4]).to(device).view(-1, 1, 1, 1)
    broken = torch.where(along.to(device).view(-1, 1, 1, 1), 0.2 * broken, broken)
    kept = ((0.9 * gaps + 0.6 * patches - broken * 0.95) * 5).clamp(0, 1)
    return (field * 1.6).clamp(0, 1) * kept


def _hairs(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Long thin curves that wind a little."""
    points = int(900 * max(1.0, sizes[1] ** 1.5))
    rows, there = _scattered(seeds ^ 41, 0.8 * amount, 8, size, device)
    scale = scale.to(device)[:, None]
    length = (25 + 210 * rows[..., 2].square()) * scale
    width = (0.9 + 0.7 * rows[..., 3]) * scale.sqrt()
    return _fibres(seeds ^ 42, rows, there, length, width, points, size)


def _lint(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Short wide fibres, soft and of uneven thickness."""
    points = int(1400 * max(1.0, sizes[1] ** 2))
    rows, there = _scattered(seeds ^ 51, 0.9 * amount, 8, size, device)
    scale = scale.to(device)[:, None]
    length = (15 + 130 * rows[..., 2].square()) * scale
    width = (2.5 + 4.5 * rows[..., 3]) * scale
    return _fibres(seeds ^ 52, rows, there, length, width, points, size, wave=0.5, gain=1.0)


def _stains(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Spots with frayed edges, filled evenly or with a texture, and crumbs around them."""
    numbers = uniform_field(seeds ^ 61, (3,), "cpu")
    cell = (22 + 70 * numbers[:, 0]) * scale
    field = torch.zeros(len(seeds), 1, *size, device=device)
    texture = field
    for octave in range(_OCTAVES):
        part = 2.0**-octave
        # No cell is smaller than a pixel and a half: finer noise would be dust.
        fine = (cell * part).clamp_min(1.5)
        least = max(22 * part * sizes[0], 1.5)
        layer = lattice(seeds ^ (62 + octave), fine, least, size, device) - 0.5
        field = field + layer * 0.58**octave
        texture = layer if octave == 2 else texture
    share = (0.3 - 0.25 * (amount.sqrt() - 1)).to(device).view(-1, 1, 1, 1)
    # Where nothing would be seen, the top of the field is.
    edge = torch.minimum(share, field.amax((1, 2, 3), keepdim=True) - 0.12)
    steepness = (5 + 25 * numbers[:, 1]).to(device).view(-1, 1, 1, 1)
    rough = (0.9 * numbers[:, 2]).to(device).view(-1, 1, 1, 1)
    return ((field - edge) * steepness).clamp(0, 1) * (1 - rough * (0.5 + texture))


def _scattered(
    seeds: Int64[Tensor, " n"],
    density: Float[Tensor, " n"],
    columns: int,
    size: tuple[int, int],
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:
    """Numbers of as many marks as fit the area, at least one; see `scattered`."""
    counts = (density.cpu() * (size[0] * size[1] / _AREA)).round().clamp_min(1).long()
    return scattered(seeds, counts, columns, device)


def _fibres(
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
    field = _splat(x.reshape(batch, -1), y.reshape(batch, -1), weight.reshape(batch, -1), size)
    return 1 - torch.exp(-gain * field)


def _splat(
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


MARKS: Mapping[str, Maker] = {
    "dust": _dust,
    "flecks": _flecks,
    "scratches": _scratches,
    "hairs": _hairs,
    "lint": _lint,
    "stains": _stains,
}
"""Kinds of marks, and what makes their opacity, in [0, 1]."""
