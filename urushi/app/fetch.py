"""`urushi fetch`: released weights by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from urushi.app.groups import grouped
from urushi.app.options import Json, OverwriteFile, require
from urushi.app.output import Output, examples, size_text
from urushi.writing import refuse_taken

if TYPE_CHECKING:
    from urushi.convert.releases import Fetched, Release

__all__ = ["EPILOG", "fetch"]

EPILOG = examples(
    "urushi fetch --list",
    "urushi fetch lora-ir",
    "urushi fetch lora-ir -o lora-ir.safetensors",
)


@dataclass(frozen=True, kw_only=True)
class ModelGroup:
    """The model file that is made of what is fetched, if any."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Make a model file of it at once, with all that belongs to it.",
        ),
    ] = None
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="With -o, as `urushi import` takes it: router=FILE takes that router, "
            "router=null none; repeatable.",
        ),
    ] = None
    half: Annotated[
        bool, typer.Option("--half", help="With -o: store in 16 bits, weights rounded.")
    ] = False

    def check(self, overwrite: bool) -> None:
        """Refuses what cannot be made, before anything is fetched."""
        if self.output is not None:
            require(("torch",), "reading checkpoints", "torch")
            if self.output.suffix != ".safetensors":
                raise typer.BadParameter(f"--output {self.output} must end in .safetensors.")
            refuse_taken([self.output], overwrite)
        elif self.values or self.half:
            raise typer.BadParameter("--set and --half are for what -o makes.")

    def importing(self) -> dict[str, object]:
        """How a checkpoint is read."""
        from urushi.app.import_model import options_of

        return options_of(self.values or [])


@grouped
def fetch(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of --list.", show_default=False)
    ] = None,
    *,
    model: ModelGroup,
    offline: Annotated[
        bool, typer.Option("--offline", help="Take what was fetched before, ask no network.")
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show what there is.")] = False,
    overwrite: OverwriteFile = False,
    json: Json = False,
) -> None:
    """Fetch weights that authors released; their licence is shown before, and is theirs."""
    from urushi.convert.releases import RELEASES

    out = Output(json=json)
    if (name is None) != listing:
        raise typer.BadParameter("give the NAME of released weights, or --list.")
    if name is None:
        _tell_releases(out)
        return
    model.check(overwrite)
    found = _fetched(out, name, offline)
    facts = {
        "name": name,
        "path": str(found.path),
        "sha256": found.sha256,
        "downloaded": found.downloaded,
        "licence": RELEASES[name].licence,
        "files": [],
    }
    if model.output is not None:
        facts["files"] = _make(out, name, found, model.output, model, overwrite, offline)
    if json:
        out.document(facts)


def _fetched(out: Output, name: str, offline: bool) -> "Fetched":
    """The file of a release, and what is to be known of it."""
    from urushi.convert.releases import RELEASES, fetch_release

    def tell(release: "Release") -> None:
        out.say(f"{release.title}, from {release.page}")
        out.say(f"licence: {release.licence}")

    if name in RELEASES and offline:
        tell(RELEASES[name])
    found = fetch_release(name, offline=offline, on_download=tell)
    how = "fetched" if found.downloaded else "fetched before"
    trust = "as known" if found.known else "recorded, to be compared from now on"
    out.say(f"{how}: {found.path} ({size_text(found.path.stat().st_size)})")
    out.say(f"SHA-256: {found.sha256} ({trust})")
    return found


def _make(
    out: Output,
    name: str,
    found: "Fetched",
    target: Path,
    model: ModelGroup,
    overwrite: bool,
    offline: bool,
) -> list[str]:
    """Files made of what was fetched, those of its router first where it has one."""
    from urushi.app.import_model import tell_imported
    from urushi.convert.importing import import_released
    from urushi.convert.releases import RELEASES

    options = model.importing()
    storage = "float16" if model.half else "float32"
    told = Output(json=False, quiet=out.json)
    files = []

    def make(release: str, path: Path, to: Path, options: dict[str, object]) -> None:
        licence = RELEASES[release].licence
        made = import_released(
            path, to, options=options, storage=storage, licence=licence, overwrite=overwrite
        )
        tell_imported(told, made)
        files.extend(str(file) for file in made.files)

    router = RELEASES[name].router
    if router is not None and "router" not in options:
        chooses = target.with_name(f"{target.stem}.router.safetensors")
        make(router, _fetched(out, router, offline).path, chooses, {})
        options["router"] = str(chooses)
    if options.get("router", "") is None:
        del options["router"]
    make(name, found.path, target, options)
    return files


def _tell_releases(out: Output) -> None:
    from urushi.convert.releases import RELEASES

    table = Table("name", "what", "licence", "from")
    for name, release in RELEASES.items():
        by_hand = "" if release.repository else " (by hand)"
        table.add_row(name, release.title, release.licence, release.page + by_hand)
    out.show(table)
    if out.json:
        out.document(
            {
                name: {"title": r.title, "licence": r.licence, "page": r.page, "hub": r.repository}
                for name, r in RELEASES.items()
            }
        )
