"""Holes: parts of the picture that are lost and have to be painted in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from urushi.degradations.base import (
    Degradation,
    Parameters,
    Range,
    check_range,
    choice,
    draw_seeds,
    log_uniform,
    uniform_field,
)
from urushi.degradations.fields import smooth_field
from urushi.degradations.streaks import streak_field
from urushi.errors import DegradationError

__all__ = ["FILLS", "KINDS", "Holes"]

FILLS = ("black", "white", "mean")
"""What stands in a hole: 0, 1, or the mean colour of what is left of the picture."""

# A maker gets the seeds, shares and thicknesses of its pictures, and the size and device.
_Maker = Callable[[Tensor, Tensor, Tensor, tuple[int, int], torch.device], Tensor]


def _scratches(
    seeds: Int64[Tensor, " n"],
    share: Float[Tensor, " n"],
    thickness: Float[Tensor, " n"],
    size: tuple[int, int],
    device: torch.device,
) -> Bool[Tensor, "n 1 h w"]:
    """Straight thin lines in six random directions, a third of the picture long."""
    numbers = uniform_field(seeds ^ 3, (3, 6), "cpu")
    length = max(2.0, max(size) / 3) * (0.3 + 1.2 * numbers[:, 1])
    width = thickness[:, None] * (0.6 + 0.8 * numbers[:, 2])
    margin = max(2, max(size) // 4)
    field = streak_field(
        seeds,
        numbers[:, 0] * 180 - 90,
        length,
        width,
        share * 1.2,
        size,
        (margin, margin),
        device,
    )
    return field > 0.15


def _text(
    seeds: Int64[Tensor, " n"],
    share: Float[Tensor, " n"],
    thickness: Float[Tensor, " n"],
    size: tuple[int, int],
    device: torch.device,
) -> Bool[Tensor, "n 1 h w"]:
    """Rows of scribble: level lines of a field as fine as letters, cut into rows and words."""
    masks = []
    for seed, part, stroke in zip(seeds.split(1), share.tolist(), thickness.tolist(), strict=True):
        letter = 4.5 * stroke
        field = smooth_field(seed, size, max(1, round(max(size) / letter)), device)
        slope_y, slope_x = (
            torch.gradient(field, dim=axis)[0] if field.shape[axis] > 1 else torch.zeros_like(field)
            for axis in (2, 3)
        )
        steep = torch.hypot(slope_y, slope_x).clamp_min(0.1 / letter)
        line = field.abs() < 0.5 * stroke * steep
        words = smooth_field(seed ^ 5, size, max(1, round(max(size) / (5 * letter))), device)
        pitch = 2 * letter / max(0.15, min(1.0, 4 * part))
        phase = uniform_field(seed ^ 9, (1,), "cpu").item() * pitch
        y = torch.arange(size[0], device=device, dtype=torch.float32)[:, None]
        row = torch.remainder(y + phase, pitch) < 1.5 * letter
        masks.append(line & (words > -0.35) & row)
    return torch.cat(masks)


def _blobs(
    seeds: Int64[Tensor, " n"],
    share: Float[Tensor, " n"],
    thickness: Float[Tensor, " n"],
    size: tuple[int, int],
    device: torch.device,
) -> Bool[Tensor, "n 1 h w"]:
    """Irregular patches that cover just the share asked for; thickness plays no part."""
    field = smooth_field(seeds, size, 5, device) + 0.35 * smooth_field(seeds ^ 5, size, 14, device)
    flat = field.flatten(1)
    rank = (share.to(device) * flat.shape[1]).long().clamp(1, flat.shape[1])
    edge = flat.sort(1).values.gather(1, rank[:, None] - 1)
    return field <= edge[:, :, None, None]


def _box(
    seeds: Int64[Tensor, " n"],
    share: Float[Tensor, " n"],
    thickness: Float[Tensor, " n"],
    size: tuple[int, int],
    device: torch.device,
) -> Bool[Tensor, "n 1 h w"]:
    """One rectangle of that share of the area, sides 1:2 to 2:1; thickness plays no part."""
    numbers = uniform_field(seeds, (3,), device)
    share = share.to(device)
    aspect = 2 ** (2 * numbers[:, 0] - 1)
    tall = (share * aspect).sqrt().clamp(share, torch.ones_like(share))
    wide = share / tall
    mask = torch.ones(len(seeds), 1, *size, dtype=torch.bool, device=device)
    for axis, part, start in ((2, tall, numbers[:, 1]), (3, wide, numbers[:, 2])):
        side = size[axis - 2]
        extent = (part * side).round().clamp(1, side)[:, None]
        first = (start[:, None] * (side - extent + 1)).floor()
        at = torch.arange(side, device=device)[None]
        inside = (at >= first) & (at < first + extent)
        mask &= inside.view(len(seeds), 1, *((side, 1) if axis == 2 else (1, side)))
    return mask


KINDS: dict[str, _Maker] = {
    "scratches": _scratches,
    "text": _text,
    "blobs": _blobs,
    "box": _box,
}
"""Kinds of holes, and what makes their masks."""


@dataclass(frozen=True)
class Holes(Degradation):
    """Lost parts: scratches, writing over the picture, stains, or a box.

    Reference:
        Bertalmio et al., Image Inpainting, SIGGRAPH 2000 (scratches and superimposed text);
        Pathak et al., Context Encoders, CVPR 2016 (box and random regions). Ranges are ours.

    Args:
        share: part of the area that is lost, log-uniform; above 0, up to 0.9. Exact for boxes and
            stains, a rough aim for scratches and writing.
        thickness: of scratches and strokes, in pixels, log-uniform; 1 to 200.
        kinds: names from `KINDS`, one drawn for each picture.
        fills: names from `FILLS`, one drawn for each picture.

    Raises:
        DegradationError: a range is reversed or leaves its bounds, or a name is unknown.
    """

    name: ClassVar[str] = "holes"
    reference: ClassVar[str] = "Bertalmio et al., SIGGRAPH 2000; Pathak et al., CVPR 2016"

    share: Range = (0.04, 0.25)
    thickness: Range = (1.5, 5.0)
    kinds: tuple[str, ...] = tuple(KINDS)
    fills: tuple[str, ...] = FILLS

    def __post_init__(self) -> None:
        check_range(self.name, "share", self.share, 1e-4, 0.9)
        check_range(self.name, "thickness", self.thickness, 1.0, 200.0)
        for field, given, known in (
            ("kinds", self.kinds, tuple(KINDS)),
            ("fills", self.fills, FILLS),
        ):
            if not given or any(name not in known for name in given):
                raise DegradationError(
                    f"{self.name}: {field}={given!r} is unknown; give some of {', '.join(known)}"
                )

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        kinds = [list(KINDS).index(name) for name in self.kinds]
        fills = [FILLS.index(name) for name in self.fills]
        return {
            "kind": choice(kinds, batch, generator),
            "fill": choice(fills, batch, generator),
            "share": log_uniform(*self.share, batch, generator),
            "thickness": log_uniform(*self.thickness, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def mask(
        self, parameters: Parameters, size: tuple[int, int], device: torch.device
    ) -> Bool[Tensor, "b 1 h w"]:
        """Where the holes are, for a network that is told.

        Args:
            parameters: what `sample` drew.
            size: height and width of the pictures.
            device: where the mask is made.
        """
        kind = parameters["kind"].cpu()
        mask = torch.zeros(len(kind), 1, *size, dtype=torch.bool, device=device)
        for index, make in enumerate(KINDS.values()):
            rows = (kind == index).nonzero()[:, 0]
            if len(rows):
                seeds, share, thickness = (
                    parameters[name].cpu()[rows] for name in ("seed", "share", "thickness")
                )
                mask[rows.to(device)] = make(seeds, share, thickness, size, device)
        return mask

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        mask = self.mask(parameters, (images.shape[2], images.shape[3]), images.device)
        left = (~mask).to(images.dtype)
        mean = (images * left).sum((2, 3), keepdim=True) / left.sum((2, 3), keepdim=True).clamp_min(
            1
        )
        fill = parameters["fill"].to(images.device)[:, None, None, None]
        colour = torch.where(fill == FILLS.index("mean"), mean, fill.to(images.dtype))
        return torch.where(mask, colour, images).clamp(0, 1)
