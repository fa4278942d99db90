"""Rain: streaks near the camera, and the veil that distant rain makes.

A streak is a bright line segment, and the streaks of one picture are nearly parallel: they are
made by convolving a sparse field of drops with oriented line kernels (`streaks.py`).
"""

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
    check_share,
    coin,
    draw_seeds,
    log_uniform,
    per_image,
    uniform,
)
from urushi.degradations.fields import check_count, smooth_field
from urushi.degradations.streaks import streak_field

__all__ = ["RainStreaks", "RainVeil"]

# The most by which the streaks of one layer exceed the picture's typical length.
_LONGEST = 1.4
# The widest a streak is, as a share of its length: rain, unlike snow, is thin.
_WIDEST = 0.1


def _layered(
    length: Range,
    width: Range,
    angle: Range,
    spread: Range,
    layers: int,
    batch: int,
    generator: torch.Generator,
) -> Parameters:
    """Angle, length and width of every layer, around one typical value for each picture."""
    many = batch * layers
    tilt = uniform(-1.0, 1.0, many, generator).view(batch, layers)
    stretch = uniform(0.6, _LONGEST, many, generator).view(batch, layers)
    swell = uniform(0.7, 1.3, many, generator).view(batch, layers)
    lengths = log_uniform(*length, batch, generator)[:, None] * stretch
    widths = log_uniform(*width, batch, generator)[:, None] * swell
    return {
        "angle": uniform(*angle, batch, generator)[:, None]
        + tilt * log_uniform(*spread, batch, generator)[:, None],
        "length": lengths,
        "width": torch.minimum(widths, (_WIDEST * lengths).clamp_min(1.0)),
    }


def _margin(length: float | int, angle: Range, spread: float) -> tuple[int, int]:
    """Rows and columns to draw beyond the picture for the longest streak of the range."""
    reach = length * _LONGEST / 2
    lean = min(90.0, max(abs(angle[0]), abs(angle[1])) + spread)
    return math.ceil(reach) + 4, math.ceil(reach * math.sin(math.radians(lean))) + 4


