"""Damage of scanned film and old prints: marks of several kinds laid over the picture."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image, UnidentifiedImageError
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
    per_image,
    uniform,
)
from urushi.degradations.marks import MARKS
from urushi.errors import DegradationError

__all__ = ["FilmDamage"]

# Of real marks: pictures whose opacity is laid over others.
_ENDINGS = (".png", ".webp")

_KINDS = tuple(MARKS)

# How much more each colour is missing from light marks that are not grey: those are like old paper.
_WARM = (0.5, 0.9, 1.6)
# How deep a mark goes before it takes red, green and blue: dyes lie one over another.
_LAYERS = (0.5, 0.25, 0.0)
_SHADOW = 0.6


@dataclass(frozen=True)
class FilmDamage(Degradation):
    """Dust, scratches, hairs, stains, cracks and the like over the picture, light or dark.

    Every picture has one kind or several. Each kind is a layer of a colour of its own, nearly white
    or nearly black, grey or a little warm, laid over what is below by its opacity. Some layers are
    out of focus; some throw a shadow, as what stands out from a print does under the lamp of a
    scanner; some go through the layers of dye one after another, which gives them coloured edges.

    Reference:
        The model is that of Ivanova et al., Simulating analogue film damage, Computer Graphics
        Forum 2023 (marks laid over the picture by their opacity). Shapes and ranges are ours, set
        beside overlays from real film and beside old prints.

    Args:
        kinds: names from `MARKS`; the first of a picture is drawn from them evenly.
        several: probability, in [0, 1], of every other kind.
        amount: factor on the number of marks, log-uniform; 0.05 to 20.
        size: factor on the size of marks, log-uniform; 0.5 to 8.
        opacity: of the densest marks, in [0, 1].
        light_share: share of layers that are light; the others are dark.
        neutral_share: share of layers that are grey.
        softness: standard deviation in pixels of the blur of marks, in [0, 8].
        shadow_share: share of layers with a shadow beside light marks.
        layered_share: share of the layers that are not grey whose edges are coloured.
        overlays: a folder of pictures whose opacity is laid on in place of the marks above, or
            None.
        overlay_share: share of pictures with one of `overlays`.

    Raises:
        DegradationError: a range is reversed or leaves its bounds, or a name is unknown; in
            `sample` and `apply`, the overlays cannot be read.
    """

    kinds: tuple[str, ...] = _KINDS
    several: float | int = 0.15
    amount: Range = (0.4, 2.5)
    size: Range = (0.8, 1.6)
    opacity: Range = (0.4, 1.0)
    light_share: float | int = 0.6
    neutral_share: float | int = 0.5
    softness: Range = (0.0, 1.0)
    shadow_share: float | int = 0.25
    layered_share: float | int = 0.25
    overlays: str | None = None
    overlay_share: float | int = 0.5

    name: ClassVar[str] = "film_damage"
    reference: ClassVar[str] = "Ivanova et al., Computer Graphics Forum 2023; shapes ours"

    def __post_init__(self) -> None:
        unknown = not isinstance(self.kinds, tuple) or [k for k in self.kinds if k not in MARKS]
        if unknown or not self.kinds:
            raise DegradationError(
                f"{self.name}: kinds={self.kinds} are not kinds; give some of {', '.join(MARKS)}"
            )
        check_share(self.name, "several", self.several)
        check_range(self.name, "amount", self.amount, 0.05, 20.0)
        check_range(self.name, "size", self.size, 0.5, 8.0)
        check_range(self.name, "opacity", self.opacity, 0.0, 1.0)
        for field in ("light_share", "neutral_share", "shadow_share", "layered_share"):
            check_share(self.name, field, getattr(self, field))
        check_range(self.name, "softness", self.softness, 0.0, 8.0)
        check_share(self.name, "overlay_share", self.overlay_share)
        if self.overlays is not None and not isinstance(self.overlays, str):
            raise DegradationError(
                f"{self.name}: overlays={self.overlays!r} is no folder; give its path, or null"
            )

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch, kinds = batch_shape[0], len(self.kinds)
        total = batch * kinds
        present = coin(self.several, total, generator).view(batch, kinds)
        first = torch.randint(kinds, (batch, 1), generator=generator)
        light = coin(self.light_share, total, generator)
        neutral = coin(self.neutral_share, total, generator)
        layered = coin(self.layered_share, total, generator) & ~neutral
        parameters = {
            "present": present.scatter(1, first, True),
            "amount": log_uniform(*self.amount, total, generator).view(batch, kinds),
            "size": log_uniform(*self.size, total, generator).view(batch, kinds),
            "opacity": uniform(*self.opacity, total, generator).view(batch, kinds),
            "colour": _colours(light, neutral, generator).view(batch, kinds, 3),
            "softness": uniform(*self.softness, total, generator).view(batch, kinds),
            "shadow": (coin(self.shadow_share, total, generator) & light).view(batch, kinds),
            "layered": layered.view(batch, kinds),
            "seed": draw_seeds(batch, generator),
        }
        if self.overlays is not None:
            files = len(overlay_files(self.overlays))
            drawn = torch.randint(files, (batch,), generator=generator)
            real = coin(self.overlay_share, batch, generator)
            parameters["overlay"] = torch.where(real, drawn, -1)
            parameters["pose"] = torch.rand(batch, 5, generator=generator)
        return parameters

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        size = (images.shape[2], images.shape[3])
        present = parameters["present"].cpu()
        result = images.clone()
        if self.overlays is not None:
            real = parameters["overlay"].cpu() >= 0
            present = present & ~real[:, None]
            for row in real.nonzero()[:, 0].tolist():
                path = overlay_files(self.overlays)[int(parameters["overlay"][row])]
                opacity = overlay_opacity(path, parameters["pose"][row], size, images.device)
                _lay(result, [row], opacity, parameters, 0)
        for index, kind in enumerate(self.kinds):
            rows = present[:, index].nonzero()[:, 0]
            if len(rows) == 0:
                continue
            opacity = MARKS[kind](
                parameters["seed"][rows],
                parameters["amount"][rows, index],
                parameters["size"][rows, index],
                (float(self.size[0]), float(self.size[1])),
                size,
                images.device,
            )
            _lay(result, rows.tolist(), opacity, parameters, index)
        return result.clamp_(0, 1)

    def mask(
        self, parameters: Parameters, size: tuple[int, int], device: torch.device | str
    ) -> Bool[Tensor, "b 1 h w"]:
        """Where a picture of that size is changed by more than half a level of 255 at most.

        Args:
            parameters: what `sample` drew.
            size: height and width of the pictures.
            device: where the mask is made.

        Raises:
            DegradationError: the overlays cannot be read.
        """
        # Marks are laid on by their opacity, so black and white show all that they hide.
        black = torch.zeros(len(parameters["seed"]), 3, *size, device=device)
        left = self.apply(black + 1, parameters) - self.apply(black, parameters)
        return left.amin(1, keepdim=True) < 1 - 0.5 / 255


def _colours(light: Tensor, neutral: Tensor, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Nearly white like paper, or nearly black; what is not grey is mostly warm."""
    tone = uniform(0.0, 0.22, len(light), generator)[:, None]
    tint = torch.rand(len(light), 3, generator=generator)
    tint = torch.where(neutral[:, None], tint.mean(1, keepdim=True), tint * torch.tensor(_WARM))
    return torch.where(light[:, None], 1 - tone * (0.4 + 0.8 * tint), tone * (0.5 + tint.flip(1)))


