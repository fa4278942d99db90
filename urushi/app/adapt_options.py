"""Groups of options of `urushi adapt`; each refuses what does not go together."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urushi.app.options import (
    DataRoot,
    Inputs,
    MaybeModel,
    Targets,
    as_usage,
    check_two_folders,
    degradation_options,
    two_folders,
)
from urushi.app.output import Output
from urushi.errors import AdapterError

if TYPE_CHECKING:
    from urushi.inference.local_copies import LocalCopies
    from urushi.training.examples import Examples

__all__ = ["LengthGroup", "MethodGroup", "PictureGroup", "TargetGroup"]

_MINUTES = 10.0


@dataclass(frozen=True, kw_only=True)
class TargetGroup:
    """What is written."""

    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="The adapter file to write."),
    ] = None
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="FILE",
            help="Instead of -o: add the adapter to this all-in-one file, as --name.",
        ),
    ] = None
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="With --into: the new class's name."),
    ] = None
    data: DataRoot = None

    def check(self, backbone: str | None) -> None:
        """Refuses options that do not go together."""
        if (self.output is None) == (self.into is None):
            raise typer.BadParameter("give -o FILE, or --into FILE with --name NAME.")
        if (self.into is None) != (self.name is None):
            raise typer.BadParameter("--into FILE and --name NAME need each other.")
        if self.data is not None and self.into is None:
            raise typer.BadParameter("--data is for --into: where its router's pictures are.")
        if backbone is not None and self.into is not None:
            raise typer.BadParameter("--into FILE names its base itself: leave --backbone out.")


@dataclass(frozen=True, kw_only=True)
class PictureGroup:
    """What it learns from: pairs, or clean pictures with a degradation."""

    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs",
            metavar="FOLDER",
            help="A folder that holds one of inputs and one of targets.",
        ),
    ] = None
    inputs: Inputs = None
    targets: Targets = None
    clean: Annotated[
        str | None,
        typer.Option("--clean", metavar="FOLDER", help="Clean pictures, for --degrade."),
    ] = None
    degrade: Annotated[
        str | None,
        typer.Option(
            "--degrade",
            metavar="KIND",
            help="The degradation to apply; `urushi degrade` lists them.",
        ),
    ] = None
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="An option of the degradation; repeatable."
        ),
    ] = None

    def check(self, align: bool) -> None:
        """Refuses options that do not go together."""
        paired = self.inputs or self.targets or self.pairs
        if self.pairs is not None and paired is not self.pairs:
            raise typer.BadParameter("give --pairs FOLDER, or --inputs and --targets, not both.")
        check_two_folders(self.inputs, self.targets)
        if (paired is None) == (self.clean is None):
            raise typer.BadParameter("give --pairs FOLDER, or --clean FOLDER with --degrade KIND.")
        if (self.clean is None) != (self.degrade is None):
            raise typer.BadParameter("--clean FOLDER and --degrade KIND need each other.")
        if self.values and self.degrade is None:
            raise typer.BadParameter("--set is an option of --degrade.")
        if align and paired is None:
            raise typer.BadParameter("--align is for --pairs.")

    def examples(
        self, out: Output, copies: "LocalCopies", run: Path, *, align: bool, seed: int
    ) -> "Examples":
        """Looks through the pictures; what is made of them is kept in the folder `run`."""
        from urushi.training.examples import clean_examples, pair_examples

        two = two_folders(copies.folder(self.inputs), copies.folder(self.targets))
        pairs, clean = two or copies.folder(self.pairs), copies.folder(self.clean)
        with out.progress() as progress:
            task = progress.add_task("looking through the pictures", total=None)

            def tell(done: int, total: int, _name: str) -> None:
                progress.update(task, completed=done, total=total)

            if pairs is not None:
                found = pair_examples(pairs, run, align=align, on_progress=tell)
            else:
                assert clean is not None
                assert self.degrade is not None
                options = degradation_options(self.degrade, self.values or [])
                found = clean_examples(clean, options, run, patch=64, seed=seed, on_progress=tell)
        for note in found.notes:
            out.say(f"note: {note}")
        return found


@dataclass(frozen=True, kw_only=True)
class MethodGroup:
    """What is adapted, and how."""

    model: MaybeModel = None
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            metavar="NAME",
            help="A kind of network instead of --model: NAME.safetensors of this folder, where "
            "`urushi import` puts released weights, or the one that ships.",
        ),
    ] = None
    method: Annotated[
        str, typer.Option("--method", metavar="METHOD", help="How to adapt: colora, lora, ssf, ...")
    ] = "colora"
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="SHARE",
            help="Trained parameters relative to the base's, such as 7%; for colora.",
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--method-set", metavar="KEY=VALUE", help="Setting of the method; repeatable."
        ),
    ] = None

    def adapter(self, model: str) -> dict[str, Any]:
        """The adapter of a recipe, for that model."""
        from urushi.adapters import METHODS
        from urushi.settings import parse_settings, set_values
        from urushi.training.method_choice import choose_method

        values: dict[str, Any] = {}
        with as_usage():
            set_values(values, self.settings or [], AdapterError)
            chosen = choose_method(self.method, model, values, self.budget)
            stated = {key: value for key, value in chosen.items() if key != "method"}
            parse_settings(
                stated, METHODS[self.method].settings, AdapterError, f"method {self.method}"
            )
        return chosen


@dataclass(frozen=True, kw_only=True)
class LengthGroup:
    """How long it trains at most."""

    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", metavar="M", help=f"Train at most this long; default: {_MINUTES:g}."
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, metavar="N", help="Instead: train at most this many steps."),
    ] = None

    def check(self) -> None:
        """Refuses options that do not go together."""
        if self.minutes is None:
            return
        if self.steps is not None or not 0 < self.minutes < math.inf:
            raise typer.BadParameter("give --minutes above 0, or --steps instead.")

    @property
    def most_minutes(self) -> float | None:
        """Minutes at most; None where steps end it."""
        return _MINUTES if self.minutes is None and self.steps is None else self.minutes
