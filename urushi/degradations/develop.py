"""How a picture was developed: tones, colours and sharpening, as cameras and people choose them."""

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
    log_uniform,
    per_image,
    uniform,
)
from urushi.degradations.fields import blur

__all__ = ["Develop"]

# Weights of the primaries of sRGB in luminance (IEC 61966-2-1).
_LUMINANCE = (0.2126, 0.7152, 0.0722)


@dataclass(frozen=True)
class Develop(Degradation):
    """Brightness, contrast, saturation, white balance and sharpening, none of which is damage.

    One after another: each channel times the white balance, the power `gamma`, contrast about
    middle grey, saturation about the luminance, and an unsharp mask. What has to tell kinds of
    damage apart must not go by how a photograph was developed, nor by a data set's style.

    Reference:
        The idea is domain randomisation (Tobin et al., IROS 2017). The operations are those of any
        raw converter, the ranges ours.

    Args:
        gamma: power on display values, log-uniform; 0.2 to 5, below 1 brightens.
        contrast: factor on the distance from middle grey (0.5), log-uniform; 0.1 to 10.
        saturation: factor on the distance from the luminance; 0 (grey) to 5.
        balance: greatest relative deviation of a channel, in [0, 0.9].
        sharpness: share of what a 3x3 mean takes away that is added; 0 to 5.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "develop"
    reference: ClassVar[str] = "domain randomisation: Tobin et al., IROS 2017; ranges ours"

    gamma: Range = (0.6, 1.5)
    contrast: Range = (0.7, 1.3)
    saturation: Range = (0.4, 1.5)
    balance: Range = (0.0, 0.12)
    sharpness: Range = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_range(self.name, "gamma", self.gamma, 0.2, 5.0)
        check_range(self.name, "contrast", self.contrast, 0.1, 10.0)
        check_range(self.name, "saturation", self.saturation, 0.0, 5.0)
        check_range(self.name, "balance", self.balance, 0.0, 0.9)
        check_range(self.name, "sharpness", self.sharpness, 0.0, 5.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        cast = torch.rand(batch, 3, generator=generator) * 2 - 1
        return {
            "balance": 1 + cast * uniform(*self.balance, batch, generator)[:, None],
            "gamma": log_uniform(*self.gamma, batch, generator),
            "contrast": log_uniform(*self.contrast, batch, generator),
            "saturation": uniform(*self.saturation, batch, generator),
            "sharpness": uniform(*self.sharpness, batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        balance = parameters["balance"].to(images)[:, :, None, None]
        # Powers of zero have an infinite slope, which matters to whoever differentiates this.
        toned = (images * balance).clamp(1e-6, 1).pow(per_image(parameters["gamma"], images))
        toned = 0.5 + (toned - 0.5) * per_image(parameters["contrast"], images)
        weights = torch.tensor(_LUMINANCE).to(images)[:, None, None]
        grey = (toned * weights).sum(1, keepdim=True)
        toned = (grey + (toned - grey) * per_image(parameters["saturation"], images)).clamp(0, 1)
        fine = toned - blur(toned, 1, passes=1)
        return (toned + per_image(parameters["sharpness"], images) * fine).clamp(0, 1)
