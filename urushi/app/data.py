"""`urushi data`: pictures made ready for training, and looked through for what spoils one."""

from pathlib import Path
from typing import Annotated

import typer

from urushi.app.data_shards import INDEX_EXAMPLES, SHARD_EXAMPLES, index, shard
from urushi.app.options import Inputs, Json, Targets, two_folders
from urushi.app.output import EXIT_FAILED, Output, examples, printable, size_text

__all__ = ["app"]

app = typer.Typer(
    help="Pack or shard pictures for training, and check folders of them.",
    no_args_is_help=True,
    epilog=examples(
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


@app.command(
    epilog=examples(
        "urushi data check photos/ --min-side 128",
        "urushi data check rainy/ --against benchmark/rain/",
    )
)
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="Of pictures, or of pairs.", show_default=False),
    ] = None,
    inputs: Inputs = None,
    targets: Targets = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="FOLDER", help="No picture should be in this one too."),
    ] = None,
    min_side: Annotated[
        int, typer.Option("--min-side", min=1, metavar="PIXELS", help="Report smaller ones.")
    ] = 64,
    json: Json = False,
) -> None:
    """Find pictures that are unreadable, tiny, misnamed, there twice, or pairs that do not match.

    Exits with 1 if anything was found.
    """
    from urushi.data.check import check_folder

    two = two_folders(inputs, targets)
    if (folder is None) == (two is None):
        raise typer.BadParameter("give FOLDER, or --inputs FOLDER and --targets FOLDER.")
    given = folder if two is None else two
    assert given is not None
    out = Output(json=json)
    with out.progress() as progress:
        task = progress.add_task("looking", total=None)

        def tell(done: int, total: int, name: str) -> None:
            progress.update(task, completed=done, total=total, description=printable(name)[-40:])

        report = check_folder(given, min_side=min_side, against=against, on_progress=tell)
    if json:
        out.document(report.model_dump(mode="json"))
    else:
        for line in report.lines():
            out.say(line)
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)
