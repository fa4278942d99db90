"""Writes the graph of a model once, beside its weights and without them.

In the graph the weights are inputs, named as in the model file. One graph so serves every set of
weights of the same architecture, and has a hundredth of their size.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from urushi.convert.graph_checks import Agreement, longest_side, require_exporting
from urushi.errors import BackboneError, EngineError, FileFormatError
from urushi.files.model import (
    LoadedModel,
    architecture_hash,
    graph_path,
    hash_of_graph,
    name_graph,
    read_model,
)
from urushi.inference.engines.graph_trust import (
    ARCHITECTURE_KEY,
    FIXED_PATCH_KEY,
    SCALE_KEY,
    SIZE_MULTIPLE_KEY,
)
from urushi.inference.engines.openvino_engine import OpenVINOEngine
from urushi.version import __version__

if TYPE_CHECKING:
    from urushi.inference.engines.torch_engine import TorchEngine

__all__ = ["export_graph", "verify_graph"]

_SIZE_MATTERS = (
    "{}: this {} depends on the size of the picture in a way that its graph does not hold: "
    "use engine torch"
)


def export_graph(model_path: Path) -> Path:
    """Export the graph of a model file to `NAME.onnx` beside it; one that is there is replaced.

    The model file is told the graph's hash: another graph is not run with it.

    Batch, height and width are left open; height and width must be multiples of the backbone's
    `size_multiple`.

    Args:
        model_path: `NAME.safetensors`.

    Returns:
        The graph's path.

    Raises:
        FileFormatError: the model file is not sound, or the target cannot be written.
        BackboneError: the backbone depends on the picture's size in a way a graph cannot hold.
        EngineError: the network takes other pictures than grey ones or those of three colours.
        MissingExtraError: torch, onnx or onnxscript is not installed.
    """
    require_exporting()
    model = read_model(model_path)
    from urushi.convert.tracing import traced
    from urushi.inference.engines.torch_engine import TorchEngine

    reference = TorchEngine(model, device="cpu")
    graph = traced(model, reference.size_multiple)
    graph.metadata_props.add(key=ARCHITECTURE_KEY, value=architecture_hash(model.header))
    graph.metadata_props.add(key=SIZE_MULTIPLE_KEY, value=str(reference.size_multiple))
    if reference.scale != 1:
        graph.metadata_props.add(key=SCALE_KEY, value=str(reference.scale))
    if reference.fixed_patch is not None:
        graph.metadata_props.add(key=FIXED_PATCH_KEY, value=str(reference.fixed_patch))
    graph.producer_name, graph.producer_version = "urushi", __version__
    target = graph_path(model.path)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part.onnx")
    try:
        content = graph.SerializeToString(deterministic=True)
        part.write_bytes(content)
        header = model.header.model_copy(update={"graph_hash": hash_of_graph(content)})
        verify_graph(replace(model, header=header, graph=part), reference)
        part.replace(target)
        name_graph(model.path)
    except OSError as error:
        raise FileFormatError(f"{target} cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def compare_graph(model: LoadedModel) -> None:
    """Compare the graph of a file that does not name it with torch, as `verify_graph`.

    Raises:
        BackboneError: graph and network differ.
    """
    from urushi.inference.engines.torch_engine import TorchEngine

    verify_graph(model, TorchEngine(model, device="cpu"))


def verify_graph(model: LoadedModel, reference: "TorchEngine") -> None:
    """Compare the graph of `model` with torch at sizes it was not traced at.

    Tracing follows one size; a network that decides by the size gives a graph without the other
    branch, and nothing says so.

    Raises:
        BackboneError: graph and network differ.
    """
    engine, agreement = OpenVINOEngine(model), Agreement(reference)
    facts = ("size_multiple", "scale", "fixed_patch")
    if any(getattr(engine, name) != getattr(reference, name) for name in facts):
        raise BackboneError(f"{model.graph} states other sizes than its network has")
    unit = reference.size_multiple
    rng = np.random.default_rng(0)
    # Narrow ones are quick, and the long side is beyond the windows of local pooling.
    side, length = (longest_side(reference, most, rows) for most, rows in ((30, None), (40, 2)))
    for rows, columns in ((1, 2), (2, length), (length, 2), (side, side)):
        images = rng.random((1, 3, rows * unit, columns * unit), dtype=np.float32)
        expected = reference.run(images)
        try:
            if agreement.holds(engine.run(images), expected):
                continue
        except EngineError:
            pass
        raise BackboneError(_SIZE_MATTERS.format(model.path, model.header.backbone))
