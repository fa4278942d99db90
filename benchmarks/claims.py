"""The papers' claims at our size: rows of comparisons, and the page that tells what they say.

    python benchmarks/claims.py collect --data DATA [--runs runs/claims]   # rows of finished cells
    python benchmarks/claims.py write                                      # page and plots of them

`benchmarks/claims_run.sh` runs the comparisons. Rows lie in `results/claims`, one file for each;
what `docs/claims.md` says of a claim, and its plots, are made of nothing else, verdicts included.
"""

import argparse
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from claims_rows import CLAIMS, LEAST_SEEDS, MEAN, Claim, Table, collect, load

from urushi.evaluation.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/claims.md"
PICTURES = HERE.parent / "docs/claims"
BEGIN = "<!-- made by  python benchmarks/claims.py write -->"
END = "<!-- until here -->"
INK, RED, BLUE, GREY = "#222222", "#b3261e", "#0072b2", "#7a7a7a"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

HOLDS, REVERSE, WITHIN = "better outside the spread", "worse outside the spread", "not shown"
FEW, NOT_RUN = "fewer than three seeds", "not run"
_OVERALL = {
    HOLDS: "It holds here",
    REVERSE: "The reverse holds here",
    WITHIN: "It is not shown here",
    FEW: "Nothing can be said of fewer than three seeds",
    NOT_RUN: "Not run",
}

# --- verdicts ---


def outside(differences: Sequence[float]) -> bool:
    """Whether differences of several seeds lie outside their spread: all on one side of zero, and
    their mean more than twice their standard deviation away from it."""
    if len(differences) < LEAST_SEEDS:
        return False
    one_side = min(differences) > 0 or max(differences) < 0
    return one_side and abs(statistics.fmean(differences)) > 2 * statistics.stdev(differences)


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation over seeds."""
    text = f"{statistics.fmean(values):{sign}.2f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.2f}"


def judged(differences: Sequence[float]) -> str:
    """What differences allow to say."""
    if not differences:
        return NOT_RUN
    if len(differences) < LEAST_SEEDS:
        return FEW
    if not outside(differences):
        return WITHIN
    return HOLDS if statistics.fmean(differences) > 0 else REVERSE


def verdict(claim: Claim, table: Table) -> str:
    """One sentence of what the rows say of a claim."""
    decisive = claim.contrasts[: claim.decisive]
    judgements, told = [], []
    for contrast in decisive:
        found, tasks = table.differences(contrast), table.compared_on(contrast)
        judgements.append(judged(found))
        if found:
            seeds = f"{len(found)} seed{'s' if len(found) > 1 else ''}"
            where = "" if tasks == table.mean_of else f" on {', '.join(tasks)}"
            than = f"{contrast.better} over {contrast.than}"
            told.append(f"{than} {spread(found, '+')} dB ({seeds}{where})")
    return ": ".join(filter(None, [_overall(judgements), "; ".join(told)])) + "."


def _overall(judgements: Sequence[str]) -> str:
    if len(set(judgements)) == 1:
        return _OVERALL[judgements[0]]
    if HOLDS in judgements and REVERSE not in judgements:
        return "It holds here in part"
    return "It is not shown here"


# --- the page ---


def body(tables: Mapping[str, Table]) -> str:
    """What stands on the page between its markers."""
    return "\n\n".join(section(claim, tables.get(claim.comparison)) for claim in CLAIMS)


def replaced(text: str, made: str) -> str:
    """A page with other text between its two markers.

    Raises:
        ValueError: they are not there once each, in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(f"{BEGIN} and {END} must be there once each, in this order")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def section(claim: Claim, table: Table | None) -> str:
    """The part of the page on one claim."""
    command = (
        f"urushi compare claim-{claim.comparison} --data DATA -o runs/claims/{claim.comparison}"
    )
    parts = [f"## {claim.title}", wrapped(claim.says)]
    if table is None or not was_run(claim, table):
        return "\n\n".join([*parts, "**Verdict.** Not run.", f"`{command}`"])
    parts += [wrapped(f"**Verdict.** {verdict(claim, table)}"), contrasts(claim, table)]
    parts += [rows(claim, table), f"![{claim.title}](claims/{claim.name}.png)"]
    return "\n\n".join([*parts, wrapped(conditions(table, command))])


