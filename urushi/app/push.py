"""`urushi push`: a file of ours to the Hugging Face hub, with a card."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urushi.app.groups import grouped
from urushi.app.options import Json
from urushi.app.output import Output, examples, size_text

if TYPE_CHECKING:
    from urushi.convert.hub_push import Facts, Parcel

__all__ = ["EPILOG", "push"]

EPILOG = examples(
    "urushi push mine.safetensors owner/name --licence MIT --dry-run",
    "urushi push mine.safetensors owner/name --base-model owner/base --dataset owner/pairs",
    "urushi pull owner/name -o mine.safetensors",
)


@dataclass(frozen=True, kw_only=True)
class FactGroup:
    """What the card says besides what the file does."""

    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="OWNER/NAME", help="Where an adapter's base lies."),
    ] = None
    licence: Annotated[
        str, typer.Option("--licence", metavar="NAME", help="If the file states none.")
    ] = ""
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="OWNER/NAME", help="Data it learned from; repeatable."),
    ] = None
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            metavar="NAME=OWNER/DATASET",
            help="The hub's name for the data of a benchmark it was measured on; repeatable.",
        ),
    ] = None

    def facts(self) -> "Facts":
        """The same, checked."""
        from urushi.convert.hub_push import Facts

        return Facts(
            self.base_model,
            self.licence,
            tuple(self.datasets or ()),
            _named(self.benchmarks or []),
        )


@grouped
def push(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A model, adapter or all-in-one file.")
    ],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Where to; made if it is missing.")
    ],
    *,
    facts: FactGroup,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository a private one.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also where something of others lies.")
    ] = False,
    message: Annotated[
        str, typer.Option("--message", metavar="TEXT", help="What the commit says.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the card and send nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Put a model or an adapter on the Hugging Face hub, with a card, scores and hashes.

    The token is that of `hf auth login`, or of HF_TOKEN.
    """
    from urushi.convert.hub_push import packed
    from urushi.convert.hub_push import push as send
    from urushi.inference.hub import quieten_client

    out = Output(json=json)
    stated = facts.facts()
    if dry_run:
        with packed(file, repository, stated) as parcel:
            _tell_parcel(out, parcel)
        return
    quieten_client(bars=out.live)
    made = send(file, repository, stated, private=private, overwrite=overwrite, message=message)
    for note in made.notes:
        out.say(f"note: {note}")
    for name, digest in made.hashes.items():
        out.say(f"{name}: SHA-256 {digest}")
    out.say(f"pushed: {made.url}")
    out.say(f"this very state:  urushi pull {repository} --revision {made.revision}")
    if json:
        facts_of = {"url": made.url, "revision": made.revision, "sha256": dict(made.hashes)}
        out.document({"repository": repository, **facts_of, "notes": list(made.notes)})


def _named(words: list[str]) -> dict[str, str]:
    """Benchmarks and the hub's names for their data."""
    found = {}
    for word in words:
        name, sign, data = word.partition("=")
        if not sign or not name or not data:
            raise typer.BadParameter(f"--benchmark {word!r}: expected NAME=OWNER/DATASET.")
        found[name] = data
    return found


def _tell_parcel(out: Output, parcel: "Parcel") -> None:
    for note in parcel.notes:
        out.say(f"note: {note}")
    for name, path in parcel.files.items():
        out.say(f"would be sent: {name} ({size_text(path.stat().st_size)})")
    for name, text in parcel.texts.items():
        out.say(f"would be sent: {name} ({size_text(len(text.encode()))})")
    out.say()
    out.say(parcel.texts["README.md"])
    if out.json:
        sizes = {name: path.stat().st_size for name, path in parcel.files.items()}
        out.document({"files": sizes, "texts": dict(parcel.texts), "notes": list(parcel.notes)})
