"""Several experts on one picture, one after the other: what came last is undone first.

A picture is spoilt in the order of nature: the scene (low light, haze, rain, snow), what is before
or in the lens (drops, shake), the sensor (noise), the file (JPEG). Undone the other way round, each
expert gets a picture that has only the damage that it and the later ones are for. Noise goes before
JPEG nevertheless: its expert has learned noise that was compressed, and that for JPEG takes noise
for what compression left. See docs/decisions/0052.
"""

import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from urushi.errors import AdapterError, EngineError, nearest
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.base import Engine
from urushi.inference.guard.holding import taken_rows
from urushi.inference.restorer import OnProgress, Restorer
from urushi.inference.tiling import ReadRows
from urushi.inference.zoo import find_all_in_one, zoo_experts

__all__ = ["AUTO", "NONE", "ORDER", "RestorerInTurn", "classes_of", "in_order", "split_task"]

AUTO, NONE = "auto", "none"
"""Tasks that are no kinds of damage: what the router sees, and the base alone."""

ORDER = ("noise", "jpeg", "blur", "raindrop", "snow", "rain", "haze", "low-light")
"""Kinds of damage in the order in which they are undone: sensor, file, lens, scene, its light."""

_LIGHT, _FILE = "low-light", "jpeg"

_BETWEEN = re.compile(r"\s*[+,]\s*")


def split_task(task: object) -> tuple[str, ...]:
    """The classes that a task names, in the order in which they act: `haze+noise` is two.

    Raises:
        AdapterError: it names nothing, one is named twice, or a name is missing.
    """
    if not isinstance(task, str) or not task.strip():
        raise AdapterError(
            f"task is {task!r:.80}: expected {AUTO}, {NONE}, or kinds of damage such as haze or "
            "haze+noise",
            usage=True,
        )
    names = _BETWEEN.split(task.strip())
    if len(names) > 1 and not all(names):
        raise AdapterError(
            f"task is {task!r}: expected one name, or several such as noise+haze", usage=True
        )
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise AdapterError(
            f"task is {task!r}, which names {twice} twice: leave one out", usage=True
        )
    return in_order(names)


def classes_of(task: object, file: Path, experts: Iterable[str]) -> tuple[str, ...]:
    """The classes of an all-in-one file whose experts a task tells to act; none for `AUTO`, `NONE`.

    Args:
        task: what was asked for.
        file: the all-in-one file.
        experts: the classes that have one there.

    Raises:
        AdapterError: as `split_task`, or the file has no such expert.
    """
    if task in (AUTO, NONE):
        return ()
    named, there = split_task(task), list(experts)
    for name in named:
        if name in there:
            continue
        if name in (AUTO, NONE):
            raise AdapterError(
                f"task {task!r} names {name!r}, which stands alone: leave it out, or the others; "
                f"several are of {', '.join(there)}",
                usage=True,
            )
        known = f"{file.name} has {', '.join(there if len(named) > 1 else (AUTO, NONE, *there))}"
        what = f"task is {task!r}" if name == task else f"task {task!r} names {name!r}"
        ships = name.lower() not in there and name.lower() in zoo_experts()
        if ships and file == find_all_in_one():
            raise AdapterError(
                f"{what}, which the router does not choose: give {name.lower()} as an adapter, and "
                f"no task; {known}",
                usage=True,
            )
        raise AdapterError(f"{what}{nearest(name.lower(), there)}: {known}", usage=True)
    return named


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Classes in the order in which their experts act; those of other routers as given, last."""
    if set(names) == {_LIGHT, _FILE}:
        # In the dark little is seen of what compression left, and brightening shows it.
        return _LIGHT, _FILE
    known = {name: place for place, name in enumerate(ORDER)}
    return tuple(sorted(names, key=lambda name: known.get(name, len(known))))


class _Told(threading.local):
    """Notes about the picture that a thread restores, or has restored last."""

    def __init__(self) -> None:
        self.notes: list[str] = []


class RestorerInTurn(Restorer):
    """Restores with several restorers, each of which gets what the one before it has made.

    Rows stream from one to the next, so memory is that of a line of tiles for each of them.

    Args:
        restorers: in the order in which they act; two at least.

    Raises:
        EngineError: one enlarges pictures, so that the next would get another picture.
    """

    def __init__(self, restorers: Sequence[Restorer]) -> None:
        assert len(restorers) > 1, restorers
        if any(one.scale != 1 for one in restorers):
            raise EngineError(
                "this network enlarges pictures, and experts can act one after the other only "
                "where the size is kept: name one task",
                usage=True,
            )
        stages = {f"stage{number}": one for number, one in enumerate(restorers)}
        self._record(**stages)
        self._make(**stages)

    def _make(self, **stages: Restorer) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.stages = tuple(stages.values())
        self.engine = self.stages[-1].engine
        self._told = _Told()

    @property
    def adapters(self) -> tuple[AppliedAdapter, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of all of them, in the order in which they act."""
        return tuple(adapter for one in self.stages for adapter in one.adapters)

    @property
    def notes(self) -> list[str]:
        """Sentences about the latest picture of this thread; they go with the next one."""
        return self._told.notes

    def describe(self) -> dict[str, object]:
        """What restores, as `Restorer.describe`, with the adapters of all of them."""
        return {
            **self.stages[-1].describe(),
            "adapters": [adapter.describe() for adapter in self.adapters],
        }

    def restore_rows(
        self, read: ReadRows, width: int, height: int, on_progress: OnProgress | None = None
    ) -> Iterator[np.ndarray]:
        """Restore a picture that streams through; see `Restorer.restore_rows`."""
        self.notes.clear()
        done = [0] * len(self.stages)

        def progress_of(number: int) -> OnProgress:
            def progress(finished: int, total: int) -> None:
                done[number] = finished
                if on_progress is not None:
                    on_progress(sum(done) // len(done), total)

            return progress

        rows = self.stages[0].restore_rows(read, width, height, progress_of(0))
        for number, one in enumerate(self.stages[1:], 1):
            again = _reader(rows, height, self.stages[number - 1].engine)
            rows = one.restore_rows(again, width, height, progress_of(number))
        yield from rows
        told = [note for one in self.stages for note in one.notes]
        self.notes.extend(dict.fromkeys(told))


def _reader(rows: Iterator[np.ndarray], height: int, engine: Engine) -> ReadRows:
    """Reads what a restorer yields as a picture is read.

    Args:
        rows: of the picture.
        height: how many there are.
        engine: what makes them; once it has, it lets go of the memory that it worked with.
    """
    waiting: deque[np.ndarray] = deque()
    left = height

    def read(count: int) -> np.ndarray:
        nonlocal left
        if not waiting and left > 0:
            waiting.append(next(rows))
        if not waiting:
            return np.empty((0, 1, 3), np.float32)
        found = taken_rows(waiting, min(count, len(waiting[0])))
        left -= len(found)
        if left == 0:
            # To its end, where it closes what it has open.
            for _ in rows:
                raise AssertionError("a restorer yields more rows than the picture has")
            rest = getattr(engine, "rest", None)
            if rest is not None:
                rest()
        return found

    return read
