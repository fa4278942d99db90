"""Drops and runnels on a window that the camera is focused on, or nearly."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from urushi.degradations.base import (
    Degradation,
    Parameters,
    Range,
    check_range,
    check_share,
    coin,
    draw_seeds,
    log_uniform,
    per_image,
    uniform,
    uniform_field,
)
from urushi.degradations.fields import blur

__all__ = ["WindowDrops"]

# Drops lie on three grids; each has drops of this relative size.
_SCALES = (1.0, 0.5, 0.27)
# Numbers that make a drop; see `_drops`.
_NUMBERS = 11
# A drop with all its bulges is at most this much of a cell, so that a pixel asks four cells only.
_FULL = 0.47
# A runnel swings so far to either side in long bends, of the distance between two; it trembles by
# so many pixels; and so long in pixels are a bend, and a wave of the trembling.
_SWING, _TREMBLE, _BEND, _WAVE = 0.3, 1.5, 60, 14


@dataclass(frozen=True)
class WindowDrops(Degradation):
    """Drops, droplets and runnels on a window or wind-screen, sharp before what lies behind.

    A drop in focus is a small lens that shows the whole scene upside down: dark above, where the
    ground is seen, bright below, where the sky is, with a dark rim. What it shows hangs on the
    scene as a whole, hardly on what lies behind it. Its outline bulges; where wind drives them, all
    are drawn out one way. Flat drops show the scene behind in their middle. Runnels go down in
    bends, dark on one side and bright on the other, and break off. `raindrops` are those that the
    camera does not focus on.

    Reference:
        Garg and Nayar, Photometric Model of a Rain Drop, 2004, and Roser and Geiger, Video-based
        Raindrop Detection for Improved Image Registration, ICCV Workshops 2009 (refraction: wide
        angle, upside down, bright from the sky); the shapes and ranges are ours, set beside
        photographs.

    Args:
        radius: of the largest drops, in pixels, log-uniform; 1 to 200.
        density: share of the places for a drop that have one, in [0, 1].
        stretch: length of drops divided by their width, at most, uniform; 1 to 4.
        slanted_share: share of pictures whose drops are drawn out in another direction than down.
        bulge: how much outlines differ from ellipses; 0 to 0.4.
        edge: width of the edge of a drop in pixels; 0.3 to 10.
        sky, ground: of the scene as drops show it. `sky` is how far from the scene's brightest
            part to white, `ground` how bright relative to its darkest part; both in [0, 1].
        flat: how much of the scene behind the middle of a drop shows; 0 to 1.
        runnels: share of pictures with runnels.
        spacing: pixels from one runnel's place to the next's, log-uniform; 4 to 1000.

    Raises:
        DegradationError: a range is reversed or leaves its bounds, or a share is none.
    """

    name: ClassVar[str] = "window_drops"
    reference: ClassVar[str] = "Garg and Nayar, 2004; Roser and Geiger, ICCVW 2009; ranges ours"

    radius: Range = (4.0, 16.0)
    density: Range = (0.1, 0.85)
    stretch: Range = (1.0, 2.5)
    slanted_share: float | int = 0.25
    bulge: Range = (0.05, 0.25)
    edge: Range = (0.8, 3.0)
    sky: Range = (0.1, 0.9)
    ground: Range = (0.1, 0.9)
    flat: Range = (0.0, 0.9)
    runnels: float | int = 0.3
    spacing: Range = (16.0, 90.0)

    def __post_init__(self) -> None:
        check_range(self.name, "radius", self.radius, 1.0, 200.0)
        check_range(self.name, "density", self.density, 0.0, 1.0)
        check_range(self.name, "stretch", self.stretch, 1.0, 4.0)
        check_share(self.name, "slanted_share", self.slanted_share)
        check_range(self.name, "bulge", self.bulge, 0.0, 0.4)
        check_range(self.name, "edge", self.edge, 0.3, 10.0)
        check_range(self.name, "sky", self.sky, 0.0, 1.0)
        check_range(self.name, "ground", self.ground, 0.0, 1.0)
        check_range(self.name, "flat", self.flat, 0.0, 1.0)
        check_share(self.name, "runnels", self.runnels)
        check_range(self.name, "spacing", self.spacing, 4.0, 1000.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        slanted = coin(self.slanted_share, batch, generator)
        return {
            "radius": log_uniform(*self.radius, batch, generator),
            "density": uniform(*self.density, batch, generator),
            "stretch": uniform(*self.stretch, batch, generator),
            "angle": uniform(0.2, math.pi - 0.2, batch, generator) * slanted,
            "bulge": uniform(*self.bulge, batch, generator),
            "edge": uniform(*self.edge, batch, generator),
            "sky": uniform(*self.sky, batch, generator),
            "ground": uniform(*self.ground, batch, generator),
            "flat": uniform(*self.flat, batch, generator),
            "rim": uniform(0.1, 0.8, batch, generator),
            "light": uniform(-0.6, 0.6, batch, generator),
            "spacing": log_uniform(*self.spacing, batch, generator),
            "run": coin(self.runnels, batch, generator).float(),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        bright, dark = _seen(images, parameters)
        behind = images
        for level, scale in enumerate(_SCALES):
            images = self._one_size(images, behind, bright, dark, parameters, level, scale)
            if level == 0:
                images = self._with_runnels(images, bright, dark, parameters)
        return images.clamp(0.0, 1.0)

    def _one_size(
        self,
        images: Tensor,
        behind: Tensor,
        bright: Tensor,
        dark: Tensor,
        parameters: Parameters,
        level: int,
        scale: float,
    ) -> Float[Tensor, "b 3 h w"]:
        size = (images.shape[2], images.shape[3])
        least = 2 * self.radius[0] * scale / (2 * _FULL)
        # The grid is as large as the smallest radius of the range needs, whatever the batch has.
        cells = (int(size[0] / least) + 3, int(size[1] / least) + 3)
        own = {name: per_image(values, images)[:, :, 0] for name, values in parameters.items()}
        drops = _drops(parameters["seed"] ^ level, own, scale, cells, size)
        out, down, reach, phase, shine = (part[:, None] for part in drops)
        width = per_image(parameters["edge"], images) * (0.6 + 0.4 * scale)
        cover = _smooth(((1 - out) * reach / width).clamp(0, 1))
        # Upside down: the ground above, the sky below, with a horizon somewhere between.
        sky = _smooth(((down - 0.7 * (phase - 0.4)) / (0.3 + 0.7 * shine) + 0.5).clamp(0, 1))
        inside = dark + sky * (0.5 + 0.5 * shine) * (bright - dark)
        rim = per_image(parameters["rim"], images) * _smooth(((out - 0.55) / 0.45).clamp(0, 1))
        inside = inside * (1 - rim * (1 - 0.7 * sky))
        middle = (1 - out.clamp(0, 1).square()) * per_image(parameters["flat"], images)
        inside = inside + middle * (behind - inside)
        return images + cover * (inside - images)

    def _with_runnels(
        self, images: Tensor, bright: Tensor, dark: Tensor, parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        across, width, there = _runnels(
            parameters["seed"] ^ 11,
            per_image(parameters["spacing"], images)[:, 0],
            int(images.shape[3] / self.spacing[0]) + 3,
            (images.shape[2], images.shape[3]),
        )
        there = there * per_image(parameters["run"], images)
        side = (across / width).clamp(-1, 1)
        cover = there * _smooth((1.3 - (across / width).abs()).clamp(0, 1))
        lit = torch.where(per_image(parameters["light"], images) < 0, -side, side)
        glint = (lit - 0.1).clamp(0, 1) * 1.1
        shade = (-lit - 0.1).clamp(0, 1) * 0.9
        images = images + cover * shade * 0.8 * (dark - images)
        return images + cover * glint.clamp(0, 1) * 0.8 * (bright - images)


def _seen(images: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """What drops show of the sky and of the ground: a colour each, (B, 3, 1, 1)."""
    rough = blur(images, max(1, min(images.shape[2:]) // 8))
    grey = rough.mean(1).flatten(1)
    flat = rough.flatten(2)
    brightest, darkest = (
        flat.gather(2, index[:, None, None].expand(-1, 3, 1))[..., None]
        for index in (grey.argmax(1), grey.argmin(1))
    )
    bright = brightest + per_image(parameters["sky"], images) * (1 - brightest)
    # A wall or a sky alone has no ground: drops on it are dark all the same.
    dark = darkest * per_image(parameters["ground"], images) * (1 - 0.5 * darkest.mean(1, True))
    return bright, dark


def _drops(
    seeds: Int64[Tensor, " b"],
    own: Parameters,
    scale: float,
    cells: tuple[int, int],
    size: tuple[int, int],
) -> tuple[Tensor, ...]:
    """For every pixel the drop around it; see `urushi.degradations.raindrops`.

    Returns:
        Distance from the centre (1 on the outline, 2 where there is no drop), how far below the
        centre as a share of the radius, the radius in pixels, and two numbers of the drop's own in
        (0, 1); each (B, H, W).
    """
    radius = own["radius"] * scale
    device, batch = radius.device, len(seeds)
    cell = radius / _FULL
    numbers = uniform_field(seeds, (_NUMBERS, *cells), device)
    there, place_y, place_x, share, long, turn, two, three, amount, phase, shine = numbers.unbind(1)
    rows = torch.arange(cells[0], device=device)[:, None]
    cols = torch.arange(cells[1], device=device)
    length = 1 + (own["stretch"] - 1) * long
    table = [
        (rows + place_y - 0.5) * cell,
        (cols + place_x - 0.5) * cell,
        # Small ones are more common than large ones.
        torch.where(there < own["density"], radius * (0.35 + 0.65 * share.square()), 1e-3),
        length,
        own["angle"] + 0.5 * (turn - 0.5),
        2 * math.pi * two,
        2 * math.pi * three,
        own["bulge"] * amount,
        phase,
        shine,
    ]
    drops = torch.stack(table, 1).flatten(2)
    y = torch.arange(size[0], device=device, dtype=torch.float32)[:, None]
    x = torch.arange(size[1], device=device, dtype=torch.float32)
    row, col = (y / cell).floor().long(), (x / cell).floor().long()
    light = own["light"]
    best = torch.full((batch, 5, *size), 2.0, device=device)
    for step_y in (0, 1):
        for step_x in (0, 1):
            index = ((row + step_y) * cells[1] + col + step_x).view(batch, 1, -1)
            found = drops.gather(2, index.expand(-1, drops.shape[1], -1)).view(batch, -1, *size)
            centre_y, centre_x, reach, tall, angle, two, three, bulge, phase, shine = found.unbind(
                1
            )
            off_y, off_x = y - centre_y, x - centre_x
            cos, sin = angle.cos(), angle.sin()
            along, across = cos * off_y + sin * off_x, cos * off_x - sin * off_y
            across = across * tall
            bearing = torch.atan2(across, along)
            outline = 1 + bulge * ((2 * bearing + two).cos() + (3 * bearing + three).cos())
            out = torch.hypot(along, across) * (1 + 2 * bulge) / (reach * outline)
            down = (light.cos() * off_y + light.sin() * off_x) / reach * tall.sqrt()
            nearer = (out < best[:, 0])[:, None]
            mine = torch.stack([out, down, reach / tall, phase, shine], 1)
            best = torch.where(nearer, mine, best)
    return best.unbind(1)


def _runnels(
    seeds: Int64[Tensor, " b"],
    spacing: Float[Tensor, "b 1 1"],
    columns: int,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """For every pixel the nearest runnel.

    Returns:
        How far to the right of its middle, half its width, both in pixels, and how much of it is
        there in [0, 1]; each (B, 1, H, W).
    """
    height, breadth = size
    batch, device = len(seeds), spacing.device
    swing, wide = _lines(seeds, 2, columns, height, _BEND, device)
    tremble, kept = _lines(seeds ^ 1, 2, columns, height, _WAVE, device)
    place = torch.arange(columns, device=device)[:, None] + 0.5
    middle = (place + _SWING * (2 * swing - 1)) * spacing + _TREMBLE * (2 * tremble - 1)
    x = torch.arange(breadth, device=device, dtype=torch.float32)
    col = (x / spacing[:, 0]).floor().long()
    table = torch.stack([middle, wide, kept], 1)
    nearest = torch.full((batch, 3, breadth, height), 1e4, device=device)
    for step in (-1, 0, 1):
        index = (col + step).clamp(0, columns - 1)[:, None, :, None]
        found = table.gather(2, index.expand(-1, 3, -1, height))
        across = x[:, None] - found[:, 0]
        mine = torch.stack([across, found[:, 1], found[:, 2]], 1)
        nearest = torch.where((across.abs() < nearest[:, 0].abs())[:, None], mine, nearest)
    across, wide, kept = nearest.transpose(2, 3)[:, :, None].unbind(1)
    half = 0.8 + 2.4 * wide.clamp(0, 1).square()
    return across, half, _smooth(((0.5 * kept + wide - 0.6) * 8).clamp(0, 1))


def _lines(
    seeds: Int64[Tensor, " b"],
    kinds: int,
    columns: int,
    height: int,
    bend: int,
    device: torch.device,
) -> tuple[Float[Tensor, "b n h"], ...]:
    """For each kind and column numbers around 0.5 that change smoothly from row to row."""
    numbers = uniform_field(seeds, (kinds * columns, max(1, round(height / bend)) + 1), device)
    lines = F.interpolate(
        numbers[:, None], (kinds * columns, height), mode="bicubic", align_corners=True
    )
    return lines.view(len(seeds), kinds, columns, height).unbind(1)


def _smooth(share: Tensor) -> Tensor:
    return share * share * (3 - 2 * share)
