"""One tile of a picture through an engine, and whether what comes of it can be used."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from urushi.errors import PictureError, UrushiError
from urushi.inference.arrays import problem_in_int8, problem_of
from urushi.inference.beyond import mend_beyond, reaches_beyond
from urushi.inference.changed_light import Finish
from urushi.inference.engines import Engine

__all__ = [
    "LatestPicture",
    "Picture",
    "TilesInFlight",
    "lanes_of",
    "run_beside_others",
    "run_checked",
    "run_once",
]


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
    tile: np.ndarray,
    engine: Engine,
    *,
    large: bool,
    beside: bool = False,
    finish: Finish | None = None,
) -> tuple[np.ndarray, str]:
    """The result of an engine and what is wrong with it, if anything.

    Args:
        tile: `(3, h, w)` float32, nearly in [0, 1].
        engine: what restores.
        large: whether the tile is one of a large picture.
        beside: other tiles are restored at the same time.
        finish: what is done around the engine, and to a usable result.
    """
    # By the picture's own size alone: the same bits come of it whatever was restored before.
    name = "run_beside" if beside else "run" if large else "run_few"
    given = tile if finish is None else finish.around(tile)
    restored = getattr(engine, name, engine.run)(given[None])[0]
    if finish is not None:
        restored = finish.inside(restored, engine.scale)
    problem = problem_of(tile, restored)
    if not problem and engine.precision == "int8":
        problem = problem_in_int8(engine, tile)
    return finish(tile, restored) if finish and not problem else restored, problem


def run_beside_others(
    tile: np.ndarray, engine: Engine, finish: Finish | None = None
) -> np.ndarray | None:
    """Restores a tile of a large picture while others are restored; None if not usable."""
    problems: list[str] = []

    def run(values: np.ndarray) -> np.ndarray:
        restored, problem = run_once(values, engine, large=True, beside=True, finish=finish)
        problems.append(problem)
        return restored

    restored = run_checked(tile, run)
    return None if any(problems) else restored


# Tiles that are cut and wait, beside those in the engine: reading the next row of tiles, or writing
# the last one, takes as long as restoring one tile.
_WAITING = 1


def lanes_of(engine: Engine) -> int:
    """How many tiles an engine restores at once at most; one where it says nothing of that."""
    return getattr(engine, "lanes", 1)


class TilesInFlight:
    """Tries tiles ahead of their turn; a context manager.

    Whatever goes wrong with a tile is not told here: when its turn comes, it is restored as if it
    had not been tried, and so is one that was tried before the picture took to another engine. So
    all decisions are made in the order of the tiles.

    Args:
        lanes: how many are tried at once.
        attempt: the result of a tile, or None where it is not usable; called on other threads.
        restore: what restores a tile whose turn it is.
        active: the engine of the picture at present.
    """

    def __init__(
        self,
        lanes: int,
        attempt: Callable[[np.ndarray, Engine], np.ndarray | None],
        restore: Callable[[np.ndarray], np.ndarray],
        active: Callable[[], Engine],
    ) -> None:
        self._attempt, self._restore, self._active = attempt, restore, active
        self._pool = ThreadPoolExecutor(lanes, "urushi-tiles")
        self._stopped = threading.Event()
        self.ahead = lanes + _WAITING
        """As many tiles are begun before the first of them is asked for."""

    def begin(self, tile: np.ndarray) -> Callable[[], np.ndarray]:
        """Begins with a tile; the result is what the returned function gives."""
        engine = self._active()
        future = self._pool.submit(self._try, tile, engine)
        return lambda: self._result(tile, engine, future)

    def _try(self, tile: np.ndarray, engine: Engine) -> np.ndarray | None:
        if self._stopped.is_set():
            return None
        try:
            return self._attempt(tile, engine)
        except (UrushiError, MemoryError):
            return None  # whoever does it in its turn finds the same, and tells it

    def _result(
        self, tile: np.ndarray, engine: Engine, future: "Future[np.ndarray | None]"
    ) -> np.ndarray:
        restored = future.result()
        if restored is None or engine is not self._active():
            return self._restore(tile)
        return restored

    def __enter__(self) -> "TilesInFlight":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)
