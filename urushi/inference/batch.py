"""Restoring many files one after another, and the report on them."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

from urushi.errors import TakenError, TargetError, UrushiError
from urushi.image.opened import Identity, check_unchanged, identity_of
from urushi.image.page_choice import is_stack
from urushi.inference.choice import Choice, PictureRestorer
from urushi.inference.jobs import Job, plan_batch
from urushi.inference.lanes import Ahead, Behind, InOrder
from urushi.inference.picture_files import (
    AS_USUAL,
    SMALL,
    FileOptions,
    Held,
    Outcome,
    Restored,
    check_format,
    hold,
    mend,
    restore_picture,
    write,
)
from urushi.inference.restorer import Restorer
from urushi.inference.staged import Staged
from urushi.inference.suggestions import Suggestion, suggestions_of
from urushi.writing import remove_leftovers

__all__ = ["BatchReport", "Event", "FileResult", "Job", "fate_of", "plan_batch", "run_batch"]

logger = logging.getLogger(__name__)

Status = Literal["restored", "skipped", "failed"]
# Results on their way to a store, and threads that take them there.
_SENDING = {"most": 6, "threads": 4}


@dataclass(frozen=True)
class FileResult:
    """What became of one job.

    Attributes:
        source: the file to read.
        target: the file to write.
        status: restored, skipped (the target was there already) or failed.
        message: one sentence; empty for restored.
        seconds: time it took.
        pixels: pixels restored.
        choice: what the picture was seen to need; None where nothing looked at it.
        notes: sentences about what did not come through unharmed, or was not as a user would
            expect, although the picture was restored.
    """

    source: Path
    target: Path
    status: Status
    message: str = ""
    seconds: float = 0.0
    pixels: int = 0
    choice: Choice | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something happened while a batch runs.

    Attributes:
        index: which job, from 0.
        total: how many jobs there are.
        job: the job.
        done: its finished pixels.
        pixels: its pixels; 0 before the first are finished.
        result: set with the job's last event.
    """

    index: int
    total: int
    job: Job
    done: int = 0
    pixels: int = 0
    result: FileResult | None = None


@dataclass(frozen=True)
class BatchReport:
    """What became of a batch.

    Attributes:
        results: one for each job that was begun, in order.
        seconds: time it took.
        interrupted: whether it was stopped before the last job was finished.
        restorer: what restored, as it describes itself, where that was not in this process.
    """

    results: list[FileResult] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    restorer: dict[str, Any] | None = None

    def count(self, status: Status) -> int:
        """How many files ended so."""
        return Counter(result.status for result in self.results)[status]

    @property
    def ok(self) -> bool:
        """Whether nothing failed and nothing was left out."""
        return not self.interrupted and self.count("failed") == 0

    @property
    def suggestions(self) -> list[Suggestion]:
        """What else could be done for pictures that were restored by the base alone."""
        done = [result for result in self.results if result.status == "restored"]
        return suggestions_of((result.source, result.choice) for result in done)

    def to_json(self) -> dict[str, object]:
        """The report as plain JSON values."""
        return {
            "restored": self.count("restored"),
            "skipped": self.count("skipped"),
            "failed": self.count("failed"),
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "pixels": sum(result.pixels for result in self.results),
            "suggestions": [suggestion.describe() for suggestion in self.suggestions],
            "files": [
                {
                    "source": str(result.source),
                    "target": str(result.target),
                    "status": result.status,
                    "message": result.message,
                    "seconds": round(result.seconds, 3),
                    "pixels": result.pixels,
                    "notes": list(result.notes),
                    **({} if result.choice is None else {"router": result.choice.describe()}),
                }
                for result in self.results
            ],
        }


def run_batch(
    restorer: PictureRestorer,
    jobs: Sequence[Job],
    *,
    on_event: Callable[[Event], None] | None = None,
    options: FileOptions = AS_USUAL,
    staged: Staged | None = None,
) -> BatchReport:
    """Restore files one after another; one that fails never stops the others.

    Small pictures are read ahead and written behind by threads of their own. What becomes of a
    picture does not depend on the others.

    An interruption by the keyboard ends the batch early, leaves no partial file, and is told by
    the report. Run again, the same jobs go on where they were stopped.

    Args:
        restorer: what restores; one that chooses is asked anew for each picture.
        jobs: from `plan_batch`.
        on_event: told of each job's begin, progress and end.
        options: how all of them are read and written.
        staged: what stands in for stores among the jobs; entered, and ended by the caller.
    """
    for folder in {job.target.parent for job in jobs}:
        remove_leftovers(folder)
    staged = staged or Staged((), None)
    run = _Run(restorer, jobs, on_event or (lambda event: None), options, staged)
    begin = time.perf_counter()
    interrupted = run.all()
    return BatchReport(run.results, time.perf_counter() - begin, interrupted)


