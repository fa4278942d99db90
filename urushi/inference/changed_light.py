"""What is done to a restored tile where its network changed the whole picture's light."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.grid_pattern import without_grid
from urushi.inference.tile_sizes import LOCAL

__all__ = ["LOW_LIGHT", "Finish", "brightens", "changes_light", "finishing", "with_highlights"]

Finish = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of a tile and what came of it, both `(3, h, w)` float32, what is taken instead."""

LOW_LIGHT = "low-light"
# What was brighter than that, encoded as sRGB is, is brightened less and less; white stays.
_BRIGHT = 0.5


def finishing(adapters: Sequence[AppliedAdapter], cell: int) -> Finish | None:
    """What results need with some adapters; None where nothing.

    Args:
        adapters: in use.
        cell: side of what upsampling may repeat, in pixels; see `without_grid`.
    """
    if not changes_light(adapters):
        return None
    bright = brightens(adapters)

    def finish(tile: np.ndarray, restored: np.ndarray) -> np.ndarray:
        if tile.shape != restored.shape:
            return restored
        restored = without_grid(tile, restored, cell)
        return with_highlights(tile, restored) if bright else restored

    return finish


def changes_light(adapters: Sequence[AppliedAdapter]) -> bool:
    """Whether one of the adapters is told to be for damage that is not local.

    What says nothing of what it mends is taken as it comes.
    """
    return any(not LOCAL.issuperset(item.adapter.header.degradations) for item in adapters)


def brightens(adapters: Sequence[AppliedAdapter]) -> bool:
    """Whether one of the adapters is for low light."""
    return any(LOW_LIGHT in item.adapter.header.degradations for item in adapters)


def with_highlights(
    tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"]
) -> Float[np.ndarray, "3 h w"]:
    """A brightened tile whose bright parts are not burnt out.

    Lamps, windows and skies of a dark photograph are bright already. The brightest channel of a
    pixel, averaged with its neighbours, says how much of the change is taken: all of it up to
    a half, none at white, in between a linear part.
    """
    light = np.pad(tile.max(axis=0), 1, mode="edge")
    height, width = tile.shape[1:]
    rows = light[:height] + light[1 : height + 1] + light[2:]
    light = (rows[:, :width] + rows[:, 1 : width + 1] + rows[:, 2:]) / np.float32(9)
    share = np.clip((1 - light) / np.float32(1 - _BRIGHT), 0, 1)
    return tile + share * (restored - tile)
