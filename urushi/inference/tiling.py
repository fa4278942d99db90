"""Big pictures in pieces: balanced overlapping tiles, blended without a seam, row by row.

Only numpy, and nothing about networks: a tile goes to a function and comes back. Rows stream
through, so no more than one row of tiles is ever held, however tall the picture is.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from urushi.errors import UnreadableError

__all__ = ["Side", "TilePlan", "plan_tiles", "reader_of", "stream_tiles"]

ReadRows = Callable[[int], np.ndarray]
RunTile = Callable[[np.ndarray], np.ndarray]
BeginTile = Callable[[np.ndarray], Callable[[], np.ndarray]]

# Pixels read and handed on at once: few against a row of tiles, many against a call's cost.
PIXELS_AT_A_TIME = 1 << 18
# Blocks of 8 pixels, of 16 where the chroma is subsampled.
JPEG_GRID = 16


@dataclass(frozen=True)
class Side:
    """The tiles along one side of a picture: all of one size, evenly spread.

    Attributes:
        length: the picture's pixels along this side.
        size: the tiles' pixels along this side; more than `length` where one tile is padded.
        starts: where each tile begins, ascending, the first at 0.
        guard: pixels at an inner edge of a tile that get no weight, because a network sees
            nothing beyond that edge and is at its worst there.
    """

    length: int
    size: int
    starts: tuple[int, ...]
    guard: int = 0

    def enlarged(self, scale: int) -> "Side":
        """What becomes of the tiles of a network that makes every side `scale` times as long."""
        if scale == 1:
            return self
        starts = tuple(scale * start for start in self.starts)
        return Side(scale * self.length, scale * self.size, starts, scale * self.guard)

    @cached_property
    def weights(self) -> tuple[np.ndarray, ...]:
        """What each tile counts at each of its pixels: `(size,)` float32, summing to one.

        Neighbours cross over by raised cosines, which have no corner at either end, so even a
        difference of tone between two tiles becomes a gradient and not a line.
        """
        raw = [np.ones(self.size) for _ in self.starts]
        for index in range(len(self.starts) - 1):
            shared = self.starts[index] + self.size - self.starts[index + 1]
            rise = _rise(shared, self.guard)
            raw[index][self.size - shared :] *= 1.0 - rise
            raw[index + 1][:shared] *= rise
        # Where a short side makes three tiles meet, the products no longer sum to one.
        total = np.zeros(self.starts[-1] + self.size)
        for start, weight in zip(self.starts, raw, strict=True):
            total[start : start + self.size] += weight
        return tuple(
            (weight / total[start : start + self.size]).astype(np.float32)
            for start, weight in zip(self.starts, raw, strict=True)
        )


@dataclass(frozen=True)
class TilePlan:
    """Where the tiles of one picture lie; every tile has the shape `(rows.size, columns.size)`."""

    rows: Side
    columns: Side

    @property
    def count(self) -> int:
        """How many tiles there are."""
        return len(self.rows.starts) * len(self.columns.starts)

    @property
    def ratio(self) -> float:
        """Pixels that are computed for each pixel of the picture, 1.0 at best."""
        computed = self.count * self.rows.size * self.columns.size
        return computed / (self.rows.length * self.columns.length)


def plan_tiles(
    height: int,
    width: int,
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
    tallest: int | None = None,
) -> TilePlan:
    """Cover a picture with as few tiles of at most `tile` pixels a side as can be.

    The tiles are then made as small as that number of them allows, instead of pushing a last
    one back into the picture: 4000x3000 pixels with 512/32 cost 1.17 times the picture's
    pixels, not 1.38 times. All tiles have one shape, which engines with static shapes need.

    Args:
        height: rows of the picture, in pixels.
        width: columns of the picture, in pixels.
        tile: the longest side a tile may have, in pixels, at least `multiple`.
        overlap: pixels that neighbours share at least, at most half of `tile`.
        multiple: both sides of a tile are multiples of it.
        tallest: the most rows a tile may have, where those of a whole width have to be held.
    """
    rows, shared = tile, overlap
    if tallest is not None and tallest < tile:
        rows = max(tallest // multiple, 1) * multiple
        shared = min(overlap, rows // 2)
    return TilePlan(
        rows=_plan_side(height, rows, shared, multiple),
        columns=_plan_side(width, tile, overlap, multiple),
    )


def reader_of(rows: np.ndarray) -> ReadRows:
    """Reads `(n, W, 3)` that are in memory."""
    position = 0

    def read(count: int) -> np.ndarray:
        nonlocal position
        position += count
        return rows[position - count : position]

    return read


def stream_tiles(
    read: ReadRows,
    plan: TilePlan,
    run: RunTile,
    on_tile: Callable[[int], None] | None = None,
    scale: int = 1,
    *,
    begin: BeginTile | None = None,
    ahead: int = 1,
) -> Iterator[np.ndarray]:
    """Put a picture through `run` tile by tile, rows in and rows out.

    Args:
        read: gives the next rows, at most as many as asked for: `(n, W, 3)` float32, n 0 at
            the end of the picture.
        plan: from `plan_tiles`, for the very size of that picture.
        run: `(3, h, w)` float32 of the plan's tile shape -> the same, both sides `scale` times as
            long.
        on_tile: called with the number of finished tiles after each one.
        scale: how much `run` enlarges.
        begin: takes the place of `run`: begins with a tile, and gives what waits for its result.
        ahead: how many tiles are begun before the result of the first of them is asked for.

    Yields:
        Finished rows in order, `(n, scale W, 3)` float32; `scale H` of them in all.

    Raises:
        UnreadableError: `read` ended before the picture did.
    """
    source = _Window(read, plan.rows, plan.columns.length)
    results = _in_order(_cut(source, plan), begin or (lambda tile: partial(run, tile)), ahead)
    # From here on in pixels of the result.
    rows, columns = plan.rows.enlarged(scale), plan.columns.enlarged(scale)
    covered = max(columns.length, columns.size)
    blended = np.zeros((3, rows.size, covered), np.float32)
    finished = 0
    for index, top in enumerate(rows.starts):
        for left, weight in zip(columns.starts, columns.weights, strict=True):
            restored = next(results)
            assert restored.shape == (3, rows.size, columns.size), restored.shape
            spot = blended[:, :, left : left + columns.size]
            spot += restored * (rows.weights[index][:, None] * weight)
            finished += 1
            if on_tile is not None:
                on_tile(finished)
        last = index + 1 == len(rows.starts)
        ready = (rows.length if last else rows.starts[index + 1]) - top
        step = _rows_at_a_time(columns.length)
        for first in range(0, ready, step):
            piece = blended[:, first : min(first + step, ready), : columns.length]
            yield np.ascontiguousarray(piece.transpose(1, 2, 0))
        # What the next tiles add to moves to the top.
        kept = rows.size - ready
        blended[:, :kept] = blended[:, ready:]
        blended[:, kept:] = 0.0


def _cut(source: "_Window", plan: TilePlan) -> Iterator[np.ndarray]:
    """The tiles of a picture in their order; rows are read when the first tile needs them."""
    size = plan.rows.size, plan.columns.size
    for top in plan.rows.starts:
        band = source.move_to(top)
        for left in plan.columns.starts:
            yield pad_tile(band[:, left : left + size[1]], *size)


def _in_order(tiles: Iterator[np.ndarray], begin: BeginTile, ahead: int) -> Iterator[np.ndarray]:
    """The results of tiles in their order, some of which are begun before they are asked for."""
    begun: deque[Callable[[], np.ndarray]] = deque()
    for tile in tiles:
        begun.append(begin(tile))
        if len(begun) >= ahead:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def pad_tile(rows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Fill up `(h, w, 3)` at the bottom and right, and turn it into `(3, height, width)`.

    Mirrored without repeating the edge pixel, so that no step appears; a side of one pixel has
    nothing to mirror and is repeated.
    """
    for axis, size in enumerate((height, width)):
        missing = size - rows.shape[axis]
        if missing > 0:
            amounts = [(0, missing) if at == axis else (0, 0) for at in range(3)]
            rows = np.pad(rows, amounts, mode="reflect" if rows.shape[axis] > 1 else "edge")
    return np.ascontiguousarray(rows.transpose(2, 0, 1))