@dataclass(frozen=True)
class _Begun:
    """A job whose picture is restored, or need not be.

    Attributes:
        index: which one.
        job: the job.
        start: when it was begun, in seconds.
        choice: what the picture was seen to need.
        pixels: of the picture.
    """

    index: int
    job: Job
    start: float
    choice: Choice | None
    pixels: int


class _Run:
    """One batch: small pictures are read before their turn, and written while the next is restored.

    Args:
        restorer, jobs: as `run_batch` takes them.
        tell: is told of events, of one job after the other.
        options: how all files are read and written.
        staged: what stands in for stores.
    """

    def __init__(
        self,
        restorer: PictureRestorer,
        jobs: Sequence[Job],
        tell: Callable[[Event], None],
        options: FileOptions,
        staged: Staged,
    ) -> None:
        self._restorer, self._jobs, self._options = restorer, jobs, options
        self._staged, self._writing = staged, Lock()
        self._events = InOrder(tell)
        self.results: list[FileResult] = []

    def all(self) -> bool:
        """Does all jobs; tells whether it was interrupted."""
        ahead = Ahead(self._jobs, self._read, **({} if len(self._jobs) > 1 else {"ahead": 0}))
        # Of pictures that go to stores, several are on their way at a time.
        sending = _SENDING if self._staged.sends(job.target for job in self._jobs) else {}
        with ahead, Behind(self._finished, **sending) as behind:
            try:
                self._staged.begin(job.source for job in self._jobs if not job.problem)
                for index, job in enumerate(self._jobs):
                    self._events.tell(index, Event(index, len(self._jobs), job))
                    self._one(index, job, ahead.take(index), behind)
                behind.finish()
            except KeyboardInterrupt:
                # What is restored already is written in a moment.
                behind.finish()
                return True
        return False

    def _read(self, job: Job) -> Held | None:
        if fate_of(job, self._staged)[1] or not self._staged.bring(job.source, now=False):
            return None
        return hold(job.source, job.target, self._options)

    def _one(
        self, index: int, job: Job, held: Held | None, behind: Behind[_Begun, "_Written"]
    ) -> None:
        start = time.perf_counter()
        choice: Choice | None = None
        part: Callable[[], _Written]
        pixels = 0

        def progress(done: int, pixels: int) -> None:
            self._events.tell(index, Event(index, len(self._jobs), job, done, pixels))

        try:
            status, message = fate_of(job, self._staged)
            if status != "restored":
                part = partial(_Written, status, message)
            else:
                self._staged.bring(job.source)
                check_format(job.source, job.target, self._options)
                seen = _identity(job.source) if self._restorer.looks else None
                options = self._options
                chosen = _PerPage(self._restorer, job.source, options)
                ready, choice = chosen.first()
                if held is not None and ready.scale**2 * held.pixels <= SMALL:
                    check_unchanged(job.source, seen, held.info.identity)
                    restored = mend(ready, held, progress)
                    pixels = held.pixels
                    part = partial(self._write, job, restored)
                else:
                    behind.finish()
                    outcome = _run_job(ready, job, progress, options, seen, chosen.later)
                    pixels = outcome.pixels
                    part = partial(self._sent, job, (*outcome.notes, *chosen.notes))
        except Exception as error:
            part = partial(_raised, error)
        behind.add(_Begun(index, job, start, choice, pixels), part)

    def _write(self, job: Job, restored: Restored) -> "_Written":
        with self._writing:
            _make_folder(job)
            notes = write(restored, job.target, job.overwrite, self._options)
        return self._sent(job, notes)

    def _sent(self, job: Job, notes: tuple[str, ...]) -> "_Written":
        """Ends a job whose picture is written: one of a store is put there."""
        self._staged.send(job.target, overwrite=job.overwrite)
        return _Written("restored", "", (*notes, *self._staged.notes(job.source, job.target)))

    def _finished(self, begun: _Begun, written: Callable[[], "_Written"]) -> None:
        """Notes down what became of a job, and tells it."""
        job, done = begun.job, _outcome(begun.job, written)
        self._staged.drop(job.source, job.target)
        seconds = time.perf_counter() - begun.start
        finished = begun.pixels if done.status == "restored" else 0
        result = FileResult(
            job.source,
            job.target,
            done.status,
            done.message,
            seconds,
            finished,
            begun.choice,
            done.notes,
        )
        self.results.append(result)
        event = Event(begun.index, len(self._jobs), job, finished, finished, result)
        self._events.tell(begun.index, event, last=True)


