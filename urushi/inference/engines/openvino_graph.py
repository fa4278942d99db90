"""Reads the exported graph of a model into OpenVINO, with the model's weights or without."""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from urushi.errors import EngineError, FileFormatError
from urushi.files.model import LoadedModel
from urushi.inference.engines.graph_trust import (
    ARCHITECTURE_KEY,
    FIXED_PATCH_KEY,
    SCALE_KEY,
    SIZE_MULTIPLE_KEY,
    GraphFacts,
    graph_facts,
    trusted_graph,
)
from urushi.inference.engines.steady import make_steady

if TYPE_CHECKING:
    import openvino

__all__ = ["IMAGE_INPUT", "graph_of", "read_graph", "read_open"]

IMAGE_INPUT = "image"
_DAMAGED = "{}: not a complete ONNX graph: export it again"


def graph_of(model: LoadedModel, compare: Callable[[LoadedModel], None] | None = None) -> bytes:
    """The graph beside a model as it is stored, which belongs to it.

    Args:
        model: a checked model file.
        compare: of `trusted_graph`; None compares restoration networks.

    Raises:
        EngineError: there is none.
        FileFormatError: it is another one.
    """
    if model.graph is None:
        raise EngineError(
            f"{model.path} has no exported graph {model.path.with_suffix('.onnx').name} beside "
            "it, which OpenVINO needs: put it there, or use engine torch"
        )
    return trusted_graph(model, compare or _compare_with_torch)


def read_graph(
    core: "openvino.Core",
    model: LoadedModel,
    compare: Callable[[LoadedModel], None] | None = None,
    *,
    content: bytes | None = None,
) -> "tuple[openvino.Model, GraphFacts]":
    """Read the graph and put the model's weights in the place of its inputs.

    Args:
        core: of OpenVINO.
        model: whose graph.
        compare: of `trusted_graph`; None compares restoration networks.
        content: the graph, where `graph_of` has read it already.

    Returns:
        The graph, which takes `image` alone, and what it says about itself.

    Raises:
        EngineError: there is no graph.
        FileFormatError: the graph is damaged, changed or of another network.
    """
    graph, facts = read_open(core, model, compare, content=content)
    from openvino import opset13

    try:
        for parameter in graph.get_parameters():
            name = parameter.output(0).get_any_name()
            if name != IMAGE_INPUT:
                constant = opset13.constant(model.tensors[name], dtype=np.float32)
                parameter.output(0).replace(constant.output(0))
                graph.remove_parameter(parameter)
        graph.validate_nodes_and_infer_types()
    except RuntimeError as error:
        raise FileFormatError(_DAMAGED.format(model.graph)) from error
    return graph, facts


def read_open(
    core: "openvino.Core",
    model: LoadedModel,
    compare: Callable[[LoadedModel], None] | None = None,
    *,
    content: bytes | None = None,
) -> "tuple[openvino.Model, GraphFacts]":
    """Read the graph, whose inputs are the image and the model's weights, all of them."""
    content = graph_of(model, compare) if content is None else content
    path = model.graph
    try:
        graph = core.read_model(content)
        facts = graph_facts(_metadata(graph), model)
        inputs = {p.output(0).get_any_name(): p.partial_shape for p in graph.get_parameters()}
        outputs = len(graph.outputs)
    except RuntimeError as error:
        raise FileFormatError(_DAMAGED.format(path)) from error
    image = inputs.pop(IMAGE_INPUT, None)
    if image is None or image.rank.is_dynamic or len(image) != 4 or outputs != 1:
        raise FileFormatError(
            f"{path}: expected a graph that takes {IMAGE_INPUT!r} of four axes and gives one "
            "result: export it again"
        )
    for name, shape in inputs.items():
        tensor = model.tensors.get(name)
        if tensor is None or shape.is_dynamic or list(shape.to_shape()) != list(tensor.shape):
            found = "is missing" if tensor is None else f"has shape {tensor.shape}"
            raise FileFormatError(
                f"{model.path}: the tensor {name!r:.200} {found}, its graph expects {shape}: get "
                "both files again"
            )
    if unused := set(model.tensors) - set(inputs):
        raise FileFormatError(
            f"{model.path}: its graph has no tensor {min(unused)!r}: get both again"
        )
    make_steady(graph)
    return graph, facts


def _compare_with_torch(model: LoadedModel) -> None:
    # By name, because exporting checks its graphs with this engine.
    import_module("urushi.convert.graphs").compare_graph(model)


def _metadata(graph: "openvino.Model") -> dict[str, str]:
    """Return the ONNX metadata entries of a graph."""
    return {key: str(graph.get_rt_info(["framework", key]).value) for key in _known(graph)}


def _known(graph: "openvino.Model") -> list[str]:
    keys = (ARCHITECTURE_KEY, SIZE_MULTIPLE_KEY, SCALE_KEY, FIXED_PATCH_KEY)
    return [key for key in keys if graph.has_rt_info(["framework", key])]
