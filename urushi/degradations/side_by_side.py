"""One picture under every degradation, side by side and labelled."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float32

from urushi.degradations.base import Degradation
from urushi.sheet import contact_sheet

__all__ = ["degradation_sheet"]


def degradation_sheet(
    picture: Float32[np.ndarray, "h w 3"],
    degradations: Mapping[str, Degradation],
    seed: int,
    columns: int = 4,
    cell_size: tuple[int, int] = (384, 288),
) -> Float32[np.ndarray, "h2 w2 3"]:
    """Draws a contact sheet of the picture as it is, then once for each degradation.

    A degradation's draw depends on the seed alone, not on which others are on the sheet.

    Args:
        picture: RGB in [0, 1].
        degradations: label -> degradation, in the order of the sheet.
        seed: of the draws.
        columns: cells in a row, at least 1.
        cell_size: width and height in pixels in which a picture is fitted.
    """
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None]
    batch, channels, height, width = image.shape
    cells = [(picture, "picture")]
    for label, degradation in degradations.items():
        generator = torch.Generator().manual_seed(seed)
        parameters = degradation.sample((batch, channels, height, width), generator)
        worse = degradation.apply(image, parameters)[0].permute(1, 2, 0).contiguous()
        cells.append((worse.float().cpu().numpy(), label))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return contact_sheet(rows, cell_size)
