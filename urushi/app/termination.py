"""Being stopped: which signal it was, and the exit code that says so."""

import signal
from types import FrameType

__all__ = ["Terminated", "exit_code", "stop_on_sigterm"]


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
