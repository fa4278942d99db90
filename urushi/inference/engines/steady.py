"""Convolutions whose bits depend on the number of threads, written in a form whose bits do not.

OpenVINO cuts a map among its threads and chooses by their number how a convolution is added up, so
results differ by rounding. Of the networks that ship two kinds do; others were not seen to.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import openvino

__all__ = ["make_steady"]

Node = Any  # openvino.Node has no attributes a type checker would know
_END = np.iinfo(np.int64).max


def make_steady(graph: "openvino.Model") -> None:
    """Rewrites such convolutions, in place; each result keeps its name."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        made = None
        height, width = _longest_sides(node)
        if height == 1 and width != 1:
            made = _as_column(node)
        elif 1 not in (height, width) and _gives_little(node):
            made = _as_sum(node)
        if made is not None:
            node.output(0).replace(made.output(0))
            # What comes behind is judged by the shapes of what is now before it.
            graph.validate_nodes_and_infer_types()


def _longest_sides(node: Node) -> tuple[int, ...]:
    """Height and width of what a convolution reads at most, -1 for any."""
    shape = node.input_value(0).get_partial_shape()
    return tuple(shape[axis].get_max_length() for axis in (2, 3)) if len(shape) == 4 else (1, 1)


def _as_column(node: Node) -> Node:
    """The same of a map that is one row high, calculated as that of one column."""
    from openvino import opset13

    own = node.get_attributes()
    sides = ("strides", "pads_begin", "pads_end", "dilations")
    turned = (list(own[side])[::-1] for side in sides)
    axes = opset13.constant(np.array([0, 1, 3, 2]))
    column, kernel = (opset13.transpose(value, axes) for value in node.input_values())
    return opset13.transpose(opset13.convolution(column, kernel, *turned, own["auto_pad"]), axes)


def _gives_little(node: Node) -> bool:
    """Whether all products of a convolution take no more room than what it reads."""
    own, kernel = node.get_attributes(), node.input_value(1).get_partial_shape()
    plain = all(list(own[name]) == [1, 1] for name in ("strides", "dilations"))
    if kernel.is_dynamic or own["auto_pad"] != "explicit" or not plain:
        return False
    count_out, count_in, height, width = kernel.to_shape()
    return height * width > 1 and count_out * height * width <= count_in


def _as_sum(node: Node) -> Node:
    """The same as a product at each pixel for each place of the kernel, shifted and added up."""
    from openvino import opset13

    def constant(*values: int) -> Node:
        return opset13.constant(np.array(values, np.int64))

    own, kernel = node.get_attributes(), node.input_value(1)
    count_out, count_in, height, width = kernel.get_partial_shape().to_shape()
    places = opset13.transpose(kernel, constant(2, 3, 0, 1))
    shape = constant(height * width * count_out, count_in, 1, 1)
    once, none = [1, 1], [0, 0]
    products = opset13.convolution(
        node.input_value(0), opset13.reshape(places, shape, False), once, none, none, once
    )
    before, behind = (constant(0, 0, *own[name]) for name in ("pads_begin", "pads_end"))
    products = opset13.pad(products, before, behind, "constant", opset13.constant(np.float32(0)))
    total = None
    for place in range(height * width):
        row, column = divmod(place, width)
        begin = constant(place * count_out, row, column)
        # As many rows and columns are left behind each as there are places behind it.
        ends = (row - height + 1 or _END, column - width + 1 or _END)
        end = constant((place + 1) * count_out, *ends)
        part = opset13.slice(products, begin, end, constant(1, 1, 1), constant(1, 2, 3))
        total = part if total is None else opset13.add(total, part)
    return total
