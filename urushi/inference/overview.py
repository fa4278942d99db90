"""Pictures with haze or in low light: a small version of the whole says how bright parts are.

What such degradations need of a picture is larger than a tile. Tiles restored one by one differ in
brightness, by place and from what the same network makes of the whole picture, made small; and so
does the picture restored as one tile, where it is larger than those that such networks are trained
and measured at. So the whole picture is reduced to about a quarter of a megapixel and restored, and
a linear function, in every neighbourhood the one that leads to the small version with the least
squared error, gives it detail (the guided filter of He, Sun and Tang, TPAMI 2013, on reduced
pictures as in its fast form, arXiv 1505.00996). Colours follow the small version. Detail comes from
the picture itself, or, where the network takes away more than haze, from its tiles.
"""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from urushi.errors import UnreadableError
from urushi.inference.tiling import ReadRows

__all__ = ["PIXELS", "Spool", "joined", "means_around", "reduction", "worked_out"]

Rows = Float[np.ndarray, "n W 3"]

PIXELS = 1 << 18
"""Of the small version, about."""
# Half the side of a neighbourhood, in pixels of the small version.
_REACH = 8
# What counts as flat: variance, for values in [0, 1]. Tiles have gradients of their own, which say
# nothing of how strong detail should be.
_FLAT, _FLAT_OF_TILES = 1e-4, 1e-3
# Detail is never turned over, nor made many times as strong.
_STEEPEST = 4.0
# Rows that are read back at once hold about so many values.
_AT_ONCE = 1 << 20


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnreadableError(
            "a picture of this size needs a temporary file for this expert, in "
            f"'{tempfile.gettempdir()}' ({error.strerror or error}): make room there, or set TMPDIR"
        ) from error


def reduction(width: int, height: int, fits: int | None = None) -> int:
    """By which whole factor both sides are reduced; 1 for small pictures.

    The one that comes nearest to `PIXELS`, whatever tiles there are.

    Args:
        width, height: of the picture, in pixels.
        fits: pixels of the small version that memory allows at most.
    """
    nearest = max(1, math.floor(math.sqrt(width * height / PIXELS) + 0.5))
    return nearest if fits is None else max(nearest, math.ceil(math.sqrt(width * height / fits)))


class Spool:
    """Rows of a picture in a temporary file, and the picture reduced by a whole factor.

    Memory is that of the reduced picture. Where the sides are no multiples of the factor, the last
    pixels of the reduced picture are means of fewer.

    Args:
        width, factor: of the picture, and of the reduction.

    Raises:
        UnreadableError: no temporary file can be made, or it does not fit.
    """

    def __init__(self, width: int, factor: int) -> None:
        self._width, self._factor = width, factor
        self._starts = np.arange(0, width, factor)
        self._reduced: list[np.ndarray] = []
        self._waiting: list[np.ndarray] = []
        self._waits = 0
        with _told():
            # Closed by `__exit__`, or by the system when the process ends.
            self._file = tempfile.TemporaryFile(prefix="urushi-")  # noqa: SIM115

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, rows: Rows) -> None:
        """The next rows."""
        with _told():
            self._file.write(np.ascontiguousarray(rows, np.float32).data)
        self._waiting.append(np.add.reduceat(rows, self._starts, axis=1, dtype=np.float32))
        self._waits += len(rows)
        if self._waits >= self._factor:
            whole = self._waits // self._factor * self._factor
            self._reduce(whole)

    def reduced(self) -> Float[np.ndarray, "h w 3"]:
        """The picture so far, reduced."""
        if self._waits:
            self._reduce(self._waits)
        return np.concatenate(self._reduced)

    def rows(self) -> ReadRows:
        """Reads them again from the first on, at most as many as asked for."""
        with _told():
            self._file.seek(0)
        size = 12 * self._width

        def read(count: int) -> np.ndarray:
            with _told():
                content = self._file.read(count * size)
            return np.frombuffer(content, np.float32).reshape(-1, self._width, 3)

        return read

    def _reduce(self, count: int) -> None:
        sums = np.concatenate(self._waiting)
        taken, rest = sums[:count], sums[count:]
        starts = np.arange(0, count, self._factor)
        tall = np.diff(starts, append=count)[:, None, None]
        wide = np.diff(self._starts, append=self._width)[None, :, None]
        means = np.add.reduceat(taken, starts, axis=0) / (tall * wide)
        self._reduced.append(means.astype(np.float32))
        self._waiting, self._waits = ([rest] if len(rest) else []), len(rest)


