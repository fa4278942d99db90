"""The border of a brightened picture: no lighter than what lies within, where the ground is even.

A network sees zeros around a picture. In black sky that is brightened tenfold, what these do to the
outermost pixels becomes a light line. A mirrored margin takes it away, but with it small dark
pictures stay darker (docs/decisions/0058). So the line itself is taken out.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["without_border_line"]

# The outermost pixels that the zeros reach, and those within that tell what these should be.
_DEEP, _WITHIN = 5, 5
# Half the length along the border over which means are taken, in pixels.
_REACH = 12
# Ground counts as even where its own differences, as much brightened as it was, stay below that;
# with twice as much nothing is done.
_EVEN = 3 / 255
_FLOOR = 1 / 255


def without_border_line(
    tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"]
) -> Float[np.ndarray, "3 h w"]:
    """A brightened tile without the line that its network laid along its border.

    Args:
        tile: what was restored, nominally in [0, 1].
        restored: what came of it, of the same size. Pictures of less than 20 pixels stay as is.
    """
    if min(tile.shape[1:]) < 2 * (_DEEP + _WITHIN):
        return restored
    result = restored.copy()
    for axis in (1, 2):
        for backwards in (False, True):
            # Views: rows from the border on.
            sides = [np.moveaxis(each, axis, 1) for each in (tile, result)]
            before, after = (each[:, ::-1] if backwards else each for each in sides)
            _straighten(before[:, : _DEEP + _WITHIN], after[:, : _DEEP + _WITHIN])
    return result


def _straighten(before: Float[np.ndarray, "3 d w"], after: Float[np.ndarray, "3 d w"]) -> None:
    """Changes the outer rows of `after`, in place."""
    dark, light = _along(before), _along(after)
    ground, aim = (each[:, _DEEP:].mean(axis=1, keepdims=True) for each in (dark, light))
    times = np.maximum(aim, _FLOOR) / np.maximum(ground, _FLOOR)
    own = np.abs(dark[:, :_DEEP] - ground) * np.maximum(times, 1)
    even = np.clip(2 - own.max(axis=0) / _EVEN, 0, 1)
    after[:, :_DEEP] += (even * (aim - light[:, :_DEEP])).astype(after.dtype)


def _along(rows: Float[np.ndarray, "3 d w"]) -> Float[np.ndarray, "3 d w"]:
    """Means of neighbours within each row, which end where the row does."""
    sums = np.cumsum(np.pad(rows.astype(np.float64), ((0, 0), (0, 0), (1, 0))), axis=2)
    place = np.arange(rows.shape[2])
    low, high = np.maximum(place - _REACH, 0), np.minimum(place + _REACH + 1, rows.shape[2])
    return (sums[..., high] - sums[..., low]) / (high - low)