def _lay(
    result: Float[Tensor, "b 3 h w"],
    rows: list[int],
    opacity: Float[Tensor, "n 1 h w"],
    parameters: Parameters,
    index: int,
) -> None:
    """Lays a layer over some rows, in place."""
    device, dtype = result.device, result.dtype

    def own(name: str) -> Tensor:
        return parameters[name][rows, index].to(device)

    colour, dense = own("colour").to(dtype)[:, :, None, None], per_image(own("opacity"), opacity)
    marks = [
        _soft(one, float(sigma))
        for one, sigma in zip(opacity.split(1), own("softness"), strict=True)
    ]
    cover = torch.cat(marks)
    below = result[rows]
    # The lamp shines from above on the left.
    beside = F.pad(cover, (2, 0, 2, 0))[..., :-2, :-2]
    shade = per_image(own("shadow"), cover) * (_SHADOW * dense * (beside - cover).clamp_min(0))
    below = below * (1 - shade.to(dtype))
    # What is not worn through to the last layer of dye has lost one or two of three.
    worn = torch.tensor(_LAYERS, device=device).view(3, 1, 1)
    worn = torch.where(own("layered")[:, None, None, None], worn, 0.0)
    cover = ((cover - worn) / (1 - worn)).clamp(0, 1) * dense
    result[rows] = below + cover.to(dtype) * (colour - below)


