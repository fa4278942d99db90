"""Drawings: what all of them share, and the bars of a profile.

matplotlib is imported when something is drawn, and never its global state: figures are objects.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from urushi.adapters.contribution_profile import Profile, Role
from urushi.errors import FileFormatError, MissingExtraError, TargetError
from urushi.files.container import write_whole
from urushi.inference.hardware import is_installed
from urushi.names import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "check_plot_target", "draw_profile", "new_figure", "save_figure"]

FORMATS = (".png", ".svg", ".pdf")
_DOTS_PER_INCH = 130
# Distinct in grey and for the colour-blind (Okabe and Ito).
_COLOURS: dict[Role, str] = {"encoder": "#0072b2", "middle": "#7a7a7a", "decoder": "#d55e00"}
_NORMALISED = {
    "sum": "summed squared error",
    "mean": "mean squared error",
    "task": "relative to the network's mean",
}


def check_plot_target(path: Path) -> None:
    """Looks whether a drawing can be made and written, before hours are spent on its content.

    Raises:
        MissingExtraError: matplotlib is not installed.
        TargetError: the suffix is none of `FORMATS`.
    """
    if not is_installed("matplotlib"):
        raise MissingExtraError("matplotlib, which drawing needs,", "plots")
    if path.suffix.lower() not in FORMATS:
        raise TargetError(
            f"{path}: the name of a drawing must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}",
            usage=True,
        )


def new_figure(
    size: tuple[float, float], widths: Sequence[float] = (1.0,)
) -> "tuple[Figure, list[Axes]]":
    """An empty figure with axes side by side.

    Args:
        size: width and height in inches.
        widths: of the axes, relative to one another.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if not is_installed("matplotlib"):
        raise MissingExtraError("matplotlib, which drawing needs,", "plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(1, len(widths), width_ratios=list(widths))
    axes = [figure.add_subplot(grid[0, column]) for column in range(len(widths))]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="y", alpha=0.3)
        one.set_axisbelow(True)
    return figure, axes


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure whole or not at all; a file that is there is replaced.

    Raises:
        MissingExtraError, TargetError: see `check_plot_target`; also where the disk refuses.
    """
    check_plot_target(path)
    content = BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower(), dpi=_DOTS_PER_INCH)
    try:
        write_whole(path, content.getvalue())
    except FileFormatError as error:
        raise TargetError(str(error)) from error


def draw_profile(profile: Profile, path: Path, *, log: bool = False) -> None:
    """Draws a profile: a bar for every block and every layer outside of blocks, and for each kind.

    After the figures of CoLoRA (ECCV 2024): encoder, middle and decoder side by side in the order
    of execution. Layers that stand alone are drawn paler than blocks.

    Args:
        profile: what to draw.
        path: file to write; its suffix, of `FORMATS`, says which.
        log: logarithmic heights.

    Raises:
        MissingExtraError, TargetError: see `save_figure`.
    """
    width = max(7.0, 3.2 + 0.2 * len(profile.units))
    figure, (blocks, kinds) = new_figure((width, 4.2), (width - 2.6, 2.0))
    _draw_units(blocks, profile)
    _draw_kinds(kinds, profile)
    for axis in (blocks, kinds):
        if log:
            axis.set_yscale("log")
        axis.margins(y=0.12)
    blocks.set_ylabel(f"mean |attribution| per parameter\n({_NORMALISED[profile.normalise]})")
    tasks = ", ".join(
        f"{task.name} ({counted(task.pictures, 'picture')})" for task in profile.tasks
    )
    figure.suptitle(f"{profile.base.name}: {_shortened(tasks)}", fontsize="medium")
    save_figure(figure, path)


def _draw_units(axis: "Axes", profile: Profile) -> None:
    names = [unit.name for unit in profile.units]
    heights = list(profile.of_units().values())
    bars = axis.bar(range(len(names)), heights, color=[_COLOURS[u.role] for u in profile.units])
    for bar, unit in zip(bars, profile.units, strict=True):
        bar.set_alpha(1.0 if unit.stage else 0.45)
    for role, colour in _COLOURS.items():
        places = [index for index, unit in enumerate(profile.units) if unit.role == role]
        if not places:
            continue
        axis.axvspan(places[0] - 0.5, places[-1] + 0.5, color=colour, alpha=0.06, linewidth=0)
        axis.text(
            sum(places) / len(places), 1.01, role,
            color=colour, ha="center", va="bottom", transform=axis.get_xaxis_transform(),
        )  # fmt: skip
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize="x-small")
    axis.set_xlim(-0.6, len(names) - 0.4)


def _draw_kinds(axis: "Axes", profile: Profile) -> None:
    found = profile.of_kinds()
    bars = axis.bar(range(len(found)), list(found.values()), color="#4d4d4d")
    if weight := found.get("weight"):
        labels = [f"{value / weight:.2g}×" for value in found.values()]
        axis.bar_label(bars, labels, fontsize="small")
    axis.set_xticks(range(len(found)), list(found), fontsize="small")
    axis.set_title("by kind, weights are 1", fontsize="small")


def _shortened(text: str, length: int = 90) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
