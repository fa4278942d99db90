"""What wear leaves on film and prints, as opacity: lines along the film, cracks, blots.

The makers are those of `urushi.degradations.marks`, and take the same arguments.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from urushi.degradations.base import uniform_field
from urushi.degradations.mark_shapes import along, drawn, lattice, marks_of

__all__ = ["blots", "cracks", "lines"]

_HALF = 0.6931  # of a Gaussian: its half width is where it falls to one half


def lines(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Long lines down the picture that drift, swell, fade and break."""
    height, width = size
    numbers = uniform_field(seeds ^ 71, (2,), "cpu")
    # As many as fit the breadth: each goes down the whole picture.
    rows, there = marks_of(seeds ^ 72, 1.4 * amount, 6, (128, width), device)
    count = rows.shape[1]
    cell = scale[:, None]

    def noise(key: int, side: float) -> Float[Tensor, "n m h"]:
        return along(seeds ^ key, count, side * cell, side * sizes[0], height, device)

    down = torch.arange(height, device=device) - height / 2
    lean = (0.06 * (numbers[:, 0] - 0.5)).to(device)[:, None, None]
    drift = 10 * rows[..., 1, None].square() * (noise(73, 90.0) - 0.5)
    centre = rows[..., 0, None] * width + lean * down + drift * scale.to(device)[:, None, None]
    # Few are wide.
    breadth = (0.8 + 6.0 * rows[..., 2, None] ** 5) * scale.to(device)[:, None, None]
    breadth = breadth * (0.5 + 0.8 * noise(74, 25.0))
    # Some run through, others come and go; fine gaps beside.
    gone = (1.1 * numbers[:, 1] - 0.2).to(device)[:, None, None] * rows[..., 3, None]
    strength = ((noise(75, 60.0) - gone) * 6).clamp(0, 1)
    strength = strength * ((noise(76, 4.0) - 0.6 * gone + 0.3) * 3).clamp(0, 1)
    strength = strength * (0.4 + 0.6 * rows[..., 4, None]) * there[..., None]
    across = torch.arange(width, device=device)
    field = torch.zeros(len(seeds), height, width, device=device)
    for one in range(count):
        off = (across - centre[:, one, :, None]).abs() / breadth[:, one, :, None].clamp_min(0.7)
        # Flatter in its middle and steeper at its edges than a Gaussian.
        profile = torch.exp(-_HALF * (2 * off).pow(3)) * strength[:, one, :, None]
        field = torch.maximum(field, profile)
    return field[:, None]


