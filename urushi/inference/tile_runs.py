"""One tile of a picture through an engine, and whether what comes of it can be used."""

import threading
from collections.abc import Callable

import numpy as np

from urushi.errors import PictureError
from urushi.inference.arrays import problem_in_int8, problem_of
from urushi.inference.beyond import mend_beyond, reaches_beyond
from urushi.inference.engines import Engine

__all__ = ["LatestPicture", "Picture", "run_beside_others", "run_checked", "run_once"]


class Picture:
    """What is true of a picture that is restored.

    Args:
        engine: what restores it.
        large: whether a network is made for its tiles alone.
    """

    def __init__(self, engine: Engine, *, large: bool = False) -> None:
        self.engine, self.large = engine, large
        self.notes: list[str] = []


class LatestPicture(threading.local):
    """The picture that a thread restores, or has restored last."""

    picture: Picture | None = None


def run_checked(tile: np.ndarray, run: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Restores a tile, within [0, 1] or beyond.

    Args:
        tile: `(3, h, w)` float32.
        run: restores what an engine can make something of.

    Raises:
        PictureError: it holds values that are not finite.
    """
    if not np.isfinite(tile).all():
        raise PictureError(
            "the picture holds NaN or infinite values, expected numbers in [0, 1]: "
            "replace them first"
        )
    if reaches_beyond(tile):
        return mend_beyond(tile, run)
    return run(tile)


def run_once(
    tile: np.ndarray, engine: Engine, *, large: bool, beside: bool = False
) -> tuple[np.ndarray, str]:
    """The result of an engine and what is wrong with it, if anything.

    Args:
        tile: `(3, h, w)` float32, nearly in [0, 1].
        engine: what restores.
        large: whether the tile is one of a large picture.
        beside: other tiles are restored at the same time.
    """
    # By the picture's own size alone: the same bits come of it whatever was restored before.
    name = "run_beside" if beside else "run" if large else "run_few"
    restored = getattr(engine, name, engine.run)(tile[None])[0]
    problem = problem_of(tile, restored)
    if not problem and engine.precision == "int8":
        problem = problem_in_int8(engine, tile)
    return restored, problem


def run_beside_others(tile: np.ndarray, engine: Engine) -> np.ndarray | None:
    """Restores a tile of a large picture while others are restored; None if not usable."""
    problems: list[str] = []

    def run(values: np.ndarray) -> np.ndarray:
        restored, problem = run_once(values, engine, large=True, beside=True)
        problems.append(problem)
        return restored

    restored = run_checked(tile, run)
    return None if any(problems) else restored
