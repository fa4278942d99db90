"""A worker: restores batches of pictures, with a restorer that it makes ready once."""

import hashlib
import os
import pickle
import platform
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from urushi.cluster.luggage import Luggage, unpacked
from urushi.cluster.plan import Ended, Work
from urushi.errors import UrushiError
from urushi.inference.batch import Event, FileResult, Job, run_batch
from urushi.inference.picture_files import FileOptions
from urushi.inference.staged import Part, Staged
from urushi.names import counted

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
        self, steward: Any, luggage: Luggage, options: FileOptions, engine: dict[str, Any]
    ) -> None:
        self._steward, self._options = steward, options
        # Made only where something has to lie there: a worker that is killed removes nothing.
        place = _free_place()
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        self._restorer = unpacked(luggage, place)
        self._restorer.run_with(**engine)
        self._name = f"{platform.node()}:{os.getpid()}"
        self._facts: dict[str, Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Restores the pictures of batches; what became of them the steward alone is told."""
        for content in batch["works"]:
            self._restore(*pickle.loads(content))
        return {"works": batch["works"][:0]}

    def _restore(self, works: Sequence[Work], part: Part) -> None:
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
                    self._again(work, times, part)
            else:
                self._run([work for work, _ in left], part)
        except UrushiError as error:
            # The fault of no picture: none can be restored so.
            ray.get(self._steward.fail.remote(str(error)))
            raise
        # What was told before has arrived as well when this does.
        ray.get(self._steward.open.remote([]))

    def _again(self, work: Work, times: int, part: Part) -> None:
        """Restores a picture of a batch that a worker died at."""
        import ray

        files = _Files(part, _free_place())
        there = times and not work.overwrite and files.staged.exists(files.here(work.target))
        if there:
            said = "The worker that restored it died before it could tell what it had seen."
            self._tell(files, work, FileResult(work.source, work.target, "restored", notes=(said,)))
        elif times >= TRIES:
            said = (
                f"{files.here(work.source)}: {counted(times, 'worker')} died at it, maybe for "
                "want of memory: try it alone, without --cluster"
            )
            self._tell(files, work, FileResult(work.source, work.target, "failed", said))
        else:
            ray.get(self._steward.begin.remote(work.index))
            self._run([work], part)

    def _run(self, works: Sequence[Work], part: Part) -> None:
        files = _Files(part, _free_place())

        def tell(event: Event) -> None:
            work = works[event.index]
            if event.result is not None:
                self._tell(files, work, event.result)
            elif not event.done:
                self._steward.begin.remote(work.index)

        jobs = [Job(files.here(w.source), files.here(w.target), w.overwrite) for w in works]
        with files.staged as staged:
            run_batch(self._restorer, jobs, on_event=tell, staged=staged, options=self._options)

    def _tell(self, files: "_Files", work: Work, result: FileResult) -> None:
        """Tells what became of a picture."""
        there = result.status != "failed"
        bytes, sha256 = files.facts_of(files.here(work.target)) if there else (None, None)
        told = files.staged.told
        result = replace(
            result,
            source=work.source,
            target=work.target,
            message=told(result.message),
            notes=tuple(told(note) for note in result.notes),
        )
        restorer = self._facts if result.status == "restored" else None
        ended = Ended(work.index, result, work.bytes, bytes, sha256, restorer, self._name)
        self._steward.end.remote(ended)


def _free_place() -> Path:
    """A folder for what has to lie on this node, which is not there yet."""
    return Path(os.path.realpath(tempfile.gettempdir()), f"urushi-{secrets.token_hex(8)}")


class _Files:
    """The files of a batch, where they lie here, and what is known of those that were sent.

    Args:
        part: what stands in for stores, as another process tells it.
        place: a folder that is not there yet.
    """

    def __init__(self, part: Part, place: Path) -> None:
        self._part, self._place = part, place
        self.staged = Staged.of_part(part, place, self._note)
        self._facts: dict[Path, tuple[int | None, str | None]] = {}

    def here(self, path: Path) -> Path:
        """The path here of one that the other process tells."""
        return self._part.moved(path, self._place)

    def facts_of(self, path: Path) -> tuple[int | None, str | None]:
        """Bytes and SHA-256 of a target; None where they are not known."""
        return self._facts.get(path) or _facts_of_file(path)

    def _note(self, path: Path) -> None:
        self._facts[path] = _facts_of_file(path)


def _facts_of(facts: dict[str, Any]) -> dict[str, Any]:
    told = {name: facts[name] for name in _TOLD if name in facts}
    # What may be used says nothing of one picture; what was used its route says.
    adapters = [] if "router" in facts else facts["adapters"]
    return {**told, "adapters": adapters}


def _facts_of_file(path: Path) -> tuple[int | None, str | None]:
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None, None
