"""`urushi degrade`: worse pictures, one by one or all kinds on a sheet."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from urushi.app.groups import grouped
from urushi.app.options import (
    Json,
    Linear,
    Quality,
    Seed,
    White,
    degradation_options,
    make_degradation,
    require,
)
from urushi.app.output import EXIT_FAILED, Output, complain, examples
from urushi.errors import DegradationError, RecipeError, UrushiError
from urushi.names import plain_name

if TYPE_CHECKING:
    from urushi.degradations import Degradation
    from urushi.image import Samples
    from urushi.inference.jobs import Job

__all__ = ["EPILOG", "degrade"]

EPILOG = examples(
    "urushi degrade photo.jpg --sheet sheet.png",
    r"urushi degrade photo.png -o worse.png --name gaussian_noise --set sigma_255=\[25,25]",
    r"urushi degrade photos/ -o worse/ --name jpeg --set quality=\[10,30] --format png",
    "urushi degrade photos/ -o worse/ --chain base-cpu --seed 3",
)

SHEET_CELL = (384, 288)


def _list(wanted: bool) -> bool:
    """Every degradation with its options, from the table."""
    if not wanted:
        return wanted
    require(("torch",), "degrading", "torch")
    from dataclasses import fields

    from urushi.degradations import DEGRADATIONS

    out = Output()
    table = Table(title="Degradations", title_justify="left")
    for column in ("name", "options and their defaults", "after"):
        table.add_column(column, overflow="fold")
    for name, build in DEGRADATIONS.items():
        # The fields are simple: their defaults are written as --set takes them.
        options = [f"{f.name}={_as_yaml(f.default)}" for f in fields(build)]  # pyright: ignore[reportArgumentType]
        table.add_row(Text(name), Text("\n".join(options)), Text(build.reference))
    out.show(table)
    raise typer.Exit


def _as_yaml(value: object) -> str:
    return str(list(value) if isinstance(value, tuple) else value).replace("None", "null")


@dataclass(frozen=True, kw_only=True)
class TargetGroup:
    """What is written."""

    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="FILE", help="Write a sheet of every degradation there is."
        ),
    ] = None
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="OUT", help="A folder, or a file for one picture."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class DegradationGroup:
    """What is done to pictures."""

    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Which degradation; see --list.")
    ] = None
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the degradation."),
    ] = None
    chain: Annotated[
        str | None,
        typer.Option(
            "--chain",
            metavar="RECIPE",
            help="What a recipe does to its pictures: its name, its file, or a YAML file of a "
            "degradation alone.",
        ),
    ] = None
    seed: Seed = 0

    def made(self) -> "Degradation | None":
        """The degradation that is named; None where none is."""
        if self.name is not None:
            return make_degradation(degradation_options(self.name, self.values or []))
        return None if self.chain is None else make_degradation(_of_recipe(self.chain))


@dataclass(frozen=True, kw_only=True)
class FileGroup:
    """How pictures are read and written."""

    format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="png, jpg, tif, webp, avif.")
    ] = None
    quality: Quality = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is there already.")
    ] = False
    white: White = None
    linear: Linear = None

    def samples(self) -> "Samples":
        """What values of pictures mean, checked."""
        from urushi.image import Samples

        return Samples(self.white, self.linear).checked()


def _check_usage(where: TargetGroup, what: DegradationGroup) -> None:
    """Refuses options that do not go together."""
    if (where.sheet is None) == (where.output is None):
        raise typer.BadParameter("give either --sheet FILE or --output OUT.")
    if what.name is not None and what.chain is not None:
        raise typer.BadParameter("give --name or --chain, not both.")
    if where.output is not None and what.name is None and what.chain is None:
        raise typer.BadParameter("--output needs --name NAME or --chain RECIPE.")
    if what.values and what.name is None:
        raise typer.BadParameter("--set goes with --name.")


@grouped
def degrade(
    sources: Annotated[
        list[str], typer.Argument(metavar="PICTURES", help="Pictures, folders, quoted patterns.")
    ],
    *,
    where: TargetGroup,
    what: DegradationGroup,
    files: FileGroup,
    json: Json = False,
    list_all: Annotated[
        bool,
        typer.Option("--list", is_eager=True, callback=_list, help="Show all degradations."),
    ] = False,
) -> None:
    """Degrade pictures. The same seed and name give the same picture, everywhere."""
    _check_usage(where, what)
    require(("torch",), "degrading", "torch")
    samples = files.samples()
    out = Output(json=json)
    degradation = what.made()
    if where.sheet is not None:
        if len(sources) > 1 or Path(sources[0]).is_dir():
            raise typer.BadParameter("--sheet is made of one picture.")
        name = what.name or what.chain
        _write_sheet(sources[0], where.sheet, name, degradation, what.seed, files, samples)
        out.say(f"sheet: {where.sheet}")
        if out.json:
            out.document({"sheet": str(where.sheet), "seed": what.seed})
        return
    assert degradation is not None
    assert where.output is not None
    _degrade_all(out, sources, where.output, degradation, what.seed, files, samples)


def _of_recipe(name: str) -> dict[str, Any]:
    """The degradation of a recipe, or the one a YAML file describes."""
    from urushi.training.recipe import find_recipe, load_recipe
    from urushi.yaml_text import YAMLTextError, read_yaml

    path = find_recipe(name)
    try:
        content = read_yaml(path)
    except (OSError, YAMLTextError):
        content = None
    # A recipe has a name of its own; what makes it one is its degradation. It says what is wrong.
    if isinstance(content, dict) and "degradation" not in content and "name" in content:
        return content
    degradation = load_recipe(path).degradation
    if degradation is None:
        raise RecipeError(f"{path} trains on pairs and has no degradation: choose another recipe")
    return degradation


def _write_sheet(
    source: str,
    sheet: Path,
    name: str | None,
    degradation: "Degradation | None",
    seed: int,
    files: FileGroup,
    samples: "Samples",
) -> None:
    from urushi.degradations import DEGRADATIONS
    from urushi.degradations.side_by_side import degradation_sheet
    from urushi.image import write_picture
    from urushi.image.preview import read_preview

    shown: dict[str, Degradation]
    if degradation is not None and name is not None:
        shown = {name: degradation}
    else:
        shown = {label: build() for label, build in DEGRADATIONS.items()}
    # A large one is reduced first: reduced afterwards, noise would be averaged away.
    most = (2 * SHEET_CELL[0], 2 * SHEET_CELL[1])
    picture = read_preview(source, most, samples=samples).clip(0.0, 1.0)
    pixels = degradation_sheet(picture, shown, seed, cell_size=SHEET_CELL)
    write_picture(sheet, pixels, overwrite=files.overwrite)


def _name_of(job: "Job", output: str) -> str:
    """The picture's path below its folder, without suffix, as a benchmark of that folder has it."""
    if job.target == Path(output):
        return plain_name(job.source.stem)
    return plain_name(job.target.relative_to(output).with_suffix(""))


