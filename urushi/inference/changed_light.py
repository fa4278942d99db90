"""What is done to a restored tile where its network changed the whole picture's light."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.grid_pattern import without_grid
from urushi.inference.tile_sizes import LOCAL

__all__ = [
    "LOW_LIGHT",
    "Finish",
    "brightens",
    "changes_light",
    "finishing",
    "leaves_detail",
    "margin_of",
    "with_highlights",
]

LOW_LIGHT = "low-light"
# What hides detail and does not harm it.
_VEILS = frozenset({"haze"})
# What was brighter than that, encoded as sRGB is, is brightened less and less; white stays.
_BRIGHT = 0.5
_LARGE_CELL = 16


class Finish:
    """What is done around a network that changes the light of a whole picture.

    Args:
        cell: side of what upsampling may repeat, in pixels; see `without_grid`.
        margin: pixels that are mirrored around a tile while it is restored. What a network makes of
            the border of a picture shows where everything gets brighter or darker.
        bright: whether bright parts are kept; see `with_highlights`.
    """

    def __init__(self, cell: int, margin: int, *, bright: bool) -> None:
        self.margin = margin
        self._cell, self._bright = cell, bright

    def around(self, tile: Float[np.ndarray, "3 h w"]) -> Float[np.ndarray, "3 H W"]:
        """The tile with its margin."""
        sides = (self.margin, self.margin)
        return np.pad(tile, ((0, 0), sides, sides), mode="symmetric") if self.margin else tile

    def inside(
        self, restored: Float[np.ndarray, "3 H W"], scale: int
    ) -> Float[np.ndarray, "3 h w"]:
        """What was restored, without the margin; sides of it are `scale` times as long."""
        margin = self.margin * scale
        return restored[:, margin:-margin, margin:-margin] if margin else restored

    def __call__(
        self, tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"]
    ) -> Float[np.ndarray, "3 h w"]:
        """What is taken of a tile and of what came of it; of another size it is taken as it is."""
        if tile.shape != restored.shape:
            return restored
        restored = without_grid(tile, restored, self._cell)
        return with_highlights(tile, restored) if self._bright else restored


def finishing(
    adapters: Sequence[AppliedAdapter], cell: int, *, fixed: bool = False
) -> Finish | None:
    """What results need with some adapters; None where nothing.

    Args:
        adapters: in use.
        cell: sides of tiles are multiples of it, in pixels, and upsampling may repeat so much.
        fixed: whether tiles must keep their size.
    """
    if not changes_light(adapters):
        return None
    margin = 0 if fixed else margin_of(adapters, cell)
    return Finish(cell, margin, bright=brightens(adapters))


def margin_of(adapters: Sequence[AppliedAdapter], cell: int) -> int:
    """Pixels that are mirrored around a tile: two cells, or one of large ones.

    None where nothing changes the light. None for low light either: its border shows nothing, and
    with a margin small dark pictures stay darker.
    """
    if not changes_light(adapters) or brightens(adapters):
        return 0
    return 2 * cell if cell <= _LARGE_CELL else cell


def changes_light(adapters: Sequence[AppliedAdapter]) -> bool:
    """Whether one of the adapters is told to be for damage that is not local.

    What says nothing of what it mends is taken as it comes.
    """
    return any(not LOCAL.issuperset(item.adapter.header.degradations) for item in adapters)


def brightens(adapters: Sequence[AppliedAdapter]) -> bool:
    """Whether one of the adapters is for low light."""
    return any(LOW_LIGHT in item.adapter.header.degradations for item in adapters)


def leaves_detail(adapters: Sequence[AppliedAdapter]) -> bool:
    """Whether detail of a large picture is its own: nothing but haze is taken away."""
    mended = {name for item in adapters for name in item.adapter.header.degradations or [""]}
    return bool(mended) and mended <= _VEILS


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
