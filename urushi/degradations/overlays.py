"""Real marks on film: a folder of pictures whose opacity is laid over others."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from urushi.errors import DegradationError

__all__ = ["overlay_files", "overlay_opacity"]

_ENDINGS = (".png", ".webp")


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
