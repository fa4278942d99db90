"""A second look: what a picture still has once the expert for what was seen first has acted.

The router names one kind of damage at a time, and of a picture that has two the stronger hides the
other. So views that it looked at are mended by the first expert and read again, which costs what a
fifth of a megapixel costs at most. Where it is then sure of another kind, the experts of both act,
one after the other. See docs/decisions/0052.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from urushi.files.router_file import CLEAN
from urushi.inference.restorer import Restorer
from urushi.routing.decision import Decision

__all__ = ["Views", "kind_behind", "mended"]

_SHARE = 4  # of a picture's pixels, one in so many is mended for a second look

# What experts leave of noise and compression is soft, and of flakes and streaks looks like drops.
_LEFT_BEHIND = ("blur", "raindrop")
# And what is brightened has lifted blacks, as haze has.
_OF_ONE = {"low-light": "haze"}

Views = Float[np.ndarray, "_ 3 _ _"]


def mended(views: Sequence[Views], restorer: Restorer, pixels: int) -> list[Views]:
    """The views of a picture by each look, `(n, 3, s, s)` in [0, 1], as an expert leaves them.

    Args:
        views: that of the whole picture first. Of the windows behind it so many are kept that all
            together have at most a quarter of the picture's pixels, but one at least.
        restorer: with the expert.
        pixels: of the picture.
    """
    first, *others = views
    most = max(1, pixels // (_SHARE * first[0, 0].size) - 1)
    windows = range(1, len(first))
    if len(windows) > most:
        # From the middle of as many equal parts.
        windows = [1 + (2 * part + 1) * len(windows) // (2 * most) for part in range(most)]
    taken = [first[[0, *windows]], *others]
    return [np.stack([_restored(view, restorer.restore) for view in look]) for look in taken]


def _restored(
    view: Float[np.ndarray, "3 s s"], restore: Callable[[np.ndarray], np.ndarray]
) -> Float[np.ndarray, "3 s s"]:
    return restore(np.ascontiguousarray(view.transpose(1, 2, 0))).transpose(2, 0, 1)


def kind_behind(
    second: Decision, first: str, least: float, experts: Mapping[str, object]
) -> str | None:
    """The kind of damage that shows once another is gone; None where none is sure enough.

    Args:
        second: what the router decides of the mended views.
        first: the kind whose expert has mended them.
        least: how probable it has to be.
        experts: the classes that have one.
    """
    seen = second.seen
    if seen in (CLEAN, first, *_LEFT_BEHIND, _OF_ONE.get(first)) or seen not in experts:
        return None
    return seen if second.probabilities[seen] >= least else None
