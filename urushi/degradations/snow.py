"""Snow: flakes of several sizes, smeared by their fall, and the veil of the far ones."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
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
)
from urushi.degradations.fields import smooth_field
from urushi.degradations.streaks import streak_field

__all__ = ["Snow"]

# Far, middle and near flakes: their size beside the picture's typical one, and how much of the
# background each hides. Near flakes are out of focus, so larger and more transparent.
_SIZES = (0.7, 1.1, 1.8, 4.0)
_OPACITIES = (1.0, 1.0, 0.9, 0.35)


@dataclass(frozen=True)
class Snow(Degradation):
    """Falling snow: `J (1 - a) + C a`, with a the flakes' opacity and J the veiled picture.

    Flakes of four sizes are scattered, each smeared along the fall by a distance in proportion to
    its size (near flakes are larger and pass faster). A smooth veil stands for snow too far away
    to be seen as flakes.

    Reference:
        Liu et al., DesnowNet: Context-Aware Deep Network for Snow Removal, TIP 2018 (opaque and
        translucent flakes over the picture, eq. 1); Chen et al., JSTASR, ECCV 2020 (the veil).
        The ranges are ours, set beside real photographs.

    Args:
        coverage: mean number of flakes over a pixel, log-uniform; above 0, up to 10.
        size: typical diameter of a flake in pixels, log-uniform; 0.5 to 100.
        motion: way a flake falls during the exposure, in diameters; 0 to 20.
        angle: direction of the fall, degrees from the vertical; -90 to 90.
        opacity: of the brightest flakes, in [0, 1].
        veil: opacity of the veil, in [0, 0.95].
        light: brightness of flakes and veil, in [0, 1].

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "snow"
    reference: ClassVar[str] = "Liu et al., TIP 2018; Chen et al., ECCV 2020"

    coverage: Range = (0.04, 0.5)
    size: Range = (1.8, 6.0)
    motion: Range = (0.0, 2.0)
    angle: Range = (-60.0, 60.0)
    opacity: Range = (0.55, 1.0)
    veil: Range = (0.0, 0.35)
    light: Range = (0.8, 1.0)

    def __post_init__(self) -> None:
        check_range(self.name, "coverage", self.coverage, 1e-4, 10.0)
        check_range(self.name, "size", self.size, 0.5, 100.0)
        check_range(self.name, "motion", self.motion, 0.0, 20.0)
        check_range(self.name, "angle", self.angle, -90.0, 90.0)
        check_range(self.name, "opacity", self.opacity, 0.0, 1.0)
        check_range(self.name, "veil", self.veil, 0.0, 0.95)
        check_range(self.name, "light", self.light, 0.0, 1.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        layers = len(_SIZES)
        vary = uniform(0.8, 1.25, batch * layers, generator).view(batch, layers)
        width = log_uniform(*self.size, batch, generator)[:, None] * torch.tensor(_SIZES) * vary
        tilt = uniform(-12.0, 12.0, batch * layers, generator).view(batch, layers)
        return {
            "width": width,
            "length": width * (1 + uniform(*self.motion, batch, generator)[:, None]),
            "angle": uniform(*self.angle, batch, generator)[:, None] + tilt,
            "coverage": log_uniform(*self.coverage, batch, generator),
            "opacity": uniform(*self.opacity, batch, generator),
            "veil": uniform(*self.veil, batch, generator),
            "light": uniform(*self.light, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        size = (images.shape[2], images.shape[3])
        reach = math.ceil(self.size[1] * _SIZES[-1] * (1 + self.motion[1]) / 2) + 4
        flakes = streak_field(
            parameters["seed"],
            parameters["angle"],
            parameters["length"],
            parameters["width"],
            parameters["coverage"],
            size,
            (reach, reach),
            images.device,
            torch.tensor(_OPACITIES),
        ).to(images.dtype)
        # Steeper than the Gaussian the kernels are: a flake is a body with an edge.
        opacity = (1.5 * flakes).clamp(0, 1).pow(1.3) * per_image(parameters["opacity"], images)
        mist = smooth_field(parameters["seed"] ^ 1, size, 4, images.device).to(images.dtype)
        veil = (per_image(parameters["veil"], images) * (1 + 0.4 * mist)).clamp(0, 1)
        light = per_image(parameters["light"], images)
        veiled = images + veil * (0.95 * light - images)
        return (veiled + opacity * (light - veiled)).clamp(0, 1)
