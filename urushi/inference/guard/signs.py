"""What a picture shows of damage, counted while its rows go by: no network, a few ms a megapixel.

A picture that a program drew (a page, a screen, a chart) is exactly constant or exactly smooth over
most of its ground, up to the very border of its edges. Noise roughens that ground everywhere, and
JPEG roughens it around edges: no photograph, and nothing damaged, is without such small roughness.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from urushi.inference.guard.textures import Texture, measure_texture

__all__ = ["Signs", "Watcher", "signs_of"]

# Channels are added up with these weights; no two plain colours of one picture give the same sum.
_WEIGHTS = np.array([2.0, 5.0, 1.0], np.float32)
_UNIT = 8
"""Of a sum, for one 8-bit code in all channels."""
_BAND = 64
# So many pixels are looked at; of a larger picture every so many bands.
_MOST = 2_000_000
_EDGE, _BRIGHT_STEP, _STARK_STEP = 24, 64, 128  # in codes
_REACH = 4
_DIM, _DARK = 0.45, 0.15
# Samples that lie between the codes of 8 bits are told apart sixteen times as finely.
_FINER = 16
_BETWEEN = 0.05


@dataclass(frozen=True)
class Signs:
    """Shares of a picture's pixels, from 0 to 1, unless said otherwise.

    Attributes:
        flat: all in the 3x3 pixels around are exactly equal.
        smooth: no second difference is more than rounding makes.
        rough: neither smooth nor an edge.
        edge: more than 24 codes of 255 lie between the 3x3 pixels around.
        rough_near: of the pixels within 4 of an edge and no edge: those that are rough.
        rough_far: the same for those further away.
        bright_steps: pairs of neighbours that differ by more than 64 codes; along rows or columns,
            whichever has more.
        stark_steps: the same for 128 codes.
        sharp: of the places where 4 pixels in a row span 64 codes: those where one step has most of
            it; 1 where there are too few to tell.
        dim: darker than 0.45, where 1 is white.
        dark: darker than 0.15.
        looked_at: pixels that this was counted from.
    """

    flat: float
    smooth: float
    rough: float
    edge: float
    rough_near: float
    rough_far: float
    bright_steps: float
    stark_steps: float
    sharp: float
    dim: float
    dark: float
    looked_at: int


@dataclass
class _Counts:
    pixels: int = 0
    flat: int = 0
    smooth: int = 0
    rough: int = 0
    edge: int = 0
    near: int = 0
    rough_near: int = 0
    far: int = 0
    rough_far: int = 0
    dim: int = 0
    dark: int = 0
    across: list[int] = field(default_factory=lambda: [0, 0, 0])
    down: list[int] = field(default_factory=lambda: [0, 0, 0])
    spans: int = 0
    sharp: int = 0


class Watcher:
    """Watches the rows of a picture go by, in memory independent of its height.

    What is counted does not depend on how many rows come at once.

    Args:
        read: gives the next rows, `(n, W, 3)`, nominally in [0, 1].
        height: rows of the picture, in pixels.
        width: columns of the picture, in pixels.
    """

    def __init__(self, read: Callable[[int], np.ndarray], height: int, width: int) -> None:
        self._read = read
        self._height = height
        bands = -(-height // _BAND)
        step = max(1, round(height * width / _MOST))
        self._chosen = range(0, bands, step)
        # Of some of them a few squares are kept, to have a closer look at where that is needed.
        kept = np.linspace(0, len(self._chosen) - 1, min(5, len(self._chosen)))
        self._kept = {self._chosen[round(float(at))] for at in kept}
        self._row = 0
        self._held: list[np.ndarray] = []
        self._finer: bool | None = None
        self._counts = _Counts()
        self._squares: list[np.ndarray] = []

    def read(self, count: int) -> np.ndarray:
        """The next rows, passed on."""
        rows = self._read(count)
        first = 0
        while first < len(rows):
            band, inside = divmod(self._row, _BAND)
            part = rows[first : first + _BAND - inside]
            if band in self._chosen:
                self._held.append(self._sums(part))
            first += len(part)
            self._row += len(part)
            if self._held and (self._row % _BAND == 0 or self._row == self._height):
                self._note(np.concatenate(self._held), band)
                self._held.clear()
        return rows

    def signs(self) -> Signs | None:
        """What was counted; None of a picture that is too small to say anything about."""
        counts = self._counts
        if counts.pixels < 64:
            return None

        def share(part: int, of: int) -> float:
            return part / of if of else 0.0

        steps = max(counts.across, counts.down, key=lambda found: share(found[1], found[0]))
        return Signs(
            flat=counts.flat / counts.pixels,
            smooth=counts.smooth / counts.pixels,
            rough=counts.rough / counts.pixels,
            edge=counts.edge / counts.pixels,
            rough_near=share(counts.rough_near, counts.near),
            rough_far=share(counts.rough_far, counts.far),
            bright_steps=share(steps[1], steps[0]),
            stark_steps=share(steps[2], steps[0]),
            sharp=share(counts.sharp, counts.spans) if counts.spans >= 50 else 1.0,
            dim=counts.dim / counts.pixels,
            dark=counts.dark / counts.pixels,
            looked_at=counts.pixels,
        )

    def texture(self) -> Texture | None:
        """A closer look at some squares of it; None where there are none."""
        return measure_texture(self._squares, _UNIT * (_FINER if self._finer else 1))

    def _sums(self, rows: np.ndarray) -> np.ndarray:
        """Weighted sums of the channels, `(n, W)`, in whole numbers."""
        sums = (rows.reshape(-1, 3) @ (255 * _WEIGHTS)).reshape(rows.shape[:2])
        if not np.isfinite(sums).all():
            sums = np.nan_to_num(sums, posinf=0, neginf=0)
        if self._finer is None:
            codes = 255 * np.clip(np.nan_to_num(rows[:16]), 0, 1)
            self._finer = bool(np.abs(codes - np.rint(codes)).max() > _BETWEEN)
        one = _FINER if self._finer else 1
        whole = np.clip(sums * np.float32(one), 0, 255 * _UNIT * one)
        return np.rint(whole, out=whole).astype(np.int32 if self._finer else np.int16)

    def _note(self, sums: np.ndarray, band: int) -> None:
        if min(sums.shape) < 3:
            return
        one = _UNIT * (_FINER if self._finer else 1)
        if band in self._kept:
            self._keep(sums)
        self._count_steps(sums, one)
        middle = sums[1:-1, 1:-1]
        high, low = (_over_three(sums, how) for how in (np.maximum, np.minimum))
        span = high - low
        bent = np.maximum(
            np.abs(2 * middle - sums[1:-1, :-2] - sums[1:-1, 2:]),
            np.abs(2 * middle - sums[:-2, 1:-1] - sums[2:, 1:-1]),
        )
        # A slope of any colours, rounded, bends by one code at most: of what it was rounded to.
        smooth, edge = bent <= _UNIT, span > _EDGE * one
        rough = ~(smooth | edge)
        far = ~_widened(edge, _REACH)
        near = ~(far | edge)
        counts = self._counts
        counts.pixels += span.size
        for name, mask in {
            "flat": span == 0, "smooth": smooth, "rough": rough, "edge": edge, "near": near,
            "rough_near": near & rough, "far": far, "rough_far": far & rough,
            "dim": middle < _DIM * 255 * one, "dark": middle < _DARK * 255 * one,
        }.items():  # fmt: skip
            setattr(counts, name, getattr(counts, name) + int(np.count_nonzero(mask)))

    def _count_steps(self, sums: np.ndarray, one: int) -> None:
        counts = self._counts
        for found, values in ((counts.across, sums[::2]), (counts.down, sums[:, ::2].T)):
            steps = np.abs(values[:, 1:] - values[:, :-1])
            found[0] += steps.size
            found[1] += int(np.count_nonzero(steps > _BRIGHT_STEP * one))
            found[2] += int(np.count_nonzero(steps > _STARK_STEP * one))
            if values.shape[1] < 4:
                continue
            ends = [values[::2, at : values.shape[1] - 3 + at] for at in range(4)]
            span = np.maximum.reduce(ends) - np.minimum.reduce(ends)
            parts = [steps[::2, at : steps.shape[1] - 2 + at] for at in range(3)]
            wide = span >= _BRIGHT_STEP * one
            most = np.maximum.reduce(parts)[wide]
            counts.spans += most.size
            counts.sharp += int(np.count_nonzero(10 * most.astype(np.int32) >= 7 * span[wide]))

    def _keep(self, sums: np.ndarray) -> None:
        height, width = sums.shape
        size = min(_BAND, width)
        if height < min(_BAND, self._height) or min(height, size) < 16:
            return
        count = min(5, max(1, width // size))
        for left in np.linspace(0, width - size, count).round().astype(int):
            self._squares.append(sums[:, left : left + size].copy())


def signs_of(picture: np.ndarray) -> Watcher:
    """The same for a picture in memory, `(H, W)`, `(H, W, 1)` or `(H, W, 3)` in [0, 1]."""
    colours = picture if picture.ndim == 3 else picture[..., None]
    colours = np.broadcast_to(colours, (*colours.shape[:2], 3))
    watcher = Watcher(lambda _rows: colours, *colours.shape[:2])
    watcher.read(colours.shape[0])
    return watcher


def _over_three(values: np.ndarray, how: np.ufunc) -> np.ndarray:
    """The extreme of the 3x3 values around each inner one."""
    across = how(how(values[:, :-2], values[:, 1:-1]), values[:, 2:])
    return how(how(across[:-2], across[1:-1]), across[2:])


def _widened(mask: np.ndarray, reach: int) -> np.ndarray:
    """Where a true one is at most so far away, along rows and columns."""
    result = mask.copy()
    for step in range(1, reach + 1):
        result[:, step:] |= mask[:, :-step]
        result[:, :-step] |= mask[:, step:]
    across = result.copy()
    for step in range(1, reach + 1):
        result[step:] |= across[:-step]
        result[:-step] |= across[step:]
    return result
