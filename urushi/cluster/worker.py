"""A worker: restores batches of pictures, with a restorer that it makes ready once."""

import hashlib
import os
import pickle
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from urushi.cluster.luggage import Luggage, unpacked
from urushi.cluster.plan import Ended, Work
from urushi.cluster.transfers import is_remote, is_there, restore_there
from urushi.errors import UrushiError
from urushi.inference.batch import Event, FileResult, Job, run_batch
from urushi.inference.held import Options

__all__ = ["TRIES", "Worker"]

TRIES = 3
"""A picture is given up whose worker has died so many times."""

# Of what a restorer says of itself, what the rows of a manifest hold.
_TOLD = ("engine", "device", "precision", "tile", "overlap", "scale", "router", "task", "strength")


class Worker:
    """Called with batches by Ray, one after another.

    Args:
        steward: the actor that is told of what begins and ends; see `urushi.cluster.steward`.
        luggage: the restorer.
        options: how pictures are read and written.
        engine: options of the restorer's engine here, such as its device.
    """

    def __init__(
        self, steward: Any, luggage: Luggage, options: Options, engine: dict[str, Any]
    ) -> None:
        self._steward, self._options = steward, options
        self._folder = tempfile.TemporaryDirectory(prefix="urushi-", ignore_cleanup_errors=True)
        self._place = Path(self._folder.name)
        self._restorer = unpacked(luggage, self._place / "files")
        self._restorer.run_with(**engine)
        self._name = f"{platform.node()}:{os.getpid()}"
        self._facts: dict[str, Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Restores the pictures of batches; what became of them the steward alone is told."""
        for content in batch["works"]:
            self._restore(pickle.loads(content))
        return {"works": batch["works"][:0]}

    def _restore(self, works: Sequence[Work]) -> None:
        import ray

        begun = ray.get(self._steward.open.remote([work.index for work in works]))
        left = [(work, n) for work, n in zip(works, begun, strict=True) if n is not None]
        try:
            if self._facts is None:
                described = self._restorer.describe()
                self._steward.ready.remote(described)
                self._facts = _facts_of(described)
            if any(times for _, times in left):
                # A worker died at one of them. Alone, none is blamed for what another does.
                for work, times in left:
                    self._again(work, times)
            else:
                self._run([work for work, _ in left])
        except UrushiError as error:
            # The fault of no picture: none can be restored so.
            ray.get(self._steward.fail.remote(str(error)))
            raise
        # What was told before has arrived as well when this does.
        ray.get(self._steward.open.remote([]))

    def _again(self, work: Work, times: int) -> None:
        """Restores a picture of a batch that a worker died at."""
        import ray

        source, target = Path(work.source), Path(work.target)
        if times and not work.overwrite and is_there(work.target):
            said = "The worker that restored it died before it could tell what it had seen."
            self._end(work, FileResult(source, target, "restored", notes=(said,)), source, target)
        elif times >= TRIES:
            said = (
                f"{work.source}: {times} workers died while they were at it, maybe for want of "
                "memory: try it alone, without --cluster"
            )
            self._end(work, FileResult(source, target, "failed", said), source, target)
        else:
            ray.get(self._steward.begin.remote(work.index))
            self._run([work])

    def _run(self, works: Sequence[Work]) -> None:
        if any(is_remote(work) for work in works):
            restore_there(works, self._place, self._restore_file, self._begin, self._end)
            return

        def tell(event: Event) -> None:
            work = works[event.index]
            if event.result is not None:
                self._end(work, event.result, Path(work.source), Path(work.target))
            elif not event.done:
                self._begin(work)

        jobs = [Job(Path(work.source), Path(work.target), work.overwrite) for work in works]
        run_batch(self._restorer, jobs, on_event=tell, **vars(self._options))

    def _restore_file(self, job: Job) -> FileResult:
        return run_batch(self._restorer, [job], **vars(self._options)).results[0]

    def _begin(self, work: Work) -> None:
        self._steward.begin.remote(work.index)

    def _end(self, work: Work, result: FileResult, source: Path, target: Path) -> None:
        """Tells what became of a picture, whose files lie here at least meanwhile."""
        there = result.status != "failed"
        ended = Ended(
            work.index,
            _as_asked(result, work, source, target),
            _size(source),
            _size(target) if there else None,
            _sha256(target) if there else None,
            self._facts if result.status == "restored" else None,
            self._name,
        )
        self._steward.end.remote(ended)


def _as_asked(result: FileResult, work: Work, source: Path, target: Path) -> FileResult:
    """The result in the words of who asked: nobody knows the files that lie here meanwhile."""

    def told(text: str) -> str:
        return text.replace(str(target), work.target).replace(str(source), work.source)

    return replace(
        result, message=told(result.message), notes=tuple(told(note) for note in result.notes)
    )


def _facts_of(facts: dict[str, Any]) -> dict[str, Any]:
    told = {name: facts[name] for name in _TOLD if name in facts}
    # What may be used says nothing of one picture; what was used its route says.
    adapters = [] if "router" in facts else facts["adapters"]
    return {**told, "adapters": adapters}


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
