"""`urushi export`: what OpenVINO runs, written beside a model's weights."""

from pathlib import Path
from typing import Annotated

import typer

from urushi.app.options import Json
from urushi.app.output import Output, examples, size_text

__all__ = ["EPILOG", "export"]

EPILOG = examples(
    "urushi export mine.safetensors",
    "urushi export mine.safetensors --precision int8 --clean photos/",
)
_CHOICES = ("float32", "int8")


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file; NAME.onnx goes beside it.")
    ],
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="PRECISION",
            help="float32 writes the graph, which serves bf16 as well; int8 writes NAME.int8, "
            "what 8-bit arithmetic needs besides.",
        ),
    ] = "float32",
    clean: Annotated[
        Path | None,
        typer.Option(
            "--clean", metavar="FOLDER", help="Good pictures, from which int8 takes its ranges."
        ),
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option("--crops", min=2, metavar="N", help="Crops of them to look at; 64 otherwise."),
    ] = None,
    json: Json = False,
) -> None:
    """Export a model's graph, which makes it faster on a CPU and runs without torch."""
    if precision not in _CHOICES:
        raise typer.BadParameter(f"--precision {precision!r} is not one of {', '.join(_CHOICES)}.")
    if (precision == "int8") != (clean is not None):
        raise typer.BadParameter("--precision int8 and --clean FOLDER need each other.")
    if crops is not None and clean is None:
        raise typer.BadParameter("--crops is for --precision int8.")
    out = Output(json=json)
    if clean is None:
        _export_graph(out, model)
    else:
        _export_int8(out, model, clean, crops)


def _export_graph(out: Output, model: str) -> None:
    from urushi.inference.export import export_graph
    from urushi.inference.zoo import find_model

    graph = export_graph(find_model(model))
    out.say(f"graph: {graph} ({size_text(graph.stat().st_size)})")
    if out.json:
        out.document({"graph": str(graph), "size": graph.stat().st_size})


def _export_int8(out: Output, model: str, clean: Path, crops: int | None) -> None:
    from urushi.inference.quantize import export_int8
    from urushi.inference.zoo import find_model

    path = find_model(model)
    out.say("measuring the ranges of all layers ...")
    made = export_int8(path, clean) if crops is None else export_int8(path, clean, crops=crops)
    size = made.path.stat().st_size
    out.say(f"int8: {made.path} ({size_text(size)}, {made.layers} convolutions)")
    out.say(
        f"the degraded crops come back at {made.psnr_int8:.2f} dB, in float32 at "
        f"{made.psnr_float32:.2f} dB"
    )
    if out.json:
        out.document({**made._asdict(), "int8": str(made.path), "size": size, "path": str(path)})
