"""Other haze over real pairs, or theirs over other scenes: a pair tells its transmission."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
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

__all__ = ["Rehaze", "airlight_of", "transmission_of"]

# Sides of the windows in which one transmission is taken to hold: for the airlight, and for itself.
_WIDE, _NARROW = 9, 5
# Windows count for the airlight where they have contrast (as a variance) and that much haze.
_CONTRAST, _HAZE = 1e-3, 0.1
# A pair of haze has windows that count on at least this share of its pixels.
_KNOWN = 0.01


def airlight_of(
    hazy: Float[Tensor, "b 3 h w"], clean: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 1 1 1"]:
    """The airlight A of pairs that follow `I = J t + A (1 - t)`.

    Within a window I is a line of J, whose slope is t and whose offset is `A (1 - t)`. A is the
    median over the windows that have both contrast and haze; NaN where hardly any has, and where
    the median leaves [0.3, 1.3].

    Args:
        hazy: I, in [0, 1].
        clean: J, in [0, 1].
    """

    def mean(values: Tensor) -> Tensor:
        return _mean(values.mean(1, keepdim=True), _WIDE)

    first, second = mean(clean), mean(hazy)
    variance = mean(clean * clean) - first * first
    slope = (mean(clean * hazy) - first * second) / (variance + 1e-5)
    known = (variance > _CONTRAST) & (slope > 0.02) & (slope < 1 - _HAZE)
    offset = (second - slope * first) / (1 - slope).clamp_min(_HAZE)
    found = torch.where(known, offset, torch.nan).flatten(1).nanmedian(1).values
    well = (known.flatten(1).float().mean(1) >= _KNOWN) & (found >= 0.3) & (found <= 1.3)
    return torch.where(well, found, torch.nan)[:, None, None, None]


def transmission_of(
    hazy: Float[Tensor, "b 3 h w"],
    clean: Float[Tensor, "b 3 h w"],
    airlight: Float[Tensor, "b 1 1 1"],
) -> Float[Tensor, "b 1 h w"]:
    """The transmission t of pairs, by least squares over small windows; in [0.01, 1].

    Where a scene is as bright as the airlight nothing can be told, nor seen: t is a half there.
    """
    far = airlight - clean
    above = _mean(((airlight - hazy) * far).mean(1, keepdim=True), _NARROW)
    below = _mean((far * far).mean(1, keepdim=True), _NARROW)
    return ((above + 1e-4) / (below + 2e-4)).clamp(0.01, 1)


@dataclass(frozen=True)
class Rehaze:
    """Lays haze of another density and brightness over pairs of a hazy and a clear picture.

    A pair tells the transmission of its scene. Its power is what another density of the same haze
    over the same depths would let through, as `t = exp(-beta d)`. So a few scenes give any number
    of pairs, with depth that no single picture has; tones and order of the channels are varied too,
    by which a scene's own colours tell nothing about its haze. Pairs that do not show haze stay.
    The same transmission can be laid over another clear picture, whose depth it does not follow: a
    few scenes have few colours and things, and what haze does to contrast holds for all.

    Reference:
        The model is that of `Haze`; that real pairs give it is our own idea.

    Args:
        power: of the transmission, log-uniform; 0.05 to 20, above 1 is denser.
        airlight: brightness of the haze in a share `other` of the pairs, in [0, 1]; elsewhere it is
            the pair's own.
        other: that share, in [0, 1].
        gamma: power on display values of half of the clear pictures, log-uniform; 0.2 to 5.
        reversed_share: of the pairs whose channels are put in the opposite order.
        elsewhere: share of the pairs whose haze is laid over another scene, where there are any.

    Raises:
        DegradationError: a range is reversed or leaves its bounds.
    """

    power: Range = (0.45, 2.2)
    airlight: Range = (0.8, 1.0)
    other: float | int = 0.3
    gamma: Range = (0.66, 1.5)
    reversed_share: float | int = 0.3
    elsewhere: float | int = 0.0

    def __post_init__(self) -> None:
        check_range("rehaze", "power", self.power, 0.05, 20.0)
        check_range("rehaze", "airlight", self.airlight, 0.0, 1.0)
        check_share("rehaze", "other", self.other)
        check_range("rehaze", "gamma", self.gamma, 0.2, 5.0)
        check_share("rehaze", "reversed_share", self.reversed_share)
        check_share("rehaze", "elsewhere", self.elsewhere)

    def sample(self, batch: int, generator: torch.Generator) -> Parameters:
        """Draw what `apply` needs for a batch of pairs; see `Degradation.sample`."""
        toned = coin(0.5, batch, generator)
        return {
            "power": log_uniform(*self.power, batch, generator),
            "airlight": uniform(*self.airlight, batch, generator),
            "other": coin(self.other, batch, generator),
            "gamma": torch.where(toned, log_uniform(*self.gamma, batch, generator), 1.0),
            "reversed": coin(self.reversed_share, batch, generator),
            "elsewhere": coin(self.elsewhere, batch, generator),
        }

    def apply(
        self,
        hazy: Float[Tensor, "b 3 h w"],
        clean: Float[Tensor, "b 3 h w"],
        parameters: Parameters,
        scenes: Float[Tensor, "b 3 h w"] | None = None,
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]:
        """The pairs in other haze; no randomness in here.

        Args:
            hazy: in [0, 1], on any device.
            clean: the same scenes without haze.
            parameters: what `sample` drew; a slice of its rows goes with the same slice of pairs.
            scenes: other clear pictures in [0, 1], one for each pair, for the share `elsewhere`;
                None lays all haze over the pairs' own.

        Returns:
            Hazy and clear pictures.
        """
        drawn = {name: per_image(values, hazy) for name, values in parameters.items()}
        own = airlight_of(hazy, clean)
        shows = own.isfinite()
        own = torch.where(shows, own, torch.ones_like(own))
        through = transmission_of(hazy, clean, own) ** drawn["power"]
        # Powers of zero have an infinite slope; nothing darker than this can be seen.
        scene = clean
        if scenes is not None:
            scene = torch.where(drawn["elsewhere"], scenes, scene)
        scene = torch.where(drawn["reversed"], scene.flip(1), scene)
        scene = scene.clamp_min(1e-4) ** drawn["gamma"]
        light = torch.where(drawn["other"], drawn["airlight"], own)
        other = (light + through * (scene - light)).clamp(0, 1)
        return torch.where(shows, other, hazy), torch.where(shows, scene, clean)


def _mean(values: Float[Tensor, "b 1 h w"], side: int) -> Float[Tensor, "b 1 h w"]:
    return F.avg_pool2d(values, side, 1, side // 2, count_include_pad=False)
