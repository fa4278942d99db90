"""How a training goes and what it leaves: reports, the result, and the clock behind them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Clock", "Progress", "TrainingResult"]


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    Attributes:
        step, steps: optimizer steps done, and in all.
        loss: mean since the last report.
        learning_rate: of the last step.
        pixels_per_second: training pixels over all processes, since the last report.
        seconds_left: at that speed.
        busy: share of the time since the last report not spent making batches (on a CPU).
        scores: PSNR in dB by benchmark, where this report is a validation.
        share: of the training that is done, in [0, 1], by steps or by time.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    pixels_per_second: float
    seconds_left: float
    busy: float
    scores: dict[str, float]
    share: float


@dataclass(frozen=True)
class TrainingResult:
    """What `train` leaves.

    Attributes:
        finished: False when it was stopped by a signal; resume it.
        stopped_by: number of that signal; None if it came to another process.
        step: optimizer steps done.
        seconds: spent training, over all resumptions.
        weights: the averaged weights by name, float32, on the CPU.
        log: rows of step, loss, learning rate and scores.
        loss: mean of the last report.
    """

    finished: bool
    stopped_by: int | None
    step: int
    seconds: float
    weights: dict[str, Tensor]
    log: list[dict[str, Any]]
    loss: float


class Clock:
    """Splits the time between reports into making batches and everything else."""

    def __init__(self) -> None:
        self._reported = self._added = time.monotonic()
        self._preparing = 0.0

    @contextmanager
    def preparing(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._preparing += time.monotonic() - start

    def add_to(self, seconds: float) -> float:
        now = time.monotonic()
        seconds, self._added = seconds + now - self._added, now
        return seconds

    def since_report(self) -> float:
        return time.monotonic() - self._reported

    def report(self) -> tuple[float, float]:
        """Seconds since the last report and the share of them not spent making batches."""
        now = time.monotonic()
        seconds = max(now - self._reported, 1e-9)
        busy = 1 - self._preparing / seconds
        self._reported, self._preparing = now, 0.0
        return seconds, busy
