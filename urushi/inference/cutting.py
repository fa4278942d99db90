"""How one restorer cuts pictures, with what it has learnt of the memory there is."""

import math

from urushi.inference.overview import reduction
from urushi.inference.tile_sizes import TileSizes
from urushi.inference.tiling import TilePlan, plan_tiles

__all__ = ["Cutting"]

# Of what has been calculated and waits for the tiles below, where a network enlarges.
MOST_WAITING = 1 << 28


class Cutting:
    """Cuts pictures into tiles; into smaller ones once memory has run out.

    Args:
        sizes: what was chosen.
        multiple: sides of tiles are multiples of it, in pixels.
        scale: how much the network enlarges.
        wide: whether what is mended hangs on the picture as a whole.

    Attributes:
        sizes, wide: as given.
        longest: no tile may be longer, in pixels, since memory ran out; None as long as it has not.
    """

    def __init__(self, sizes: TileSizes, multiple: int, scale: int, *, wide: bool) -> None:
        self.sizes = sizes
        self.longest: int | None = None
        self.wide, self._multiple, self._scale = wide, multiple, scale

    @property
    def tile(self) -> int:
        """Longest side of a tile at present, in pixels."""
        return min(self.sizes.tile, self.longest or self.sizes.tile)

    def plan(self, height: int, width: int) -> TilePlan:
        """How a picture of this size is cut at present."""
        sides = self._rounded(height, width)
        one_light = self.wide and self.reduction(height, width) == 1
        if one_light or sides[0] * sides[1] <= self.sizes.whole:
            return self.uncut(height, width)
        return self.into(height, width, self.tile)

    def uncut(self, height: int, width: int) -> TilePlan:
        """A picture as one tile, unless memory ran out before."""
        tile = max(self.sizes.tile, *self._rounded(height, width))
        return self.into(height, width, min(tile, self.longest or tile))

    def into(self, height: int, width: int, tile: int) -> TilePlan:
        """Tiles whose sides have so many pixels at most."""
        overlap = min(self.sizes.overlap, tile // 2)
        tallest = None
        if self._scale > 1:
            # Rows of the result are many times as long as those of the picture.
            waiting = MOST_WAITING // (12 * self._scale**2 * width)
            tallest = max(waiting, 2 * overlap, self.sizes.smallest)
        return plan_tiles(
            height, width, tile=tile, overlap=overlap, multiple=self._multiple, tallest=tallest
        )

    def reduction(self, height: int, width: int) -> int:
        """By how much the small version is smaller where light hangs on the whole; 1 for none."""
        if not self.wide:
            return 1
        at_once = self.sizes.at_once
        fits = min(at_once, (self.longest or at_once) ** 2)
        return reduction(width, height, max(fits, self.sizes.smallest**2))

    def fits(self, longest: int) -> bool:
        """Whether memory has not run out yet with tiles that are so long."""
        return self.longest is None or longest <= self.longest

    def shrink(self, longest: int) -> bool:
        """Halves tiles, since those that are so long were too large; false if none are smaller."""
        if longest <= self.sizes.smallest:
            return False
        half = longest // 2 // self._multiple * self._multiple
        self.longest = max(half, self.sizes.smallest)
        return True

    def _rounded(self, height: int, width: int) -> tuple[int, int]:
        down, across = (math.ceil(n / self._multiple) * self._multiple for n in (height, width))
        return down, across
