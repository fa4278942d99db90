"""What stands around a network in a file that takes pictures of any size: padding and cropping.

A traced network takes sides that are multiples of a number. In front of it, a picture is filled up
as `urushi.inference.tiling.pad_tile` does; behind it, what was added is cut off. A network of fixed
squares gets squares that overlap and are blended, as tiles are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from urushi.inference.tiling import Side

__all__ = ["OVERLAP_SHARE", "framed", "squares"]

# Of the squares of a network that takes no other: 16 of 48 pixels, as where a picture is cut into
# tiles.
OVERLAP_SHARE = 3
_ROWS, _COLUMNS = 2, 3


def squares(patch: int, count: int = 3) -> Side:
    """How the squares of a network that takes no other lie along one side of a picture.

    Args:
        patch: side of the squares in pixels.
        count: how many there are.
    """
    shared = patch // OVERLAP_SHARE
    step = patch - shared
    length = patch + (count - 1) * step
    return Side(length, patch, tuple(range(0, length - shared, step)), guard=shared // 8)


def framed(
    graph: "onnx.ModelProto",
    image: str,
    result: str,
    *,
    multiple: int,
    scale: int,
    patch: int | None,
) -> None:
    """Let a graph take pictures of any size, in place.

    Args:
        graph: a network for sides that are multiples of `multiple`.
        image: name of its input, which stays the name.
        result: name of its output.
        multiple: see above.
        scale: sides of the result divided by those of the picture.
        patch: side of the only squares that the network takes, side by side; else None.
    """
    inner = graph.graph
    _rename(inner, image, "frame_filled")
    _rename(inner, result, "frame_whole")
    before, behind = _Nodes("before"), _Nodes("behind")
    sides = [before.length(image, axis) for axis in (_ROWS, _COLUMNS)]
    filled, whole = image, "frame_whole"
    for axis, side in zip((_ROWS, _COLUMNS), sides, strict=True):
        filled = before.filled(filled, axis, side, multiple, patch)
    if patch is not None:
        for axis in (_ROWS, _COLUMNS):
            whole = behind.blended(whole, axis, patch, scale)
    before("Identity", filled, name="frame_filled")
    behind.cropped(whole, sides, scale, result)
    nodes = [*before.nodes, *inner.node, *behind.nodes]
    del inner.node[:]
    inner.node.extend(nodes)
    inner.initializer.extend([*before.constants.values(), *behind.constants.values()])
    del inner.value_info[:]
    shape = ["batch", 3, "height", "width"]
    larger = shape if scale == 1 else ["batch", 3, f"{scale}*height", f"{scale}*width"]
    for entries, name, sizes in ((inner.input, image, shape), (inner.output, result, larger)):
        (entry,) = (entry for entry in entries if entry.name == name)
        entry.CopyFrom(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes))


def _rename(graph: "onnx.GraphProto", old: str, new: str) -> None:
    """Rename a value among the nodes, but not what the graph itself is given or gives."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = new


class _Nodes:
    """Nodes written one after the other; each call returns the name of a node's result."""

    def __init__(self, prefix: str) -> None:
        self._prefix = f"frame_{prefix}"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def __call__(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{self._prefix}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def constant(self, values: int | Sequence[int] | np.ndarray) -> str:
        array = values if isinstance(values, np.ndarray) else np.asarray(values, np.int64)
        name = f"{self._prefix}_constant_{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def length(self, x: str, axis: int) -> str:
        """The length of an axis, a scalar."""
        return self("Gather", self("Shape", x), self.constant(axis))

    def filled(self, x: str, axis: int, side: str, multiple: int, patch: int | None) -> str:
        """`x`, mirrored without its edge pixel until the side is long enough.

        With a `patch`, squares that overlap are laid side by side.
        """
        one, unit = self.constant(1), self.constant(multiple)
        if patch is None:
            count = self("Div", self("Sub", self("Add", side, unit), one), unit)
            index = self("Range", self.constant(0), self("Mul", count, unit), one)
        else:
            step = squares(patch).starts[1]
            apart = self.constant(step)
            # As many as cover the side: one, and one more for every step beyond it.
            beyond = self("Max", self("Sub", side, unit), self.constant(0))
            more = self("Div", self("Sub", self("Add", beyond, apart), one), apart)
            count = self("Add", more, one)
            place = self("Range", self.constant(0), self("Mul", count, unit), one)
            square = self("Div", place, unit)
            index = self("Sub", place, self("Mul", square, self.constant(patch - step)))
        last = self("Sub", side, one)
        period = self("Max", self("Mul", last, self.constant(2)), one)
        inside = self("Mod", index, period)
        return self("Gather", x, self("Min", inside, self("Sub", period, inside)), axis=axis)

    def blended(self, x: str, axis: int, patch: int, scale: int) -> str:
        """Squares side by side along an axis, laid over one another where they overlap."""
        if axis == _ROWS:
            turned = self("Transpose", x, perm=[0, 1, 3, 2])
            return self(
                "Transpose", self.blended(turned, _COLUMNS, patch, scale), perm=[0, 1, 3, 2]
            )
        side = squares(patch).enlarged(scale)
        size, step = side.size, side.starts[1]
        x = self("Reshape", x, self.constant([0, 0, 0, -1, size]))
        x = self("Mul", x, self._weights(self.length(x, 3), side))
        # Of each square what comes before the next one begins, and what lies over that.
        parts = [
            self("Slice", x, *(self.constant([n]) for n in (start, end, 4)))
            for start, end in ((0, step), (step, size))
        ]
        ends = [[0] * 8 + [1, 0], [0, 0, 0, 1, 0, 0, 0, 0, 0, 2 * step - size]]
        padded = [self("Pad", p, self.constant(e)) for p, e in zip(parts, ends, strict=True)]
        return self("Reshape", self("Add", *padded), self.constant([0, 0, 0, -1]))

    def _weights(self, count: str, side: Side) -> str:
        """What squares count at each place, `(count, size)`: all at the picture's ends."""
        step, inner = side.starts[1], side.weights[1]
        place = self("Range", self.constant(0), count, self.constant(1))
        place = self("Reshape", place, self.constant([-1, 1]))
        last = self("Sub", count, self.constant(1))
        rise, fall = inner.copy(), inner.copy()
        rise[side.size - step :], fall[:step] = 1.0, 1.0
        factors = []
        for shape, end in ((rise, self.constant(0)), (fall, last)):
            at_end = self("Cast", self("Equal", place, end), to=onnx.TensorProto.FLOAT)
            factors.append(self("Max", self.constant(shape), at_end))
        return self("Mul", *factors)

    def cropped(self, x: str, sides: Sequence[str], scale: int, result: str) -> None:
        ends = [
            self("Reshape", self("Mul", side, self.constant(scale)), self.constant([1]))
            for side in sides
        ]
        starts, axes = self.constant([0, 0]), self.constant([_ROWS, _COLUMNS])
        self("Slice", x, starts, self("Concat", *ends, axis=0), axes, name=result)
