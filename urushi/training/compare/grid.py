"""Running the cells of a comparison one after another; what is finished is kept and skipped."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from urushi.errors import UrushiError
from urushi.training.compare.cell import CellResult, find_result, run_cell
from urushi.training.compare.child import keep_failure, run_in_child
from urushi.training.compare.plan import Cell

__all__ = ["Outcome", "run_grid", "stored"]

# Until one looks again whether another process has finished what is left.
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """A cell and what is known of it.

    Attributes:
        cell: which.
        result: None where it is not finished.
        error: why it failed; empty where it did not.
        fresh: it was run just now.
    """

    cell: Cell
    result: CellResult | None = None
    error: str = ""
    fresh: bool = False


def stored(
    folder: Path, cells: Sequence[Cell], errors: Mapping[str, str] | None = None
) -> list[Outcome]:
    """What is known of cells without running any.

    Args:
        folder: of the comparison.
        cells: which.
        errors: why cells failed that were run just now, by their hash.
    """
    told = errors or {}
    return [
        Outcome(cell, find_result(folder, cell), told.get(cell.hash, cell.problem))
        for cell in cells
    ]


def run_grid(
    cells: Sequence[Cell],
    folder: Path,
    *,
    device: str = "auto",
    isolate: bool = True,
    on_share: Callable[[Cell, float], None] | None = None,
    on_cell: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Runs those cells that are not finished; a failed one does not stop the others.

    Several processes may share a folder: a cell that another one is running is left to it, and
    waited for when nothing else is left.

    Args:
        cells: what to run.
        folder: holds `cells`, finished ones, and `running`, those that were interrupted. What went
            wrong in detail goes into `failed`.
        device: `auto` or `cpu`.
        isolate: each in a process of its own; see `urushi.training.compare.child`. Without, peak
            memory is not known.
        on_share: called with a cell and the share of its training that is done.
        on_cell: called after every cell, also those that were finished before.

    Raises:
        KeyboardInterrupt: a signal arrived; the same call goes on where it was.
    """
    outcomes = []
    left = list(cells)
    while left:
        others = []
        for cell in left:
            with _claimed(folder, cell) as mine:
                if not mine:
                    others.append(cell)
                    continue
                outcome = _outcome(cell, folder, device, isolate, on_share)
            outcomes.append(outcome)
            if on_cell is not None:
                on_cell(outcome)
        if len(others) == len(left):
            time.sleep(_PATIENCE_SECONDS)
        left = others
    return outcomes


@contextmanager
def _claimed(folder: Path, cell: Cell) -> Iterator[bool]:
    """Whether no other process is running a cell; none will until the end of the block."""
    # Not among those that were interrupted. The system lets go of it with the process.
    place = folder / "locks"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / cell.hash)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _outcome(
    cell: Cell,
    folder: Path,
    device: str,
    isolate: bool,
    on_share: Callable[[Cell, float], None] | None,
) -> Outcome:
    found = find_result(folder, cell)
    if found is not None:
        return Outcome(cell, found)
    if cell.problem:
        return Outcome(cell, error=cell.problem)

    def tell(share: float) -> None:
        if on_share is not None:
            on_share(cell, share)

    try:
        if isolate:
            run_in_child(cell, folder, device, tell)
            result = find_result(folder, cell)
            assert result is not None
            return Outcome(cell, result, fresh=True)
        result = run_cell(
            cell, folder, device=device, alone=False, on_progress=lambda p: tell(p.share)
        )
        return Outcome(cell, result, fresh=True)
    except UrushiError as error:
        return Outcome(cell, error=str(error), fresh=True)
    except Exception as error:
        # A fault of ours in one cell: the others are worth having all the same.
        place = keep_failure(cell, folder, traceback.format_exc())
        return Outcome(cell, error=f"{type(error).__name__}: {error} (see {place})", fresh=True)
