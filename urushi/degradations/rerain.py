"""Other rain over real pairs, or theirs over other scenes: a pair of added rain tells its rain."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from urushi.degradations.base import (
    Parameters,
    Range,
    check_range,
    check_share,
    coin,
    log_uniform,
    per_image,
    uniform,
)

__all__ = ["Rerain", "rain_of"]

# A channel that is this bright may be burnt out: what was added to it is not known.
_BURNT = 250 / 255
# Where more than this share of a patch is burnt out, its rain shows more of its scene than of rain.
_MOST_BURNT = 0.2
# What is added to the channels of a pair of rain differs by no more than this, but on few pixels.
_GREY, _MOST_COLOURED = 0.02, 0.02


def rain_of(
    rainy: Float[Tensor, "b 3 h w"], clean: Float[Tensor, "b 3 h w"]
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
    """The rain that was added to pairs of `min(1, J + r)`, with r the same in all channels.

    Args:
        rainy: in [0, 1].
        clean: J, in [0, 1].

    Returns:
        r, or the least that it can be where all channels are burnt out; the share of the pixels
        that are; and that of the others on which the channels tell different rain, or less than
        none.
    """
    added = rainy - clean
    rain = added.amax(1, keepdim=True).clamp_min(0)
    known = (rainy < _BURNT).float()
    burnt = 1 - known.amax(1, keepdim=True)
    off = ((added - rain).abs() * known).amax(1, keepdim=True) > _GREY
    return rain, burnt.mean((1, 2, 3), keepdim=True), off.float().mean((1, 2, 3), keepdim=True)


@dataclass(frozen=True)
class Rerain:
    """Lays the rain of pairs over other scenes, and makes it lighter.

    Pairs of few scenes teach their scenes beside their rain. Where rain was added to a clear
    picture, and to all channels alike, the difference is the rain; so a few pairs give any number
    of others. Lighter rain is the same with less of it: weak streaks fall away, and the others
    are dimmed. Pairs of another kind stay as they are.

    Reference:
        The model is that of Rain100H (Yang et al., CVPR 2017); that pairs give their rain away is
        plain arithmetic.

    Args:
        lighter: share of the pairs whose rain is made lighter, in [0, 1].
        strength: factor of the rain in these, log-uniform; 0.05 to 1.
        thin: what is taken off the rain before that, in [0, 1].
        elsewhere: share of the pairs whose rain is laid over another scene, where there are any.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    lighter: float | int = 0.4
    strength: Range = (0.3, 1.0)
    thin: Range = (0.0, 0.5)
    elsewhere: float | int = 0.6

    def __post_init__(self) -> None:
        check_share("rerain", "lighter", self.lighter)
        check_range("rerain", "strength", self.strength, 0.05, 1.0)
        check_range("rerain", "thin", self.thin, 0.0, 1.0)
        check_share("rerain", "elsewhere", self.elsewhere)

    def sample(self, batch: int, generator: torch.Generator) -> Parameters:
        """Draw what `apply` needs for a batch of pairs; see `Degradation.sample`."""
        lighter = coin(self.lighter, batch, generator)
        strength = log_uniform(*self.strength, batch, generator)
        return {
            "strength": torch.where(lighter, strength, 1.0),
            "thin": torch.where(lighter, uniform(*self.thin, batch, generator), 0.0),
            "elsewhere": coin(self.elsewhere, batch, generator),
        }

    def apply(
        self,
        rainy: Float[Tensor, "b 3 h w"],
        clean: Float[Tensor, "b 3 h w"],
        parameters: Parameters,
        scenes: Float[Tensor, "b 3 h w"] | None = None,
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]:
        """The pairs with other rain or another scene; no randomness in here.

        Args:
            rainy: in [0, 1], on any device.
            clean: the same scenes without rain.
            parameters: what `sample` drew; a slice of its rows goes with the same slice of pairs.
            scenes: other clear pictures in [0, 1], one for each pair, for the share `elsewhere`;
                None leaves every pair its own.

        Returns:
            Rainy and clear pictures.
        """
        drawn = {name: per_image(values, rainy) for name, values in parameters.items()}
        rain, burnt, off = rain_of(rainy, clean)
        shows = off <= _MOST_COLOURED
        scene = clean
        if scenes is not None:
            scene = torch.where(drawn["elsewhere"] & shows & (burnt <= _MOST_BURNT), scenes, clean)
        other = (scene + (rain - drawn["thin"]).clamp_min(0) * drawn["strength"]).clamp(0, 1)
        return torch.where(shows, other, rainy), scene