def _degrade_all(
    out: Output,
    sources: list[str],
    output: str,
    degradation: "Degradation",
    seed: int,
    files: FileGroup,
    samples: "Samples",
) -> None:
    from urushi.degradations.files import degrade_file, picture_seed
    from urushi.image import left_out_sentence
    from urushi.inference.jobs import plan_batch
    from urushi.inference.naming import passed_over

    jobs = plan_batch(sources, output, format=files.format, overwrite=files.overwrite)
    if left_out := passed_over(sources, output):
        complain(f"note: {left_out_sentence(left_out)}")
    rows, failed = [], []
    with out.progress() as progress:
        for job in progress.track(jobs, description="degrading"):
            if job.left:
                complain(f"note: {job.left}")
                continue
            try:
                if job.problem:
                    raise DegradationError(job.problem)
                inside = _name_of(job, output)
                job.target.parent.mkdir(parents=True, exist_ok=True)
                degrade_file(
                    job.source,
                    job.target,
                    degradation,
                    picture_seed(seed, inside),
                    overwrite=files.overwrite,
                    quality=files.quality,
                    samples=samples,
                )
            except (UrushiError, OSError) as error:
                failed.append(str(error))
                rows.append({"source": str(job.source), "error": str(error)})
                continue
            rows.append({"source": str(job.source), "target": str(job.target)})
            if not out.live:
                out.say(f"degraded {job.source} -> {job.target}")
    out.say(f"{len(rows) - len(failed)} degraded, {len(failed)} failed")
    if out.json:
        out.document({"seed": seed, "files": rows})
    for sentence in failed:
        complain(f"failed: {sentence}")
    if failed:
        raise typer.Exit(EXIT_FAILED)
