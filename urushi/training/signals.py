"""Ending a training between two steps instead of within one."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "stop_signals"]


class StopRequest:
    """Set by a signal.

    Attributes:
        number: the signal that arrived last, None before one does.
    """

    number: int | None = None


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """A request that SIGINT and SIGTERM make, instead of ending the process."""
    request = StopRequest()

    def stop(number: int, _frame: FrameType | None) -> None:
        request.number = number

    # Signal handlers can be set in the main thread only; elsewhere the caller handles signals.
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
