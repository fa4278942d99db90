"""Drawings of a comparison: PSNR against pairs, and against parameters.

matplotlib is imported when something is drawn.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from urushi.errors import MissingExtraError
from urushi.evaluation.plots import save_figure
from urushi.inference.hardware import is_installed
from urushi.training.compare.summary import Row, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PLOTS", "draw_comparison"]

PLOTS = ("psnr-by-pairs.png", "psnr-by-parameters.png")
# Distinct for the colour-blind (Okabe and Ito); black and grey are for what stands beside all.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#6a51a3")
_MARKERS = "osD^vPX*"
_COLUMNS = 3
_BESIDE = 12  # series whose legend finds room at the right
_Series = tuple[str, str]  # base and label


def draw_comparison(summary: Summary, folder: Path) -> list[str]:
    """Draws both plots into a folder, a panel for each task and one for their mean.

    Args:
        summary: with at least one row.
        folder: of the comparison.

    Returns:
        The names of the files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        TargetError: the disk refuses.
    """
    for name, panel, title in (
        (PLOTS[0], _by_pairs, "PSNR after learning from some pairs; bars: deviation over seeds"),
        (PLOTS[1], _by_parameters, "PSNR against trained parameters, at the most pairs"),
    ):
        _draw(summary, folder / name, panel, f"{summary.comparison.name}: {title}")
    return list(PLOTS)


def _draw(
    summary: Summary,
    path: Path,
    panel: "Callable[[Axes, list[Row], dict[_Series, dict]], None]",
    title: str,
) -> None:
    if not is_installed("matplotlib"):
        raise MissingExtraError("matplotlib, which drawing needs,", "plots")
    from matplotlib.figure import Figure

    tasks = summary.tasks
    columns = min(_COLUMNS, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    looks = _looks(summary)
    beside = len(looks) <= _BESIDE
    width = 4.0 * columns + (1.6 if beside else 0.4)
    legend_columns = 1 if beside else 2 * columns
    height = 3.3 * lines + 0.6 + (0 if beside else 0.2 * math.ceil(len(looks) / legend_columns))
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, task in zip(grid, tasks, strict=False):
        axis.set_title(task, fontsize="medium")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)
        axis.set_ylabel("PSNR (dB)", fontsize="small")
        axis.tick_params(labelsize="small")
        panel(axis, summary.of_task(task), looks)
    for axis in grid[len(tasks) :]:
        axis.set_visible(False)
    found = {}
    for axis in grid[: len(tasks)]:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    named = [str(look["label"]) for look in looks.values() if look["label"] in found]
    figure.legend(
        [found[name] for name in named],
        named,
        loc="outside right upper" if beside else "outside lower center",
        ncols=legend_columns,
        fontsize="small",
    )
    figure.suptitle(textwrap.fill(title, int(13 * width)), fontsize="medium")
    save_figure(figure, path)


def _looks(summary: Summary) -> dict[_Series, dict]:
    """Colour, marker and name of each series, the same in all panels."""
    several = len({row.base for row in summary.rows}) > 1
    methods = {(row.base, row.label): row.method for row in summary.rows}
    # Black and grey are for one series each.
    alone = [m for m in ("frozen", "full") if list(methods.values()).count(m) == 1]
    looks, used = {}, 0
    for (base, label), method in methods.items():
        name = f"{base}: {label}" if several else label
        if method in alone:
            colour, marker = {"frozen": ("#7a7a7a", ""), "full": ("#000000", "s")}[method]
        else:
            colour = _COLOURS[used % len(_COLOURS)]
            turn = used + used // len(_COLOURS)  # no colour has the same marker twice
            marker = "" if method == "frozen" else _MARKERS[turn % len(_MARKERS)]
            used += 1
        looks[base, label] = {"color": colour, "marker": marker, "label": name}
    return looks


def _by_pairs(axis: "Axes", rows: list[Row], looks: dict[_Series, dict]) -> None:
    counts = sorted({row.pairs for row in rows if row.pairs is not None})
    for key, group in _grouped(rows).items():
        look = looks[key]
        trained = [row for row in group if row.pairs is not None]
        if not trained:
            axis.axhline(group[0].psnr.mean, ls="--", lw=1.2, c=look["color"], label=look["label"])
            continue
        axis.errorbar(
            [row.pairs or 0 for row in trained],
            [row.psnr.mean for row in trained],
            yerr=[row.psnr.deviation or 0.0 for row in trained],
            ms=4, lw=1.3, capsize=2, elinewidth=0.8, **look,
        )  # fmt: skip
    if counts:
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.minorticks_off()
        axis.set_xlim(counts[0] / 1.2, counts[-1] * 1.2)
    axis.set_xlabel("pairs", fontsize="small")


def _by_parameters(axis: "Axes", rows: list[Row], looks: dict[_Series, dict]) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator

    most = max((row.pairs for row in rows if row.pairs is not None), default=None)
    for key, group in _grouped(rows).items():
        look = looks[key]
        for row in group:
            if row.pairs is None:
                axis.axhline(row.psnr.mean, ls="--", lw=1.2, c=look["color"], label=look["label"])
            elif row.pairs == most:
                deviation = row.psnr.deviation or 0.0
                axis.errorbar(
                    [row.parameters], [row.psnr.mean], yerr=[deviation], ls="none",
                    ms=6, capsize=2, elinewidth=0.8, **look,
                )  # fmt: skip
    if most is not None:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.minorticks_off()
    axis.set_xlabel("trained parameters" + (f", {most} pairs" if most else ""), fontsize="small")


def _grouped(rows: Sequence[Row]) -> dict[_Series, list[Row]]:
    groups: dict[_Series, list[Row]] = {}
    for row in rows:
        groups.setdefault((row.base, row.label), []).append(row)
    return groups
