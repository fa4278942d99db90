"""The grid that a network's upsampling leaves where a picture is brightened: told apart, taken out.

A network that halves the sides of a picture a few times and doubles them again computes each pixel
of a cell, of 8 x 8 pixels say, by weights of its own. Where it changes much over smooth ground, as
in a sky that gets brighter, some of that shows: the same small pattern in every cell. So what was
changed is averaged over the cells around, wave by wave of a cell: scenes cancel out, the pattern
stays. What the picture itself repeats in its cells is no work of the network and is kept, and
nothing is taken out where the average may be chance. Waves are told apart because grain has little
of the short ones, in which a weave of two or four pixels lies. Bright ground is averaged on
its own: the pattern hangs on how bright a place is, and on a white cup in the dark it is several
times as strong as around it, and another.
"""

from functools import cache

import numpy as np
from jaxtyping import Float

__all__ = ["without_grid"]

# Cells on either side of one, over which is averaged.
_REACH = 4
# A grid is faint: what differs by more is an edge of the scene, and counts as so much. In [0, 1].
_MOST = 12 / 255
# Cells count the less the more their power is beyond that; walls between edges tell of a grid.
_EVEN = (1 / 255) ** 2
# How many times the variance of chance a wave has to exceed.
_SURE = 4.0
# Variance of what a picture repeats by itself, below which it says nothing.
_FAINT = (0.25 / 255) ** 2
# Cells whose restored mean exceeds the second, in [0, 1], are bright ground; up to the first, none.
_DIM, _BRIGHT = 0.5, 0.8
_CELLS = range(4, 33)


