"""Being stopped by a signal: at once or between two steps, and the exit code that says so."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "Terminated", "exit_code", "stop_on_sigterm", "stop_signals"]


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; unwinds like an interruption, so that nothing half done is left."""


_arrived: list[int] = []


def stop_on_sigterm() -> None:
    """Makes SIGTERM end this process as orderly as an interruption by the keyboard does."""

    def terminate(number: int, _frame: FrameType | None) -> None:
        _arrived.append(number)
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)


def exit_code(number: int | None = None) -> int:
    """What shells expect of a process that was stopped: 128 and the number of the signal.

    Args:
        number: of the signal; None stands for the one that arrived here, or an interruption.
    """
    arrived = _arrived[-1] if _arrived else signal.SIGINT
    return 128 + (arrived if number is None else number)


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
