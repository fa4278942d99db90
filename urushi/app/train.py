"""`urushi train`: from a recipe and pictures to a model, an adapter, a router or an all-in-one."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urushi.app.options import (
    DataRoot,
    Json,
    RecipeValues,
    TrainingDevice,
    TrainingOptions,
    require,
)
from urushi.app.output import Output, examples, size_text, time_text
from urushi.app.teller import Teller
from urushi.app.train_all_in_one import train_all_in_one, train_router
from urushi.errors import BackboneError, MissingExtraError, TakenError
from urushi.names import counted
from urushi.termination import exit_code

if TYPE_CHECKING:
    from torch import nn

    from urushi.data.pack import PackedPictures
    from urushi.training.loop import TrainingResult
    from urushi.training.recipe import Recipe

__all__ = ["EPILOG", "train"]

EPILOG = examples(
    "urushi train base-cpu --data datasets/ -o runs/base",
    "urushi train base-cpu --data datasets/ -o runs/base --resume",
    "urushi train all-in-one-cpu --data datasets/ -o runs/all-in-one",
    "urushi train router-photographs --data datasets/ -o runs/router",
    "urushi train mine.yaml --pack clean.safetensors --set schedule.steps=20000 --set seed=1",
    "python -m torch.distributed.run --nproc-per-node 2 -m urushi train base-cpu --data datasets/",
)

PACK_NAME = "pictures.safetensors"

Pack = Annotated[
    str | None,
    typer.Option(
        "--pack",
        metavar="FILE",
        help="Pictures packed by  urushi data pack , or the folder or URL of those sharded by  "
        "urushi data shard ; packed into RUN if not given.",
    ),
]


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or a recipe that ships.")
    ],
    data: DataRoot = None,
    pack: Pack = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="RUN", help="Folder of the run; runs/NAME otherwise."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in RUN.")
    ] = False,
    device: TrainingDevice = "auto",
    values: RecipeValues = None,
    graph: Annotated[
        bool, typer.Option("--graph/--no-graph", help="Export the model's graph in the end.")
    ] = True,
    json: Json = False,
) -> None:
    """Train what a recipe says; stop at any moment, and --resume goes on where it was."""
    require(("torch", "accelerate", "tensorboard"), "training", "train")
    from urushi.training.recipe import recipe_kind

    asked = TrainingOptions(
        recipe, data, pack, output, resume, device, values or [], graph, json
    )  # fmt: skip
    other = {"all-in-one": train_all_in_one, "router": train_router}.get(str(recipe_kind(recipe)))
    if other is None:
        _train_network(asked)
    elif pack is None:
        other(asked)
    else:
        raise typer.BadParameter(
            "--pack holds one kind of pictures, which this recipe needs more than: leave it out."
        )


def _train_network(asked: TrainingOptions) -> None:
    """A network or an adapter, by one process or several."""
    from accelerate import PartialState

    from urushi.training.loop import train as run_training
    from urushi.training.outcome import check_benchmarks, score_network
    from urushi.training.processes import begin, shared
    from urushi.training.recipe import load_recipe

    settings = load_recipe(asked.recipe, asked.values)
    run, checked = asked.run(settings.name), settings.validation
    check_benchmarks(checked.benchmarks, asked.data)
    processes = PartialState(cpu=begin(asked.device))
    main = processes.is_main_process
    out = Output(json=asked.json, quiet=not main)

    def prepare() -> None:
        _check_taken(settings, run, asked.resume)
        if asked.pack is None:
            _pack(out, settings, asked.data, run)
        elif settings.data.pages:
            out.say(f"pages: {asked.pack} is used as it is, without made pages")

    shared(prepare)
    pictures = _open_pack(asked.pack or run / PACK_NAME, settings)
    kind = processes.device.type if processes.device else asked.device
    where = f"{processes.num_processes} x {kind}"
    out.say(_introduction(settings, pictures, run, where))

    def validate(network: "nn.Module") -> dict[str, float]:
        return score_network(network, settings, checked.benchmarks, asked.data, checked.limit)

    with Teller(out) as teller:
        result = run_training(
            settings,
            pictures,
            run,
            resume=asked.resume,
            device=asked.device,
            validate=validate if checked.benchmarks else None,
            on_progress=teller,
        )
    document = _facts(settings, result, run)
    if not result.finished:
        out.say(f"stopped after step {result.step} of {settings.schedule.steps}; go on with")
        out.say(f"  {asked.command(settings.name)}")
    elif main:
        document |= _leave(out, settings, result, run, asked.graph)
    if asked.json and main:
        out.document(document)
    if not result.finished:
        raise typer.Exit(exit_code(result.stopped_by))


def _check_taken(recipe: "Recipe", run: Path, resume: bool) -> None:
    """The file in the end is written over that of the same training, and over no other."""
    from urushi.training.checkpoint import checkpoint_to_resume
    from urushi.training.outcome import model_path

    if checkpoint_to_resume(run, resume=resume) is None:
        path = model_path(recipe, run)
        if os.path.lexists(path):
            raise TakenError(
                f"'{path}' exists already, {run} holds no training to resume; nothing was "
                "changed: choose another folder"
            )


def _pack(out: Output, recipe: "Recipe", data: str | None, run: Path) -> None:
    """Packs the recipe's pictures or pairs into the run's folder, once."""
    from urushi.data.data_sets import open_pairs, open_pictures
    from urushi.data.pack import pack_pairs, pack_pictures
    from urushi.data.synthetic_pages import PAGE_SIDE, installed_fonts, made_pages
    from urushi.evaluation.catalog import data_root

    target = run / PACK_NAME
    if target.exists():
        out.say(f"pictures: {target}, packed before")
        return
    root = data_root(data)
    with out.progress() as progress:
        task = progress.add_task("packing pictures", total=None)

        def tell(done: int, total: int, _name: str) -> None:
            progress.update(task, completed=done, total=total)

        # The seed of the training decides the order of patches; the pages are always the same.
        pages = made_pages(recipe.data.pages, PAGE_SIDE, 0, installed_fonts())
        least, what = recipe.data.patch, "pairs" if recipe.data.pairs else "pictures"
        if recipe.data.pairs:
            found = [
                (f"{number}/{pair.name}", pair.input, pair.target)
                for number, name in enumerate(recipe.data.pairs)
                for pair in open_pairs(root, name)
            ]
            summary = pack_pairs(found, target, min_side=least, on_progress=tell)
        else:
            files = [path for name in recipe.data.pictures for path in open_pictures(root, name)]
            summary = pack_pictures(files, target, min_side=least, on_progress=tell, made=pages)
    size = size_text(target.stat().st_size)
    among = f", {len(pages)} made pages among them," if pages else ""
    out.say(f"{what}: {summary.count}{among} packed into {target} ({size})")
    for _, reason in summary.skipped:
        out.say(f"left out: {reason}")


def _open_pack(place: Path | str, recipe: "Recipe") -> "PackedPictures":
    from urushi.data.packed import PackedPairs, PackedPictures
    from urushi.data.shards.sharded import are_shards, open_shards

    if are_shards(place):
        return open_shards(place)
    return (PackedPairs if recipe.data.pairs else PackedPictures)(place)


def _introduction(recipe: "Recipe", pack: "PackedPictures", run: Path, where: str) -> str:
    from urushi.training.build import backbone_of

    data = recipe.data
    what = "pairs" if data.pairs else "pictures"
    return (
        f"{recipe.name}: {backbone_of(recipe).name} on {len(pack)} {what}, "
        f"{counted(recipe.schedule.steps, 'step')} of {counted(data.batch, 'patch', 'patches')} "
        f"of {data.patch} pixels, "
        f"{recipe.precision} on {where}, in {run}"
    )


def _facts(recipe: "Recipe", result: "TrainingResult", run: Path) -> dict[str, Any]:
    return {
        "finished": result.finished,
        "run": str(run),
        "step": result.step,
        "steps": recipe.schedule.steps,
        "seconds": round(result.seconds, 1),
        "loss": result.loss,
        "log": result.log,
    }


def _leave(
    out: Output, recipe: "Recipe", result: "TrainingResult", run: Path, with_graph: bool
) -> dict[str, str | None]:
    """Writes the model or adapter file, and a model's graph where it is wanted and can be done."""
    from urushi.convert.graphs import export_graph
    from urushi.training.outcome import model_path, write_trained_adapter, write_trained_model

    path = model_path(recipe, run)
    out.say(f"trained in {time_text(result.seconds)}")
    if recipe.adapter is not None:
        write_trained_adapter(recipe, result, path)
        out.say(f"adapter: {path} ({size_text(path.stat().st_size)})")
        return {"adapter": str(path)}
    write_trained_model(recipe, result, path)
    out.say(f"model: {path} ({size_text(path.stat().st_size)})")
    if not with_graph:
        return {"model": str(path), "graph": None}
    try:
        graph = export_graph(path)
    except (MissingExtraError, BackboneError) as reason:
        out.say(f"no graph beside it, the engine torch needs none: {reason}")
        return {"model": str(path), "graph": None}
    out.say(f"graph: {graph} ({size_text(graph.stat().st_size)})")
    return {"model": str(path), "graph": str(graph)}
