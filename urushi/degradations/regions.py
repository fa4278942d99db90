"""Pictures whose regions went through different degradations.

A photograph is not noisy or blurred as a whole: its background is out of focus, its shadows are
noisy, what moves is smeared. Trained on such pictures a network has to tell degradations by place.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
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
    uniform,
)
from urushi.degradations.chain import Chain
from urushi.degradations.fields import smooth_field

# Cells of the field whose hills are the blobs, along the longer side.
_CELLS = 3
# Blobs fade over about this share of the field's range.
_SOFTNESS = 0.06
CELL = 8  # pixels of a cell of `Regions.applied`


@dataclass(frozen=True)
class Regions(Degradation):
    """Degrades a picture twice, independently, and takes a region from the second.

    Args:
        degradation: what spoils both; keeps the size.
        share: of pictures that have a region; the others are degraded once.
        blobs: share of those whose region is made of blobs with soft edges; the others have a
            rectangle with hard ones.
        area: of the region, as a share of the picture, uniform; within [0.01, 0.99].

    Raises:
        DegradationError: a range or share is not one, or the degradation changes the size.
    """

    degradation: Degradation
    share: float | int = 0.5
    blobs: float | int = 0.5
    area: Range = (0.15, 0.5)

    name: ClassVar[str] = "regions"
    reference: ClassVar[str] = (
        "CutMix of degradations within a picture: ABAIR, arXiv 2411.18412; blobs and ranges ours"
    )

    def __post_init__(self) -> None:
        check_share("Regions", "share", self.share)
        check_share("Regions", "blobs", self.blobs)
        check_range("Regions", "area", self.area, 0.01, 0.99)

    @property
    def scale(self) -> int:
        """See `Degradation.scale`."""
        return self.degradation.scale

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        parameters: Parameters = {
            "mixed": coin(self.share, batch, generator),
            "blob": coin(self.blobs, batch, generator),
            "area": uniform(*self.area, batch, generator),
            # Twice as wide as high, to the reverse.
            "aspect": uniform(-0.7, 0.7, batch, generator).exp(),
            "top": uniform(0.0, 1.0, batch, generator),
            "left": uniform(0.0, 1.0, batch, generator),
            "seed": draw_seeds(batch, generator),
        }
        for which in ("first", "second"):
            drawn = self.degradation.sample(batch_shape, generator)
            parameters |= {f"{which}.{name}": values for name, values in drawn.items()}
        return parameters

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        result = self.degradation.apply(images, _part(parameters, "first"))
        rows = parameters["mixed"].cpu().nonzero()[:, 0]
        if len(rows) == 0:
            return result
        chosen = {name: values[rows] for name, values in parameters.items()}
        rows = rows.to(images.device)
        second = self.degradation.apply(images[rows], _part(chosen, "second"))
        mask = self._mask(chosen, images.shape[-2:], images.device).to(images.dtype)
        result[rows] = torch.lerp(result[rows], second, mask)
        return result

    def applied(
        self, parameters: Parameters, size: tuple[int, int]
    ) -> Float[Tensor, "b steps rows columns"]:
        """Which steps of the chain each cell of 8 x 8 pixels went through, as shares in [0, 1].

        Args:
            parameters: as `sample` drew them.
            size: height and width of the pictures in pixels.
        """
        chain = self.degradation
        assert isinstance(chain, Chain), "only a chain has steps"
        first, second = (
            chain.applied(_part(parameters, which)).float()[:, :, None, None]
            for which in ("first", "second")
        )
        mask = self._mask(parameters, size, torch.device("cpu"))
        mask = F.avg_pool2d(mask * parameters["mixed"].view(-1, 1, 1, 1), CELL, ceil_mode=True)
        return torch.lerp(first, second, mask)

    def _mask(
        self, parameters: Parameters, size: torch.Size | tuple[int, int], device: torch.device
    ) -> Float[Tensor, "b 1 h w"]:
        """1 within the region, 0 outside."""
        height, width = size
        blob = parameters["blob"].to(device).view(-1, 1, 1, 1)
        return torch.where(
            blob,
            _blobs(parameters, (height, width), device),
            _rectangles(parameters, (height, width), device).float(),
        )


def _part(parameters: Parameters, which: str) -> Parameters:
    prefix = f"{which}."
    return {k.removeprefix(prefix): v for k, v in parameters.items() if k.startswith(prefix)}


def _rectangles(
    parameters: Parameters, size: tuple[int, int], device: torch.device
) -> Bool[Tensor, "b 1 h w"]:
    side = parameters["area"].sqrt()
    inside = []
    for axis, (length, place, stretch) in enumerate(
        zip(size, ("top", "left"), (1 / parameters["aspect"], parameters["aspect"]), strict=True)
    ):
        extent = (side * stretch.sqrt()).clamp(max=0.95)
        start = parameters[place] * (1 - extent)
        # The middles of pixels, as shares of the side.
        position = (torch.arange(length, device=device) + 0.5) / length
        begin, end = (v.to(device)[:, None] for v in (start, start + extent))
        line = (position >= begin) & (position < end)
        inside.append(line[:, None, :, None] if axis == 0 else line[:, None, None, :])
    return inside[0] & inside[1]


def _blobs(
    parameters: Parameters, size: tuple[int, int], device: torch.device
) -> Float[Tensor, "b 1 h w"]:
    field = smooth_field(parameters["seed"], size, _CELLS, device)
    # The level above which as much of the field lies as is wanted.
    ordered = field.flatten(1).sort(1).values
    last = ordered.shape[1] - 1
    index = ((1 - parameters["area"].to(device)) * last).long()
    level = ordered.gather(1, index[:, None]).view(-1, 1, 1, 1)
    return ((field - level) / _SOFTNESS).sigmoid()
