"""`urushi train` with the recipe of a router that learns from photographs."""

from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Any

import typer

from urushi.app.output import Output, size_text
from urushi.errors import EngineError, MissingExtraError, RecipeError
from urushi.termination import exit_code
from urushi.writing import whole_file

__all__ = ["train_router"]

_JUDGED = "photographs.json"


def train_router(
    recipe: str,
    data: str | None,
    output: Path | None,
    resume: bool,
    values: Sequence[str],
    graph: bool,
    json: bool,
) -> None:
    """Trains it; what was read from pictures before is kept. The arguments are the command's."""
    from urushi.training.photographs.photographs_recipe import load_photographic_recipe
    from urushi.training.photographs.photographs_training import train_photographic

    settings = load_photographic_recipe(recipe, values)
    run = output or Path("runs") / settings.name
    if (run / f"{settings.name}.safetensors").exists() and not resume:
        raise RecipeError(
            f"{run} holds a router already: fit it anew (--resume), or choose another folder"
        )
    out = Output(json=json)
    result = train_photographic(
        settings, run, data, on_stage=lambda told: out.say(f"{settings.name}: {told}")
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
        _write_rows(run / _JUDGED, result.photographs)
        document |= {
            "scores": result.header.scores,
            "photographs": str(run / _JUDGED),
            "graph": _export(out, result.path) if graph else None,
        }
        out.say(f"router: {result.path} ({size_text(result.path.stat().st_size)})")
    if json:
        out.document(document)
    if result.path is None:
        raise typer.Exit(exit_code(result.stopped_by))


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with whole_file(path, overwrite=True) as part:
        part.write_text(dumps(rows, indent=1) + "\n", encoding="utf-8")


def _export(out: Output, path: Path) -> str | None:
    from urushi.convert.router_graph import export_router

    try:
        return str(export_router(path))
    except (MissingExtraError, EngineError) as reason:
        out.say(f"no graph beside it, the engine torch needs none: {reason}")
        return None
