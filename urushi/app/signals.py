"""Being stopped: which signal it was, and the exit code that says so."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["Terminated", "collected_signals", "exit_code", "stop_on_sigterm"]


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived; unwinds like an interruption, so that nothing half done is left."""


_arrived: list[int] = []


def stop_on_sigterm() -> None:
    """Makes SIGTERM end this process as orderly as an interruption by the keyboard does."""

    def terminate(number: int, _frame: FrameType | None) -> None:
        _arrived.append(number)
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)


def exit_code() -> int:
    """What shells expect of a process that was stopped: 128 and the number of the signal."""
    return 128 + (_arrived[-1] if _arrived else signal.SIGINT)


@contextmanager
def collected_signals() -> Iterator[None]:
    """Notes which signals arrive, whoever handles them; `exit_code` knows them afterwards.

    A training turns a signal into a stop after the step at hand, and does not tell which it was.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    try:
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except ValueError:  # not in the main thread, which alone gets signals
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.set_wakeup_fd(before)
        with suppress(BlockingIOError):
            _arrived.extend(n for n in os.read(reader, 64) if n in (signal.SIGINT, signal.SIGTERM))
        os.close(reader)
        os.close(writer)
