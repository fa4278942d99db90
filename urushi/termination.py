"""Being stopped by a signal: at once or between two steps, and the exit code that says so."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = [
    "StopRequest",
    "Terminated",
    "end_with_parent",
    "exit_code",
    "stop_on_sigterm",
    "stop_signals",
]


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


# From Linux's prctl.h.
_SET_SIGNAL_OF_PARENTS_DEATH = 1


def end_with_parent() -> None:
    """Has SIGTERM sent to this process when the one that started it ends; on Linux alone.

    A process that is killed cannot stop what it has started.
    """
    if not sys.platform.startswith("linux"):
        return
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        parent = os.getppid()
        prctl(_SET_SIGNAL_OF_PARENTS_DEATH, int(signal.SIGTERM))
        if os.getppid() != parent:  # it ended just before
            os.kill(os.getpid(), signal.SIGTERM)


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
