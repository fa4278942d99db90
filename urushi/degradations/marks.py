"""What lies on scanned film and prints, as opacity: dust, flecks, scratches, fibres, stains, wear.

Each maker draws one kind for a batch of pictures, from a seed and two factors for each: how much
of it there is, and how large its marks are. Numbers of marks go with the area of the picture.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from urushi.degradations.base import uniform_field
from urushi.degradations.mark_shapes import fibres, lattice, marks_of
from urushi.degradations.streaks import streak_field
from urushi.degradations.wear import blots, cracks, lines

__all__ = ["MARKS", "Maker"]

# A maker gets the seeds, the amounts and the sizes of its pictures (around 1), the least and the
# greatest size there may be, the height and width, and the device.
Maker = Callable[
    [Tensor, Tensor, Tensor, tuple[float, float], tuple[int, int], torch.device | str], Tensor
]

_OCTAVES = 5


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
    rows, there = marks_of(seeds ^ 41, 0.8 * amount, 8, size, device)
    scale = scale.to(device)[:, None]
    length = (25 + 210 * rows[..., 2].square()) * scale
    width = (0.9 + 0.7 * rows[..., 3]) * scale.sqrt()
    return fibres(seeds ^ 42, rows, there, length, width, points, size)


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
    rows, there = marks_of(seeds ^ 51, 0.9 * amount, 8, size, device)
    scale = scale.to(device)[:, None]
    length = (15 + 130 * rows[..., 2].square()) * scale
    width = (2.5 + 4.5 * rows[..., 3]) * scale
    return fibres(seeds ^ 52, rows, there, length, width, points, size, wave=0.5, gain=1.0)


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


MARKS: Mapping[str, Maker] = {
    "dust": _dust,
    "flecks": _flecks,
    "scratches": _scratches,
    "hairs": _hairs,
    "lint": _lint,
    "stains": _stains,
    "lines": lines,
    "cracks": cracks,
    "blots": blots,
}
"""Kinds of marks, and what makes their opacity, in [0, 1]."""
