"""Several tiles of a picture at once, each on a share of the processor's threads.

An engine on one thread never waits for itself: on two, it does at the end of every layer. So where
an engine can, tiles are restored side by side, while the thread that asked for them reads, blends
and writes. What becomes of a tile does not depend on that; see `TilesInFlight`.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np

from urushi.errors import UrushiError
from urushi.inference.engines import Engine

__all__ = ["TilesInFlight", "lanes_of"]

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