def without_grid(
    tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"], cell: int
) -> Float[np.ndarray, "3 h w"]:
    """A restored tile without the pattern that its upsampling left.

    Args:
        tile: what was restored, nominally in [0, 1].
        restored: what came of it, of the same size.
        cell: pixels of a cell's side: 2 to the power of the levels of the network. With fewer than
            4 or more than 32, and where fewer than three cells lie side by side, there is nothing
            to tell.
    """
    height, width = (side // cell * cell for side in tile.shape[1:])
    if cell not in _CELLS or min(height, width) < 3 * cell or tile.shape != restored.shape:
        return restored
    result = restored.copy()
    # One channel at a time, which fits into the caches of a processor.
    for before, after, out in zip(tile, restored, result, strict=True):
        before = before[:height, :width]
        changed = _cells(after[:height, :width] - before, cell)
        weight = _EVEN / (_over_cell(changed * changed) + _EVEN)
        waves, own = _waves_of(changed), _waves_of(_cells(before, cell))
        level = _over_cell(after[:height, :width].reshape(changed.shape))
        bright = np.clip((level - _DIM) / np.float32(_BRIGHT - _DIM), 0, 1)
        pattern = np.zeros_like(changed)
        for share in (1 - bright, bright):
            there = _where(share > 0)
            found = _repeated(waves[there], own[there], (weight * share)[there])
            pattern[there] += share[there] * found
        out[:height, :width] -= _pixels_of(pattern).reshape(height, width)
    return result


def _where(some: np.ndarray) -> tuple[slice, slice, slice, slice]:
    """The smallest part of all cells that holds all of these."""
    rows, columns = (np.flatnonzero(some.any(axis=axes)) for axes in ((1, 2, 3), (0, 1, 3)))
    every = slice(None)
    if not len(rows):
        return slice(0), every, slice(0), every
    return slice(rows[0], rows[-1] + 1), every, slice(columns[0], columns[-1] + 1), every


def _repeated(
    changed: Float[np.ndarray, "r n c n"],
    before: Float[np.ndarray, "r n c n"],
    weight: Float[np.ndarray, "r 1 c 1"],
) -> Float[np.ndarray, "r n c n"]:
    """The waves that the cells around share, less what is chance and what the picture repeats.

    Args:
        changed, before: waves of what was changed, and of the picture as it was.
        weight: of each cell, 0 to 1.
    """
    if not weight.size:
        return changed
    total = np.maximum(_around(weight), np.float32(1e-9))
    pattern, own = (_around(weight * each) / total for each in (changed, before))
    power = _around(weight * np.square(changed)) / total
    alone = _around(weight * weight) / (total * total)
    # Of few cells hardly anything is known: what a single one has is no pattern.
    chance = _SURE * alone * np.maximum(power - pattern * pattern, alone * power)
    for each in (pattern, own):
        each[:, 0, :, 0] = 0  # the mean of a cell
    share = _over_cell(pattern * own) / (_over_cell(own * own) + _FAINT)
    pattern -= share * own
    power = pattern * pattern
    pattern *= np.maximum(power - chance, 0) / np.maximum(power, 1e-12)
    return pattern


def _cells(values: Float[np.ndarray, "h w"], cell: int) -> Float[np.ndarray, "r n c n"]:
    """What is finer than a cell, cell by cell."""
    height, width = values.shape
    # A mean over as many pixels as a cell has is free of whatever all cells repeat.
    fine = values - _means(_means(values, 0, cell), 1, cell)
    np.clip(fine, -_MOST, _MOST, out=fine)
    return fine.reshape(height // cell, cell, width // cell, cell)


@cache
def _waves(cell: int) -> Float[np.ndarray, "n n"]:
    """Of the lengths that a cell repeats, one in each row, the even one first; orthonormal."""
    places = 2 * np.pi * np.arange(cell) / cell
    rows = [np.cos((n + 1) // 2 * places - (n % 2 == 0) * np.pi / 2) for n in range(1, cell)]
    rows = np.array([np.ones(cell), *rows])
    return (rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True))).astype(np.float32)


def _waves_of(cells: Float[np.ndarray, "r n c n"]) -> Float[np.ndarray, "r n c n"]:
    rows, cell, columns, _ = cells.shape
    across = cells @ _waves(cell).T
    return (_waves(cell) @ across.reshape(rows, cell, columns * cell)).reshape(cells.shape)


def _pixels_of(waves: Float[np.ndarray, "r n c n"]) -> Float[np.ndarray, "r n c n"]:
    rows, cell, columns, _ = waves.shape
    down = _waves(cell).T @ waves.reshape(rows, cell, columns * cell)
    return down.reshape(waves.shape) @ _waves(cell)


def _over_cell(values: Float[np.ndarray, "r n c n"]) -> Float[np.ndarray, "r 1 c 1"]:
    return values.mean(axis=(1, 3), keepdims=True)


def _around(values: np.ndarray) -> np.ndarray:
    """Sums over the cells around, as far as there are any."""
    for axis in (0, 2):
        around = [(0, 0)] * values.ndim
        around[axis] = (_REACH, _REACH)
        values = _sums(np.pad(values, around), axis, 2 * _REACH + 1)
    return values


def _means(values: Float[np.ndarray, "h w"], axis: int, count: int) -> np.ndarray:
    """Means over `count` neighbours along an axis, mirrored at its ends."""
    around = [(0, 0)] * values.ndim
    around[axis] = (count // 2, count - count // 2 - 1)
    return _sums(np.pad(values, around, mode="symmetric"), axis, count) / np.float32(count)


def _sums(values: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Sums of `count` neighbours along an axis, by sums of twice as many each time."""
    length = values.shape[axis] - count + 1

    def part(array: np.ndarray, first: int, size: int) -> np.ndarray:
        cut = [slice(None)] * array.ndim
        cut[axis] = slice(first, first + size)
        return array[tuple(cut)]

    total: np.ndarray | None = None
    done, width = 0, 1  # neighbours summed up so far, and in each entry of `values`
    while True:
        if count & width:
            more = part(values, done, length)
            total, done = more if total is None else total + more, done + width
        if done == count:
            assert total is not None
            return total
        values = part(values, 0, values.shape[axis] - width) + part(
            values, width, values.shape[axis] - width
        )
        width *= 2
