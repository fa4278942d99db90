"""Raindrops on the glass before the lens: small lenses that show the scene upside down."""

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
    draw_seeds,
    log_uniform,
    per_image,
    uniform,
    uniform_field,
)
from urushi.degradations.fields import blur, smooth_field

__all__ = ["Raindrops"]

# Drops lie on two grids: large ones, and small ones of this relative size.
_SCALES = (1.0, 0.4)
# Numbers that make a drop: there or not, place (2), radius, shape, tilt, brightness.
_NUMBERS = 7
# A drop is at most this much of half a cell, so that a pixel has to ask four cells only.
_FULL = 0.95


def _nearest_drop(
    seeds: Int64[Tensor, " b"],
    radius: Float[Tensor, "b 1 1"],
    density: Float[Tensor, "b 1 1"],
    cells: tuple[int, int],
    size: tuple[int, int],
) -> Float[Tensor, "b 5 h w"]:
    """For every pixel the drop around it: how far out it lies (0 centre, 1 rim), direction, radius.

    The picture is divided into square cells, each with at most one drop that reaches at most half
    a cell beyond; the cost does not depend on the number of drops.

    Returns:
        Distance in radii (2 where there is no drop), the offset from the centre (x, y) in pixels,
        the drop's radius in pixels, and its brightness in (0, 1).
    """
    batch, device = len(seeds), radius.device
    cell = 2 * radius
    numbers = uniform_field(seeds, (_NUMBERS, *cells), device)
    there, place_y, place_x, share, shape, tilt, bright = numbers.unbind(1)
    rows = torch.arange(cells[0], device=device)[:, None]
    cols = torch.arange(cells[1], device=device)
    # Drops hang: a little longer than wide, each leaning its own way.
    table = [
        (rows + place_y - 0.5) * cell,
        (cols + place_x - 0.5) * cell,
        torch.where(there < density, _FULL * radius * (0.45 + 0.55 * share), 1e-3),
        0.75 + 0.25 * shape,
        0.3 * (tilt - 0.5),
        bright,
    ]
    drops = torch.stack(table, 1).flatten(2)
    y = torch.arange(size[0], device=device, dtype=torch.float32)[:, None]
    x = torch.arange(size[1], device=device, dtype=torch.float32)
    row, col = (y / cell).floor().long(), (x / cell).floor().long()
    best = torch.full((batch, 5, *size), 2.0, device=device)
    for step_y in (0, 1):
        for step_x in (0, 1):
            index = ((row + step_y) * cells[1] + col + step_x).view(batch, 1, -1)
            found = drops.gather(2, index.expand(-1, drops.shape[1], -1))
            centre_y, centre_x, reach, tall, lean, shine = found.view(batch, -1, *size).unbind(1)
            off_y, off_x = y - centre_y, x - centre_x
            out = torch.hypot(off_y * tall + off_x * lean, off_x) / reach
            nearer = (out < best[:, 0])[:, None]
            best = torch.where(nearer, torch.stack([out, off_x, off_y, reach, shine], 1), best)
    return best


