"""Enlarging by a whole factor with bicubic interpolation, at once or row by row.

For what no network enlarges: transparency, and a picture to compare the network's result with.
"""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Float32

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
    rest = [picture]
    return np.concatenate(
        list(enlarge_rows(lambda count: rest.pop() if rest else picture[:0], scale))
    )


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
    held = _across(read(rows), scale)
    if len(held) == 0:
        return
    while len(held) < _REACH and len(more := read(rows)):
        held = np.concatenate([held, _across(more, scale)])
    # Mirrored with the edge pixel repeated, here and at the end.
    held = np.concatenate([_mirrored_start(held), held])
    while len(more := read(rows)):
        held = np.concatenate([held, _across(more, scale)])
        ready = len(held) - 2 * _REACH
        if ready > 0:
            yield _down(held, scale)
            held = held[ready:]
    yield _down(np.concatenate([held, _mirrored_start(held[::-1])[::-1]]), scale)


def _across(rows: Rows, scale: int) -> Rows:
    """Enlarges along the rows: `_down` with both axes exchanged."""
    if len(rows) == 0:
        return rows
    turned = rows.swapaxes(0, 1)
    start, end = _mirrored_start(turned), _mirrored_start(turned[::-1])[::-1]
    return _down(np.concatenate([start, turned, end]), scale).swapaxes(0, 1)


def _mirrored_start(rows: Rows) -> Rows:
    """What lies before the first row, `_REACH` rows; a single row is repeated."""
    index = np.arange(_REACH)[::-1] % (2 * len(rows))
    return rows[np.minimum(index, 2 * len(rows) - 1 - index)]


def _down(held: Rows, scale: int) -> Rows:
    """All rows that those held determine, which are `_REACH` more at either end."""
    count = len(held) - 2 * _REACH
    result = np.empty((count, scale, *held.shape[1:]), np.float32)
    for phase in range(scale):
        # Of the place between pixels, measured from the pixel it lies in.
        offset = (phase + 0.5) / scale - 0.5
        taps = np.arange(-_REACH, _REACH + 1)
        # The weights sum to one; in differences, what is flat stays so to the last bit.
        own = held[_REACH : _REACH + count]
        result[:, phase] = own
        for tap, weight in zip(taps, _cubic(taps - offset), strict=True):
            if tap and weight:
                start = _REACH + tap
                result[:, phase] += np.float32(weight) * (held[start : start + count] - own)
    return result.reshape(count * scale, *held.shape[1:])


def _cubic(distance: Float[np.ndarray, " taps"]) -> Float[np.ndarray, " taps"]:
    """R. Keys, "Cubic convolution interpolation" (TASSP 1981), a = -1/2."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
