"""`urushi compare`: methods side by side, on equal terms."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from urushi.app.cluster import Accelerators, ClusterAddress, check_cluster
from urushi.app.options import DataRoot, Json, RecipeValues, TrainingDevice, require
from urushi.app.output import EXIT_FAILED, Output, complain, examples, printable, time_text
from urushi.app.teller import Teller
from urushi.errors import MissingExtraError, RecipeError, TakenError, TargetError, UrushiError
from urushi.names import counted
from urushi.termination import end_with_parent, exit_code

if TYPE_CHECKING:
    from urushi.training.compare.cell_plan import Cell, Plan
    from urushi.training.compare.cell_runs import Outcome
    from urushi.training.compare.summary import Summary
    from urushi.training.progress import Progress

__all__ = ["EPILOG", "compare"]

# Called with cells, a folder, `on_share` and `on_cell`, as `run_grid` takes them.
Runner = Callable[..., None]

EPILOG = examples(
    "urushi compare adapters-cpu --data datasets/ -o compared/",
    "urushi compare adapters-cpu --data datasets/ -o compared/ --plan",
    "urushi compare mine.yaml --data datasets/ -o compared/ --only 'lowlight/*' --only '*/lora'",
    "urushi compare adapters --data datasets/ -o compared/ --cluster auto --accelerators 0.25",
    "urushi compare mine.yaml --data datasets/ -o compared/ --set steps=500 --set seeds=[0,1]",
)


Folder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="For results; finished cells stay. Several processes may share it.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="TASK/METHOD",
        help="Run these cells alone; a pattern such as 'lowlight/*'; repeatable.",
    ),
]
Isolate = Annotated[
    bool,
    typer.Option(
        "--isolate/--no-isolate",
        help="Each cell in a process of its own; without, peak memory is not known.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, metavar="N", help="With --cluster: cores of each cell; default: 1."
    ),
]
# What such a process is started with; RECIPE is then the file that states the cell.
OneCell = Annotated[bool, typer.Option("--cell", hidden=True)]


def compare(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or a comparison that ships.")
    ],
    output: Folder,
    data: DataRoot = None,
    only: Only = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="List the cells and what is finished, and run none.")
    ] = False,
    values: RecipeValues = None,
    device: TrainingDevice = "auto",
    isolate: Isolate = True,
    cluster: ClusterAddress = None,
    threads: Threads = None,
    accelerators: Accelerators = None,
    cell: OneCell = False,
    json: Json = False,
) -> None:
    """Compare methods on equal terms; stop at any moment, and the same command goes on."""
    require(("torch", "accelerate", "tensorboard"), "comparing", "train")
    check_cluster(cluster, {"--threads": threads, "--accelerators": accelerators})
    if cell:
        end_with_parent()
        _run_cell(Path(recipe), output, device, json)
        return
    from urushi.evaluation.catalog import data_root
    from urushi.training.compare.cell_plan import make_plan
    from urushi.training.compare.cell_runs import stored
    from urushi.training.compare.description import load_comparison

    out = Output(json=json)
    settings = load_comparison(recipe, values or [])
    planned = make_plan(settings, data_root(data))
    chosen = planned.only(only or [])
    before = stored(output, chosen)
    done = sum(one.result is not None for one in before)
    out.say(f"{settings.name}: {counted(len(chosen), 'cell')}, {done} finished before")
    for note in planned.notes:
        out.say(f"note: {note}")
    if plan:
        _show_plan(out, before)
        return
    _check_folder(output)
    run: Runner = partial(_run_here, device=device, isolate=isolate)
    if cluster is not None:
        asked = (cluster, device, threads or 1, accelerators, isolate)
        run = partial(_run_there, out, *asked)
    _run_plan(out, planned, chosen, output, run)


def _run_cell(stated: Path, output: Path, device: str, json: bool) -> None:
    """Runs the cell that a file states, in this process, which has done nothing else.

    With `--json` a line says each time which share of the training is done, and the last one holds
    the result, or the error.
    """
    from urushi.training.compare.cell import run_cell
    from urushi.training.compare.cell_plan import Cell

    try:
        cell = Cell.model_validate_json(stated.read_bytes())
    except (OSError, ValueError):
        raise RecipeError(
            f"'{stated}' states no cell: expected the cell.json of one that is not finished"
        ) from None
    out = Output(json=json, quiet=json)

    def tell(progress: "Progress") -> None:
        out.text(dumps({"share": progress.share}))

    try:
        with Teller(out) as teller:
            result = run_cell(cell, output, device=device, on_progress=tell if json else teller)
    except UrushiError as error:
        if json:
            out.text(dumps({"error": str(error)}))
        raise
    except KeyboardInterrupt as stopped:
        raise typer.Exit(exit_code(getattr(stopped, "number", None))) from stopped
    if json:
        out.text(result.model_dump_json())
    else:
        out.say(f"{cell.title}: {result.psnr:.2f} dB")


def _run_plan(
    out: Output, plan: "Plan", cells: "Sequence[Cell]", output: Path, run: Runner
) -> None:
    """Runs cells of a plan, and leaves table, document and plots also where it is stopped."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(f"{output} cannot be written: {error.strerror or error}") from error
    errors: dict[str, str] = {}
    stopped: KeyboardInterrupt | None = None
    try:
        _run(out, cells, output, run, errors)
    except KeyboardInterrupt as interruption:
        stopped = interruption
    summary = _leave(out, plan, output, errors)
    if stopped is not None:
        out.say("stopped; the same command goes on where it was")
    if out.json:
        out.document(summary.model_dump(mode="json"))
    if stopped is not None:
        raise typer.Exit(exit_code(getattr(stopped, "number", None))) from stopped
    if errors:
        raise typer.Exit(EXIT_FAILED)