@dataclass(frozen=True)
class Raindrops(Degradation):
    """Raindrops on a window or lens, out of focus to different degrees.

    A drop is a wide-angle lens: it shows a large part of the scene, upside down, small, and blurred
    since the camera focuses behind the glass; its upper rim is dark, its lower part, where the
    sky is seen, bright. The farther it is out of focus, the softer its edge, the more blurred what
    it shows, and the more of the scene behind it is seen through it. The glass between the drops
    stays clear.

    Reference:
        Qian et al., Attentive Generative Adversarial Network for Raindrop Removal from a Single
        Image, CVPR 2018 (`I = (1 - M) B + R`, and the photographs beside which the ranges, ours,
        were set); You et al., Adherent Raindrop Modeling, Detection and Removal in Video, TPAMI
        2016 (a drop contracts its surroundings like a fish-eye lens).

    Args:
        radius: of the largest drops, in pixels, log-uniform; 1 to 1000.
        density: share of the places for a drop that have one, in [0, 1].
        magnification: how many times smaller the scene appears in a drop; 1 to 30.
        softness: width of a drop's edge as a share of its radius, in [0.02, 1].
        brightness: of the light a drop adds, in [0, 1].
        opacity: of drops at their centre, in [0, 1]; the rest is the scene behind.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "raindrops"
    reference: ClassVar[str] = "Qian et al., CVPR 2018; You et al., TPAMI 2016"

    radius: Range = (8.0, 36.0)
    density: Range = (0.1, 0.65)
    magnification: Range = (2.0, 6.0)
    softness: Range = (0.2, 1.0)
    brightness: Range = (0.1, 0.6)
    opacity: Range = (0.45, 1.0)

    def __post_init__(self) -> None:
        check_range(self.name, "radius", self.radius, 1.0, 1000.0)
        check_range(self.name, "density", self.density, 0.0, 1.0)
        check_range(self.name, "magnification", self.magnification, 1.0, 30.0)
        check_range(self.name, "softness", self.softness, 0.02, 1.0)
        check_range(self.name, "brightness", self.brightness, 0.0, 1.0)
        check_range(self.name, "opacity", self.opacity, 0.0, 1.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        return {
            "radius": log_uniform(*self.radius, batch, generator),
            "density": uniform(*self.density, batch, generator),
            "magnification": uniform(*self.magnification, batch, generator),
            "softness": uniform(*self.softness, batch, generator),
            "brightness": uniform(*self.brightness, batch, generator),
            "opacity": uniform(*self.opacity, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        # Six channels: a little out of focus, and much.
        little = blur(images, max(1, round(self.radius[0] / 5)))
        much = blur(little, max(1, round(self.radius[1] / 3)))
        unfocused = torch.cat([little, much], 1)
        for level, scale in enumerate(_SCALES):
            images = self._one_size(images, unfocused, parameters, level, scale)
        return images.clamp(0, 1)

    def _one_size(
        self, images: Tensor, unfocused: Tensor, parameters: Parameters, level: int, scale: float
    ) -> Float[Tensor, "b 3 h w"]:
        size = (images.shape[2], images.shape[3])
        height, breadth = size
        radius = (parameters["radius"] * scale).float().to(images.device)[:, None, None]
        # The grid is as large as the smallest radius of the range needs, whatever the batch has.
        cells = (
            int(height / (2 * self.radius[0] * scale)) + 3,
            int(breadth / (2 * self.radius[0] * scale)) + 3,
        )
        drops = _nearest_drop(
            parameters["seed"] ^ level,
            radius,
            parameters["density"].float().to(images.device)[:, None, None],
            cells,
            size,
        ).to(images.dtype)
        out, off_x, off_y, reach, bright = drops.split(1, 1)
        wobble = smooth_field(
            parameters["seed"] ^ 7, size, max(3, int(max(size) / (12 * scale))), images.device
        )
        out = out + 0.12 * wobble.to(images.dtype) * out
        softness = per_image(parameters["softness"], images)
        cover = ((1 - out) / softness).clamp(0, 1)
        cover = cover * cover * (3 - 2 * cover)

        # Each offset from the centre shows what lies that much times -m away, more at the rim.
        magnification = per_image(parameters["magnification"], images)
        stretch = 1 + magnification * (1 + out.clamp(0, 1).square())
        y = torch.arange(height, device=images.device, dtype=images.dtype)[:, None]
        x = torch.arange(breadth, device=images.device, dtype=images.dtype)
        seen_y = (y - stretch * off_y).squeeze(1) / max(1, height - 1) * 2 - 1
        seen_x = (x - stretch * off_x).squeeze(1) / max(1, breadth - 1) * 2 - 1
        little, much = F.grid_sample(
            unfocused,
            torch.stack([seen_x, seen_y], -1),
            mode="bilinear",
            padding_mode="reflection",
            align_corners=True,
        ).split(3, 1)
        inside = little + softness * (much - little)
        below = (off_y / reach.clamp_min(1e-3)).clamp(-1, 1)
        shade = 1 + 0.35 * below * out.clamp(0, 1)
        glow = per_image(parameters["brightness"], images) * (0.3 + 0.7 * bright)
        inside = inside * shade + glow * (0.6 + 0.4 * below) * (1 - inside)
        cover = cover * per_image(parameters["opacity"], images)
        return images + cover * (inside - images)