def wrapped(text: str) -> str:
    """A paragraph in lines that are short enough to read."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def was_run(claim: Claim, table: Table) -> bool:
    """Whether any of its contrasts can be told."""
    return any(table.differences(contrast) for contrast in claim.contrasts)


def conditions(table: Table, command: str) -> str:
    """What was run, and how much of it."""
    d, t = table.document, table.document["terms"]
    counts = ", ".join(map(str, t["pairs"]))
    return (
        f"`{command}`: {d['finished']} of {d['planned']} cells; {t['steps']} steps of {t['batch']} "
        f"patches of {t['patch']} pixels in {t['precision']}, {counts} pairs or pictures of each "
        f"task, {t['limit']} pictures of each validation, base of {d['base_parameters']:,} "
        f"parameters; {'; '.join(d['machines'])}."
    )


def contrasts(claim: Claim, table: Table) -> str:
    """The table of differences."""
    lines = ["| better | than | on | difference (dB) | seeds | |", "|---|---|---|---:|---:|---|"]
    for one in claim.contrasts:
        found = table.differences(one)
        tasks = table.compared_on(one)
        on = "all" if tasks == table.mean_of else ", ".join(tasks) or "-"
        value = spread(found, "+") if found else "-"
        lines.append(
            f"| {one.better} | {one.than} | {on} | {value} | {len(found)} | {judged(found)} |"
        )
    return "\n".join(lines)


def rows(claim: Claim, table: Table) -> str:
    """The table of PSNR by task."""
    tasks = shown_tasks(claim, table)
    head = ["", *(["pairs"] if claim.curve else []), "parameters", *tasks]
    lines = [f"| {' | '.join(head)} |", f"|---{'|---:' * (len(head) - 1)}|"]
    for label in shown_labels(claim, table):
        for count in table.counts if claim.curve else [None]:
            cells = []
            for task in tasks:
                values = table.per_seed(label, () if task == MEAN else (task,), count)
                cells.append(spread(list(values.values())) if values else "-")
            if set(cells) == {"-"}:
                continue
            middle = [str(count)] if claim.curve else []
            if claim.curve and label.endswith("frozen"):
                middle = ["-"]
            lines.append(
                f"| {' | '.join([label, *middle, f'{table.parameters[label]:,}', *cells])} |"
            )
            if middle == ["-"]:
                break
    return "\n".join(lines)


def shown_tasks(claim: Claim, table: Table) -> list[str]:
    """Columns of a claim's table, and panels of its plot: tasks on which anything was trained."""
    labels = [n for n in table.labels if n in claim.labels or not claim.labels]
    trained = [n for n in labels if table.parameters[n]]
    tasks = [
        task
        for task in claim.parts or table.mean_of
        if any(table.per_seed(label, (task,)) for label in trained)
    ]
    whole = not claim.parts and any(table.per_seed(label) for label in trained)
    return [*tasks, MEAN] if whole else tasks


def shown_labels(claim: Claim, table: Table) -> list[str]:
    """Rows of a claim's table that are there."""
    there = set(shown_tasks(claim, table)) - {MEAN}
    known = [
        label for label in table.labels if any(table.per_seed(label, (task,)) for task in there)
    ]
    return [label for label in known if label in claim.labels or not claim.labels]


# --- plots ---


def draw(claim: Claim, table: Table, path: Path) -> None:
    """A panel for each task, every seed a point."""
    tasks, labels = shown_tasks(claim, table), shown_labels(claim, table)
    if claim.curve:
        figure, axes = new_figure((2.9 * len(tasks) + 1.6, 3.4), [1.0] * len(tasks))
    else:
        size = (2.5 * len(tasks) + 1.8, 0.32 * len(labels) + 1.2)
        figure, axes = new_figure(size, [1.0] * len(tasks))
    for column, (axis, task) in enumerate(zip(axes, tasks, strict=True)):
        axis.set_title("mean over the tasks" if task == MEAN else task, fontsize="medium")
        axis.tick_params(labelsize="small")
        wanted = () if task == MEAN else (task,)
        if claim.curve:
            _curve(axis, table, labels, wanted)
        else:
            _points(axis, table, labels, wanted, names=column == 0)
    if claim.curve:
        axes[0].set_ylabel("PSNR (dB)")
        handles, names = axes[-1].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right upper", fontsize="small")
    save_figure(figure, path)


def _points(
    axis: "Axes", table: Table, labels: Sequence[str], tasks: Sequence[str], *, names: bool
) -> None:
    axis.grid(axis="x", alpha=0.3)
    for place, label in enumerate(labels):
        values = list(table.per_seed(label, tasks).values())
        if not values:
            continue
        if label == "frozen" and len(labels) > 1:
            axis.axvline(values[0], ls="--", lw=1, c=GREY)
        colour = GREY if label in ("frozen", "full") else BLUE
        axis.plot(values, [place] * len(values), "o", ms=4, mfc="none", c=colour)
        axis.plot([statistics.fmean(values)], [place], "|", ms=14, mew=2, c=colour)
    axis.set_yticks(range(len(labels)), labels if names else [""] * len(labels))
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.margins(x=0.08)
    axis.set_xlabel("PSNR (dB)", fontsize="small")


def _curve(axis: "Axes", table: Table, labels: Sequence[str], tasks: Sequence[str]) -> None:
    trained = [label for label in labels if not label.endswith("frozen")]
    for index, label in enumerate(trained):
        points = [(n, list(table.per_seed(label, tasks, n).values())) for n in table.counts]
        points = [(count, values) for count, values in points if values]
        axis.errorbar(
            [count for count, _ in points],
            [statistics.fmean(values) for _, values in points],
            yerr=[statistics.stdev(v) if len(v) > 1 else 0.0 for _, v in points],
            marker="osD^vP"[index % 6], ms=4, lw=1.3, capsize=2, elinewidth=0.8,
            color=COLOURS[index % len(COLOURS)], label=label,
        )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xticks(table.counts, [str(count) for count in table.counts])
    axis.minorticks_off()
    axis.set_xlabel("pairs", fontsize="small")


def write(tables: Mapping[str, Table]) -> None:
    """Writes the page, and the plots of what was run."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replaced(text, body(tables)), encoding="utf-8")
    PICTURES.mkdir(exist_ok=True)
    for claim in CLAIMS:
        table, path = tables.get(claim.comparison), PICTURES / f"{claim.name}.png"
        if table is None or not was_run(claim, table):
            path.unlink(missing_ok=True)
            continue
        draw(claim, table, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows and page of the papers' claims.")
    parser.add_argument("what", choices=["collect", "write"])
    parser.add_argument("--data", type=Path, help="folder of the data sets, to collect")
    parser.add_argument("--runs", type=Path, default=Path("runs/claims"))
    options = parser.parse_args()
    if options.what == "write":
        write(load())
    elif options.data is None:
        parser.error("collect needs --data")
    else:
        collect(options.data, options.runs)


if __name__ == "__main__":
    main()
