"""The papers' claims at our size: rows of comparisons, and the page that tells what they say.

    python benchmarks/claims.py collect --data DATA [--runs runs/claims]   # rows of finished cells
    python benchmarks/claims.py write                                      # page and plots of them

`benchmarks/claims_run.sh` runs the comparisons. Rows lie in `results/claims`, one file for each;
what `docs/claims.md` says of a claim, and its plots, are made of nothing else, verdicts included.
"""

import argparse
import shlex
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from claims_list import CLAIMS, Claim, Contrast
from claims_rows import LEAST_SEEDS, MEAN, Table, collect, load

from urushi.evaluation.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/claims.md"
PICTURES = HERE.parent / "docs/claims"
BEGIN = "<!-- made by  python benchmarks/claims.py write -->"
END = "<!-- until here -->"
BLUE, GREY = "#0072b2", "#7a7a7a"
MARKS = "os^Dv"  # of seeds
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
    decisive, against = claim.contrasts[: claim.decisive], _against(claim, table)
    overall = _overall([judged(table.differences(one)) for one in decisive], bool(against))
    told: dict[tuple[str, str], list[str]] = {}
    for contrast in claim.contrasts[: claim.quoted or claim.decisive]:
        if found := table.differences(contrast):
            key = (f"{contrast.better} over {contrast.than}", _where(contrast, table))
            told.setdefault(key, []).append(f"{spread(found, '+')} dB{_pairs(contrast)}")
    said = [f"{rows} {' and '.join(values)} ({where})" for (rows, where), values in told.items()]
    return ": ".join(filter(None, [overall, "; ".join([*said, *against])])) + "."


def _where(contrast: Contrast, table: Table) -> str:
    count, tasks = len(table.differences(contrast)), table.compared_on(contrast)
    words = [f"{count} seed{'s' if count > 1 else ''}"]
    words += [f"on {', '.join(tasks)}"] if tasks != table.mean_of else []
    words += [f"less the lead on {', '.join(table.less_on(contrast))}"] if contrast.less else []
    return " ".join(words)


def _pairs(contrast: Contrast) -> str:
    return "" if contrast.pairs is None else f" at {contrast.pairs} pairs"


def _against(claim: Claim, table: Table) -> list[str]:
    """Tasks on which rows that decide lie outside the spread on the other side than their mean."""
    said: dict[str, list[str]] = {}
    for contrast in claim.contrasts[: claim.decisive]:
        mean = table.differences(contrast)
        for task, found in table.by_task(contrast).items() if not contrast.less else ():
            if outside(found) and statistics.fmean(found) * statistics.fmean(mean) < 0:
                rows = f"{contrast.better} over {contrast.than}"
                value = f"{task} {spread(found, '+')} dB{_pairs(contrast)}"
                said.setdefault(rows, []).append(value)
    return [f"against that, {rows} on {', '.join(tasks)}" for rows, tasks in said.items()]


def _overall(judgements: Sequence[str], mixed: bool) -> str:
    known = set(judgements) - {FEW, NOT_RUN}
    if not known:
        return _OVERALL[FEW if FEW in judgements else NOT_RUN]
    count = sum(one in known for one in judgements)
    held, turned = judgements.count(HOLDS), judgements.count(REVERSE)
    if len(known) == 1:
        words = _OVERALL[known.pop()]
    elif held and turned:
        words = f"It holds here in part, and in part the reverse ({held} and {turned} of {count})"
    else:
        # One difference of many lies outside by chance often enough.
        most = 2 * (held + turned) >= count
        words = _OVERALL[WITHIN if not most else HOLDS if held else REVERSE]
        words += f" in part ({held + turned} of {count})" if most else ""
        if not most:
            words += f" ({'it holds' if held else 'the reverse'} in {held + turned} of {count})"
    words += " in the mean" if mixed and WITHIN not in judgements else ""
    return words + (" as far as it was run" if {FEW, NOT_RUN} & set(judgements) else "")


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
    parts = [f"## {claim.title}", wrapped(claim.says)]
    if table is None or not was_run(claim, table):
        return "\n\n".join([*parts, "**Verdict.** Not run.", command(claim)])
    parts += [wrapped(f"**Verdict.** {verdict(claim, table)}"), contrasts(claim, table)]
    parts += [rows(claim, table), f"![{claim.title}](claims/{claim.name}.png)"]
    parts += [wrapped(told) for told in (routers(claim, table), claim.remark) if told]
    return "\n\n".join([*parts, command(claim), wrapped(conditions(table))])


