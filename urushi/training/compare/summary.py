"""The result of a comparison: means and spreads over seeds, as values, Markdown and JSON."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from urushi.names import counted
from urushi.training.compare.cell_runs import Outcome
from urushi.training.compare.description import Comparison
from urushi.version import __version__

__all__ = [
    "COLUMNS",
    "MEAN",
    "Row",
    "Spread",
    "Summary",
    "markdown",
    "summarise",
    "table_rows",
]

MEAN = "mean over the tasks"
COLUMNS = (
    "method", "pairs", "seeds", "PSNR (dB)", "gain (dB)", "SSIM", "parameters", "share",
    "adapter (kB)", "s/step", "memory (MiB)",
)  # fmt: skip
_MEMORY = {
    "process": "the greatest resident memory of a process that runs one cell and nothing else, "
    "with all libraries, up to the end of the training",
    "accelerator": "the greatest amount that torch had allocated on the accelerator",
}


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class Spread(_Document):
    """Mean over seeds and how far they lie apart.

    Attributes:
        mean: of the values.
        deviation: standard deviation of the sample; None where there are fewer than two.
    """

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(mean=float(np.mean(values)), deviation=deviation)


class Row(_Document):
    """One method at one number of pairs, over its finished seeds.

    Attributes:
        base, task, label, method, pairs: see `Cell`; the task `MEAN` stands for all tasks. What is
            learned together has rows for each of its classes and composites.
        seeds: those that are finished; of `MEAN`, in all tasks. Empty where nothing is random.
        protocol, pictures, total: how was measured, on how many pictures, of how many there are;
            empty and None of `MEAN`, and in documents of older versions.
        psnr: in dB, on the validation pictures.
        ssim: in [-1, 1].
        gain: in dB over the frozen base; None where that is not finished.
        learning_rate: the greatest; None where nothing is trained.
        parameters: that were trained; of `MEAN`, too, since a method trains the same in all tasks.
        share: relative to the base's.
        adapter_bytes: mean size of the adapter file.
        seconds_per_step: mean; None where nothing is trained.
        peak_memory: the greatest, in bytes; None where it is not known.
    """

    base: str
    task: str
    label: str
    method: str
    pairs: int | None
    seeds: tuple[int, ...]
    protocol: str = ""
    pictures: int | None = None
    total: int | None = None
    psnr: Spread
    ssim: Spread
    gain: Spread | None
    learning_rate: float | None
    parameters: int
    share: float
    adapter_bytes: float
    seconds_per_step: float | None
    peak_memory: int | None


class Summary(_Document):
    """The JSON document of a comparison.

    Attributes:
        kind, version: of the document.
        comparison: as it was validated.
        rows: by task, number of pairs and method; those of `MEAN` last.
        machines: what cells were run with: device, threads, torch.
        memory_kinds: what peak memory is, see `CellResult`.
        finished, planned: cells.
        failed: title and reason of cells that failed.
        notes: what was left out.
    """

    kind: Literal["urushi-comparison"] = "urushi-comparison"
    version: Literal[1] = 1
    urushi: str = __version__
    comparison: Comparison
    rows: tuple[Row, ...]
    machines: tuple[str, ...]
    memory_kinds: tuple[str, ...]
    finished: int
    planned: int
    failed: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def of_task(self, task: str) -> list[Row]:
        """The rows of a task, or of `MEAN`."""
        return [row for row in self.rows if row.task == task]

    @property
    def tasks(self) -> list[str]:
        """Names of tasks with rows, as stated; `MEAN` last where there is more than one."""
        return list(dict.fromkeys(row.task for row in self.rows))

    def to_json(self) -> str:
        """The document as text."""
        return self.model_dump_json(indent=2)


# A row's place: base, label and number of pairs.
_Place = tuple[str, str, int | None]


def summarise(
    comparison: Comparison, outcomes: Sequence[Outcome], notes: Sequence[str] = ()
) -> Summary:
    """Puts finished cells together.

    Args:
        comparison: what they are of.
        outcomes: of all its cells, in their order.
        notes: what was left out.
    """
    done = [one for one in outcomes if one.result is not None]
    finished = [part for one in done for part in in_parts(one)]
    frozen = {
        (one.cell.base, one.cell.task, one.cell.seed): one
        for one in finished
        if one.cell.method == "frozen"
    }
    order = list(dict.fromkeys(one.cell.label for one in outcomes))
    by_task: dict[str, dict[_Place, list[Outcome]]] = {}
    names = [n for task in comparison.tasks for n in task.names]
    for task in dict.fromkeys([*names, *(one.cell.task for one in finished)]):
        places: dict[_Place, list[Outcome]] = {}
        for one in finished:
            if one.cell.task == task:
                key = (one.cell.base, one.cell.label, one.cell.pairs)
                places.setdefault(key, []).append(one)
        by_task[task] = places
    rows: list[Row] = []
    for task, places in by_task.items():
        made = [_row(task, [[one] for one in group], frozen) for group in places.values()]
        rows += _sorted(made, order)
    by_task = {name: by_task[name] for name in names}  # composites are no part of the mean
    if len(by_task) > 1:
        rows += _sorted(_means(by_task, frozen), order)
    results = [one.result for one in done if one.result is not None]
    machines = dict.fromkeys(
        f"{r.device}, {r.threads} thread{'s' if r.threads > 1 else ''}, torch {r.torch}"
        for r in results
    )
    kinds = dict.fromkeys(r.memory_kind for r in results if r.peak_memory is not None)
    return Summary(
        comparison=comparison,
        rows=tuple(rows),
        machines=tuple(machines),
        memory_kinds=tuple(kinds),
        finished=len(done),
        planned=len(outcomes),
        failed=tuple((one.cell.title, one.error) for one in outcomes if one.error),
        notes=tuple(notes),
    )


def in_parts(one: Outcome) -> list[Outcome]:
    """An outcome for each class and composite of a cell; itself where there are none."""
    if one.result is None or not one.result.parts:
        return [one]
    return [
        replace(
            one,
            cell=one.cell.model_copy(update={"task": name}),
            result=one.result.of_part(name),
        )
        for name in one.result.parts
    ]


def _means(
    by_task: dict[str, dict[_Place, list[Outcome]]], frozen: dict[Any, Outcome]
) -> list[Row]:
    """Rows over all tasks, where all of them have the number of pairs and the seed."""
    rows = []
    for place in next(iter(by_task.values())):
        by_seed: dict[int | None, list[Outcome]] = {}
        for places in by_task.values():
            for one in places.get(place, []):
                by_seed.setdefault(one.cell.seed, []).append(one)
        groups = [group for group in by_seed.values() if len(group) == len(by_task)]
        if groups:
            rows.append(_row(MEAN, groups, frozen))
    return rows


def _row(task: str, groups: Sequence[Sequence[Outcome]], frozen: dict[Any, Outcome]) -> Row:
    """One row of groups of cells, a group for each seed: one cell, or one of every task."""
    cell = groups[0][0].cell
    results = [one.result for group in groups for one in group if one.result is not None]
    gains = [_gain(group, frozen) for group in groups]
    known = [gain for gain in gains if gain is not None]
    steps = [r.seconds_per_step for r in results if r.seconds_per_step is not None]
    peaks = [r.peak_memory for r in results if r.peak_memory is not None]
    counted = {len(r.pictures) for r in results} if task != MEAN else set()
    protocol, total = _measured_on(groups[0][0]) if task != MEAN else ("", None)
    return Row(
        base=cell.base,
        task=task,
        label=cell.label,
        method=cell.method,
        pairs=cell.pairs,
        seeds=tuple(sorted(g[0].cell.seed for g in groups if g[0].cell.seed is not None)),
        protocol=protocol,
        pictures=counted.pop() if len(counted) == 1 else None,
        total=total,
        psnr=Spread.of([_mean(group, "psnr") for group in groups]),
        ssim=Spread.of([_mean(group, "ssim") for group in groups]),
        gain=Spread.of(known) if len(known) == len(gains) else None,
        learning_rate=None if cell.pairs is None else cell.recipe.optimizer.learning_rate,
        parameters=results[0].trainable,
        share=results[0].trainable / results[0].backbone,
        adapter_bytes=float(np.mean([r.adapter_bytes for r in results])),
        seconds_per_step=float(np.mean(steps)) if steps else None,
        peak_memory=max(peaks, default=None),
    )


def _measured_on(one: Outcome) -> tuple[str, int | None]:
    """Protocol of a cell, or of its part, and how many pictures there are to measure."""
    cell = one.cell
    parts = {part.name: part.validation for part in (*cell.classes, *cell.composites)}
    validation = cell.validation or parts.get(cell.task) or parts.get(cell.task.rsplit(", ", 1)[0])
    facts = cell.identity["validation"]
    own = facts.get(cell.task) or facts.get(cell.task.rsplit(", ", 1)[0]) or facts
    known = own.get("names", own.get("files"))
    return "" if validation is None else validation.protocol, known and len(known)


def _mean(group: Sequence[Outcome], name: str) -> float:
    return float(np.mean([getattr(one.result, name) for one in group]))


def _gain(group: Sequence[Outcome], frozen: dict[Any, Outcome]) -> float | None:
    """Mean over the tasks of a seed; the frozen base of fixed weights has no seed."""
    gains = []
    for one in group:
        cell = one.cell
        below = frozen.get((cell.base, cell.task, cell.seed if cell.random else None))
        if below is None or below.result is None or one.result is None:
            return None
        gains.append(one.result.psnr - below.result.psnr)
    mean = float(np.mean(gains))
    return mean if math.isfinite(mean) else None


def _sorted(rows: list[Row], order: list[str]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.base, row.pairs or 0, order.index(row.label)))


def table_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Cells of text, as `COLUMNS` says; with a name of the base where there are several."""
    several = len({row.base for row in rows}) > 1
    return [
        (
            f"{row.base}: {row.label}" if several else row.label,
            "-" if row.pairs is None else str(row.pairs),
            str(len(row.seeds) or "-"),
            _spread(row.psnr, 2),
            "-" if row.pairs is None or row.gain is None else _spread(row.gain, 2, sign="+"),
            _spread(row.ssim, 4),
            f"{row.parameters:,}",
            f"{100 * row.share:.3g} %",
            f"{row.adapter_bytes / 1000:.1f}",
            "-" if row.seconds_per_step is None else f"{row.seconds_per_step:.3g}",
            "-" if row.peak_memory is None else f"{row.peak_memory / (1 << 20):.0f}",
        )
        for row in rows
    ]


