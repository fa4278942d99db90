"""ONNX graphs as other programs take them: of one size, or without anything that asks for a size.

What `urushi.convert.standalone` writes measures pictures inside. Many programs cannot run that, or
cannot tell what it gives. These graphs measure nothing: they pool over the whole picture, and the
sides that are given must be multiples of what the network needs, unless there is one size only.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from urushi.convert.graph_checks import Agreement, import_onnxruntime
from urushi.convert.tracing import traced_with_weights
from urushi.errors import BackboneError
from urushi.files.model import LoadedModel
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.openvino_engine import openvino_core
from urushi.inference.hardware import in_use, is_installed
from urushi.inference.tiling import pad_tile

if TYPE_CHECKING:
    from urushi.inference.engines.torch_engine import TorchEngine

__all__ = [
    "INPUT",
    "OUTPUT",
    "STRENGTH",
    "HostGraph",
    "check_graph",
    "host_graph",
    "inferred_shape",
    "with_global_pooling",
    "with_strength",
]

INPUT, OUTPUT, STRENGTH = "input", "output", "strength"
_POOLING = ("pooling_window", "pooling_patch")
# What asks for a size, or depends on one, when the graph runs.
_MEASURING = frozenset({"Shape", "Size", "Range", "NonZero", "ConstantOfShape"})
# What a check may take, in bytes.
_MEMORY = 1 << 30


class HostGraph(NamedTuple):
    """A graph and what it takes.

    Attributes:
        model: the graph with its weights.
        size: height and width of the only pictures that it takes; None takes all whose sides are
            multiples of `multiple`.
        multiple: see above; 1 where there is one size.
        scale: sides of a result divided by those of a picture.
    """

    model: onnx.ModelProto
    size: tuple[int, int] | None
    multiple: int
    scale: int


def with_global_pooling(model: LoadedModel) -> tuple[LoadedModel, bool]:
    """Return the model without a window of local pooling, and whether it had one."""
    config = {name: value for name, value in model.header.config.items() if name not in _POOLING}
    had = any(model.header.config.get(name) is not None for name in _POOLING)
    return replace(model, header=model.header.model_copy(update={"config": config})), had


def host_graph(
    model: LoadedModel,
    reference: "TorchEngine",
    attached: Sequence[AppliedAdapter],
    size: tuple[int, int] | None,
) -> HostGraph:
    """Write a network as a graph from `input` to `output` that measures nothing.

    Both are RGB, float32, 0 to 1 (the output is not clipped), `(batch, 3, height, width)`, of one
    size with a batch of one. A size that is no multiple is filled up inside, by fixed amounts.

    Args:
        model: with global pooling.
        reference: its network in torch.
        attached: adapters that are not in its weights.
        size: height and width, or None.

    Raises:
        BackboneError: the network cannot be such a graph, or does not take that size.
    """
    multiple, scale, patch = reference.size_multiple, reference.scale, reference.fixed_patch
    if patch is not None and size != (patch, patch):
        raise BackboneError(
            f"{model.path}: this {model.header.backbone} takes squares of {patch} pixels alone: "
            f"give --static {patch}x{patch}",
            usage=True,
        )
    if size is not None and min(size) < multiple:
        raise BackboneError(
            f"--static {size[0]}x{size[1]} is smaller than the {multiple} pixels that this network "
            "needs on each side",
            usage=True,
        )
    filled = None if size is None else tuple(-(-side // multiple) * multiple for side in size)
    graph = traced_with_weights(model, multiple, attached, size=filled)
    _drop_empty_padding(graph.graph)
    if measuring := _MEASURING.intersection(node.op_type for node in graph.graph.node):
        hint = "give --static HEIGHTxWIDTH" if size is None else "use engine torch"
        raise BackboneError(
            f"{model.path}: this {model.header.backbone} asks for the picture's size "
            f"({', '.join(sorted(measuring))}), which this program does not take: {hint}"
        )
    _name_ends(graph.graph)
    if size is not None and filled is not None and filled != size:
        _frame(graph.graph, size, filled, scale)
    _state_sizes(graph.graph, size, scale)
    _state_least_version(graph)
    return HostGraph(graph, size, 1 if size else multiple, scale)


def _drop_empty_padding(graph: onnx.GraphProto) -> None:
    """Drop paddings by nothing, which the exporter leaves."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    known |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].HasField("t")
    }
    gone = {}
    for node in list(graph.node):
        amounts = known.get(node.input[1]) if node.op_type == "Pad" else None
        if amounts is not None and not numpy_helper.to_array(amounts).any():
            gone[node.output[0]] = node.input[0]
            graph.node.remove(node)
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = gone.get(name, name)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def _name_ends(graph: onnx.GraphProto) -> None:
    _rename(graph, graph.input[0].name, INPUT)
    _rename(graph, graph.output[0].name, OUTPUT)
    graph.input[0].name, graph.output[0].name = INPUT, OUTPUT


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


