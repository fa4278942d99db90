"""Writes the graph of a model once, beside its weights and without them.

In the graph the weights are inputs, named as in the model file. One graph so serves every set of
weights of the same architecture, and has a hundredth of their size.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from urushi.errors import BackboneError, EngineError, FileFormatError, MissingExtraError
from urushi.files.model import LoadedModel, architecture_hash, graph_path, read_model
from urushi.inference.devices import is_installed
from urushi.inference.engines.base import picture_channels
from urushi.inference.engines.openvino_engine import (
    ARCHITECTURE_KEY,
    FIXED_PATCH_KEY,
    IMAGE_INPUT,
    SCALE_KEY,
    SIZE_MULTIPLE_KEY,
    OpenVINOEngine,
)
from urushi.version import __version__

if TYPE_CHECKING:
    import onnx
    import torch

    from urushi.inference.engines.torch_engine import TorchEngine

__all__ = ["export_graph", "verify_graph"]

# No tile is larger; torch wants to be told some bound.
_LARGEST_SIDE = 1 << 16
# Largest difference from torch, relative to the largest value of the result.
_TOLERANCE = 1e-4
_SIZE_MATTERS = (
    "{}: this {} depends on the size of the picture in a way that a graph cannot hold "
    "(local pooling does): use engine torch"
)


def export_graph(model_path: Path) -> Path:
    """Export the graph of a model file to `NAME.onnx` beside it; one that is there is replaced.

    Batch, height and width are left open; height and width must be multiples of the backbone's
    `size_multiple`.

    Args:
        model_path: `NAME.safetensors`.

    Returns:
        The graph's path.

    Raises:
        FileFormatError: the model file is not sound, or the target cannot be written.
        BackboneError: the backbone depends on the picture's size in a way a graph cannot hold.
        MissingExtraError: torch, onnx or onnxscript is not installed.
    """
    for package in ("torch", "onnx", "onnxscript", "openvino"):
        if not is_installed(package):
            raise MissingExtraError(f"{package}, which exporting needs,", "export")
    model = read_model(model_path)
    from urushi.inference.engines.torch_engine import TorchEngine, build_network
    from urushi.inference.export_forms import in_export_form

    if picture_channels(model) != 3:
        raise BackboneError(
            f"{model.path}: this {model.header.backbone} is for grey pictures, and only networks "
            "for colour are exported: use engine torch"
        )
    reference = TorchEngine(model, device="cpu")
    graph = _trace(in_export_form(build_network(model)), reference.size_multiple, model)
    _trim(graph)
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
        part.write_bytes(graph.SerializeToString(deterministic=True))
        verify_graph(replace(model, graph=part), reference)
        part.replace(target)
    except OSError as error:
        raise FileFormatError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)
    return target


def verify_graph(model: LoadedModel, reference: "TorchEngine") -> None:
    """Compare the graph of `model` with torch at sizes it was not traced at.

    Tracing follows one size; a network that decides by the size gives a graph without the other
    branch, and nothing says so.

    Raises:
        BackboneError: graph and network differ.
    """
    engine = OpenVINOEngine(model)
    unit = reference.size_multiple
    rng = np.random.default_rng(0)
    # Narrow ones are quick, and the long side is beyond the windows of local pooling.
    for rows, columns in ((1, 2), (2, 40), (40, 2), (30, 30)):
        images = rng.random((1, 3, rows * unit, columns * unit), dtype=np.float32)
        expected = reference.run(images)
        try:
            error = np.abs(engine.run(images) - expected).max()
        except EngineError:
            error = np.inf
        if not error <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise BackboneError(_SIZE_MATTERS.format(model.path, model.header.backbone))


def _trace(network: "torch.nn.Module", size_multiple: int, model: LoadedModel) -> "onnx.ModelProto":
    """Export `network` as a function of a picture and of its weights."""
    import torch
    from torch._dynamo.exc import UserError
    from torch.export import Dim
    from torch.func import functional_call

    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}

    class Function(torch.nn.Module):
        def forward(self, image: torch.Tensor, values: list[torch.Tensor]) -> torch.Tensor:
            return functional_call(network, dict(zip(weights, values, strict=True)), (image,))

    # Sides that differ, and more than one picture: equal or single ones would be taken as fixed.
    example = torch.zeros(2, 3, 3 * size_multiple, 5 * size_multiple)
    largest = _LARGEST_SIDE // size_multiple
    shape = {
        0: Dim("batch"),
        2: size_multiple * Dim("rows", min=1, max=largest),
        3: size_multiple * Dim("columns", min=1, max=largest),
    }
    values = list(weights.values())
    with _quiet():
        try:
            program = torch.export.export(
                Function().eval(), (example, values), dynamic_shapes=(shape, [None for _ in values])
            )
        except UserError as error:
            raise BackboneError(_SIZE_MATTERS.format(model.path, model.header.backbone)) from error
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[IMAGE_INPUT, *weights],
            output_names=["restored"],
            external_data=False,
            verbose=False,
        )
    assert exported is not None
    return exported.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _trim(graph: "onnx.ModelProto") -> None:
    """Drop the notes that the exporter leaves on every node: source lines of this machine."""
    parts = [*graph.graph.node, *graph.graph.input, *graph.graph.output, graph.graph, graph]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.graph.ClearField("value_info")
