"""`urushi train` with the recipe of an all-in-one model: three stages, one after another."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from urushi.app.output import Output, size_text, time_text
from urushi.app.teller import Teller
from urushi.app.termination import exit_code
from urushi.errors import BackboneError, EngineError, MissingExtraError, RecipeError

if TYPE_CHECKING:
    from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe
    from urushi.training.all_in_one.datasets import AllInOneFiles
    from urushi.training.all_in_one.run import AllInOneResult
    from urushi.training.router.router_training import RouterProgress

__all__ = ["train_all_in_one"]

_DATA = "data"


def train_all_in_one(
    recipe: str,
    data: str | None,
    output: Path | None,
    resume: bool,
    device: str,
    values: Sequence[str],
    graph: bool,
    json: bool,
) -> None:
    """Trains what is not trained yet; the arguments are those of the command."""
    from urushi.training.all_in_one.all_in_one_recipe import load_all_in_one_recipe
    from urushi.training.all_in_one.run import AllInOneTraining
    from urushi.training.validation import check_benchmarks

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError("an all-in-one model is trained in one process: start a single one")
    settings = load_all_in_one_recipe(recipe, values)
    run = output or Path("runs") / settings.name
    for plan in settings.classes.values():
        check_benchmarks(plan.benchmarks, data)
    out = Output(json=json)
    files = _packed(out, settings, data, run)
    with Teller(out) as teller:
        training = AllInOneTraining(
            settings,
            files,
            run,
            root=data,
            resume=resume,
            device=device,
            on_stage=lambda text: out.say(f"{settings.name}: {text}"),
            on_progress=teller,
            on_router_progress=lambda progress: _tell_router(out, progress),
            on_router_pictures=lambda done, total, left: out.say(
                f"router: {done} of {total} pictures read, {time_text(left)} left"
            ),
        )
        result = training.train()
    document: dict[str, Any] = {
        "finished": result.finished,
        "run": str(run),
        "stage": result.stage,
        "trained": list(result.trained),
        "file": None if result.path is None else str(result.path),
    }
    if result.finished:
        document |= _tell(out, result, run, graph)
    else:
        out.say(f"stopped in the stage {result.stage}; go on with")
        out.say(f"  {_command(recipe, data, run, device, values, graph)}")
    if json:
        out.document(document)
    if not result.finished:
        raise typer.Exit(exit_code(result.stopped_by))


def _packed(out: Output, recipe: "AllInOneRecipe", data: str | None, run: Path) -> "AllInOneFiles":
    from urushi.training.all_in_one.datasets import pack_all_in_one

    with out.progress() as progress:
        task = progress.add_task("packing pictures", total=None)

        def tell(done: int, total: int, _name: str) -> None:
            progress.update(task, completed=done, total=total)

        files = pack_all_in_one(recipe, run / _DATA, data, tell)
    pairs = ", ".join(f"{name} {len(pack)}" for name, pack in files.pairs.items()) or "none"
    out.say(f"{recipe.name}: {len(files.clean)} clean pictures, pairs: {pairs}, in {run}")
    for note in files.notes:
        out.say(note)
    return files


def _tell_router(out: Output, progress: "RouterProgress") -> None:
    said = f"router, step {progress.step} of {progress.steps}: loss {progress.loss:.4g}"
    if progress.accuracy is not None:
        said += f", {100 * progress.accuracy:.1f} % right"
    out.say(f"{said}, {time_text(progress.seconds_left)} left")


def _tell(out: Output, result: "AllInOneResult", run: Path, graph: bool) -> dict[str, Any]:
    """Says what is there now, and exports the graphs that are wanted."""
    assert result.header is not None
    assert result.path is not None
    header = result.header
    scores: Any = header.scores.get("experts", {})
    trained = [path.stem for path in (run / "experts").iterdir() if path.name in header.classes]
    if left := sorted(set(trained) - set(header.experts)):
        out.say(f"left out, the base alone is better: {', '.join(left)}")
    for name, member in header.experts.items():
        size = size_text((run / member.file).stat().st_size)
        rows = scores.get(name, {})
        told = [
            f"{benchmark} {row['psnr_base']:.2f} -> {row['psnr']:.2f} dB"
            for benchmark, row in rows.items()
        ]
        out.say(f"{name}: {member.file} ({size}){': ' if told else ''}{', '.join(told)}")
        if any(row["psnr"] < row["psnr_base"] for row in rows.values()):
            out.say(f"{name} is worse than the base somewhere; train it longer, or leave it out")
    assert header.base is not None
    graphs = _export(out, result.path, run / f"{header.base.name}.safetensors", graph)
    out.say(f"all in one: {result.path} ({size_text(result.path.stat().st_size)})")
    return {"scores": header.scores, "graphs": graphs}


def _export(out: Output, path: Path, base: Path, wanted: bool) -> list[str]:
    """Graphs of the router's encoder, and of a base that was made here."""
    if not wanted:
        return []
    from urushi.convert.graphs import export_graph
    from urushi.convert.router_graph import export_router
    from urushi.files.router_file import read_router_header

    made = []
    try:
        if read_router_header(path).encoder.own:
            made.append(str(export_router(path)))
        if base.is_file() and not base.with_suffix(".onnx").exists():
            made.append(str(export_graph(base)))
    except (MissingExtraError, BackboneError, EngineError) as reason:
        out.say(f"no graph beside it, the engine torch needs none: {reason}")
    return made


def _command(
    recipe: str, data: str | None, run: Path, device: str, values: Sequence[str], graph: bool
) -> str:
    """The command that goes on with this training."""
    words = ["urushi", "train", recipe, "-o", str(run)]
    words += ["--data", data] if data is not None else []
    words += ["--device", device] if device != "auto" else []
    words += [] if graph else ["--no-graph"]
    for value in values:
        words += ["--set", value]
    return shlex.join([*words, "--resume"])
