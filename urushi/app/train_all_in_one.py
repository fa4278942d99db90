"""`urushi train` with the recipe of an all-in-one model, or of its router on photographs."""

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from urushi.app.options import TrainingOptions
from urushi.app.output import Output, size_text, time_text
from urushi.app.teller import Teller
from urushi.errors import BackboneError, EngineError, MissingExtraError, RecipeError
from urushi.names import counted
from urushi.termination import exit_code
from urushi.writing import whole_file

if TYPE_CHECKING:
    from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe
    from urushi.training.all_in_one.datasets import AllInOneFiles
    from urushi.training.all_in_one.run import AllInOneResult
    from urushi.training.progress import Progress

__all__ = ["train_all_in_one", "train_router"]

_DATA = "data"
_JUDGED = "photographs.json"


def train_all_in_one(asked: TrainingOptions) -> None:
    """Trains what is not trained yet: three stages, one after another."""
    from urushi.training.all_in_one.all_in_one_recipe import load_all_in_one_recipe
    from urushi.training.all_in_one.run import AllInOneTraining
    from urushi.training.outcome import check_benchmarks
    from urushi.training.processes import begin, is_main, shared

    begin(asked.device)
    settings = load_all_in_one_recipe(asked.recipe, asked.values)
    run = asked.run(settings.name)
    for plan in settings.classes.values():
        check_benchmarks(plan.benchmarks, asked.data)
    out = Output(json=asked.json, quiet=not is_main())
    files = shared(lambda: _packed(out, settings, asked.data, run))
    with Teller(out) as teller:
        training = AllInOneTraining(
            settings,
            files,
            run,
            root=asked.data,
            resume=asked.resume,
            device=asked.device,
            on_stage=lambda text: out.say(f"{settings.name}: {text}"),
            on_progress=teller,
            on_router_progress=lambda progress: _tell_router(out, progress),
            on_router_pictures=lambda done, total, left: out.say(
                f"router: {done} of {counted(total, 'picture')} read, {time_text(left)} left"
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
    if result.finished and is_main():
        document |= _tell(out, result, run, asked.graph)
    elif not result.finished:
        out.say(f"stopped in the stage {result.stage}; go on with")
        out.say(f"  {asked.command(settings.name)}")
    if asked.json and is_main():
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


def _tell_router(out: Output, progress: "Progress") -> None:
    said = f"router, step {progress.step} of {progress.steps}: loss {progress.loss:.4g}"
    for share in progress.scores.values():
        said += f", {100 * share:.1f} % right"
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


def _export(out: Output, path: Path, base: Path | None, wanted: bool) -> list[str]:
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
        if base is not None and base.is_file() and not base.with_suffix(".onnx").exists():
            made.append(str(export_graph(base)))
    except (MissingExtraError, BackboneError, EngineError) as reason:
        out.say(f"no graph beside it, the engine torch needs none: {reason}")
    return made


def train_router(asked: TrainingOptions) -> None:
    """Trains a router on photographs; what was read from pictures before is kept."""
    from urushi.training.photographs.photographs_recipe import load_photographic_recipe
    from urushi.training.photographs.photographs_training import train_photographic
    from urushi.training.processes import several

    if several():
        raise RecipeError("a router on photographs is trained in one process: start a single one")
    settings = load_photographic_recipe(asked.recipe, asked.values)
    run = asked.run(settings.name)
    if (run / f"{settings.name}.safetensors").exists() and not asked.resume:
        raise RecipeError(
            f"{run} holds a router already: fit it anew (--resume), or choose another folder"
        )
    out = Output(json=asked.json)
    result = train_photographic(
        settings, run, asked.data, on_stage=lambda told: out.say(f"{settings.name}: {told}")
    )
    document: dict[str, Any] = {
        "finished": result.path is not None,
        "run": str(run),
        "file": None if result.path is None else str(result.path),
    }
    if result.path is None:
        out.say("stopped; the same command with --resume goes on")
    else:
        assert result.header is not None
        judged: Any = result.header.scores.get("photographs", {})
        for kind, counts in judged.items():
            told = ", ".join(f"{count} {name}" for name, count in counts.items())
            out.say(f"photographs, {kind}: {told}")
        with whole_file(run / _JUDGED, overwrite=True) as part:
            part.write_text(dumps(result.photographs, indent=1) + "\n", encoding="utf-8")
        document |= {
            "scores": result.header.scores,
            "photographs": str(run / _JUDGED),
            "graph": next(iter(_export(out, result.path, None, asked.graph)), None),
        }
        out.say(f"router: {result.path} ({size_text(result.path.stat().st_size)})")
    if asked.json:
        out.document(document)
    if result.path is None:
        raise typer.Exit(exit_code(result.stopped_by))