def _frame(
    graph: onnx.GraphProto, size: tuple[int, int], filled: Sequence[int], scale: int
) -> None:
    """Mirror a picture up to the size of the network in front of it, and cut that off behind it."""
    _rename(graph, INPUT, "frame_filled")
    _rename(graph, OUTPUT, "frame_whole")
    constants = {
        "frame_amounts": [0, 0, 0, 0, 0, 0, filled[0] - size[0], filled[1] - size[1]],
        "frame_starts": [0, 0],
        "frame_ends": [side * scale for side in size],
        "frame_axes": [2, 3],
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values, np.int64), name)
        for name, values in constants.items()
    )
    ends = ["frame_starts", "frame_ends", "frame_axes"]
    pad = helper.make_node(
        "Pad", [INPUT, "frame_amounts"], ["frame_filled"], "frame_pad", mode="reflect"
    )
    cut = helper.make_node("Slice", ["frame_whole", *ends], [OUTPUT], "frame_cut")
    nodes = [pad, *graph.node, cut]
    del graph.node[:]
    graph.node.extend(nodes)


def _state_sizes(graph: onnx.GraphProto, size: tuple[int, int] | None, scale: int) -> None:
    """Sides by the names that programs bind, or as numbers."""
    given: list[int | str] = ["batch", 3, "height", "width"]
    larger = given if scale == 1 else ["batch", 3, f"{scale}*height", f"{scale}*width"]
    if size is not None:
        given = [1, 3, *size]
        larger = [1, 3, *(side * scale for side in size)]
    for entry, sides in ((graph.input[0], given), (graph.output[0], larger)):
        entry.CopyFrom(helper.make_tensor_value_info(entry.name, onnx.TensorProto.FLOAT, sides))


def _state_least_version(graph: onnx.ModelProto) -> None:
    """State the oldest version of ONNX's operators that means the same.

    The exporter states a newer one than it uses, and programs refuse what is newer than they know.
    """
    (stated,) = (entry for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    stated.version = max(
        onnx.defs.get_schema(node.op_type, stated.version).since_version
        for node in graph.graph.node
        if node.domain in ("", "ai.onnx")
    )


def with_strength(graph: onnx.ModelProto) -> None:
    """Add the input `strength` `(1, 1)`, 0 to 1: how much of the change is made; in place."""
    inner = graph.graph
    _rename(inner, OUTPUT, "whole_effect")
    value = helper.make_tensor_value_info(STRENGTH, onnx.TensorProto.FLOAT, [1, 1])
    inner.input.append(value)
    inner.node.extend(
        [
            helper.make_node("Sub", ["whole_effect", INPUT], ["change"], "strength_change"),
            helper.make_node("Mul", ["change", STRENGTH], ["weaker_change"], "strength_factor"),
            helper.make_node("Add", [INPUT, "weaker_change"], [OUTPUT], "strength_sum"),
        ]
    )


def inferred_shape(graph: onnx.ModelProto, height: int, width: int) -> tuple[int, ...] | None:
    """Return the shape of a result by ONNX's shape inference alone; None where it cannot tell."""
    asked = onnx.ModelProto()
    asked.CopyFrom(graph)
    for dim, side in zip(
        asked.graph.input[0].type.tensor_type.shape.dim, (1, 3, height, width), strict=True
    ):
        dim.dim_value = side
    try:
        inferred = onnx.shape_inference.infer_shapes(asked, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        return None
    sides = inferred.graph.output[0].type.tensor_type.shape.dim
    return (
        tuple(dim.dim_value for dim in sides)
        if all(d.HasField("dim_value") for d in sides)
        else None
    )


def check_graph(graph: HostGraph, reference: "TorchEngine", subject: str) -> tuple[str, ...]:
    """Compare a graph with torch, in ONNX Runtime and in OpenVINO, where they are installed.

    Returns:
        The engines that gave what torch gives; none where its only size is too large for a check.

    Raises:
        BackboneError: the graph cannot be run, or gives another result than torch.
    """
    multiple, scale = reference.size_multiple, reference.scale
    height, width = graph.size or (2 * multiple, 3 * multiple)
    shape = inferred_shape(graph.model, height, width)
    if shape != (1, 3, height * scale, width * scale):
        raise BackboneError(
            f"{subject}: shapes cannot be inferred from this graph: it cannot be exported"
        )
    if height * width * reference.bytes_per_pixel > _MEMORY:
        return ()
    image = np.random.default_rng(0).random((height, width, 3), dtype=np.float32)
    sides = (-(-side // multiple) * multiple for side in (height, width))
    expected = reference.run(pad_tile(image, *sides)[None])[..., : height * scale, : width * scale]
    given = np.ascontiguousarray(image.transpose(2, 0, 1))[None]
    agreement, ran = Agreement(reference), []
    for name, opened in (("onnxruntime", _in_onnxruntime), ("openvino", _in_openvino)):
        if not is_installed(name):
            continue
        try:
            result = opened(graph.model)(given)
        # Whatever engines raise; which errors these are they do not say.
        except Exception as error:
            said = " ".join(str(error).split())[:300]
            raise BackboneError(f"{subject}: {name} cannot run this graph: {said}") from error
        if not agreement.holds(result, expected):
            raise BackboneError(
                f"{subject}: {name} gives a different result from torch: this network cannot be "
                "exported, use engine torch"
            )
        ran.append(name)
    return tuple(ran)


def _fed(names: Sequence[str], image: np.ndarray) -> dict[str, np.ndarray]:
    return {name: image if name == INPUT else np.ones((1, 1), np.float32) for name in names}


def _in_onnxruntime(graph: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [entry.name for entry in session.get_inputs()]
    return lambda image: np.asarray(session.run(None, _fed(names, image))[0])


def _in_openvino(graph: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray]:
    in_use("openvino")
    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(graph.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    names = [entry.name for entry in graph.graph.input]
    return lambda image: np.asarray(compiled(_fed(names, image))[0])
