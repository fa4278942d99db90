"""`urushi data shard` and `urushi data index`: pictures as WebDataset tars, for training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urushi.app.options import Json
from urushi.app.output import Output, printable, size_text

if TYPE_CHECKING:
    from urushi.data.shards.index import ShardIndex

__all__ = ["INDEX_EXAMPLES", "SHARD_EXAMPLES", "index", "shard"]

SHARD_EXAMPLES = (
    "urushi data shard photos/ more/ shards/ --min-side 128",
    "urushi data shard --pairs rainy/ rain-shards/",
)
INDEX_EXAMPLES = ("urushi data index tars/",)

Place = Annotated[
    str, typer.Argument(metavar="PLACE", help="A folder, or the URL of an object store.")
]


def shard(
    sources: Annotated[
        list[Path], typer.Argument(metavar="FOLDERS", help="Pictures, or folders of them.")
    ],
    target: Place,
    min_side: Annotated[
        int, typer.Option("--min-side", min=1, metavar="PIXELS", help="Leave out smaller ones.")
    ] = 1,
    pairs: Annotated[
        bool,
        typer.Option("--pairs", help="Each folder holds a folder of inputs and one of targets."),
    ] = False,
    size: Annotated[float, typer.Option("--size", min=0.001, metavar="MB", help="Of a tar.")] = 256,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="N", help="Of the order in the tars.")
    ] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace shards in PLACE.")
    ] = False,
    json: Json = False,
) -> None:
    """Write pictures as WebDataset tars with an index, which training streams from anywhere."""
    from urushi.data.pairs import PairedFolder
    from urushi.data.shards.shard_store import open_store
    from urushi.data.shards.shard_writing import find_pairs, find_samples, write_shards

    out = Output(json=json)
    with out.progress() as progress:
        task = progress.add_task("sharding", total=None)

        def tell(done: int, total: int, name: str) -> None:
            progress.update(task, completed=done, total=total, description=printable(name)[-40:])

        if pairs:
            folders = [PairedFolder(source) for source in sources]
            for problem in (line for folder in folders for line in folder.problems):
                out.say(f"left out: {problem}")
            samples = find_pairs(folders)
        else:
            samples = find_samples(sources)
        summary = write_shards(
            samples,
            open_store(target),
            min_side=min_side,
            shard_bytes=round(size * 1e6),
            seed=seed,
            overwrite=overwrite,
            on_progress=tell,
        )
    for _, reason in summary.skipped:
        out.say(f"left out: {reason}")
    _tell(out, summary.place, summary.index)
    if json:
        skipped = [{"name": name, "reason": reason} for name, reason in summary.skipped]
        out.document({"place": summary.place, **summary.index.model_dump(), "skipped": skipped})


def index(
    place: Place,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an index that is there.")
    ] = False,
    json: Json = False,
) -> None:
    """Index WebDataset tars that are there already, for training."""
    from urushi.data.shards.scanning import index_tars
    from urushi.data.shards.shard_store import open_store

    out = Output(json=json)
    store = open_store(place)
    with out.progress() as progress:
        task = progress.add_task("indexing", total=None)

        def tell(done: int, total: int, name: str) -> None:
            progress.update(task, completed=done, total=total, description=printable(name)[-40:])

        made = index_tars(store, overwrite=overwrite, on_progress=tell)
    _tell(out, store.shown(""), made)
    if json:
        out.document({"place": store.shown(""), **made.model_dump()})


def _tell(out: Output, place: str, made: "ShardIndex") -> None:
    size = size_text(sum(shard.filesize for shard in made.shardlist))
    tars = len(made.shardlist)
    out.say(f"{made.count} {made.kind} in {tars} tar{'s' * (tars != 1)} in {place} ({size})")
