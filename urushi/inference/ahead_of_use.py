"""Files that are copied here before they are used, within bounds of their number and size."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import RLock

__all__ = ["AheadOfUse"]

_AT_ONCE = 4  # transfers under way
_MOST = 10  # files that are here or under way: what reading ahead and writing behind hold, and more
_GUESS = 16 << 20  # bytes of a file whose size nobody tells


class AheadOfUse:
    """Copies files in the order of their use; never more than there is room for.

    Args:
        files: each with its bytes, as far as they are known, in the order of their use.
        copy: makes one of them.
        room: bytes that may lie here and wait; what is asked for itself comes in any case.
    """

    def __init__(
        self, files: Iterable[tuple[Path, int | None]], copy: Callable[[Path], None], room: int
    ) -> None:
        self._copy, self._room = copy, room
        self._sizes = OrderedDict((path, size or _GUESS) for path, size in files)
        self._waiting = OrderedDict.fromkeys(self._sizes)
        self._begun: dict[Path, Future[None]] = {}
        self._lock = RLock()
        self._threads = ThreadPoolExecutor(_AT_ONCE, "urushi-fetch")

    def bring(self, path: Path, *, now: bool = True) -> bool:
        """Waits until a file is here; tells whether it is.

        Args:
            path: of the file.
            now: fetch it even where there is no room for files that wait.

        Raises:
            UrushiError: it cannot be had; again whenever it is asked for.
        """
        with self._lock:
            self._fill()
            if path not in self._begun:
                if not now:
                    return False
                self._begin(path)
            future = self._begun[path]
        future.result()
        return True

    def drop(self, path: Path) -> None:
        """Removes a file, or will not copy it."""
        with self._lock:
            self._waiting.pop(path, None)
            future = self._begun.pop(path, None)
            if future is not None and not future.cancel():
                future.exception()
            path.unlink(missing_ok=True)
            self._fill()

    def close(self) -> None:
        """Begins nothing more, and waits for what is under way."""
        with self._lock:
            self._waiting.clear()
        self._threads.shutdown(cancel_futures=True)

    def _fill(self) -> None:
        while self._waiting and len(self._begun) < _MOST:
            path = next(iter(self._waiting))
            held = sum(self._sizes[one] for one in self._begun)
            if self._begun and held + self._sizes[path] > self._room:
                return
            self._begin(path)

    def _begin(self, path: Path) -> None:
        self._waiting.pop(path, None)
        self._sizes.setdefault(path, _GUESS)
        self._begun[path] = self._threads.submit(self._copied, path)

    def _copied(self, path: Path) -> None:
        self._copy(path)
        self._sizes[path] = path.stat().st_size
