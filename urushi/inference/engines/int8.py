"""8-bit convolutions in an OpenVINO graph: found, and given the ranges of an int8 file.

What is rounded to 8 bits stands in the graph as `FakeQuantize`, from which OpenVINO makes 8-bit
convolutions when it compiles. No package but OpenVINO is needed for that.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from urushi.files.int8_file import LayerRanges

if TYPE_CHECKING:
    import openvino

__all__ = [
    "ACTIVATION_LEVELS",
    "WEIGHT_LEVELS",
    "bias_of",
    "convolutions",
    "fold_constants",
    "insert_ranges",
]

ACTIVATION_LEVELS = 256
WEIGHT_LEVELS = 255  # symmetric about zero

# What ends the way from a picture, or to it.
_CALCULATES = frozenset(("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"))

Node = Any  # openvino.Node has no attributes a type checker would know


def fold_constants(graph: "openvino.Model") -> None:
    """Calculate in place what depends on constants alone, such as weights scaled by weights."""
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(graph)


def convolutions(graph: "openvino.Model") -> dict[str, Node]:
    """Return the convolutions that can be calculated in 8 bits, by the name of their result.

    These are the ordinary ones between feature maps. Those that read or write pictures, and those
    on pooled values (channel attention), are small and harm the result most, so they stay as they
    are; depth-wise ones (`GroupConvolution`) lose more than they gain.

    Args:
        graph: a graph with its weights, constants folded.
    """
    # A network of grey pictures is given the colours one by one, inside of its graph.
    of_pictures = {1, graph.input(0).get_partial_shape()[1].get_length()}
    found = {}
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        count_out, count_in = node.input_value(1).get_shape()[:2]
        pooled = all(side.is_static for side in list(node.get_output_partial_shape(0))[2:])
        if not of_pictures.isdisjoint((count_out, count_in)) or pooled:
            continue
        # Where ends of a network are put together, pictures have more channels.
        if _reads_picture(node) or _writes_picture(node):
            continue
        found[_result_name(node)] = node
    return found


def _reads_picture(convolution: Node) -> bool:
    """Whether nothing is calculated between the picture and what a convolution reads."""
    waiting, seen = [convolution.input_value(0).get_node()], set()
    while waiting:
        node = waiting.pop()
        kind, name = node.get_type_name(), node.get_friendly_name()
        if kind == "Parameter":
            return True
        if name not in seen and kind not in _CALCULATES:
            seen.add(name)
            waiting += [value.get_node() for value in node.input_values()]
    return False


def _writes_picture(convolution: Node) -> bool:
    """Whether nothing is calculated between the result of a convolution and the picture."""
    waiting, seen = [convolution], set()
    while waiting:
        node = waiting.pop()
        for reader in node.output(0).get_target_inputs():
            after = reader.get_node()
            kind, name = after.get_type_name(), after.get_friendly_name()
            if kind == "Result":
                return True
            if name not in seen and kind not in _CALCULATES:
                seen.add(name)
                waiting.append(after)
    return False


def bias_of(convolution: Node) -> Node | None:
    """Return the constant that is added to the result of a convolution, if there is one."""
    addition = _addition(convolution)
    return None if addition is None else addition.input_value(1).get_node()


def insert_ranges(graph: "openvino.Model", layers: Mapping[str, LayerRanges]) -> str:
    """Round input and weights of convolutions to 8 bits within their ranges, in place.

    Args:
        graph: a graph with its weights, constants folded.
        layers: ranges by the name of a convolution's result.

    Returns:
        What does not fit, as a sentence's beginning; empty if all does. The graph is then not to
        be used.
    """
    known = convolutions(graph)
    inputs: dict[tuple[str, int, bytes], Node] = {}
    for name, ranges in layers.items():
        convolution = known.get(name)
        if convolution is None:
            return f"the graph has no layer {name!r}"
        bias = bias_of(convolution)
        channels = convolution.input_value(1).get_shape()[0]
        if ranges.weight.shape[1] != channels or (bias is None) != (ranges.bias is None):
            return f"the layer {name!r} has another shape"
        source = convolution.input_value(0)
        # The two halves of a gate read the same values: they are rounded once.
        key = (source.get_node().get_friendly_name(), source.get_index(), bytes(ranges.activation))
        if key not in inputs:
            inputs[key] = _rounded(source, ranges.activation, (), ACTIVATION_LEVELS)
        weight = _rounded(
            convolution.input_value(1), ranges.weight, (channels, 1, 1, 1), WEIGHT_LEVELS
        )
        convolution.input(0).replace_source_output(inputs[key].output(0))
        convolution.input(1).replace_source_output(weight.output(0))
        if bias is not None and ranges.bias is not None:
            _replace_bias(convolution, ranges.bias)
    graph.validate_nodes_and_infer_types()
    return ""


def _rounded(source: Node, bounds: np.ndarray, shape: tuple[int, ...], levels: int) -> Node:
    from openvino import opset13

    low, high = (
        opset13.constant(b.reshape(shape or (1, 1, 1, 1)), dtype=np.float32) for b in bounds
    )
    return opset13.fake_quantize(source, low, high, low, high, levels)


def _replace_bias(convolution: Node, bias: np.ndarray) -> None:
    from openvino import opset13

    addition = _addition(convolution)
    assert addition is not None
    constant = opset13.constant(bias.reshape(1, -1, 1, 1), dtype=np.float32)
    addition.input(1).replace_source_output(constant.output(0))


def _addition(convolution: Node) -> Node | None:
    """Return the addition of a constant per channel that follows a convolution, if any does."""
    readers = list(convolution.output(0).get_target_inputs())
    if len(readers) != 1:
        return None
    node = readers[0].get_node()
    if node.get_type_name() != "Add":
        return None
    return node if node.input_value(1).get_node().get_type_name() == "Constant" else None


def _result_name(convolution: Node) -> str:
    """Return the name that the exported graph gives to a convolution's result, bias included."""
    addition = _addition(convolution)
    names = (addition or convolution).output(0).get_names()
    return min(names)
