"""Fading of colour prints and slides: dyes that go, each at its own pace, and yellow paper."""

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
    per_image,
    uniform,
)
from urushi.degradations.fields import smooth_field

__all__ = ["Fading"]

_DISPLAY = 2.2
# Light that even the blackest part of a print gives back; densities are of light above none at all.
_LEAST = 10.0**-2.4


@dataclass(frozen=True)
class Fading(Degradation):
    """A faded colour photograph, in densities of its dyes.

    Cyan, magenta and yellow dye hold back red, green and blue, and each a little of the other two.
    Densities `-log10` of linear light are so parted into dyes; every dye loses a share of its own,
    one of them most, and what is left makes the picture again. So contrast falls, blacks turn brown
    or blue, and colours turn towards those of the dyes that stay: in the dark cyan goes first, and
    the picture reddens; in the light magenta or yellow. The paper yellows, the whole more in some
    places than in others, and light that the surface scatters lifts the blacks.

    Reference:
        Gschwind and Frey, Electronic imaging, a tool for the reconstruction of faded color
        photographs, Journal of Imaging Science and Technology 1994 (fading is linear in densities
        of dyes; side absorptions); Wilhelm and Brower, The Permanence and Care of Color
        Photographs, 1993 (which dyes go). The ranges are ours, set beside old prints.

    Args:
        loss: share that the dye loses that fades most, in [0, 0.95].
        others: what the other two lose, as a share of that, in [0, 1].
        side: density of a dye in each of the other colours, as a share of its own, in [0, 0.4].
        stain: density of yellow stain in blue, in [0, 1]; in green a third of it.
        uneven: relative deviation of all of that over the picture, in [0, 1].
        flare: light scattered over everything, in [0, 0.3] of white.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    name: ClassVar[str] = "fading"
    reference: ClassVar[str] = "Gschwind and Frey, J. Imaging Sci. Technol. 1994; ranges ours"

    loss: Range = (0.15, 0.7)
    others: Range = (0.1, 0.8)
    side: Range = (0.05, 0.25)
    stain: Range = (0.0, 0.25)
    uneven: Range = (0.0, 0.3)
    flare: Range = (0.0, 0.05)

    def __post_init__(self) -> None:
        check_range(self.name, "loss", self.loss, 0.0, 0.95)
        check_range(self.name, "others", self.others, 0.0, 1.0)
        check_range(self.name, "side", self.side, 0.0, 0.4)
        check_range(self.name, "stain", self.stain, 0.0, 1.0)
        check_range(self.name, "uneven", self.uneven, 0.0, 1.0)
        check_range(self.name, "flare", self.flare, 0.0, 0.3)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        most = torch.randint(3, (batch, 1), generator=generator)
        share = uniform(*self.others, 3 * batch, generator).view(batch, 3)
        share = share.scatter(1, most, 1.0)
        return {
            "loss": share * uniform(*self.loss, batch, generator)[:, None],
            "side": uniform(*self.side, batch, generator),
            "stain": uniform(*self.stain, batch, generator),
            "uneven": uniform(*self.uneven, batch, generator),
            "flare": uniform(*self.flare, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        size = (images.shape[2], images.shape[3])
        device, dtype = images.device, images.dtype
        side = parameters["side"].to(device, dtype)[:, None, None]
        own = torch.eye(3, device=device, dtype=dtype)
        # Rows: what each dye holds back of a colour; the inverse parts colours into dyes.
        dyes = own + side * (1 - own)
        parted = _inverse(side[:, 0, 0])
        # Powers of zero have an infinite slope, which matters to whoever differentiates this.
        light = images.clamp(1e-6, 1).pow(_DISPLAY)
        density = -((light + _LEAST) / (1 + _LEAST)).log10()
        amount = torch.einsum("bij,bjhw->bihw", parted, density)
        place = smooth_field(parameters["seed"], size, 2, device).to(dtype)
        place = (1 + per_image(parameters["uneven"], images) * place).clamp_min(0)
        loss = parameters["loss"].to(device, dtype)[:, :, None, None]
        amount = amount * (1 - (loss * place).clamp(max=0.98))
        density = torch.einsum("bij,bjhw->bihw", dyes, amount)
        yellow = torch.tensor((0.05, 0.33, 1.0), device=device, dtype=dtype).view(3, 1, 1)
        density = density + yellow * per_image(parameters["stain"], images) * place
        light = (10.0 ** (-density) * (1 + _LEAST) - _LEAST).clamp(1e-12, 1)
        flare = per_image(parameters["flare"], images)
        light = flare + (1 - flare) * light
        return light.pow(1 / _DISPLAY).clamp(0, 1)


def _inverse(side: Float[Tensor, " b"]) -> Float[Tensor, "b 3 3"]:
    """The inverse of the matrix with ones on its diagonal and `side` beside, by formula.

    That matrix is `(1 - s) I + s J`, J of ones, with the inverse `(I - s J / (1 + 2 s)) / (1 - s)`.
    """
    own = torch.eye(3, device=side.device, dtype=side.dtype)
    side = side[:, None, None]
    return (own - side / (1 + 2 * side)) / (1 - side)