def _soft(opacity: Float[Tensor, "1 1 h w"], sigma: float) -> Float[Tensor, "1 1 h w"]:
    """Blurred by a Gaussian."""
    if sigma < 0.2:
        return opacity
    reach = int(3 * sigma + 1)
    kernel = torch.arange(-reach, reach + 1, device=opacity.device).square() / (-2 * sigma**2)
    kernel = kernel.exp() / kernel.exp().sum()
    opacity = F.conv2d(opacity, kernel.view(1, 1, 1, -1), padding=(0, reach))
    return F.conv2d(opacity, kernel.view(1, 1, -1, 1), padding=(reach, 0))


@lru_cache(maxsize=16)
def overlay_files(folder: str) -> tuple[Path, ...]:
    """The overlays in a folder and those below it, sorted by name.

    Raises:
        DegradationError: there is no such folder, or it holds none.
    """
    root = Path(folder)
    try:
        found = sorted(path for path in root.rglob("*") if path.suffix.lower() in _ENDINGS)
    except (OSError, ValueError) as error:
        raise DegradationError(f"overlays={folder} cannot be read: {error}") from error
    if not found:
        raise DegradationError(
            f"overlays={folder} holds no pictures: name a folder of PNG or WebP files with opacity"
        )
    return tuple(found)


@lru_cache(maxsize=1024)
def _opacity(path: Path) -> UInt8[Tensor, "1 1 h w"]:
    try:
        with Image.open(path) as picture:
            if "A" not in picture.getbands() and "transparency" not in picture.info:
                raise DegradationError(
                    f"{path} has no opacity: overlays are PNG or WebP files with an alpha channel"
                )
            alpha = np.array(picture.convert("RGBA").getchannel("A"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DegradationError(f"{path} cannot be read as an overlay: {error}") from error
    return torch.from_numpy(alpha)[None, None]


def overlay_opacity(
    path: Path, pose: Float[Tensor, " 5"], size: tuple[int, int], device: torch.device | str
) -> Float[Tensor, "1 1 h w"]:
    """Opacity of an overlay, turned, mirrored, scaled and shifted; 0 beyond it.

    Args:
        path: of the overlay; what was read once is kept.
        pose: five numbers in [0, 1]: turn, mirror, size, and two for the place.
        size: height and width of the result.
        device: where the result is made.

    Raises:
        DegradationError: the file cannot be read, or has no opacity.
    """
    alpha = _opacity(path).to(device).float() / 255
    turn, mirror, scale, down, right = pose.tolist()
    height, width = alpha.shape[-2:]
    zoom = 0.6 + 0.9 * scale
    angle = torch.tensor(2 * np.pi * turn)
    cos, sin = float(angle.cos()) / zoom, float(angle.sin()) / zoom
    y = torch.arange(size[0], device=device, dtype=torch.float32)[:, None] - size[0] / 2
    x = torch.arange(size[1], device=device, dtype=torch.float32)[None] - size[1] / 2
    x = x if mirror < 0.5 else -x
    # The picture's middle lies in the middle half of the overlay, where most of the marks are.
    across = (cos * x - sin * y) * (2 / width) + right - 0.5
    along = (sin * x + cos * y) * (2 / height) + down - 0.5
    grid = torch.stack([across, along], -1)[None]
    return F.grid_sample(alpha, grid, mode="bilinear", align_corners=False)
