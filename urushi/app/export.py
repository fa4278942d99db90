"""`urushi export`: the graph that OpenVINO runs, written beside a model's weights."""

from typing import Annotated

import typer

from urushi.app.options import Json
from urushi.app.output import Output, examples, size_text

__all__ = ["EPILOG", "export"]

EPILOG = examples("urushi export mine.safetensors")


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file; NAME.onnx goes beside it.")
    ],
    json: Json = False,
) -> None:
    """Export a model's graph, which makes it faster on a CPU and runs without torch."""
    from urushi.inference.export import export_graph
    from urushi.inference.zoo import find_model

    out = Output(json=json)
    graph = export_graph(find_model(model))
    out.say(f"graph: {graph} ({size_text(graph.stat().st_size)})")
    if json:
        out.document({"graph": str(graph), "size": graph.stat().st_size})
