"""`urushi pull`: what `urushi push` put on the Hugging Face hub."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urushi.app.options import Json
from urushi.app.output import Output, examples, size_text
from urushi.errors import FileFormatError
from urushi.writing import refuse_taken, whole_file

if TYPE_CHECKING:
    from urushi.inference.hub_repository import Pulled

__all__ = ["EPILOG", "pull"]

EPILOG = examples(
    "urushi pull owner/name -o mine.safetensors",
    "urushi pull owner/all-in-one -o folder --revision v1.0",
    "urushi restore photo.jpg --adapter mine.safetensors",
)


def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where from.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="Copy it there: NAME.safetensors, or a folder. Without it, only fetch.",
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="REVISION", help="Branch, tag or commit."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Take what was fetched before, ask no network.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    json: Json = False,
) -> None:
    """Fetch a model or an adapter from the Hugging Face hub, and compare its hashes."""
    from urushi.inference.hub import quieten_client
    from urushi.inference.hub_repository import pull as fetch

    out = Output(json=json)
    single = output is not None and output.suffix == ".safetensors" and not output.is_dir()
    if single and output is not None:
        refuse_taken([output], overwrite)
    quieten_client(bars=out.live)
    found = fetch(repository, revision=revision, offline=offline)
    for note in found.notes:
        out.say(f"note: {note}")
    how = "fetched" if found.downloaded else "fetched before"
    out.say(f"{how}: {found.config.kind} of {repository} at commit {found.revision}")
    for name, facts in found.config.files.items():
        out.say(f"{name}: SHA-256 {facts.sha256} (as stated)")
    written = []
    if output is None:
        out.say(f"it lies here: {found.path}")
    else:
        written = _copied(found, output, single, overwrite)
        for path in written:
            out.say(f"written: {path} ({size_text(path.stat().st_size)})")
    if json:
        out.document(
            {
                "repository": repository,
                "revision": found.revision,
                "kind": found.config.kind,
                "path": str(found.path),
                "sha256": {name: facts.sha256 for name, facts in found.config.files.items()},
                "downloaded": found.downloaded,
                "files": [str(path) for path in written],
                "notes": list(found.notes),
            }
        )


def _copied(found: "Pulled", output: Path, single: bool, overwrite: bool) -> list[Path]:
    """The files under the name that was asked for, or their own; the one meant comes last."""
    folder, stem = (output.parent, Path(found.config.file).stem) if single else (output, "")
    targets = {}
    for name in sorted(found.config.files, key=lambda name: name == found.config.file):
        own = single and Path(name).stem == stem
        targets[name] = folder / (f"{output.stem}{Path(name).suffix}" if own else name)
    refuse_taken(targets.values(), overwrite)
    try:
        if not single:
            folder.mkdir(parents=True, exist_ok=True)
        for name, target in targets.items():
            with whole_file(target, overwrite=overwrite) as part:
                shutil.copyfile(found.folder / name, part)
    except OSError as error:
        raise FileFormatError(
            f"{os.fspath(output)} cannot be written ({error.strerror or error}): choose another "
            "place"
        ) from error
    return list(targets.values())
