"""Colours for the pixels nobody sees, so that a network does not see a wall where a shape ends.

Fully transparent pixels often hold nothing: all of them one colour, mostly black. A network would
smear that over the edge of what is visible. There, the neighbouring visible colours are continued.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np

from urushi.image.colour.conversion import colours_of, scaled
from urushi.image.colour.profiles import converted
from urushi.image.info import PictureInfo, read_again
from urushi.image.opened import Identity, identity_of
from urushi.image.source import NativeRows

__all__ = ["Transparency", "survey"]

_MAP_PIXELS = 2**20
_BAND_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Transparency:
    """What a pass over a picture's transparency found.

    Attributes:
        opaque: no pixel is transparent, not even partly.
        hollow: there are fully transparent pixels, and they hold nothing.
        colours: `(h, w, 3)` in the working space, the visible colours averaged over squares of
            `step` pixels and continued where nothing is visible; empty unless `hollow`.
        step: pixels per side of such a square.
    """

    opaque: bool
    hollow: bool
    colours: np.ndarray
    step: int

    def fill(self, pixels: np.ndarray, alpha: np.ndarray, top: int) -> np.ndarray:
        """Replaces the colours of fully transparent pixels, if those hold nothing.

        Args:
            pixels: `(n, W, 3)` in the working space; left as they are.
            alpha: `(n, W)`, any sample type; 0 is fully transparent.
            top: the row of the picture these rows begin at.
        """
        if not self.hollow:
            return pixels
        rows, columns = np.nonzero(alpha == 0)
        if rows.size == 0:
            return pixels
        filled = pixels.copy()
        filled[rows, columns] = self._at(rows + top, columns)
        return filled

    def in_primaries(self, to_srgb: np.ndarray | None) -> "Transparency":
        """The same in other primaries; `to_srgb` is as in `urushi.image.colour.conversion`."""
        if to_srgb is None or not self.hollow:
            return self
        return replace(self, colours=converted(self.colours, np.linalg.inv(to_srgb)))

    def _at(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Bilinear samples of the map at pixel positions, `(k, 3)`."""
        height, width, _ = self.colours.shape
        y = np.clip((rows + 0.5) / self.step - 0.5, 0, height - 1)
        x = np.clip((columns + 0.5) / self.step - 0.5, 0, width - 1)
        y0, x0 = y.astype(np.intp), x.astype(np.intp)
        y1, x1 = np.minimum(y0 + 1, height - 1), np.minimum(x0 + 1, width - 1)
        v, u = (y - y0)[:, None].astype(np.float32), (x - x0)[:, None].astype(np.float32)
        upper = self.colours[y0, x0] * (1 - u) + self.colours[y0, x1] * u
        lower = self.colours[y1, x0] * (1 - u) + self.colours[y1, x1] * u
        return upper * (1 - v) + lower * v


def survey(info: PictureInfo) -> Transparency:
    """Looks through a picture once; asking again about an unchanged file costs nothing."""
    if info.alpha_band is None:
        return Transparency(True, False, np.empty((0, 0, 3), np.float32), 1)
    return _survey(info, info.identity or identity_of(info.path))


@functools.lru_cache(maxsize=2)
def _survey(info: PictureInfo, identity: Identity) -> Transparency:
    """See `survey`. `identity` tells one state of the file from another."""
    header = read_again(info)
    info, colours = header.info, colours_of(header)
    band = info.alpha_band
    assert band is not None
    step = max(1, int(np.ceil(np.sqrt(info.width * info.height / _MAP_PIXELS))))
    size = (-(-info.height // step), -(-info.width // step))
    sums = np.zeros((*size, 3), np.float32)
    weights = np.zeros((*size, 1), np.float32)
    opaque, hidden = True, []
    with NativeRows(header) as source:
        rows = step * max(1, _BAND_BYTES // (step * info.width * source.bands * 4))
        for top in range(0, info.height, rows):
            native = source.read(rows)
            alpha = native[..., band]
            if alpha.min() >= info.full:
                gathered = slice(top // step, -(-(top + native.shape[0]) // step))
            else:
                opaque = False
                gathered = slice(top // step, -(-(top + native.shape[0]) // step))
                _note_hidden(hidden, native[alpha == 0][:, : info.channels])
            weight = np.clip(scaled(alpha), 0.0, 1.0)[..., None]
            pixels = colours.to_working(native[..., : info.channels])
            sums[gathered] = _blocks(pixels * weight, step)
            weights[gathered] = _blocks(weight, step)
    hollow = bool(hidden) and bool(np.array_equal(hidden[0], hidden[1])) and weights.max() > 0
    if not hollow:
        return Transparency(opaque, False, np.empty((0, 0, 3), np.float32), step)
    known = weights > 0
    colour = np.divide(sums, weights, out=np.zeros_like(sums), where=known)
    return Transparency(opaque, True, _continue(colour, np.minimum(weights, 1.0)), step)


def _note_hidden(extremes: list[np.ndarray], samples: np.ndarray) -> None:
    """Keeps the least and greatest samples seen under full transparency."""
    if samples.size == 0:
        return
    least, greatest = samples.min(axis=0), samples.max(axis=0)
    if extremes:
        least, greatest = np.minimum(extremes[0], least), np.maximum(extremes[1], greatest)
    extremes[:] = [least, greatest]


def _blocks(values: np.ndarray, step: int) -> np.ndarray:
    """Sums over squares of `step` pixels; those at the end may be narrower."""
    if step == 1:
        return values
    by_row = np.add.reduceat(values, np.arange(0, values.shape[0], step), axis=0)
    return np.add.reduceat(by_row, np.arange(0, values.shape[1], step), axis=1)


def _continue(colour: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fills what has no weight from ever coarser averages (the pull-push of Gortler et al. 1996).

    Args:
        colour: `(h, w, 3)`.
        weight: `(h, w, 1)` in [0, 1], how well each is known.
    """
    height, width, _ = colour.shape
    if weight.min() >= 1.0 or max(height, width) == 1:
        return colour
    total = _blocks(weight, 2)
    mean = np.divide(
        _blocks(colour * weight, 2), total, out=np.zeros((*total.shape[:2], 3), np.float32),
        where=total > 0,
    )  # fmt: skip
    coarse = Transparency(False, True, _continue(mean, np.minimum(total, 1.0)), 2)
    rows, columns = np.divmod(np.arange(height * width), width)
    behind = coarse._at(rows, columns).reshape(height, width, 3)
    return colour * weight + behind * (1.0 - weight)
