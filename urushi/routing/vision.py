"""An encoder that reads the features of an image classifier.

What people call rain, haze or a good photograph of wet stones is told by what a picture shows as
much as by its texture, and a few hundred labelled photographs do not teach that. A network that has
learnt to name things knows it: LoRA-IR (arXiv 2410.15385) reads a CLIP for the same reason. This
one reads the first stages of an EfficientNet-Lite0, which fit into 5 MB.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from urushi.files.router_file import VisionFacts
from urushi.routing.efficientnet import CHANNELS, EfficientNetLite0
from urushi.routing.encoder import FrozenEncoder, Reading, blockiness
from urushi.routing.tones import DETAIL, TONES, detail, tones

__all__ = ["VisionEncoder", "roughness"]

_LUMA = (0.299, 0.587, 0.114)
_CELL = 12
_SHARES = (0.02, 0.1, 0.3, 0.6)
_FLOOR = 1e-4  # below a step of 8 bits
_EVEN = 5e-5


class VisionEncoder(FrozenEncoder):
    """What the stages of a classifier, and its pixels, say of a view.

    The network is frozen. Projected are mean, spread and maximum of every channel of the stages
    that are read, the blockiness of the view (`urushi.routing.encoder`) and its roughness; where
    the facts say so, its tones and detail (`urushi.routing.tones`).

    Args:
        facts: the stages, and the numbers of an embedding.
    """

    def __init__(self, facts: VisionFacts) -> None:
        read = sum(3 * CHANNELS[stage - 1] for stage in facts.read)
        own = 2 + 3 * len(_SHARES) + 1 + (TONES + DETAIL if facts.tones else 0)
        super().__init__(read + own, facts.width)
        self._facts = facts
        self.network = EfficientNetLite0(facts.read[-1]).requires_grad_(False)

    @property
    def facts(self) -> VisionFacts:
        """What a router file says about this encoder."""
        return self._facts

    def read(self, views: Float[Tensor, "n 3 s s"]) -> Reading:
        """What is learnt from, not standardised; without gradients."""
        with torch.no_grad():
            stages = self.network(views)
            found = [blockiness(views), roughness(views)]
            if self._facts.tones:
                found += [tones(views), detail(views)]
            for stage in self._facts.read:
                features = stages[stage - 1].float()
                mean = features.mean((2, 3))
                deviation = features - mean[..., None, None]
                spread = deviation.square().mean((2, 3)).sqrt()
                found += [mean, spread, features.amax((2, 3))]
            return Reading(torch.cat(found, 1), None)


def roughness(views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 13"]:
    """How rough the smoothest, and the other, parts of a view are.

    Noise is in all parts, the smoothest too; texture is not. Logarithms of four quantiles, over
    cells of 12 pixels, of the mean absolute response to Immerkaer's noise filter ("Fast noise
    variance estimation", CVIU 64(2), 1996), of luma and of two colour differences; and the share
    of cells that are exactly even.
    """
    weights = views.new_tensor(_LUMA).view(1, 3, 1, 1)
    luma = (views * weights).sum(1, keepdim=True)
    planes = torch.cat([luma, views[:, :1] - views[:, 1:2], views[:, 2:] - views[:, 1:2]], 1)
    line = views.new_tensor([1.0, -2.0, 1.0])
    kernel = (line[:, None] * line[None]).expand(3, 1, 3, 3) / 6
    cells = F.avg_pool2d(F.conv2d(planes, kernel, groups=3).abs(), _CELL).flatten(2)
    ordered = cells.sort(2).values
    last = cells.shape[2] - 1
    quantiles = [ordered[..., round(share * last)] for share in _SHARES]
    even = (cells[:, 0] < _EVEN).to(views).mean(1, keepdim=True)
    return torch.cat([(torch.cat(quantiles, 1) + _FLOOR).log(), even], 1)