@dataclass(frozen=True)
class RainStreaks(Degradation):
    """Rain streaks, from a drizzle to a downpour: `I + r`, or `1 - (1 - I)(1 - r)`.

    Drops fall at random places in a few layers; each layer is convolved with one line kernel and
    the sum is added, or screened (which keeps highlights from burning out), to the picture. The
    streaks of one picture are parallel up to `spread`. Light draws look like Rain100L (a tenth of
    the pixels or less raised by 30/255 or more), heavy ones like Rain100H (two thirds).

    Reference:
        Yang et al., Deep Joint Rain Detection and Removal from a Single Image, CVPR 2017
        (Rain100L, Rain100H; eq. 1 and 2: additive, overlapping layers). The ranges are ours, set
        beside those two data sets; streak lengths and angles contain the ones of the nearest
        published generator (20 to 40 px, -30 to 30 degrees).

    Args:
        coverage: mean number of streaks over a pixel, log-uniform; above 0, up to 10.
        length: typical length in pixels, log-uniform; 1 to 500.
        width: typical width in pixels (full width at half maximum), log-uniform; 0.5 to 50. A
            streak is never wider than a tenth of its length, or 1 px.
        angle: degrees from the vertical; -90 to 90.
        spread: half range of the layers' angles around the picture's, degrees, log-uniform.
        intensity: brightness of the brightest streaks, in [0, 1].
        screen: probability that a picture's streaks are screened rather than added.
        layers: number of layers, each with its own angle, length and width; 1 to 16.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "rain_streaks"
    reference: ClassVar[str] = "Yang et al., CVPR 2017"

    coverage: Range = (0.06, 1.6)
    length: Range = (18.0, 60.0)
    width: Range = (1.0, 3.5)
    angle: Range = (-35.0, 35.0)
    spread: Range = (0.5, 12.0)
    intensity: Range = (0.25, 0.8)
    screen: float = 0.25
    layers: int = 3

    def __post_init__(self) -> None:
        check_range(self.name, "coverage", self.coverage, 1e-4, 10.0)
        check_range(self.name, "length", self.length, 1.0, 500.0)
        check_range(self.name, "width", self.width, 0.5, 50.0)
        check_range(self.name, "angle", self.angle, -90.0, 90.0)
        check_range(self.name, "spread", self.spread, 1e-3, 90.0)
        check_range(self.name, "intensity", self.intensity, 0.0, 1.0)
        check_share(self.name, "screen", self.screen)
        check_count(self.name, "layers", self.layers, 1, 16)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        shape = _layered(
            self.length, self.width, self.angle, self.spread, self.layers, batch, generator
        )
        return shape | {
            "coverage": log_uniform(*self.coverage, batch, generator),
            "intensity": uniform(*self.intensity, batch, generator),
            "screened": coin(self.screen, batch, generator).float(),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        rain = streak_field(
            parameters["seed"],
            parameters["angle"],
            parameters["length"],
            parameters["width"],
            parameters["coverage"],
            (images.shape[2], images.shape[3]),
            _margin(self.length[1], self.angle, self.spread[1]),
            images.device,
        ).to(images.dtype)
        rain = rain * per_image(parameters["intensity"], images)
        screened = per_image(parameters["screened"], images)
        return (images + rain * (1 - screened * images)).clamp(0, 1)


@dataclass(frozen=True)
class RainVeil(Degradation):
    """The mist of rain too far away to show as streaks, with a few faint streaks before it.

    `I (1 - v) + A v`, where the veil v is smooth and thicker towards the top of the picture
    (which is farther away), followed by thin, screened streaks.

    Reference:
        Li, Cheong, Tan, Heavy Rain Image Restoration, CVPR 2019 (rain streaks and the veiling
        effect of accumulated rain, eq. 1). The ranges are ours.

    Args:
        veil: mean opacity of the mist, in [0, 0.95].
        light: brightness A of the mist, in [0, 1].
        unevenness: relative variation of the opacity over the picture, in [0, 1].
        coverage, length, width, angle, intensity: of the streaks, as in `RainStreaks`.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "rain_veil"
    reference: ClassVar[str] = "Li et al., CVPR 2019"

    veil: Range = (0.15, 0.55)
    light: Range = (0.55, 0.9)
    unevenness: Range = (0.1, 0.5)
    coverage: Range = (0.05, 0.5)
    length: Range = (8.0, 30.0)
    width: Range = (0.8, 1.6)
    angle: Range = (-25.0, 25.0)
    intensity: Range = (0.1, 0.35)

    def __post_init__(self) -> None:
        check_range(self.name, "veil", self.veil, 0.0, 0.95)
        check_range(self.name, "light", self.light, 0.0, 1.0)
        check_range(self.name, "unevenness", self.unevenness, 0.0, 1.0)
        check_range(self.name, "coverage", self.coverage, 1e-4, 10.0)
        check_range(self.name, "length", self.length, 1.0, 500.0)
        check_range(self.name, "width", self.width, 0.5, 50.0)
        check_range(self.name, "angle", self.angle, -90.0, 90.0)
        check_range(self.name, "intensity", self.intensity, 0.0, 1.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        shape = _layered(self.length, self.width, self.angle, (1.0, 5.0), 2, batch, generator)
        return shape | {
            "veil": uniform(*self.veil, batch, generator),
            "light": uniform(*self.light, batch, generator),
            "unevenness": uniform(*self.unevenness, batch, generator),
            "coverage": log_uniform(*self.coverage, batch, generator),
            "intensity": uniform(*self.intensity, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        size = (images.shape[2], images.shape[3])
        mist = smooth_field(parameters["seed"], size, 3, images.device).to(images.dtype)
        upwards = torch.linspace(0.5, -0.5, size[0], device=images.device, dtype=images.dtype)
        variation = 0.5 * mist + upwards[:, None]
        veil = per_image(parameters["veil"], images)
        veil = veil * (1 + per_image(parameters["unevenness"], images) * variation)
        veil = veil.clamp(0, 0.97)
        misty = images + veil * (per_image(parameters["light"], images) - images)
        rain = streak_field(
            parameters["seed"] ^ 1,
            parameters["angle"],
            parameters["length"],
            parameters["width"],
            parameters["coverage"],
            size,
            _margin(self.length[1], self.angle, 5.0),
            images.device,
        ).to(images.dtype)
        rain = rain * per_image(parameters["intensity"], images)
        return (misty + rain * (1 - misty)).clamp(0, 1)