def command(claim: Claim) -> str:
    """What runs the rows of a claim, in lines short enough to read: all of a comparison, or those
    it names."""
    words = [f"urushi compare claim-{claim.comparison} --data DATA"]
    words += [f"-o runs/claims/{claim.comparison}"]
    words += [f"--only {shlex.quote(name)}" for name in claim.labels if name != "frozen"]
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 112:
            lines.append("   ")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return "\n".join(["```", " \\\n".join(lines), "```"])


def wrapped(text: str) -> str:
    """A paragraph in lines that are short enough to read."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False)


def was_run(claim: Claim, table: Table) -> bool:
    """Whether any of its contrasts can be told."""
    return any(table.differences(contrast) for contrast in claim.contrasts)


def conditions(table: Table) -> str:
    """What was run, and how much of it."""
    d, t = table.document, table.document["terms"]
    counts = ", ".join(map(str, t["pairs"]))
    return (
        f"{d['finished']} of the comparison's {d['planned']} cells, seeds "
        f"{', '.join(map(str, t['seeds']))}; {t['steps']} steps of {t['batch']} "
        f"patches of {t['patch']} pixels in {t['precision']}, {counts} pairs or pictures of each "
        f"task, {t['limit']} pictures of each validation, base of {d['base_parameters']:,} "
        f"parameters; {'; '.join(d['machines'])}."
    )


def routers(claim: Claim, table: Table) -> str:
    """How well the routers know the classes; empty where there are none."""
    by_scores: dict[tuple[float, ...], list[str]] = {}
    for label, scores in table.document.get("routers", {}).items():
        if not claim.labels or label in claim.labels:
            by_scores.setdefault(tuple(scores), []).append(label)
    if not by_scores:
        return ""
    said = [
        f"{', '.join(f'{100 * score:.0f} %' for score in scores)}"
        + (f" ({', '.join(labels)})" if len(by_scores) > 1 else "")
        for scores, labels in by_scores.items()
    ]
    return f"Of held-out pictures the routers of the seeds name the class of {'; '.join(said)}."


def contrasts(claim: Claim, table: Table) -> str:
    """The table of differences."""
    lines = [
        "| better | than | on | difference (dB) | seeds | | single tasks outside the spread |",
        "|---|---|---|---:|---:|---|---|",
    ]
    for one in claim.contrasts:
        found, tasks = table.differences(one), table.compared_on(one)
        on = "all" if tasks == table.mean_of else ", ".join(tasks) or "-"
        on += f" less {', '.join(table.less_on(one))}" if one.less and found else ""
        value = spread(found, "+") if found else "-"
        cells = [one.better, one.than, on + _pairs(one), value, str(len(found)), judged(found)]
        lines.append(f"| {' | '.join([*cells, single_tasks(one, table)])} |")
    return "\n".join(lines)


def single_tasks(contrast: Contrast, table: Table) -> str:
    """On which of several tasks alone a difference lies outside the spread."""
    found = {} if contrast.less else table.by_task(contrast)
    if len(found) < 2 or len(table.differences(contrast)) < LEAST_SEEDS:
        return ""
    signs = {
        task: "better" if statistics.fmean(values) > 0 else "worse"
        for task, values in found.items()
        if outside(values)
    }
    return ", ".join(f"{task}: {sign}" for task, sign in signs.items()) or "none"


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
    """A panel for each task, every seed a mark of its own."""
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
        by_seed = table.per_seed(label, tasks)
        values = list(by_seed.values())
        if not values:
            continue
        if label == "frozen" and len(labels) > 1:
            axis.axvline(values[0], ls="--", lw=1, c=GREY)
        colour = GREY if label in ("frozen", "full") else BLUE
        for seed, value in by_seed.items():
            mark = MARKS[(seed or 0) % len(MARKS)]
            axis.plot([value], [place], mark, ms=4.5, mfc="none", c=colour)
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
            # Beside one another, so that spreads can be told apart.
            [count * 2 ** (0.06 * (index - (len(trained) - 1) / 2)) for count, _ in points],
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
