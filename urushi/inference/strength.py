"""How much of what a network changes is kept: of all of it, and of lightness and colour apart.

The result is a blend with the picture as it was, in the working space. A change of colours is split
into a grey one, the change of luma (Rec. ITU-R BT.709's weights on encoded values), and the rest.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from urushi.errors import EngineError
from urushi.inference.guard.holding import taken_rows, unchanged_rows
from urushi.inference.restorer import OnProgress, Restorer
from urushi.inference.tiling import ReadRows

__all__ = ["FULL", "Strength", "WeakenedRestorer", "as_strength", "blended", "weakened"]

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class Strength:
    """How much of a change is kept.

    Attributes:
        overall: of all of it, from 0, the picture as it was, to 1, all that the network does.
        luma: of the change of lightness, times `overall`.
        chroma: of the change of colour, times `overall`.

    Raises:
        EngineError: one is not a number from 0 to 1.
    """

    overall: float | int = 1.0
    luma: float | int = 1.0
    chroma: float | int = 1.0

    def __post_init__(self) -> None:
        for name, value in (
            ("strength", self.overall),
            ("luma", self.luma),
            ("chroma", self.chroma),
        ):
            if not 0 <= value <= 1:
                raise EngineError(
                    f"{name} is {value}: expected a number from 0, as it was, to 1, all that the "
                    "network does",
                    usage=True,
                )

    @property
    def of_luma(self) -> float | int:
        """The share of the change of lightness that is kept."""
        return self.overall * self.luma

    @property
    def of_chroma(self) -> float | int:
        """The share of the change of colour that is kept."""
        return self.overall * self.chroma

    def describe(self) -> dict[str, float | int]:
        """Plain JSON values."""
        return {"strength": self.overall, "luma": self.luma, "chroma": self.chroma}


FULL = Strength()


def as_strength(value: Strength | float | int) -> Strength:
    """A plain number is that of the whole change.

    Raises:
        EngineError: it is neither, or out of range.
    """
    if isinstance(value, Strength):
        return value
    if isinstance(value, bool) or not isinstance(value, float | int):
        raise EngineError(
            f"strength is {value!r:.100}: expected a number from 0 to 1, or a Strength", usage=True
        )
    return Strength(value)


def blended(before: np.ndarray, after: np.ndarray, strength: Strength) -> np.ndarray:
    """What comes of a change, `(n, W, 3)` float32 as both pictures are.

    It is exactly `before` at 0 and exactly `after` at 1, and never leaves the values of both by
    more than [0, 1] does.
    """
    luma, chroma = np.float32(strength.of_luma), np.float32(strength.of_chroma)
    if luma == chroma == 0:
        return before
    if luma == chroma == 1:
        return after
    change = after - before
    if luma == chroma:
        return before + luma * change
    grey = (change @ _LUMA)[..., None]
    result = before + luma * grey + chroma * (change - grey)
    least = np.minimum(np.minimum(before, after), 0)
    return np.clip(result, least, np.maximum(np.maximum(before, after), 1), out=result)


class WeakenedRestorer(Restorer):
    """Restores with a part of the strength of another restorer.

    Args:
        restorer: what restores.
        strength: how much of what it changes is kept.

    Raises:
        EngineError: it enlarges pictures, so that there is nothing to blend with.
    """

    def __init__(self, restorer: Restorer, strength: Strength) -> None:
        if restorer.scale != 1:
            raise EngineError(
                f"strength is for networks that keep the size, and this one enlarges "
                f"{restorer.scale} times: leave strength, luma and chroma out",
                usage=True,
            )
        self._record(inner=restorer, strength=strength)
        self._make(restorer, strength)

    def _make(self, inner: Restorer, strength: Strength) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.inner, self.strength = inner, strength
        self.engine, self.adapters = inner.engine, inner.adapters

    @property
    def notes(self) -> list[str]:
        """Sentences about the latest picture of this thread; they go with the next one."""
        return self.inner.notes

    def describe(self) -> dict[str, Any]:
        """What restores, as `Restorer.describe`, and the strength."""
        return {**self.inner.describe(), "strength": self.strength.describe()}

    def restore_rows(
        self, read: ReadRows, width: int, height: int, on_progress: OnProgress | None = None
    ) -> Iterator[np.ndarray]:
        """Restore a picture that streams through; see `Restorer.restore_rows`."""
        if self.strength.of_luma == self.strength.of_chroma == 0:
            self.notes.clear()
            yield from unchanged_rows(read, width, height, on_progress)
            return
        waiting: deque[np.ndarray] = deque()

        def kept(count: int) -> np.ndarray:
            rows = read(count)
            waiting.append(rows.copy())
            return rows

        for after in self.inner.restore_rows(kept, width, height, on_progress):
            yield blended(taken_rows(waiting, len(after)), after, self.strength)


def weakened(restorer: Restorer, strength: Strength) -> Restorer:
    """What restores with that strength: itself where that is all of it.

    Raises:
        EngineError: as `WeakenedRestorer`.
    """
    if strength.of_luma == strength.of_chroma == 1:
        return restorer
    return WeakenedRestorer(restorer, strength)
