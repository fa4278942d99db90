"""Running the cells of a comparison one after another; what is finished is kept and skipped.

Each cell has a process of its own, the command `urushi compare CELL --cell`, because a process's
peak of memory covers all it has ever done: it says something about a method only where there was no
other. A cell that runs out of memory does not take the others with it either. The price is the
start of a process, the import of torch mostly.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from urushi.errors import UrushiError
from urushi.files.container import write_whole
from urushi.training.compare.cell import CellResult, CellStopped, cell_folder, find_result, run_cell
from urushi.training.compare.cell_plan import Cell

__all__ = ["Outcome", "run_grid", "run_in_child", "run_one", "stored"]

# What a process of its own returns that was stopped: an exit code, or the signal itself where it
# had no time for one.
_STOPPED = {code: n for n in (signal.SIGINT, signal.SIGTERM) for code in (128 + n, -n)}
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
        isolate: each in a process of its own, see `run_in_child`; without, peak memory is not
            known.
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
            outcome = run_one(cell, folder, device=device, isolate=isolate, on_share=on_share)
            if outcome is None:
                others.append(cell)
                continue
            outcomes.append(outcome)
            if on_cell is not None:
                on_cell(outcome)
        if len(others) == len(left):
            time.sleep(_PATIENCE_SECONDS)
        left = others
    return outcomes


def run_one(
    cell: Cell,
    folder: Path,
    *,
    device: str = "auto",
    isolate: bool = True,
    on_share: Callable[[Cell, float], None] | None = None,
) -> Outcome | None:
    """Runs a cell if it is not finished; None where another process is running it.

    The arguments are those of `run_grid`.

    Raises:
        KeyboardInterrupt: a signal arrived.
    """
    with _claimed(folder, cell) as mine:
        return _outcome(cell, folder, device, isolate, on_share) if mine else None


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
        place = _keep_failure(cell, folder, traceback.format_exc())
        return Outcome(cell, error=f"{type(error).__name__}: {error} (see {place})", fresh=True)


def run_in_child(
    cell: Cell, folder: Path, device: str, on_share: Callable[[float], None] | None = None
) -> None:
    """Runs a cell by the command `urushi compare CELL --cell`, which writes its result itself.

    Args:
        cell: what to run.
        folder: of the comparison.
        device: `auto` or `cpu`.
        on_share: called with the share of the training that is done.

    Raises:
        KeyboardInterrupt: this process or the other was stopped; the cell's checkpoint is there.
        UrushiError: the cell failed.
    """
    stated = cell_folder(folder, cell) / "cell.json"
    stated.parent.mkdir(parents=True, exist_ok=True)
    write_whole(stated, cell.model_dump_json().encode())
    words = ["compare", str(stated), "--cell", "-o", str(folder), "--device", device, "--json"]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "urushi", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        said = ""
        try:
            for line in process.stdout:
                told = _told(line)
                if told is None:
                    errors.write(line)
                    continue
                said = told.get("error", said)
                if on_share is not None and "share" in told:
                    on_share(told["share"])
            code = process.wait()
        except BaseException:
            # The other process ends its step and writes a checkpoint.
            process.terminate()
            process.wait()
            raise
        finally:
            process.stdout.close()
        if code in _STOPPED:
            raise CellStopped(_STOPPED[code])
        if code:
            errors.seek(0)
            raise UrushiError(said or _reason(cell, folder, code, errors.read()))


def _told(line: str) -> dict[str, Any] | None:
    """What a line of JSON says; None where a library printed it."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _reason(cell: Cell, folder: Path, code: int, errors: str) -> str:
    """Why a cell failed that could not say it itself; all it wrote is kept."""
    if code < 0:
        return (
            f"its process was ended by signal {-code}, maybe for want of memory: choose a smaller "
            "batch or patch, or save_memory"
        )
    place = _keep_failure(cell, folder, errors)
    lines = [line for line in errors.splitlines() if line.strip()]
    return f"{lines[-1] if lines else f'its process ended with {code}'} (see {place})"


def _keep_failure(cell: Cell, folder: Path, text: str) -> Path:
    """Writes what is known of a fault of ours, for a report; returns where it is."""
    place = folder / "failed" / f"{cell.hash}.txt"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{cell.title}\n{text}", encoding="utf-8")
    return place
