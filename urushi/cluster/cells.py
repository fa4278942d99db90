"""The cells of a comparison as tasks of a Ray cluster; folder and resuming are as without one.

Each task claims its cell as any process does that shares the folder, so that what is finished is
kept, and a cell is never run twice at the same time.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from urushi.cluster.tasks import Room, run_tasks
from urushi.errors import ClusterError
from urushi.training.compare.cell_plan import Cell
from urushi.training.compare.cell_runs import Outcome, run_one

__all__ = ["run_cells"]


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    room: Room,
    *,
    isolate: bool = True,
    on_cell: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run those cells that are not finished; a failed one does not stop the others.

    Args:
        cells: what to run.
        folder: of the comparison; all nodes share it, and the data, by these paths.
        room: what each cell takes: cores, and a share of an accelerator.
        isolate: each in a process of its own.
        on_cell: called after every cell.

    Raises:
        KeyboardInterrupt: a signal arrived; the same call goes on where it was.
    """
    outcomes: list[Outcome] = []

    def done(cell: Cell, told: Outcome | ClusterError) -> None:
        outcome = told
        if isinstance(outcome, ClusterError):
            outcome = Outcome(cell, error=str(told), fresh=True)
        outcomes.append(outcome)
        if on_cell is not None:
            on_cell(outcome)

    device = "auto" if room.accelerators else "cpu"
    run = partial(_run_there, folder=folder.resolve(), device=device, isolate=isolate)
    run_tasks(run, cells, room, done)
    return outcomes


def _run_there(cell: Cell, folder: Path, device: str, isolate: bool) -> Outcome | None:
    """Runs a cell on a node."""
    if not folder.is_dir():
        return Outcome(
            cell,
            error=f"'{folder}' is not on the node that was to run it: choose a folder that all "
            "nodes share",
        )
    return run_one(cell, folder, device=device, isolate=isolate)
