"""Numbers that the pixels of a view tell at once: its tones, and how its bright detail is drawn.

An image classifier looks past light and contrast, which it has learnt to do without; but haze
lifts the darkest tones, darkness pulls the brightest down, and what falls is drawn in lines (rain)
or in dots (snow). These are counted here, by formula, beside what the classifier sees.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["DETAIL", "TONES", "detail", "tones"]

_LUMA = (0.299, 0.587, 0.114)
_CELL = 4  # pixels averaged, so that noise is no tone
_PATCH = 3  # cells of which the darkest counts
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_FEW = (0.05, 0.5, 0.95)
_FLOOR = 1e-3

# Half of the circle in eight steps, as far as whole pixels go.
_WAYS = ((0, 4), (2, 4), (3, 3), (4, 2), (4, 0), (4, -2), (3, -3), (2, -4))
_FARTHER = 2  # times that, once more
_AROUND = 9  # pixels of whose mean a pixel is told apart

TONES = 2 * len(_QUANTILES) + 4 * len(_FEW) + 2
"""How many numbers `tones` gives."""
DETAIL = 2 * 2 * len(_WAYS) + 3
"""How many numbers `detail` gives."""


def tones(views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
    """Quantiles of brightness, of the dark channel, of colour and of contrast, and the mean colour.

    The dark channel is the darkest channel of the darkest place of a patch (He, Sun, Tang: "Single
    image haze removal using dark channel prior", CVPR 2009): near 0 in clear air, and as bright as
    the haze where there is haze.
    """
    cells = F.avg_pool2d(views, _CELL)
    luma = _luma(cells)
    darkest, brightest = cells.amin(1, keepdim=True), cells.amax(1, keepdim=True)
    dark = -F.max_pool2d(-darkest, _PATCH)
    colour = (brightest - darkest) / (brightest + 0.05)
    around = F.avg_pool2d(luma, _PATCH)
    square = F.avg_pool2d(luma.square(), _PATCH) - around.square()
    contrast = (square.clamp_min(0).sqrt() + _FLOOR).log()
    mean = views.mean((2, 3))
    found = [_quantiles(luma, _QUANTILES), _quantiles(dark, _QUANTILES)]
    found += [_quantiles(plane, _FEW) for plane in (brightest, colour, contrast)]
    found.append(_quantiles((contrast - (around + 0.02).log()), _FEW))
    return torch.cat([*found, mean[:, :1] - mean[:, 1:2], mean[:, 2:] - mean[:, 1:2]], 1)


def detail(views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
    """How far detail that is brighter, or darker, than its surroundings is like itself further on.

    Correlations with itself a few pixels away, in eight ways and at two distances. What is drawn in
    lines is like itself along them only; what is drawn in dots alike in all ways. Besides, how much
    more bright detail there is than dark, and how rare the strongest of both is.
    """
    luma = _luma(views)
    rest = luma - F.avg_pool2d(luma, _AROUND, 1, _AROUND // 2, count_include_pad=False)
    found, powers, rarities = [], [], []
    for side in (rest.clamp_min(0), (-rest).clamp_min(0)):
        power = side.square().mean((1, 2, 3))[:, None]
        powers.append((power + _FLOOR**2).log())
        rarities.append((side.mean((1, 2, 3))[:, None].square() + _FLOOR**2).log() - powers[-1])
        for times in (1, _FARTHER):
            for down, right in _WAYS:
                product = _shifted(side, times * down, times * right)
                found.append(product / (power + _FLOOR**2))
    return torch.cat([*found, powers[0] - powers[1], *rarities], 1)


def _shifted(side: Float[Tensor, "n 1 h w"], down: int, right: int) -> Float[Tensor, "n 1"]:
    """The mean product of a plane with itself, so many pixels below and to the right."""
    height, width = side.shape[-2:]
    first = side[..., : height - down, max(0, -right) : width - max(0, right)]
    second = side[..., down:, max(0, right) : width - max(0, -right)]
    return (first * second).mean((1, 2, 3))[:, None]


def _luma(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    weights = images.new_tensor(_LUMA).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _quantiles(plane: Float[Tensor, "n 1 h w"], shares: tuple[float, ...]) -> Float[Tensor, "n k"]:
    ordered = plane.flatten(1).sort(1).values
    last = ordered.shape[1] - 1
    return torch.stack([ordered[:, round(share * last)] for share in shares], 1)