def cracks(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Cracks and creases of prints: jagged, branching, and wider where the surface flaked off."""
    numbers = uniform_field(seeds ^ 81, (3,), "cpu")
    points = int(900 * max(1.0, sizes[1] ** 1.5))
    rows, there = marks_of(seeds ^ 82, 1.6 * amount, 8, size, device)
    batch, count = rows.shape[:2]
    unit = scale.to(device)[:, None]
    length = (30 + 190 * rows[..., 2].square()) * unit

    def noise(key: int, nodes: float) -> Float[Tensor, "n m p"]:
        cell = torch.full((batch, 1), points / nodes)
        return along(seeds ^ key, count, cell, points / nodes, points, device)

    # Rough at all scales; folds are straighter than cracks.
    bent = (0.25 + 1.1 * numbers[:, 0]).to(device)[:, None, None]
    angle = 6.2832 * rows[..., 3, None] + bent * (
        1.6 * (noise(83, 3.0) - 0.5) + 1.8 * (noise(84, 11.0) - 0.5) + 2.4 * (noise(85, 37.0) - 0.5)
    )
    step = (length / points)[..., None]
    x, y = (torch.cumsum(f(angle), -1) * step for f in (torch.cos, torch.sin))
    # The first third of a picture's begins anywhere, the others branch off from one of it.
    roots = (there.sum(1, keepdim=True) + 2) // 3
    number = torch.arange(count, device=device)
    parent, branch = (number % roots)[..., None], (number >= roots)[..., None]
    at = (rows[..., 4, None] * (points - 1)).long()
    for axis, line in enumerate((y, x)):
        start = rows[..., axis, None] * size[axis] - line[..., points // 2, None]
        joint = line.gather(1, parent.expand_as(line)).gather(2, at)
        line += torch.where(branch, start.gather(1, parent) + joint, start)
    time = torch.linspace(0, 1, points, device=device)
    flaked = (noise(86, 9.0) * noise(87, 29.0)).pow(2)
    wide = (0.8 + 2.4 * numbers[:, 1].square()).to(device)[:, None, None] * unit[..., None]
    width = wide * (0.5 + rows[..., 5, None]) * (0.7 + 5 * flaked) * (1 - 0.8 * time.pow(3))
    side = uniform_field(seeds ^ 88, (count, points), device) - 0.5
    side = side * (width - 0.8).clamp_min(0)
    weight = (length / points)[..., None] * width.clamp_min(1) * there[..., None]
    faint = (noise(89, 14.0) * 1.5 + 0.2 - 0.5 * numbers[:, 2].to(device)[:, None, None]).clamp(
        0, 1
    )
    x, y = x - side * angle.sin(), y + side * angle.cos()
    weight = (weight * faint).reshape(batch, -1)
    field = drawn(x.reshape(batch, -1), y.reshape(batch, -1), weight, size)
    return 1 - torch.exp(-1.8 * field)


def blots(
    seeds: Int64[Tensor, " n"],
    amount: Float[Tensor, " n"],
    scale: Float[Tensor, " n"],
    sizes: tuple[float, float],
    size: tuple[int, int],
    device: torch.device | str,
) -> Float[Tensor, "n 1 h w"]:
    """Large spots: opaque with rough edges, or washed thin with a rim where they dried."""
    numbers = uniform_field(seeds ^ 91, (3,), "cpu").to(device)[..., None, None, None]
    rows, there = marks_of(seeds ^ 92, 0.5 * amount, 7, size, device)
    cell = scale * 30
    noise = lattice(seeds ^ 93, cell, 30 * sizes[0], size, device) - 0.5
    for key, part in ((94, 2.5), (95, 6.0), (96, 14.0)):
        fine = lattice(seeds ^ key, (cell / part).clamp_min(1.5), 1.5, size, device) - 0.5
        noise = noise + fine * (numbers[:, 0] + 0.3) / part**0.6
    noise = noise[:, 0]
    y = torch.arange(size[0], device=device, dtype=torch.float32)[:, None]
    x = torch.arange(size[1], device=device, dtype=torch.float32)
    hard = (2 + 14 * numbers[:, 1].square())[:, 0]
    thin = (numbers[:, 2] > 0.5)[:, 0]
    clear = torch.ones(len(seeds), *size, device=device)
    for one in range(rows.shape[1]):
        place = rows[:, one, :, None, None]
        radius = (5 + 26 * place[:, 2].square()) * scale.to(device)[:, None, None]
        turn, flat = 3.1416 * place[:, 3], 0.5 + 0.5 * place[:, 4]
        off_y, off_x = y - place[:, 0] * size[0], x - place[:, 1] * size[1]
        long = (off_x * turn.cos() + off_y * turn.sin()) * flat
        out = torch.hypot(long, off_y * turn.cos() - off_x * turn.sin()) / radius
        inside = 1 - out + 0.8 * noise * out.clamp(max=1.5)
        cover = (inside * hard * radius / 12).clamp(0, 1)
        rim = torch.exp(-((inside - 0.12) / 0.1).square())
        washed = cover * (0.25 + 0.4 * place[:, 5] + 0.35 * rim)
        cover = torch.where(thin, washed, cover) * there[:, one, None, None]
        clear = clear * (1 - cover)
    return (1 - clear)[:, None]