class _Written(NamedTuple):
    """How a job ended; see `FileResult`."""

    status: Status
    message: str = ""
    notes: tuple[str, ...] = ()


def _raised(error: Exception) -> _Written:
    raise error


def _outcome(job: Job, written: Callable[[], _Written]) -> _Written:
    """How a job ended, whatever went wrong."""
    try:
        return written()
    except TakenError as error:
        # Another process has done the same meanwhile.
        return _Written("skipped", str(error))
    except (UrushiError, OSError) as error:
        return _Written("failed", str(error))
    except MemoryError:
        return _Written("failed", _no_memory(job.source))
    except Exception as error:
        # A fault of ours in one picture: the others are still worth restoring.
        logger.exception("restoring %s failed unexpectedly", job.source)
        name = type(error).__name__
        return _Written("failed", f"{job.source}: unexpected {name}: {error}")


class _PerPage:
    """What restores each page of a file: chosen anew where something chooses.

    Args:
        restorer: of the batch.
        source: the file.
        options: how it is read.
    """

    def __init__(self, restorer: PictureRestorer, source: Path, options: FileOptions) -> None:
        self._restorer, self._source, self._options = restorer, source, options
        self._first: tuple[Restorer, Choice | None] | None = None
        self._stacked = is_stack(source)
        self.notes: list[str] = []

    def first(self) -> tuple[Restorer, Choice | None]:
        """For the first page that is taken."""
        self._first = self._choose(self._options.first_page)
        return self._first

    def later(self, page: int) -> Restorer:
        """For another one, counted from 0; a note tells where it needs something else."""
        if self._first is not None and self._stacked:
            # Planes of one thing are not to differ in how they were mended.
            return self._first[0]
        ready, choice = self._choose(page)
        before = None if self._first is None else self._first[1]
        if choice is not None and before is not None and choice.experts != before.experts:
            self.notes.append(f"Page {page + 1}, unlike the first: {choice.reason}.")
        return ready

    def _choose(self, page: int | None) -> tuple[Restorer, Choice | None]:
        options = self._options
        return self._restorer.for_file(
            self._source, page=page, max_pixels=options.max_pixels, samples=options.samples
        )


def fate_of(job: Job, staged: Staged) -> tuple[Status, str]:
    """What becomes of a job that need not be run; `restored` for one that has to be."""
    if job.problem:
        return "failed", job.problem
    if job.left:
        return "skipped", job.left
    if not job.overwrite and staged.exists(job.target):
        return "skipped", f"{job.target}: exists already, --overwrite restores it again"
    return "restored", ""


def _run_job(
    restorer: Restorer,
    job: Job,
    on_progress: Callable[[int, int], None],
    options: FileOptions,
    seen: Identity | None,
    for_page: Callable[[int], Restorer],
) -> Outcome:
    """Restores one picture; `seen` is the file that a router has looked at."""
    _make_folder(job)
    return restore_picture(
        restorer,
        job.source,
        job.target,
        overwrite=job.overwrite,
        options=options,
        on_progress=on_progress,
        expected=seen,
        for_page=for_page,
    )


def _make_folder(job: Job) -> None:
    try:
        # Nothing is made for a source that is not there.
        if job.source.exists():
            job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"{job.target.parent} cannot be created ({error.strerror or error}): "
            "choose a writable folder"
        ) from error


def _identity(path: Path) -> Identity | None:
    """Of a file; None where there is none, which reading it will tell."""
    try:
        return identity_of(path)
    except OSError:
        return None


def _no_memory(path: Path) -> str:
    return (
        f"{path}: there is too little memory to restore it: close other programs, or take "
        "smaller tiles (--tile)"
    )
