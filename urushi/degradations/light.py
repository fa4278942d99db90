"""Low light: fewer photons, and the noise that comes to light when there are few."""

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
    noise_field,
    per_image,
    uniform,
)

__all__ = ["LowLight"]

_DISPLAY = 2.2


@dataclass(frozen=True)
class LowLight(Degradation):
    """An under-exposed photograph.

    The picture is brought to linear light (power 2.2), its contrast curved by `gamma`, dimmed by
    `exposure`, tinted, given noise of variance `shot * x + read^2` (the Gaussian limit of photon
    and read-out noise), brought back for display, and in some pictures rounded to 8 bits, which
    in the dark leaves only a handful of levels.

    Reference:
        Lore et al., LLNet, Pattern Recognition 2017 (gamma and noise); Foi et al., Practical
        Poissonian-Gaussian Noise Modeling, TIP 2008 (the noise); Wei et al., RetinexNet, BMVC
        2018 (the LOL pictures beside which the ranges, ours, were set: their mean falls from
        about 115/255 to 15/255).

    Args:
        exposure: factor on linear light, log-uniform; above 0, up to 1.
        gamma: power on linear light before dimming; 0.2 to 5, above 1 darkens shadows more.
        tint: largest relative deviation of a channel, in [0, 0.9].
        shot: variance of the noise per unit of linear light, log-uniform; above 0, up to 1.
        read: deviation of the noise in the dark, in linear light, log-uniform; above 0, up to 1.
        rounding: probability that a picture is rounded to 8 bits.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "low_light"
    reference: ClassVar[str] = "Lore et al., Pattern Recognition 2017; Foi et al., TIP 2008"

    exposure: Range = (0.01, 0.25)
    gamma: Range = (1.0, 1.4)
    tint: Range = (0.0, 0.12)
    shot: Range = (1e-5, 5e-4)
    read: Range = (1e-4, 1.5e-3)
    rounding: float = 0.5

    def __post_init__(self) -> None:
        check_range(self.name, "exposure", self.exposure, 1e-5, 1.0)
        check_range(self.name, "gamma", self.gamma, 0.2, 5.0)
        check_range(self.name, "tint", self.tint, 0.0, 0.9)
        check_range(self.name, "shot", self.shot, 1e-9, 1.0)
        check_range(self.name, "read", self.read, 1e-9, 1.0)
        check_share(self.name, "rounding", self.rounding)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        cast = torch.rand(batch, 3, generator=generator) * 2 - 1
        return {
            "exposure": log_uniform(*self.exposure, batch, generator),
            "gamma": uniform(*self.gamma, batch, generator),
            "tint": 1 + cast * uniform(*self.tint, batch, generator)[:, None],
            "shot": log_uniform(*self.shot, batch, generator),
            "read": log_uniform(*self.read, batch, generator),
            "rounded": coin(self.rounding, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        noise = noise_field(parameters["seed"], images.shape[1:], images.device).to(images.dtype)
        tint = parameters["tint"].to(images)[:, :, None, None]
        # Powers of zero have an infinite slope, which matters to whoever differentiates this.
        linear = images.clamp(1e-6, 1).pow(_DISPLAY * per_image(parameters["gamma"], images))
        linear = linear * tint * per_image(parameters["exposure"], images)
        variance = per_image(parameters["shot"], images) * linear
        variance = variance + per_image(parameters["read"], images).square()
        dim = (linear + variance.sqrt() * noise).clamp(1e-9, 1).pow(1 / _DISPLAY)
        rounded = per_image(parameters["rounded"], images)
        return torch.where(rounded, (dim * 255).round() / 255, dim).clamp(0, 1)
