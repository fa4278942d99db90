"""Enlarging by a whole factor with bicubic interpolation, at once or row by row.

For what no network enlarges: transparency, and a picture to compare the network's result with.
Pillow interpolates; it renormalises its kernel at edges, where MATLAB mirrors the picture, so what
is mirrored is laid around it before and cut off afterwards.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32

__all__ = ["enlarge", "enlarge_rows"]

# Pixels of the input on each side of a place that make the value there.
_REACH = 2

Rows = Float32[np.ndarray, "_ _ _"]


def enlarge(picture: Rows, scale: int) -> Rows:
    """Keys' cubic interpolation (a = -1/2), what MATLAB's `imresize` does.

    Args:
        picture: `(H, W, C)`.
        scale: of both sides; 1 gives the picture itself.

    Returns:
        `(scale H, scale W, C)`; next to edges, values reach a little beyond those of the picture.
    """
    if scale == 1:
        return picture
    top = 0

    def read(count: int) -> Rows:
        nonlocal top
        top += count
        return picture[top - count : top]

    return np.concatenate(list(enlarge_rows(read, scale)))


def enlarge_rows(read: Callable[[int], Rows], scale: int, rows: int = 64) -> Iterator[Rows]:
    """As `enlarge`, of a picture that streams through.

    Args:
        read: gives the next rows, at most as many as asked for; none at the end.
        scale: of both sides, at least 2.
        rows: asked for at once.

    Yields:
        `(n, scale W, C)`, all rows of the result in order.
    """
    assert scale > 1, scale
    # Bands lie where they lie, however many rows a call gives: the last bit depends on them.
    held = _filled(read(rows), read, rows + _REACH)
    if len(held) == 0:
        return
    held = _mirrored(held, (_REACH, 0))
    while len(held) == rows + 2 * _REACH:
        yield _enlarged(held, scale)
        held = _filled(held[rows:], read, rows + 2 * _REACH)
    yield _enlarged(_mirrored(held, (0, _REACH)), scale)


def _filled(held: Rows, read: Callable[[int], Rows], count: int) -> Rows:
    """With as many more rows as make `count`, if there are so many."""
    while len(held) < count and len(more := read(count - len(held))):
        held = np.concatenate([held, more])
    return held


def _mirrored(rows: Rows, more: tuple[int, int], columns: int = 0) -> Rows:
    """With so many rows before and behind, edge pixels repeated, and columns on both sides."""
    return np.pad(rows, (more, (columns, columns), (0, 0)), mode="symmetric")


def _enlarged(held: Rows, scale: int) -> Rows:
    """All rows that those held determine, which are `_REACH` more at either end."""
    from PIL import Image

    held, cut = _mirrored(held, (0, 0), _REACH), scale * _REACH
    size = (scale * held.shape[1], scale * held.shape[0])
    result = np.empty((size[1] - 2 * cut, size[0] - 2 * cut, held.shape[2]), np.float32)
    for channel in range(held.shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(held[..., channel]))
        large = np.asarray(plane.resize(size, Image.Resampling.BICUBIC))
        result[..., channel] = large[cut:-cut, cut:-cut]
    return result