def markdown(summary: Summary, plots: Sequence[str] = ()) -> str:
    """The whole result for people.

    Args:
        summary: of the comparison.
        plots: names of drawings that lie beside the text.
    """
    parts = [f"# {summary.comparison.name}", summary.comparison.description, _conditions(summary)]
    parts += [f"![{name}]({name})" for name in plots]
    tasks = summary.tasks
    # What sums it up comes first.
    for task in sorted(tasks, key=lambda task: task != MEAN):
        parts += [f"## {task[0].upper()}{task[1:]}", _table(table_rows(summary.of_task(task)))]
    if rates := _learning_rates(summary):
        parts += ["## Learning rates", rates]
    if summary.failed:
        lines = [f"- {title}: {reason}" for title, reason in summary.failed]
        parts += ["## Failed", "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions(summary: Summary) -> str:
    plan = summary.comparison
    sentences = [
        f"{summary.finished} of {counted(summary.planned, 'cell is', 'cells are')} finished.",
        f"Every cell: {counted(plan.steps, 'step')} of {counted(plan.batch, 'patch', 'patches')} "
        f"of {plan.patch} pixels, in "
        f"{plan.precision}; at one seed and number of pairs all methods learn from the same pairs "
        "and see the same patches in the same order, and the pairs of a smaller number are among "
        "those of a larger one. Measured are the last, averaged weights, as the adapter file holds "
        "them, on validation pictures that nothing was chosen by.",
        "Behind ± stands the standard deviation over seeds; the gain is over the frozen base.",
    ]
    if summary.memory_kinds:
        said = "; ".join(_MEMORY[kind] for kind in summary.memory_kinds)
        sentences.append(f"Memory is {said}.")
    if summary.machines:
        sentences.append(f"Run on: {'; '.join(summary.machines)}.")
    sentences += [f"{note}." for note in summary.notes]
    return " ".join(sentences)


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [_line(COLUMNS), _line(["---", *["---:"] * (len(COLUMNS) - 1)])]
    return "\n".join([*lines, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _learning_rates(summary: Summary) -> str:
    rates = {row.label: row.learning_rate for row in summary.rows if row.learning_rate is not None}
    return ", ".join(f"{label} {rate:g}" for label, rate in rates.items())


def _spread(value: Spread, digits: int, sign: str = "") -> str:
    text = f"{value.mean:{sign}.{digits}f}"
    return text if value.deviation is None else f"{text} ± {value.deviation:.{digits}f}"
