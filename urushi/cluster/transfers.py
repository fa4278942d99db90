"""Pictures of stores: fetched ahead of their turn, and put back while the next is restored."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from urushi.cluster.plan import Work
from urushi.errors import TakenError, UrushiError
from urushi.inference.batch import FileResult, Job
from urushi.inference.lanes import Ahead, Behind
from urushi.remote import Place, fetch, is_url, look, put

__all__ = ["is_remote", "is_there", "restore_there"]

# Pictures that are fetched and wait, and such that are being put back.
_AHEAD = 2

Restore = Callable[[Job], FileResult]


class _Fetched(NamedTuple):
    """A source that lies here, or why it does not.

    Attributes:
        folder: of its own.
        path: of the source.
        notes: what fetching it has told.
        problem: a sentence; empty where it is here.
    """

    folder: Path
    path: Path
    notes: tuple[str, ...] = ()
    problem: str = ""


class _Restored(NamedTuple):
    work: Work
    fetched: _Fetched
    target: Path
    result: FileResult


def is_remote(work: Work) -> bool:
    """Whether a picture comes from or goes to a store."""
    return is_url(work.source) or is_url(work.target)


def is_there(target: str) -> bool:
    """Whether a target lies there already."""
    return look(Place.of(target)) is not None if is_url(target) else Path(target).exists()


def restore_there(
    works: Sequence[Work],
    folder: Path,
    restore: Restore,
    begin: Callable[[Work], None],
    end: Callable[[Work, FileResult, Path, Path], None],
) -> None:
    """Restores pictures of stores; at any time few of them lie here.

    Args:
        works: in their order.
        folder: for what lies here meanwhile.
        restore: restores a file into a file.
        begin: told of each whose turn it is.
        end: told of each what became of it, and where source and target lie here.
    """

    def ended(restored: _Restored, put_there: Callable[[], FileResult]) -> None:
        end(restored.work, put_there(), restored.fetched.path, restored.target)
        shutil.rmtree(restored.fetched.folder, ignore_errors=True)

    fetched_into = partial(_fetched, folder)
    with Ahead(works, fetched_into, _AHEAD) as ahead, Behind(ended, _AHEAD) as behind:
        for number, work in enumerate(works):
            begin(work)
            fetched = ahead.take(number) or fetched_into(work)
            target = Path(work.target)
            if is_url(work.target):
                target = fetched.folder / "restored" / Place.of(work.target).name
            result = _restored(work, fetched, target, restore)
            behind.add(
                _Restored(work, fetched, target, result), partial(_put, work, target, result)
            )
        behind.finish()


def _fetched(folder: Path, work: Work) -> _Fetched:
    own = folder / str(work.index)
    own.mkdir(parents=True, exist_ok=True)
    if not is_url(work.source):
        return _Fetched(own, Path(work.source))
    place = Place.of(work.source)
    path = own / place.name
    told: list[str] = []
    try:
        fetch(place, path, tell=told.append)
    except UrushiError as error:
        return _Fetched(own, path, tuple(told), str(error))
    return _Fetched(own, path, tuple(told))


def _restored(work: Work, fetched: _Fetched, target: Path, restore: Restore) -> FileResult:
    if fetched.problem:
        return FileResult(fetched.path, target, "failed", fetched.problem)
    # Whether a target in a store may be replaced is asked of the store.
    job = Job(fetched.path, target, work.overwrite or is_url(work.target))
    result = restore(job)
    return replace(result, notes=(*fetched.notes, *result.notes))


def _put(work: Work, target: Path, result: FileResult) -> FileResult:
    if result.status != "restored" or not is_url(work.target):
        return result
    told: list[str] = []
    try:
        put(target, Place.of(work.target), overwrite=work.overwrite, tell=told.append)
    except TakenError as error:
        return replace(result, status="skipped", message=str(error))
    except UrushiError as error:
        return replace(result, status="failed", message=str(error))
    return replace(result, notes=(*result.notes, *told))