def joined(
    read: ReadRows,
    width: int,
    height: int,
    factor: int,
    restore_small: Callable[[Rows], Rows],
    restore: Callable[[ReadRows], Iterator[Rows]],
    *,
    tiled: bool = True,
) -> Iterator[Rows]:
    """A picture in the light of its restored small version.

    Args:
        read: gives the next rows of the picture, as for `Restorer.restore_rows`.
        width, height: of the picture, in pixels.
        factor: by which its sides are reduced; see `reduction`.
        restore_small: restores the reduced picture, which is one tile.
        restore: restores the picture by tiles.
        tiled: whether detail comes from the tiles; else it is that of the picture.

    Yields:
        Restored rows in order. They may leave the picture's range a little.

    Raises:
        UnreadableError: see `Spool`; and whatever the others raise.
    """
    with Spool(width, factor) as source, contextlib.ExitStack() as held:
        done = 0
        while done < height:
            rows = read(min(max(_AT_ONCE // (3 * width), 1), height - done))
            if not len(rows):
                break
            source.add(rows)
            done += len(rows)
        wanted = restore_small(source.reduced()) if done == height else None
        detail = source
        if tiled or wanted is None:  # the tiles tell of rows that are missing
            detail = held.enter_context(Spool(width, factor))
            for rows in restore(source.rows()):
                detail.add(rows)
        assert wanted is not None
        fit = worked_out(detail.reduced(), wanted, exactly=tiled)
        yield from _applied(detail.rows(), height, width, factor, *fit)


def _applied(
    read: ReadRows, height: int, width: int, factor: int, gain: np.ndarray, offset: np.ndarray
) -> Iterator[Rows]:
    lines, columns = (
        _places(length, factor, count)
        for length, count in zip((height, width), gain.shape, strict=False)
    )
    top = 0
    while top < height:
        rows = read(max(_AT_ONCE // (3 * width), 1))
        here = _Places(*(each[top : top + len(rows)] for each in lines))
        yield _at(gain, here, columns) * rows + _at(offset, here, columns)
        top += len(rows)


def worked_out(
    detail: Float[np.ndarray, "h w 3"], wanted: Float[np.ndarray, "h w 3"], *, exactly: bool = False
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 3"]]:
    """Gain and offset by place and channel that lead from `detail` to `wanted`, both in [0, 1].

    Args:
        detail: what gives detail, reduced.
        wanted: the small version, restored.
        exactly: whether they lead to it pixel by pixel. Tiles need it, whose borders are sharper
            than neighbourhoods. Else what the network left on smooth ground is smoothed out, as
            `detail` is smooth there.
    """
    detail, wanted = detail.astype(np.float64), wanted.astype(np.float64)
    mean, aim = means_around(detail), means_around(wanted)
    variance = means_around(detail * detail) - mean * mean
    together = means_around(detail * wanted) - mean * aim
    # Flat parts get a gain of 1 and an offset, so that what little detail there is stays.
    flat = _FLAT_OF_TILES if exactly else _FLAT
    gain = np.clip((together + flat) / (np.maximum(variance, 0) + flat), 0, _STEEPEST)
    smooth = means_around(gain)
    offset = wanted - smooth * detail if exactly else means_around(aim - gain * mean)
    return smooth.astype(np.float32), offset.astype(np.float32)


def means_around(values: Float[np.ndarray, "h w *c"]) -> Float[np.ndarray, "h w *c"]:
    """Means over neighbourhoods of 17 x 17 pixels, which end where the picture does."""
    for axis in (0, 1):
        length = values.shape[axis]
        before = np.zeros_like(np.take(values, [0], axis=axis))
        sums = np.concatenate([before, np.cumsum(values, axis=axis)], axis=axis)
        low = np.maximum(np.arange(length) - _REACH, 0)
        high = np.minimum(np.arange(length) + _REACH + 1, length)
        shape = [-1 if axis == each else 1 for each in range(values.ndim)]
        counts = (high - low).reshape(shape)
        values = (np.take(sums, high, axis=axis) - np.take(sums, low, axis=axis)) / counts
    return values


class _Places(NamedTuple):
    """Between which two reduced pixels each pixel lies, and how far from the first, 0 to 1."""

    first: np.ndarray
    second: np.ndarray
    share: np.ndarray


def _places(length: int, factor: int, count: int) -> _Places:
    at = np.clip((np.arange(length) + 0.5) / factor - 0.5, 0, count - 1)
    first = np.minimum(at.astype(np.int64), max(count - 2, 0))
    return _Places(first, np.minimum(first + 1, count - 1), (at - first).astype(np.float32))


def _at(values: Float[np.ndarray, "h w 3"], lines: _Places, columns: _Places) -> Rows:
    """Reduced values at pixels, by linear interpolation."""
    share = lines.share[:, None, None]
    values = values[lines.first] * (1 - share) + values[lines.second] * share
    share = columns.share[None, :, None]
    return values[:, columns.first] * (1 - share) + values[:, columns.second] * share
