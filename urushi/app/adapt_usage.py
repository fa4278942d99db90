"""Which options of `urushi adapt` go together."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from urushi.data.pairs import PairedFolder

__all__ = ["check_target", "check_usage"]


def check_usage(
    pairs: Path | None,
    paired: "Path | PairedFolder | None",
    clean: Path | None,
    degrade: str | None,
    values: list[str] | None,
    minutes: float | None,
    steps: int | None,
    align: bool,
    device: str,
) -> None:
    """Refuses options of `urushi adapt` that do not go together; those it learns from."""
    if pairs is not None and paired is not pairs:
        raise typer.BadParameter("give --pairs FOLDER, or --inputs and --targets, not both.")
    if (paired is None) == (clean is None):
        raise typer.BadParameter("give --pairs FOLDER, or --clean FOLDER with --degrade KIND.")
    if (clean is None) != (degrade is None):
        raise typer.BadParameter("--clean FOLDER and --degrade KIND need each other.")
    if values and degrade is None:
        raise typer.BadParameter("--set is an option of --degrade.")
    if align and paired is None:
        raise typer.BadParameter("--align is for --pairs.")
    if minutes is not None and (steps is not None or minutes <= 0):
        raise typer.BadParameter("give --minutes above 0, or --steps instead.")
    if device not in ("auto", "cpu"):
        raise typer.BadParameter(f"--device is {device!r}: expected auto or cpu.")


def check_target(
    output: Path | None,
    into: Path | None,
    name: str | None,
    data: str | None,
    backbone: str | None,
) -> None:
    """Refuses options of `urushi adapt` that do not go together; those of what it writes."""
    if (output is None) == (into is None):
        raise typer.BadParameter("give -o FILE, or --into FILE with --name NAME.")
    if (into is None) != (name is None):
        raise typer.BadParameter("--into FILE and --name NAME need each other.")
    if data is not None and into is None:
        raise typer.BadParameter("--data is for --into: where its router's pictures are.")
    if backbone is not None and into is not None:
        raise typer.BadParameter("--into FILE names its base itself: leave --backbone out.")
