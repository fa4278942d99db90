"""What is done to a restored tile where its network changed the whole picture's light."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.border_line import without_border_line
from urushi.inference.even_ground import with_even_ground
from urushi.inference.grid_pattern import without_grid
from urushi.inference.haze_light import with_kept_light
from urushi.inference.overview import means_around
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
    "with_neutral_black",
]

LOW_LIGHT = "low-light"
# What hides detail and does not harm it.
_VEILS = frozenset({"haze"})
# What was brighter than that, encoded as sRGB is, is brightened less and less; white stays.
_BRIGHT = 0.5
# Where nearly all is black: what a channel that is bright afterwards may come to, and from where on
# it is held back. Both rise linearly to white, so that what was even before does not become flat.
_CEILING, _SHOULDER = 0.85, 0.65
# Light in which there is no colour, that in which all of it is believed, and what one pixel counts
# at most: ground around a lamp is as black as elsewhere. In levels of 255.
_BLACK, _COLOURED, _LAMP = 1 / 255, 1.6 / 255, 3 / 255
_LARGE_CELL = 16


class Finish:
    """What is done around a network that changes the light of a whole picture.

    Args:
        cell: side of what upsampling may repeat, in pixels; see `without_grid`.
        margin: pixels that are mirrored around a tile while it is restored. What a network makes of
            the border of a picture shows where everything gets brighter or darker.
        bright: whether bright parts are kept, and black, and the border is evened; see
            `with_highlights`, `without_border_line`.
        even: whether even ground stays as smooth as it was; see `with_even_ground`.
        whole: whether tiles are whole pictures, which keep some of their light; see
            `with_kept_light`.
    """

    def __init__(
        self, cell: int, margin: int, *, bright: bool, even: bool = False, whole: bool = False
    ) -> None:
        self.margin = margin
        self._cell, self._bright, self._even, self._whole = cell, bright, even, whole

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
        if self._even:
            restored = with_even_ground(tile, restored)
        if self._whole:
            restored = with_kept_light(tile, restored)
        if self._bright:
            restored = without_border_line(tile, restored)
            restored = with_neutral_black(tile, with_highlights(tile, restored))
        return restored


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
    own = leaves_detail(adapters)
    # With haze alone, a picture or its small version is one tile.
    return Finish(cell, margin, bright=brightens(adapters), even=own, whole=own and not fixed)


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
    """Whether detail of a large picture, and of even ground, is its own: haze alone goes."""
    mended = {name for item in adapters for name in item.adapter.header.degradations or [""]}
    return bool(mended) and mended <= _VEILS


def with_highlights(
    tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"]
) -> Float[np.ndarray, "3 h w"]:
    """A brightened tile whose bright parts are not burnt out.

    Lamps, windows and skies of a dark photograph are bright already. The brightest channel of a
    pixel, averaged with its neighbours, says how much of the change is taken: all of it up to
    a half, none at white, in between a linear part. Then each channel is held back on its own: even
    ground of one colour keeps its shades.
    """
    light = np.pad(tile.max(axis=0), 1, mode="edge")
    height, width = tile.shape[1:]
    rows = light[:height] + light[1 : height + 1] + light[2:]
    light = (rows[:, :width] + rows[:, 1 : width + 1] + rows[:, 2:]) / np.float32(9)
    share = np.clip((1 - light) / np.float32(1 - _BRIGHT), 0, 1)
    made = tile + share * (restored - tile)
    dark = np.maximum(1 - tile, np.float32(1e-6))
    shoulder, room = 1 - np.float32(1 - _SHOULDER) * dark, np.float32(_CEILING - _SHOULDER) * dark
    above = made - shoulder
    held = shoulder + room * -np.expm1(-np.maximum(above, 0) / room)
    return np.where(above > 0, held, made)


def with_neutral_black(
    tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"]
) -> Float[np.ndarray, "3 h w"]:
    """A brightened tile whose black has no colour.

    Of a level or less of 255 nobody can tell the colour, and a network makes it brown.
    """
    light = means_around(np.minimum(tile.max(axis=0), np.float32(_LAMP)).astype(np.float64))
    share = np.clip((light - _BLACK) / (_COLOURED - _BLACK), 0, 1).astype(np.float32)
    grey = restored.mean(axis=0, dtype=np.float32)
    return grey + share * (restored - grey)
