"""A process for one cell: `python -m urushi.training.compare.child FOLDER DEVICE`.

The cell comes as JSON through its input; how it goes, and what was wrong, leaves as lines of JSON.
Each cell has a process of its own because a process's peak of memory covers all it has ever done:
it says something about a method only where there was no other. A cell that runs out of memory does
not take the others with it either. The price is the start of a process, the import of torch mostly.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from urushi.errors import UrushiError
from urushi.training.compare.cell import CellStopped, run_cell
from urushi.training.compare.plan import Cell
from urushi.training.progress import Progress

__all__ = ["keep_failure", "run_in_child"]

# Exit codes, and what a process returns that had no time for one, by the signal behind it.
_STOPPED = {
    **{128 + number: number for number in (signal.SIGINT, signal.SIGTERM)},
    **{-number: number for number in (signal.SIGINT, signal.SIGTERM)},
}


def run_in_child(
    cell: Cell, folder: Path, device: str, on_share: Callable[[float], None] | None = None
) -> None:
    """Runs a cell in a process of its own; it writes its result itself.

    Args:
        cell: what to run.
        folder: of the comparison.
        device: `auto` or `cpu`.
        on_share: called with the share of the training that is done.

    Raises:
        KeyboardInterrupt: this process or the other was stopped; the cell's checkpoint is there.
        UrushiError: the cell failed.
    """
    command = [sys.executable, "-m", __name__, str(folder), device]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        said = ""
        try:
            process.stdin.write(cell.model_dump_json())
            process.stdin.close()
            for line in process.stdout:
                told = json.loads(line)
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


def _reason(cell: Cell, folder: Path, code: int, errors: str) -> str:
    """Why a cell failed that could not say it itself; all it wrote is kept."""
    if code < 0:
        return (
            f"its process was ended by signal {-code}, maybe for want of memory: choose a smaller "
            "batch or patch, or save_memory"
        )
    place = keep_failure(cell, folder, errors)
    lines = [line for line in errors.splitlines() if line.strip()]
    return f"{lines[-1] if lines else f'its process ended with {code}'} (see {place})"


def keep_failure(cell: Cell, folder: Path, text: str) -> Path:
    """Writes what is known of a fault of ours, for a report; returns where it is."""
    place = folder / "failed" / f"{cell.hash}.txt"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{cell.title}\n{text}", encoding="utf-8")
    return place


def main() -> int:
    """Runs the cell of the input; returns the exit code."""
    folder, device = Path(sys.argv[1]), sys.argv[2]
    cell = Cell.model_validate_json(sys.stdin.read())
    # Whatever else is printed must not get between the lines of JSON.
    lines, sys.stdout = sys.stdout, sys.stderr

    def tell(**facts: str | float) -> None:
        lines.write(json.dumps(facts) + "\n")
        lines.flush()

    def on_progress(progress: Progress) -> None:
        tell(share=progress.share)

    try:
        run_cell(cell, folder, device=device, on_progress=on_progress)
    except UrushiError as error:
        tell(error=str(error))
        return 1
    except CellStopped as stopped:
        return 128 + (stopped.number or 2)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
