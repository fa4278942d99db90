"""Pictures with nothing on them: black, transparent all over, one flat colour, noise in the dark.

A router is made to tell kinds of damage apart and finds one in everything: in the dark of a lens
cap it sees low light, and what brightens that makes brown fog of it. So it is asked for none of
these.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["Emptiness", "is_empty"]

_BLOCK = 8
# Samples that differ by less are one colour, up to rounding and mild compression.
_FLAT = 1.5 / 255
# Above this something is bright, and the picture not merely dark.
_DARK = 0.2
# Means of blocks spread less than this, and than noise alone would make them (the range of some
# thousand means of 64 samples is about one standard deviation of a sample).
_STRUCTURE = 1.5 / 255
_NOISE = 1.2


class Emptiness:
    """Watches the rows of a picture go by.

    Args:
        read: gives the next rows, `(n, W, 3)` in [0, 1].

    Attributes:
        empty: whether all rows so far show nothing.
    """

    def __init__(self, read: Callable[[int], np.ndarray]) -> None:
        self._read = read
        self._held: np.ndarray | None = None
        self._low, self._high = np.full(3, np.inf), np.full(3, -np.inf)
        self._least, self._most = np.full(3, np.inf), np.full(3, -np.inf)
        self._variance, self._blocks = 0.0, 0

    def read(self, rows: int) -> np.ndarray:
        """The next rows, passed on."""
        found = self._read(rows)
        # Once something is seen, looking on is of no use.
        if found.shape[0] and self._may_be_empty:
            self._note(found)
        return found

    @property
    def _may_be_empty(self) -> bool:
        return not np.isfinite(self._high).all() or bool(self._high.max() <= _DARK) or self._flat

    @property
    def _flat(self) -> bool:
        return bool((self._high - self._low).max() <= _FLAT)

    @property
    def empty(self) -> bool:
        if not np.isfinite(self._high).all():
            return False
        if self._flat:
            return True
        if self._high.max() > _DARK or not self._blocks:
            return False
        noise = (self._variance / self._blocks) ** 0.5
        return bool((self._most - self._least).max() <= _STRUCTURE + _NOISE * noise)

    def _note(self, rows: np.ndarray) -> None:
        self._low = np.minimum(self._low, rows.min(axis=(0, 1)))
        self._high = np.maximum(self._high, rows.max(axis=(0, 1)))
        if not self._may_be_empty:
            return
        held = rows if self._held is None else np.concatenate([self._held, rows])
        height, width = (side // _BLOCK * _BLOCK for side in held.shape[:2])
        self._held = held[height:].copy()
        if not height or not width:
            return
        blocks = held[:height, :width].reshape(height // _BLOCK, _BLOCK, -1, _BLOCK, 3)
        means = blocks.mean(axis=(1, 3))
        self._least = np.minimum(self._least, means.min(axis=(0, 1)))
        self._most = np.maximum(self._most, means.max(axis=(0, 1)))
        self._variance += float(blocks.var(axis=(1, 3)).mean(axis=2).sum())
        self._blocks += means.shape[0] * means.shape[1]


def is_empty(picture: np.ndarray) -> bool:
    """Whether nothing is on a picture, `(H, W)` or `(H, W, 3)` in [0, 1]."""
    colours = picture if picture.ndim == 3 else picture[..., None]
    if not colours.size:
        return False
    watched = Emptiness(lambda _rows: np.broadcast_to(colours, (*colours.shape[:2], 3)))
    watched.read(colours.shape[0])
    return watched.empty