class _Window:
    """The rows of a picture that the tiles at hand need; earlier ones are let go."""

    def __init__(self, read: ReadRows, rows: Side, width: int) -> None:
        self._read = read
        self._height = rows.length
        self._top = 0
        self._filled = 0
        # One buffer for the whole picture: next to a wide one, another would be noticed.
        self._rows = np.empty((min(rows.size, rows.length), width, 3), np.float32)

    def move_to(self, top: int) -> np.ndarray:
        """The rows from `top` on, as `(rows.size, W, 3)`, good until the next call.

        `top` never goes back, nor beyond the last row that was held.
        """
        shift = top - self._top
        self._top = top
        self._filled -= shift
        assert self._filled >= 0, shift
        self._rows[: self._filled] = self._rows[shift : shift + self._filled]
        while self._filled < len(self._rows):
            step = _rows_at_a_time(self._rows.shape[1])
            count = min(len(self._rows) - self._filled, step)
            rows = self._read(count)
            assert rows.shape[1:] == self._rows.shape[1:], rows.shape
            assert len(rows) <= count, (len(rows), count)
            if len(rows) == 0:
                raise UnreadableError(
                    f"the picture ended after {top + self._filled} of {self._height} rows: "
                    "the file is truncated, fetch or export it again"
                )
            self._rows[self._filled : self._filled + len(rows)] = rows
            self._filled += len(rows)
        return self._rows


def _rows_at_a_time(width: int) -> int:
    return max(PIXELS_AT_A_TIME // width, 1)


def _plan_side(length: int, tile: int, overlap: int, multiple: int) -> Side:
    limit = tile // multiple * multiple
    assert length > 0, length
    assert limit > 0, (tile, multiple)
    assert 0 <= overlap <= limit // 2, (overlap, limit)
    if length <= limit:
        return Side(length, math.ceil(length / multiple) * multiple, (0,))
    count = math.ceil((length - overlap) / (limit - overlap))
    size = math.ceil((length + (count - 1) * overlap) / (count * multiple)) * multiple
    # Longer than one tile, so every tile lies inside the picture and none needs padding.
    room = length - size
    starts = [index * room // (count - 1) for index in range(count)]
    # Tiles begin on JPEG's grid where the overlap allows it, all but the last: a network whose own
    # grid of 2, 4, 8 pixels then falls on the blocks of a tile as on those of the whole picture
    # repairs them better.
    for index in range(1, count - 1):
        aligned = starts[index] // JPEG_GRID * JPEG_GRID
        if starts[index + 1] - aligned <= size - overlap:
            starts[index] = aligned
    return Side(length, size, tuple(starts), guard=overlap // 8)


def _rise(shared: int, guard: int) -> np.ndarray:
    """From 0 to 1 over the shared pixels; `rise + rise[::-1]` is one everywhere."""
    width = shared - 2 * guard
    position = (np.arange(shared) - guard + 0.5) / max(width, 1)
    return np.sin(0.5 * np.pi * np.clip(position, 0.0, 1.0)) ** 2
