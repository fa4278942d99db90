"""Blur: Gaussian, out of focus, and motion; one kernel per image, one convolution per batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from urushi.degradations.base import (
    Degradation,
    Parameters,
    Range,
    check_range,
    check_share,
    coin,
    draw_seeds,
    log_uniform,
    noise_field,
    per_image,
    uniform,
)

# A Gaussian is cut at this many standard deviations: 0.3 % of its mass is beyond them.
_CUT = 3.0
# Points on a path of motion: three for each pixel of the longest, so that no line is dotted. The
# same for all, so that an image does not depend on the others of its batch.
_POINTS = 303
# A shaken path is a sum of this many sines and cosines of falling strength.
_SHAKE_WAVES = 3
_DISPLAY = 2.2
# From this value on a light may have been clipped.
_CLIPPED = 0.9


@dataclass(frozen=True)
class GaussianBlur(Degradation):
    """A Gaussian kernel, round or elliptic, cut at three standard deviations.

    Args:
        sigma: standard deviation of round kernels in pixels, uniform; within [0, 20].
        sigma_elliptic: standard deviations along the two axes of elliptic kernels, each uniform;
            within [0, 20].
        elliptic_share: share of images with an elliptic kernel, its angle uniform in [0, pi).

    Raises:
        DegradationError: a range or share is not one.
    """

    sigma: Range = (0.0, 2.2)
    sigma_elliptic: Range = (0.0, 5.0)
    elliptic_share: float | int = 0.5

    name: ClassVar[str] = "gaussian_blur"
    reference: ClassVar[str] = (
        "ranges of DegAE (CVPR 2023) at scale 1: half round with sigma U[0, 2.2], half elliptic"
        " with U[0, 5] along its axes"
    )

    def __post_init__(self) -> None:
        check_range("GaussianBlur", "sigma", self.sigma, 0.0, 20.0)
        check_range("GaussianBlur", "sigma_elliptic", self.sigma_elliptic, 0.0, 20.0)
        check_share("GaussianBlur", "elliptic_share", self.elliptic_share)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        elliptic = coin(self.elliptic_share, batch, generator)
        round_sigma = uniform(*self.sigma, batch, generator)
        first = uniform(*self.sigma_elliptic, batch, generator)
        second = uniform(*self.sigma_elliptic, batch, generator)
        return {
            "sigma_along": torch.where(elliptic, first, round_sigma),
            "sigma_across": torch.where(elliptic, second, round_sigma),
            "angle": uniform(0.0, math.pi, batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        kernels = gaussian_kernels(
            parameters["sigma_along"], parameters["sigma_across"], parameters["angle"]
        )
        return convolve(images, kernels.to(images.device))


@dataclass(frozen=True)
class DefocusBlur(Degradation):
    """A disc, the image of a point through a round aperture out of focus; its edge antialiased.

    Args:
        radius: of the disc in pixels, uniform; within [0, 30].

    Raises:
        DegradationError: a range is not one.
    """

    radius: Range = (0.5, 4.0)

    name: ClassVar[str] = "defocus_blur"
    reference: ClassVar[str] = "the disc of geometric optics; the range is ours"

    def __post_init__(self) -> None:
        check_range("DefocusBlur", "radius", self.radius, 0.0, 30.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        return {"radius": uniform(*self.radius, batch_shape[0], generator)}

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        return convolve(images, disc_kernels(parameters["radius"]).to(images.device))


@dataclass(frozen=True)
class MotionBlur(Degradation):
    """The path of the camera during the exposure: a line, or the curve of a shaking hand.

    Args:
        length: of the path from end to end in pixels, uniform; within [1, 101].
        shake_share: share of images with a curved path: its direction and speed wander.
        shake: how strongly such a path wanders, as a share of its length, uniform; within [0, 1].
        linear_share: share of images that are blurred in linear light (power 2.2), as on a sensor;
            the others, as most of the literature has it, in display values.
        lights: of those, how many times brighter than white a clipped light was on the sensor,
            log-uniform; within [1, 100]. Lights draw white trails then, and do not fade to grey.

    Raises:
        DegradationError: a range or share is not one.
    """

    length: Range = (5.0, 25.0)
    shake_share: float | int = 0.3
    shake: Range = (0.1, 0.5)
    linear_share: float | int = 0.0
    lights: Range = (1.0, 1.0)

    name: ClassVar[str] = "motion_blur"
    reference: ClassVar[str] = (
        "linear motion, length U[5, 25] and angle U[0, 180) degrees, and smooth random paths in the"
        " manner of Boracchi and Foi (TIP 2012); light and saturation as in RSBlur (Rim et al.,"
        " ECCV 2022); the ranges are ours"
    )

    def __post_init__(self) -> None:
        check_range("MotionBlur", "length", self.length, 1.0, 101.0)
        check_range("MotionBlur", "shake", self.shake, 0.0, 1.0)
        check_share("MotionBlur", "shake_share", self.shake_share)
        check_share("MotionBlur", "linear_share", self.linear_share)
        check_range("MotionBlur", "lights", self.lights, 1.0, 100.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        shaken = coin(self.shake_share, batch, generator)
        drawn = {
            "length": uniform(*self.length, batch, generator),
            "angle": uniform(0.0, math.pi, batch, generator),
            "shake": uniform(*self.shake, batch, generator) * shaken,
            "seed": draw_seeds(batch, generator),
        }
        if self.linear_share == 0:
            return drawn | {
                "linear": torch.zeros(batch, dtype=torch.bool),
                "lights": torch.ones(batch),
            }
        drawn["linear"] = coin(self.linear_share, batch, generator)
        drawn["lights"] = log_uniform(*self.lights, batch, generator)
        return drawn

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        path = motion_paths(
            parameters["length"], parameters["angle"], parameters["shake"], parameters["seed"]
        )
        kernels = path_kernels(path).to(images.device)
        linear = per_image(parameters["linear"], images)
        if not bool(linear.any()):
            return convolve(images, kernels)
        # Only what is nearly white was clipped; between, the sensor's light rises steeply.
        white = ((images.amax(1, keepdim=True) - _CLIPPED) / (1 - _CLIPPED)).clamp(0, 1)
        most = per_image(parameters["lights"], images)
        light = images.clamp_min(1e-6).pow(_DISPLAY) * (1 + (most - 1) * white.square())
        # `convolve` clips to [0, 1].
        blurred = convolve(light / most, kernels) * most
        seen = blurred.clamp(1e-9, 1).pow(1 / _DISPLAY).clamp(0, 1)
        return torch.where(linear, seen, convolve(images, kernels))


def gaussian_kernels(
    along: Float[Tensor, " b"], across: Float[Tensor, " b"], angle: Float[Tensor, " b"]
) -> Float[Tensor, "b k k"]:
    """Gaussian kernels; the side fits the widest, and each is cut at three of its own deviations.

    Args:
        along: standard deviation along the first axis, in pixels; 0 is no blur.
        across: the same along the second axis.
        angle: of the first axis with the rows of the image, in radians, towards larger y.
    """
    reach = torch.ceil(_CUT * torch.maximum(along, across))
    y, x = _grid(int(reach.max()))
    inside = torch.maximum(x.abs(), y.abs()) <= _column(reach)
    # So narrow a Gaussian leaves 1e-9 of its neighbour: a point, without dividing by 0.
    along, across = along.double().clamp_min(0.15), across.double().clamp_min(0.15)
    cos, sin = _column(angle.double().cos()), _column(angle.double().sin())
    u, v = cos * x + sin * y, cos * y - sin * x
    weights = torch.exp(-0.5 * ((u / _column(along)) ** 2 + (v / _column(across)) ** 2))
    return _normalised(weights * inside).float()


def disc_kernels(radius: Float[Tensor, " b"]) -> Float[Tensor, "b k k"]:
    """Discs whose edge falls linearly over one pixel."""
    reach = math.ceil(float(radius.max()) + 0.5)
    y, x = _grid(reach)
    distance = (x * x + y * y).sqrt()
    weights = (_column(radius.double()) + 0.5 - distance).clamp(0.0, 1.0)
    return _normalised(weights).float()


def motion_paths(
    length: Float[Tensor, " b"],
    angle: Float[Tensor, " b"],
    shake: Float[Tensor, " b"],
    seed: Tensor,
) -> Float[Tensor, "b n 2"]:
    """Points (x, y) at equal times along each path, in pixels, their middle at the origin.

    Where `shake` is 0 the path is a line at constant speed. Otherwise smooth random waves, along
    and across, are added to it, and the path is scaled so that its longest extent is `length`.
    """
    time = torch.linspace(-0.5, 0.5, _POINTS, dtype=torch.float64)
    coefficients = noise_field(seed, (2, 2, _SHAKE_WAVES), "cpu").double()
    order = torch.arange(1, _SHAKE_WAVES + 1, dtype=torch.float64)
    phase = math.pi * order[:, None] * time
    waves = torch.stack([phase.sin(), phase.cos()]) / order[:, None] ** 1.5
    wander = torch.einsum("badk,dkn->ban", coefficients, waves) * shake.double()[:, None, None]
    u, v = time + wander[:, 0], wander[:, 1]
    u, v = u - u.mean(dim=1, keepdim=True), v - v.mean(dim=1, keepdim=True)
    extent = 2 * (u * u + v * v).amax(dim=1, keepdim=True).sqrt()
    scale = length.double()[:, None] / extent
    cos, sin = angle.double().cos()[:, None], angle.double().sin()[:, None]
    return torch.stack([scale * (cos * u - sin * v), scale * (sin * u + cos * v)], dim=2).float()


def path_kernels(path: Float[Tensor, "b n 2"]) -> Float[Tensor, "b k k"]:
    """The time spent in each pixel, every point spread bilinearly over its four neighbours."""
    radius = math.ceil(float(path.abs().max())) + 1
    size = 2 * radius + 1
    corner = path.floor()
    part = path - corner
    index = corner.long() + radius
    kernels = torch.zeros(len(path), size * size, dtype=torch.float64)
    for dx in (0, 1):
        for dy in (0, 1):
            weight_x = part[..., 0] if dx else 1 - part[..., 0]
            weight_y = part[..., 1] if dy else 1 - part[..., 1]
            place = (index[..., 1] + dy) * size + index[..., 0] + dx
            kernels.scatter_add_(1, place, (weight_x * weight_y).double())
    return _normalised(kernels.view(-1, size, size)).float()


def convolve(
    images: Float[Tensor, "b c h w"], kernels: Float[Tensor, "b k k"]
) -> Float[Tensor, "b c h w"]:
    """Each image with its own kernel; borders mirrored, also where the kernel is larger.

    Args:
        images: any number of channels.
        kernels: of odd side, their sum 1, on the device of the images.

    Returns:
        Images of the same size, clipped to [0, 1].
    """
    batch, channels, height, width = images.shape
    radius = kernels.shape[-1] // 2
    if radius == 0:
        return images.clamp(0.0, 1.0)
    padded = reflect(images, radius, radius)
    stacked = padded.reshape(1, batch * channels, *padded.shape[-2:])
    weights = kernels.to(images.dtype).repeat_interleave(channels, dim=0)[:, None]
    out = F.conv2d(stacked, weights, groups=batch * channels)
    return out.view(batch, channels, height, width).clamp_(0.0, 1.0)


def reflect(images: Tensor, vertical: int, horizontal: int) -> Tensor:
    """Mirrors the borders without repeating the edge, as often as the padding needs."""
    height, width = images.shape[-2:]
    if vertical < height and horizontal < width:
        return F.pad(images, (horizontal, horizontal, vertical, vertical), mode="reflect")
    rows = _reflected(height, vertical, images.device)
    columns = _reflected(width, horizontal, images.device)
    return images[..., rows, :][..., columns]


def _reflected(size: int, padding: int, device: torch.device) -> Tensor:
    period = max(2 * (size - 1), 1)
    position = torch.arange(-padding, size + padding, device=device).remainder(period)
    return torch.minimum(position, period - position) if size > 1 else position * 0


def _grid(radius: int) -> Sequence[Float[Tensor, "k k"]]:
    line = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return torch.meshgrid(line, line, indexing="ij")


def _column(values: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1"]:
    return values[:, None, None]


def _normalised(weights: Float[Tensor, "b k k"]) -> Float[Tensor, "b k k"]:
    # Denormal numbers in a kernel make a convolution on a CPU twenty times slower.
    weights = torch.where(weights < 1e-12, 0.0, weights)
    return weights / weights.sum(dim=(1, 2), keepdim=True)