def _check_folder(output: Path) -> None:
    """What a comparison leaves is written anew each time, but never over what others left."""
    from urushi.training.compare.charts import PLOTS
    from urushi.training.compare.summary import Summary

    names = ("comparison.json", "comparison.md", *PLOTS)
    there = [name for name in names if os.path.lexists(output / name)]
    if not there:
        return
    try:
        Summary.model_validate_json((output / "comparison.json").read_bytes())
    except (OSError, ValueError):
        raise TakenError(
            f"'{output}' holds {there[0]}, which belongs to no comparison, and was not touched: "
            "choose another folder"
        ) from None


def _show_plan(out: Output, outcomes: "Sequence[Outcome]") -> None:
    table = Table(title="Cells", title_justify="left")
    for name in ("base", "task", "method"):
        table.add_column(name)
    for name in ("pairs", "seed", "parameters"):
        table.add_column(name, justify="right")
    table.add_column("state")
    rows = []
    for one in outcomes:
        cell = one.cell
        state = "finished" if one.result else f"cannot: {one.error}" if one.error else "to run"
        rows.append(
            {
                "base": cell.base, "task": cell.task, "method": cell.label, "pairs": cell.pairs,
                "seed": cell.seed, "parameters": cell.parameters, "state": state,
            }
        )  # fmt: skip
        table.add_row(*(Text("-" if v is None else printable(v)) for v in rows[-1].values()))
    if out.json:
        out.document(rows)
    else:
        out.show(table)


def _run(
    out: Output,
    cells: "Sequence[Cell]",
    output: Path,
    run: Runner,
    errors: dict[str, str],
) -> None:
    """Runs the cells; what went wrong is put into `errors`, by the hash of the cell."""
    done = 0
    with out.progress() as progress:
        bar = progress.add_task("comparing", total=len(cells))

        def on_share(cell: "Cell", share: float) -> None:
            progress.update(bar, completed=done + share, description=printable(cell.title))

        def on_cell(outcome: "Outcome") -> None:
            nonlocal done
            done += 1
            progress.update(bar, completed=done)
            if outcome.error:
                errors[outcome.cell.hash] = outcome.error
            _tell(out, outcome, f"{done} of {len(cells)}")

        run(cells, output, on_share=on_share, on_cell=on_cell)


def _run_here(
    cells: "Sequence[Cell]", output: Path, *, device: str, isolate: bool, **tell: Any
) -> None:
    from urushi.training.compare.cell_runs import run_grid

    run_grid(cells, output, device=device, isolate=isolate, **tell)


def _run_there(
    out: Output,
    address: str,
    device: str,
    threads: int,
    accelerators: float | None,
    isolate: bool,
    cells: "Sequence[Cell]",
    output: Path,
    *,
    on_share: object,
    on_cell: "Callable[[Outcome], None]",
) -> None:
    """Runs cells on a cluster, which tells of those alone that have ended."""
    from urushi.cluster.cells import run_cells
    from urushi.cluster.connection import joined
    from urushi.cluster.plan import pool_of
    from urushi.cluster.tasks import Room

    with joined(address) as cluster:
        pool = pool_of(cluster.nodes, device=device, cpus=threads, accelerators=accelerators)
        out.say(f"up to {counted(pool.workers, 'cell')} at once on {pool.device}")
        room = Room(pool.cpus, pool.accelerators)
        run_cells(cells, output, room, isolate=isolate, on_cell=on_cell)


def _tell(out: Output, outcome: "Outcome", where: str) -> None:
    result, title = outcome.result, outcome.cell.title
    if outcome.error:
        complain(f"{where}: {title}: failed: {outcome.error}")
    elif result is not None and outcome.fresh:
        time = f" in {time_text(result.seconds)}" if result.steps else ""
        out.say(f"{where}: {title}: {result.psnr:.2f} dB{time}")


def _leave(out: Output, plan: "Plan", output: Path, errors: dict[str, str]) -> "Summary":
    """Writes table, document and plots of all that is finished, --only or not."""
    from urushi.files.container import write_whole
    from urushi.training.compare.cell_runs import stored
    from urushi.training.compare.charts import PLOTS, draw_comparison
    from urushi.training.compare.summary import COLUMNS, markdown, summarise, table_rows

    summary = summarise(plan.comparison, stored(output, plan.cells, errors), plan.notes)
    plots: list[str] = []
    if summary.rows:
        try:
            plots = draw_comparison(summary, output)
        except MissingExtraError as reason:
            out.say(f"no plots: {reason}")
    for name in set(PLOTS) - set(plots):
        (output / name).unlink(missing_ok=True)  # one of before would show something else
    write_whole(output / "comparison.json", summary.to_json().encode())
    write_whole(output / "comparison.md", markdown(summary, plots).encode())
    if summary.rows:
        task = summary.tasks[-1]
        table = Table(title=printable(task), title_justify="left")
        for name in COLUMNS:
            table.add_column(name, justify="left" if name == COLUMNS[0] else "right")
        for row in table_rows(summary.of_task(task)):
            table.add_row(*(Text(printable(cell)) for cell in row))
        out.show(table)
    names = ", ".join(["comparison.md", "comparison.json", *plots])
    out.say(f"{summary.finished} of {counted(summary.planned, 'cell')} finished; {output}: {names}")
    return summary
