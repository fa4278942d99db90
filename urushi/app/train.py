"""`urushi train`: from a recipe and pictures to a model, an adapter, a router or an all-in-one."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urushi.app.options import DataRoot, Json, require
from urushi.app.output import Output, examples, size_text, time_text
from urushi.app.teller import Teller
from urushi.app.termination import exit_code
from urushi.app.train_all_in_one import train_all_in_one
from urushi.app.train_router import train_router
from urushi.errors import BackboneError, MissingExtraError, TakenError

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


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A YAML file, or a recipe that ships.")
    ],
    data: DataRoot = None,
    pack: Annotated[
        Path | None,
        typer.Option(
            "--pack",
            metavar="FILE",
            help="Pictures packed by  urushi data pack ; packed into RUN if not given.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="RUN", help="Folder of the run; runs/NAME otherwise."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in RUN.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="auto, the best there is, or cpu.")
    ] = "auto",
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="A.B=VALUE", help="Change a value of the recipe; repeatable."
        ),
    ] = None,
    graph: Annotated[
        bool, typer.Option("--graph/--no-graph", help="Export the model's graph in the end.")
    ] = True,
    json: Json = False,
) -> None:
    """Train what a recipe says; stop at any moment, and --resume goes on where it was."""
    if device not in ("auto", "cpu"):
        raise typer.BadParameter(f"--device is {device!r}: expected auto or cpu.")
    require(("torch", "accelerate", "tensorboard"), "training", "train")
    from urushi.training.all_in_one.all_in_one_recipe import is_all_in_one

    if is_all_in_one(recipe):
        if pack is not None:
            raise typer.BadParameter("--pack holds one kind of pictures, an all-in-one needs more.")
        train_all_in_one(recipe, data, output, resume, device, values or [], graph, json)
        return
    from urushi.training.photographs.photographs_recipe import is_photographic

    if is_photographic(recipe):
        if pack is not None:
            raise typer.BadParameter("--pack holds one kind of pictures, a router needs more.")
        train_router(recipe, data, output, resume, values or [], graph, json)
        return
    from accelerate import PartialState

    from urushi.training.loop import train as run_training
    from urushi.training.recipe import load_recipe
    from urushi.training.validation import check_benchmarks, score_network

    settings = load_recipe(recipe, values or [])
    run = output or Path("runs") / settings.name
    checked = settings.validation
    check_benchmarks(checked.benchmarks, data)
    processes = PartialState(cpu=device == "cpu")
    main = processes.is_main_process
    out = Output(json=json, quiet=not main)
    if main:
        _check_taken(settings, run, resume)
    if main and pack is None:
        _pack(out, settings, data, run)
    elif settings.data.pages and pack is not None:
        out.say(f"pages: {pack} is used as it is, without made pages")
    processes.wait_for_everyone()
    pictures = _open_pack(pack or run / PACK_NAME)
    kind = processes.device.type if processes.device else device
    where = f"{processes.num_processes} x {kind}"
    out.say(_introduction(settings, pictures, run, where))

    def validate(network: "nn.Module") -> dict[str, float]:
        return score_network(network, settings, checked.benchmarks, data, checked.limit)

    with Teller(out) as teller:
        result = run_training(
            settings,
            pictures,
            run,
            resume=resume,
            device=device,
            validate=validate if checked.benchmarks else None,
            on_progress=teller,
        )
    if not result.finished:
        again = _command(recipe, data, pack, run, device, values or [], graph)
        out.say(f"stopped after step {result.step} of {settings.schedule.steps}; go on with")
        out.say(f"  {again}")
    document = _facts(settings, result, run)
    if result.finished and main:
        document |= _leave(out, settings, result, run, graph)
    if json and main:
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
    """Packs the recipe's pictures into the run's folder, once."""
    from urushi.data.pack import pack_pictures
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

        folders = [root / folder for folder in recipe.data.pictures]
        # The seed of the training decides the order of patches; the pages are always the same.
        pages = made_pages(recipe.data.pages, PAGE_SIDE, 0, installed_fonts())
        summary = pack_pictures(
            folders, target, min_side=recipe.data.patch, on_progress=tell, made=pages
        )
    size = size_text(target.stat().st_size)
    among = f", {len(pages)} made pages among them," if pages else ""
    out.say(f"pictures: {summary.count}{among} packed into {target} ({size})")
    for _, reason in summary.skipped:
        out.say(f"left out: {reason}")


def _open_pack(path: Path) -> "PackedPictures":
    from urushi.data.pack import PackedPictures

    return PackedPictures(path)


def _introduction(recipe: "Recipe", pack: "PackedPictures", run: Path, where: str) -> str:
    from urushi.training.build import backbone_of

    data = recipe.data
    return (
        f"{recipe.name}: {backbone_of(recipe).name} on {len(pack)} pictures, "
        f"{recipe.schedule.steps} steps of {data.batch} patches of {data.patch} pixels, "
        f"{recipe.precision} on {where}, in {run}"
    )


def _command(
    recipe: str,
    data: str | None,
    pack: Path | None,
    run: Path,
    device: str,
    values: Sequence[str],
    graph: bool,
) -> str:
    """The command that goes on with this training."""
    words = ["urushi", "train", recipe, "-o", str(run)]
    words += ["--data", data] if data is not None else []
    words += ["--pack", str(pack)] if pack is not None else []
    words += ["--device", device] if device != "auto" else []
    words += [] if graph else ["--no-graph"]
    for value in values:
        words += ["--set", value]
    return shlex.join([*words, "--resume"])


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
