"""What a router's training is given, what it tells on its way, and what it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from urushi.data.pack import PackedPictures
from urushi.files.router_file import RouterHeader

__all__ = ["RouterData", "RouterProgress", "RouterTrainingResult"]


@dataclass(frozen=True)
class RouterData:
    """Pictures a router learns from, and others by which it is measured.

    Attributes:
        clean: clean pictures to degrade.
        validation: clean pictures, none of them in `clean`.
        real: pictures of classes, by name.
        real_validation: the same to measure by; of other places.
    """

    clean: PackedPictures
    validation: PackedPictures
    real: Mapping[str, PackedPictures] = field(default_factory=dict)
    real_validation: Mapping[str, PackedPictures] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """What was trained on."""
        parts = [self.clean.sha256, *(f"{n}:{p.sha256}" for n, p in sorted(self.real.items()))]
        return " ".join(parts)


@dataclass(frozen=True)
class RouterProgress:
    """Where a training stands.

    Attributes:
        step, steps: optimizer steps done, and in all.
        loss: mean since the last report.
        seconds_per_step: since the last report.
        seconds_left: at that speed.
        accuracy: on validation pictures, where this report is a validation; else None.
    """

    step: int
    steps: int
    loss: float
    seconds_per_step: float
    seconds_left: float
    accuracy: float | None


@dataclass(frozen=True)
class RouterTrainingResult:
    """What `train_router` leaves.

    Attributes:
        finished: False when it was stopped by a signal; resume it.
        stopped_by: number of that signal.
        step: optimizer steps done.
        seconds: spent training, over all resumptions.
        path: the router's file; None unless finished.
        header: what it says; None unless finished.
        confusion: of validation pictures with one class: rows are classes, columns what was seen.
        log: rows of step, loss and accuracy.
    """

    finished: bool
    stopped_by: int | None
    step: int
    seconds: float
    path: Path | None
    header: RouterHeader | None
    confusion: np.ndarray | None
    log: list[dict[str, Any]]
