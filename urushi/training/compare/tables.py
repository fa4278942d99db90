"""The tables of a comparison, as text and as Markdown."""

from collections.abc import Sequence

from urushi.training.compare.summary import MEAN, Row, Spread, Summary

__all__ = ["COLUMNS", "markdown", "table_rows"]

COLUMNS = (
    "method", "pairs", "seeds", "PSNR (dB)", "gain (dB)", "SSIM", "parameters", "share",
    "adapter (kB)", "s/step", "memory (MiB)",
)  # fmt: skip
_MEMORY = {
    "process": "the greatest resident memory of a process that runs one cell and nothing else, "
    "with all libraries, up to the end of the training",
    "accelerator": "the greatest amount that torch had allocated on the accelerator",
}


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
        f"{summary.finished} of {summary.planned} cells are finished.",
        f"Every cell: {plan.steps} steps of {plan.batch} patches of {plan.patch} pixels, in "
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
