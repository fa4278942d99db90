"""`urushi data`: pictures made ready for training, and looked through for what spoils one."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from urushi.app.data_shards import INDEX_EXAMPLES, SHARD_EXAMPLES, index, shard
from urushi.app.groups import grouped
from urushi.app.options import Inputs, Json, Targets, two_folders
from urushi.app.output import EXIT_FAILED, Output, examples, printable, size_text

if TYPE_CHECKING:
    from urushi.data.check import CheckReport, OnProgress
    from urushi.data.data_sets import DataSet
    from urushi.data.set_check import DataSetReport

__all__ = ["app"]

app = typer.Typer(
    help="Pack or shard pictures for training, check folders of them, and data sets of papers.",
    no_args_is_help=True,
    epilog=examples(
        "urushi data list",
        "urushi data pack photos/ clean.safetensors",
        "urushi data check photos/ --against benchmark/",
        "urushi data shard photos/ shards/",
    ),
)
app.command(epilog=examples(*SHARD_EXAMPLES))(shard)
app.command(epilog=examples(*INDEX_EXAMPLES))(index)


@app.command(
    epilog=examples(
        "urushi data pack photos/ more/ clean.safetensors --min-side 128",
        "urushi data pack --pairs rainy/ pairs.safetensors",
    )
)
def pack(
    sources: Annotated[
        list[Path], typer.Argument(metavar="FOLDERS", help="Pictures, or folders of them.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The file to write.")],
    min_side: Annotated[
        int, typer.Option("--min-side", min=1, metavar="PIXELS", help="Leave out smaller ones.")
    ] = 1,
    pairs: Annotated[
        bool,
        typer.Option("--pairs", help="Each folder holds a folder of inputs and one of targets."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Json = False,
) -> None:
    """Pack pictures into one file of 8-bit pixels, which training reads without decoding."""
    from urushi.data.pack import pack_pairs, pack_pictures
    from urushi.data.pairs import PairedFolder

    if target.suffix != ".safetensors":
        raise typer.BadParameter(f"the last name, {str(target)!r}, must end in .safetensors.")
    out = Output(json=json)
    with out.progress() as progress:
        task = progress.add_task("packing", total=None)

        def tell(done: int, total: int, _name: str) -> None:
            progress.update(task, completed=done, total=total)

        if pairs:
            folders = [PairedFolder(source) for source in sources]
            found = [(pair.name, pair.input, pair.target) for folder in folders for pair in folder]
            for problem in (line for folder in folders for line in folder.problems):
                out.say(f"left out: {problem}")
            summary = pack_pairs(
                found, target, min_side=min_side, overwrite=overwrite, on_progress=tell
            )
        else:
            summary = pack_pictures(
                sources, target, min_side=min_side, overwrite=overwrite, on_progress=tell
            )
    for _, reason in summary.skipped:
        out.say(f"left out: {reason}")
    what = "pairs" if pairs else "pictures"
    size = size_text(target.stat().st_size)
    out.say(f"{summary.count} {what} packed into {target} ({size})")
    if json:
        out.document(
            {
                "path": str(summary.path),
                "count": summary.count,
                "pixels": summary.pixels,
                "sha256": summary.sha256,
                "skipped": [{"name": n, "reason": reason} for n, reason in summary.skipped],
            }
        )


@dataclass(frozen=True, kw_only=True)
class FolderGroup:
    """Which pictures are looked through, and for what."""

    inputs: Inputs = None
    targets: Targets = None
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FOLDER", help="No picture should be in this one too."),
    ] = None
    min_side: Annotated[
        int, typer.Option("--min-side", min=1, metavar="PIXELS", help="Report smaller ones.")
    ] = 64

    def report(self, folder: Path | None, on_progress: "OnProgress") -> "CheckReport":
        """What is found in the folder, or in those of inputs and targets."""
        from urushi.data.check import check_folder

        given = two_folders(self.inputs, self.targets) or folder
        assert given is not None
        return check_folder(
            given, min_side=self.min_side, against=self.against, on_progress=on_progress
        )


@dataclass(frozen=True, kw_only=True)
class SetGroup:
    """Of a data set: where it is, and how much of it is looked at."""

    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="FOLDER",
            help="Of a data set: its folder, or the one that holds it; otherwise the environment "
            "variable URUSHI_DATA says where all are.",
        ),
    ] = None
    part: Annotated[
        list[str] | None,
        typer.Option("--part", metavar="NAME", help="Of a data set: this part alone; repeatable."),
    ] = None
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Of a data set: read headers alone, and decode no picture."),
    ] = False

    def is_named_by(self, folder: Path | None) -> bool:
        """Whether that is the name of a data set, and no folder of pictures."""
        from urushi.data.data_sets import DATA_SETS

        if folder is None:
            return False
        known = str(folder) in DATA_SETS or folder.suffix in (".yaml", ".yml")
        return self.root is not None or (known and not folder.is_dir())

    def report(self, name: str, on_progress: "OnProgress") -> "DataSetReport":
        """What is missing of a data set, and what is different from its description."""
        from urushi.data.data_sets import find_data_set
        from urushi.data.set_check import check_data_set
        from urushi.evaluation.catalog import data_root

        data_set = find_data_set(name)
        place = data_root(self.root)
        below = place / data_set.folder
        return check_data_set(
            data_set,
            below if below.is_dir() else place,
            parts=self.part or [],
            decode=not self.quick,
            on_progress=on_progress,
        )


@app.command(
    epilog=examples(
        "urushi data check photos/ --min-side 128",
        "urushi data check rainy/ --against benchmark/rain/",
        "urushi data check gopro --root datasets/",
        "urushi data check reside --root datasets/ --part sots-outdoor --json",
    )
)
@grouped
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Of pictures, or of pairs; or a data set: its name (see  urushi data list ), or "
            "the YAML file that describes it.",
            show_default=False,
        ),
    ] = None,
    *,
    pictures: FolderGroup,
    data_set: SetGroup,
    json: Json = False,
) -> None:
    """Find pictures that are unreadable, tiny, misnamed, there twice, or pairs that do not match.

    Of a data set by name: what is missing, and what is different from its description.

    Exits with 1 if anything was found.
    """
    if data_set.root is not None and folder is None:
        raise typer.BadParameter("--root goes with the name of a data set.")
    if data_set.is_named_by(folder):
        look = partial(data_set.report, str(folder))
    else:
        if data_set.part or data_set.quick:
            raise typer.BadParameter("--part and --quick go with the name of a data set.")
        two = pictures.inputs is not None or pictures.targets is not None
        if (folder is None) != two:
            raise typer.BadParameter("give FOLDER, or --inputs FOLDER and --targets FOLDER.")
        look = partial(pictures.report, folder)
    out = Output(json=json)
    with out.progress() as progress:
        task = progress.add_task("looking", total=None)

        def tell(done: int, total: int, name: str) -> None:
            progress.update(task, completed=done, total=total, description=printable(name)[-40:])

        report = look(tell)
    if json:
        out.document(report.model_dump(mode="json"))
    else:
        for line in report.lines():
            out.say(line)
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


@app.command("list", epilog=examples("urushi data list", "urushi data list gopro reside"))
def list_sets(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAMES", help="Data sets to tell all of.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """List the data sets of papers: where their pictures must lie, and how many there must be."""
    from urushi.data.data_sets import DATA_SETS, find_data_set

    out = Output(json=json)
    chosen = [find_data_set(name) for name in names or DATA_SETS]
    if json:
        out.document([data_set.model_dump(mode="json") for data_set in chosen])
        return
    if names:
        for data_set in chosen:
            _tell_data_set(out, data_set)
        return
    table = Table(title="Data sets", title_justify="left")
    for column in ("name", "what it shows", "folder", "parts"):
        table.add_column(column, overflow="fold")
    for data_set in chosen:
        parts = ", ".join(
            name if part.pictures is None else f"{name} ({part.pictures})"
            for name, part in data_set.parts.items()
        )
        cells = (data_set.name, data_set.title, data_set.folder, parts)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.show(table)


def _tell_data_set(out: Output, data_set: "DataSet") -> None:
    out.say(f"{data_set.name}: {data_set.title}")
    rows: list[tuple[str, object]] = [
        ("folder", data_set.folder),
        ("source", data_set.source),
        ("licence", data_set.licence),
        ("layout", data_set.layout),
    ]
    rows += [("note", data_set.note)] if data_set.note else []
    for name, part in data_set.parts.items():
        count = "number not told" if part.pictures is None else f"{part.pictures} ({part.told})"
        lines = [f"{count}", *(rule.text for rule in part.rules)]
        lines += [f"of those in {part.listed}"] if part.listed else []
        rows.append((f"part {name}", "\n".join(lines)))
    if data_set.benchmarks:
        rows.append(("benchmarks", ", ".join(data_set.benchmarks)))
    out.rows(rows)
    out.say()
