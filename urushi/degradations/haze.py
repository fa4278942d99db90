"""Haze: light lost on its way to the camera, and airlight gained, both growing with distance."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
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
from urushi.degradations.fields import blur, smooth_field

__all__ = ["Haze", "depth_like"]

# Regularisation of the guided filter: contrasts below about its root (0.03) are smoothed over.
_EDGE = 1e-3


def depth_like(
    images: Float[Tensor, "b 3 h w"],
    field: Float[Tensor, "b 1 h w"],
    slope: Float[Tensor, "b 1 1 1"],
) -> Float[Tensor, "b 1 h w"]:
    """A field in [0, 1] that behaves like depth: smooth inside objects, stepping at their edges.

    Three cues are added: far things are high in the picture, far things are bright and pale (the
    colour attenuation prior of Zhu et al., TIP 2015), and a smooth random field. A guided filter
    with the picture's luminance as the guide makes the sum follow objects (He et al., TPAMI 2013;
    its coefficients at reduced size as in He and Sun, Fast Guided Filter, 2015).

    Args:
        images: RGB in [0, 1].
        field: smooth, in [-1, 1].
        slope: weight of the height in the picture; negative makes the bottom far.
    """
    height, breadth = images.shape[2:]
    brightest, palest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    pale = brightest - (brightest - palest) / brightest.clamp_min(0.05)
    upwards = torch.linspace(1, 0, height, device=images.device, dtype=images.dtype)[:, None]
    guide = images.mean(1, keepdim=True)
    rough = slope * upwards + 0.4 * field + 0.45 * pale
    # The filter's coefficients are smooth, so a large picture's are found at a smaller size.
    radius = max(1, max(height, breadth) // 24)
    step = max(1, radius // 4)
    sums = F.avg_pool2d(
        torch.cat([guide, rough, guide * rough, guide * guide], 1), step, step, 0, True
    )
    mean_guide, mean_rough, both, square = blur(sums, radius // step, passes=1).split(1, 1)
    gain = (both - mean_guide * mean_rough) / (square - mean_guide.square() + _EDGE)
    offset = mean_rough - gain * mean_guide
    line = blur(torch.cat([gain, offset], 1), radius // step, passes=1)
    gain, offset = F.interpolate(
        line, (height, breadth), mode="bilinear", align_corners=False
    ).split(1, 1)
    depth = gain * guide + offset
    low, high = depth.amin((2, 3), keepdim=True), depth.amax((2, 3), keepdim=True)
    return (depth - low) / (high - low).clamp_min(1e-6)


@dataclass(frozen=True)
class Haze(Degradation):
    """Haze and fog by atmospheric scattering: `I = J t + A (1 - t)`, `t = exp(-beta d)`.

    Pictures come without depth, so `d` is made up from the picture (`depth_like`) and stretched to
    run from `near` to 1.

    Reference:
        Narasimhan and Nayar, Vision and the Atmosphere, IJCV 2002 (the model); Li et al.,
        Benchmarking Single-Image Dehazing and Beyond (RESIDE), TIP 2019, has beta in [0.6, 1.8]
        and A in [0.7, 1.0] for its indoor set. Our beta is wider, since our d ends at 1.

    Args:
        beta: scattering over the whole depth, log-uniform; above 0, up to 20.
        airlight: brightness A of the haze, in [0, 1].
        tint: largest deviation of a channel of A from its brightness, in [0, 1].
        near: depth of the nearest thing as a share of the farthest, in [0, 1].
        slope: weight of the height in the picture as a sign of distance, in [-4, 4].

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "haze"
    reference: ClassVar[str] = "Narasimhan and Nayar, IJCV 2002; Li et al., TIP 2019"

    beta: Range = (0.5, 2.8)
    airlight: Range = (0.7, 1.0)
    tint: Range = (0.0, 0.04)
    near: Range = (0.1, 0.6)
    slope: Range = (0.3, 1.2)

    def __post_init__(self) -> None:
        check_range(self.name, "beta", self.beta, 1e-4, 20.0)
        check_range(self.name, "airlight", self.airlight, 0.0, 1.0)
        check_range(self.name, "tint", self.tint, 0.0, 1.0)
        check_range(self.name, "near", self.near, 0.0, 1.0)
        check_range(self.name, "slope", self.slope, -4.0, 4.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        brightness = uniform(*self.airlight, batch, generator)[:, None]
        cast = torch.rand(batch, 3, generator=generator) * 2 - 1
        cast = cast * uniform(*self.tint, batch, generator)[:, None]
        return {
            "airlight": (brightness + cast).clamp(0, 1),
            "beta": log_uniform(*self.beta, batch, generator),
            "near": uniform(*self.near, batch, generator),
            "slope": uniform(*self.slope, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def transmission(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 1 h w"]:
        """The share t of a thing's light that reaches the camera, in (0, 1]."""
        size = (images.shape[2], images.shape[3])
        field = smooth_field(parameters["seed"], size, 3, images.device).to(images.dtype)
        depth = depth_like(images, field, per_image(parameters["slope"], images))
        near = per_image(parameters["near"], images)
        return torch.exp(-per_image(parameters["beta"], images) * (near + (1 - near) * depth))

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        airlight = parameters["airlight"].to(images)[:, :, None, None]
        through = self.transmission(images, parameters)
        return (airlight + through * (images - airlight)).clamp(0, 1)
