"""Noise of cameras: made on the sensor, and no longer white when the picture is finished."""

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
    noise_field,
    per_image,
    uniform,
)

__all__ = ["CameraNoise"]

_DISPLAY = 2.2
# Read noise grows with shot noise: log variance = 2.18 log(shot) + 1.20 +- 0.26 (Brooks et al.).
_SLOPE, _OFFSET, _SCATTER = 2.18, 1.20, 0.26


@dataclass(frozen=True)
class CameraNoise(Degradation):
    """Shot and read noise of a Bayer sensor, as it looks in a finished picture.

    In linear light (power 2.2) a sensor element has noise of variance `shot * x + read`. Red and
    blue are amplified for white balance, the missing colours of every pixel are interpolated from
    its neighbours, and the camera smooths what it gets: so the noise is correlated over a few
    pixels and between channels, coarse in red and blue, and strong in the shadows of the displayed
    picture. The picture itself is not interpolated: it stays as sharp as it is.

    Reference:
        Brooks et al., Unprocessing Images for Learned Raw Denoising, CVPR 2019 (the noise model,
        the ranges of shot noise, read noise by shot noise, and gains of red and blue from 1.5 to
        2.4); Guo et al., Toward Convolutional Blind Denoising of Real Photographs (CBDNet), CVPR
        2019 (that demosaicing makes noise correlated). `smoothing` is ours.

    Args:
        shot: variance per unit of linear light, log-uniform; above 0, up to 1.
        gain: of red and of blue for white balance, each by itself; 1 to 8.
        smoothing: weight of each neighbour in the smoothing of the noise, across and down; 0 to
            1/3, where three pixels count equally.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "camera_noise"
    reference: ClassVar[str] = "Brooks et al., CVPR 2019; Guo et al., CVPR 2019"

    shot: Range = (1e-4, 1.2e-2)
    gain: Range = (1.2, 2.4)
    smoothing: Range = (0.0, 0.33)

    def __post_init__(self) -> None:
        check_range(self.name, "shot", self.shot, 1e-9, 1.0)
        check_range(self.name, "gain", self.gain, 1.0, 8.0)
        check_range(self.name, "smoothing", self.smoothing, 0.0, 1 / 3)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        shot = log_uniform(*self.shot, batch, generator)
        scatter = torch.randn(batch, generator=generator) * _SCATTER
        return {
            "shot": shot,
            "read": torch.exp(_SLOPE * shot.log() + _OFFSET + scatter),
            "red": uniform(*self.gain, batch, generator),
            "blue": uniform(*self.gain, batch, generator),
            "smoothing": uniform(*self.smoothing, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        # Powers of zero have an infinite slope, which matters to whoever differentiates this.
        linear = images.clamp(1e-6, 1).pow(_DISPLAY)
        one = torch.ones_like(parameters["red"])
        gains = torch.stack([parameters["red"], one, parameters["blue"]], 1)
        gains = gains.to(images)[:, :, None, None]
        # On the sensor, before white balance, red and blue are darker by their gains.
        shot, read = (per_image(parameters[name], images) for name in ("shot", "read"))
        deviation = gains * (shot * linear / gains + read).sqrt()
        shape = (1, *images.shape[2:])
        field = noise_field(parameters["seed"], shape, images.device).to(images.dtype)
        noise = _demosaiced(field * deviation)
        noise = _smoothed(noise, per_image(parameters["smoothing"], images))
        return (linear + noise).clamp(1e-9, 1).pow(1 / _DISPLAY).clamp(0, 1)


def _demosaiced(mosaic: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Keeps of each channel what a Bayer sensor has of it, and interpolates the rest bilinearly."""
    height, width = mosaic.shape[2:]
    rows = torch.arange(height, device=mosaic.device)[:, None] % 2
    cols = torch.arange(width, device=mosaic.device)[None] % 2
    there = torch.stack([(rows == 0) & (cols == 0), rows != cols, (rows == 1) & (cols == 1)])
    sparse = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 4
    dense = torch.tensor([[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]]) / 4
    kernels = torch.stack([sparse, dense, sparse])[:, None].to(mosaic)
    return F.conv2d(_padded(mosaic * there), kernels, groups=3)


def _smoothed(
    noise: Float[Tensor, "b 3 h w"], side: Float[Tensor, "b 1 1 1"]
) -> Float[Tensor, "b 3 h w"]:
    """Three taps across and three down, with as much noise as before where it was white."""
    padded = _padded(noise)
    across = side * (padded[..., :-2] + padded[..., 2:]) + (1 - 2 * side) * padded[..., 1:-1]
    down = side * (across[..., :-2, :] + across[..., 2:, :]) + (1 - 2 * side) * across[..., 1:-1, :]
    return down / (2 * side.square() + (1 - 2 * side).square())


def _padded(images: Tensor) -> Tensor:
    # Reflection about the border pixel keeps the phase of the mosaic.
    how = "reflect" if min(images.shape[2:]) > 1 else "replicate"
    return F.pad(images, (1, 1, 1, 1), mode=how)
