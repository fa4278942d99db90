"""What is done with one picture, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from urushi.image import Samples
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.guard.damage import Guard
from urushi.inference.restorer import OnProgress, Restorer
from urushi.routing.decision import Decision
from urushi.routing.wording import advice

__all__ = ["Choice", "PictureRestorer", "Route", "hinted"]

Route = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Choice:
    """What is done with one picture, and why.

    Attributes:
        route: class and weight of the experts that act; empty where the base works alone.
        in_turn: whether they act one after the other, in this order, each on what the one before it
            has made; else they are mixed.
        reason: one clause for people, such as `noise (97 %)`.
        decision: the router's; None where the task was given and the picture not looked at, or
            where nothing is on it.
        vector: the degradation vector, where there is guidance, which is part of the base and so
            acts on every picture; else None.
        suggested: where the base works alone, the task that may be worth trying; else None.
        guard: what the last guard holds it to; None where it has nothing to say.
        second: what the router saw of the picture once the expert for what it had seen first had
            acted on it; None where it did not look again.
    """

    route: Route
    reason: str
    decision: Decision | None = None
    vector: np.ndarray | None = None
    suggested: str | None = None
    guard: Guard | None = None
    in_turn: bool = False
    second: Decision | None = None

    @property
    def experts(self) -> list[str]:
        """The classes whose experts act."""
        return [name for name, _ in self.route]

    def describe(self) -> dict[str, Any]:
        """Plain JSON values: `seen`, `sure`, `likeliest` (the two most probable classes and their
        probabilities), `route`, `in_turn`, `abstained`, `suggested`, `reason`, `guard`,
        `probabilities`, `second`.

        `guard` says what the last guard did, and is None where it did nothing. `second` has `seen`
        and `sure` of the second look, and is None where there was none.
        """
        seen = self.decision
        return {
            "seen": None if seen is None else seen.seen,
            "sure": None if seen is None else round(seen.probabilities[seen.seen], 4),
            "likeliest": []
            if seen is None
            else [{"class": n, "probability": round(p, 4)} for n, p in seen.likeliest],
            "route": {name: round(weight, 4) for name, weight in self.route},
            "in_turn": self.in_turn,
            "abstained": seen is not None and seen.abstained,
            "suggested": self.suggested,
            "reason": self.reason,
            "guard": None if self.guard is None else self.guard.describe(),
            "probabilities": {}
            if seen is None
            else {name: round(chance, 4) for name, chance in seen.probabilities.items()},
            "second": None
            if self.second is None
            else {
                "seen": self.second.seen,
                "sure": round(self.second.probabilities[self.second.seen], 4),
            },
        }


@runtime_checkable
class PictureRestorer(Protocol):
    """What restores pictures, whether it asks each what it needs or treats all alike."""

    looks: bool
    """Whether pictures are looked at before, so that each may need something else."""

    @property
    def adapters(self) -> Sequence[AppliedAdapter]:
        """All that may be used."""
        ...

    def describe(self) -> dict[str, Any]:
        """What restores, as plain JSON values."""
        ...

    def restore(self, image: np.ndarray, on_progress: OnProgress | None = None) -> np.ndarray:
        """Restore a picture held in memory; see `Restorer.restore`."""
        ...

    def for_file(
        self, path: Path, *, page: int | None, max_pixels: int | None, samples: Samples
    ) -> tuple[Restorer, Choice | None]:
        """What restores a picture, and why: None where nothing looked at it.

        Args:
            path: the picture.
            page: which of its pages, from 0; None for the one that it shows first.
            max_pixels: refuse pictures with more; None for no limit.
            samples: what is known about its samples.

        Raises:
            UrushiError: it cannot be read.
        """
        ...


def hinted(choice: Choice) -> Choice:
    """The choice with what may be worth trying instead; see docs/decisions/0023."""
    name = None if choice.decision is None else choice.decision.suggested
    if name is None or (choice.guard is not None and choice.guard.told):
        return choice
    return replace(choice, reason=f"{choice.reason}: {advice(name)}", suggested=name)
