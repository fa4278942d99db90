"""Two threads beside the one that restores: pictures are read ahead, and written behind.

What is told of pictures stays in their order, and at any time few of them are in memory.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Ahead", "Behind", "InOrder"]

Item = TypeVar("Item")
Made = TypeVar("Made")
Note = TypeVar("Note")
Told = TypeVar("Told")

# Pictures that are read and wait: enough that one that takes long to read delays nothing.
_AHEAD = 3


class Ahead(Generic[Item, Made]):
    """Makes something of each item on a thread, some items before they are asked for.

    Args:
        items: in the order in which they will be taken.
        make: of an item; what it raises is taken for None, as nobody may ever want that item.
        ahead: how many are made before they are asked for; 0 makes nothing at all.
    """

    def __init__(
        self, items: Sequence[Item], make: Callable[[Item], Made | None], ahead: int = _AHEAD
    ) -> None:
        self._items, self._make, self._count = items, make, ahead
        self._next = 0
        self._begun: deque[tuple[int, Future[Made | None]]] = deque()
        self._thread = ThreadPoolExecutor(1, "urushi-read") if ahead else None

    def take(self, index: int) -> Made | None:
        """What was made of an item; each only once, in their order."""
        if self._thread is None:
            return None
        while self._next < min(index + 1 + self._count, len(self._items)):
            item = self._items[self._next]
            self._begun.append((self._next, self._thread.submit(self._made, item)))
            self._next += 1
        number, future = self._begun.popleft()
        assert number == index, (number, index)
        return future.result()

    def _made(self, item: Item) -> Made | None:
        try:
            return self._make(item)
        except Exception:
            return None  # whoever does it in its turn finds the same, and tells it

    def __enter__(self) -> "Ahead[Item, Made]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._begun.clear()


class Behind(Generic[Note, Made]):
    """Does the last part of each work on a thread while the next is done, told in order.

    Args:
        done: told of each, in order, on the thread that calls the methods: its note, and what
            gives its result or raises what went wrong.
        most: parts that wait or are under way at most.
        threads: that do them; what is told of them stays in order.
    """

    def __init__(
        self,
        done: Callable[[Note, Callable[[], Made]], None],
        most: int = 2,
        threads: int = 1,
    ) -> None:
        self._done, self._most, self._threads = done, most, threads
        self._begun: deque[tuple[Note, Future[Made]]] = deque()
        self._thread: ThreadPoolExecutor | None = None

    def add(self, note: Note, part: Callable[[], Made]) -> None:
        """Takes one; waits where as many as may be are under way."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(self._threads, "urushi-write")
        self._begun.append((note, self._thread.submit(part)))
        while len(self._begun) > self._most or (self._begun and self._begun[0][1].done()):
            self._tell()

    def finish(self) -> None:
        """Waits for all of them."""
        while self._begun:
            self._tell()

    def _tell(self) -> None:
        note, future = self._begun[0]
        # An interruption while it waits leaves it to be told by `finish`.
        future.exception()
        self._begun.popleft()
        self._done(note, future.result)

    def __enter__(self) -> "Behind[Note, Made]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown()


class InOrder(Generic[Told]):
    """Tells of numbered works one after the other, although they overlap.

    Args:
        tell: is told.
    """

    def __init__(self, tell: Callable[[Told], None]) -> None:
        self._tell = tell
        self._index = 0
        self._waiting: list[tuple[int, Told, bool]] = []

    def tell(self, index: int, event: Told, *, last: bool = False) -> None:
        """Tells of one, once all before it have had their last event.

        Args:
            index: of the work, from 0.
            event: what is told.
            last: whether nothing more will be told of that work.
        """
        self._waiting.append((index, event, last))
        self._waiting.sort(key=lambda waiting: waiting[0])
        while self._waiting and self._waiting[0][0] == self._index:
            _, event, last = self._waiting.pop(0)
            self._index += last
            self._tell(event)
