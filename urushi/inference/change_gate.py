"""A small network that says which share of an expert's change is taken, pixel by pixel.

An expert for marks on film changes what is thin and light, whether it lies on the film or belongs
to the scene. The gate looks at the picture and at the change together: what it takes for a part of
the scene stays as it was. It is a U-Net on a half, a quarter and an eighth of the sides, small
enough for plain array arithmetic, so that it is the same on every engine.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from urushi.errors import AdapterError
from urushi.files.adapter import LoadedAdapter
from urushi.files.tensors import Named
from urushi.inference.adapted_weights import AppliedAdapter, gated
from urushi.inference.changed_light import Finish, finishing

__all__ = ["Gate", "GateNetwork", "finish_of"]

# Sides of what the network reads are multiples of it.
_MULTIPLE = 8
# Of the change, and of its largest channel: what stands beside the picture is about as large.
_CHANGE, _LARGEST = np.float32(8), np.float32(20)
_MOST_CHANGE, _MOST_LARGEST = np.float32(1.5), np.float32(2)
# How far the first convolution of blocks in the middle is dilated; there are as many as a file has.
_REACH = (1, 2, 4, 1)
# Smaller changes, in [0, 1], are taken as they are; twice as large ones as the gate says.
_SMALL = np.float32(2.5 / 255)


class GateNetwork:
    """The network on arrays.

    Args:
        tensors: `PART.weight` and `PART.bias` of the parts stem, enter, down, middle, up, leave and
            head; float32.
        name: whose they are, for people.

    Raises:
        AdapterError: one is missing, unknown, or of another shape.
    """

    def __init__(self, tensors: Named, name: str) -> None:
        expected = _shapes(tensors)
        found = {key: tensor.shape for key, tensor in tensors.items()}
        if found != expected:
            wrong = sorted(found.items() ^ expected.items())[0][0]
            raise AdapterError(
                f"{name}: not a sound gate at {wrong!r} ({found.get(wrong, 'missing')}, expected "
                f"{expected.get(wrong, 'no such tensor')}): get it again, or train it again"
            )
        self._tensors, self._deep = dict(tensors), _depth(tensors)

    def __call__(
        self, tile: Float[np.ndarray, "3 h w"], change: Float[np.ndarray, "3 h w"]
    ) -> Float[np.ndarray, "h w"]:
        """The share in [0, 1] of the change that is taken."""
        height, width = tile.shape[1:]
        largest = np.abs(change).max(axis=0, keepdims=True)
        read = np.concatenate(
            [
                tile - np.float32(0.5),
                (_CHANGE * change).clip(-_MOST_CHANGE, _MOST_CHANGE),
                (_LARGEST * largest).clip(0, _MOST_LARGEST),
            ]
        )
        sides = ((0, 0), (0, -height % _MULTIPLE), (0, -width % _MULTIPLE))
        read = np.pad(read, sides, mode="symmetric")
        halves = self._block("enter.0", _positive(self._apply("stem", _apart(read))))
        quarters = self._block("enter.1", self._apply("down.0", _apart(halves)))
        x = self._apply("down.1", _apart(quarters))
        for number in range(self._deep):
            x = self._block(f"middle.{number}", x, _REACH[number])
        x = self._block("leave.1", quarters + _together(self._apply("up.1", x)))
        x = self._block("leave.0", halves + _together(self._apply("up.0", x)))
        x = _together(self._apply("head", x))[0, :height, :width]
        return np.float32(1) / (np.float32(1) + np.exp(-x))

    def _block(self, name: str, x: np.ndarray, reach: int = 1) -> np.ndarray:
        inner = _positive(self._apply(f"{name}.first", x, reach))
        return x + self._apply(f"{name}.second", inner)

    def _apply(self, name: str, x: np.ndarray, dilation: int = 1) -> np.ndarray:
        """A convolution of 3 x 3 or 1 x 1 pixels, zero beyond the border."""
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        out, side = weight.shape[0], weight.shape[-1]
        channels, height, width = x.shape
        if side == 1:
            columns = x.reshape(channels, -1)
        else:
            x = np.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation)))
            places = [
                x[:, down : down + height, right : right + width]
                for down in (0, dilation, 2 * dilation)
                for right in (0, dilation, 2 * dilation)
            ]
            columns = np.stack(places).reshape(9 * channels, -1)
            weight = weight.transpose(0, 2, 3, 1)
        return (weight.reshape(out, -1) @ columns + bias[:, None]).reshape(out, height, width)


class Gate(Finish):
    """What is taken of what an adapter with a gate restored.

    Args:
        adapter: whose header says that it has one.
        strength: with which it acts; the gate sees the change as it is at 1.

    Raises:
        AdapterError: the gate is not sound.
    """

    def __init__(self, adapter: LoadedAdapter, strength: float) -> None:
        super().__init__(1, 0, bright=False)
        self._network = GateNetwork(adapter.gate, str(adapter.path))
        self._strength = np.float32(max(strength, 0.1))

    def __call__(
        self, tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"]
    ) -> Float[np.ndarray, "3 h w"]:
        change = restored - tile
        whole = change / self._strength
        share = self._network(tile, whole)
        large = (np.abs(whole).max(axis=0) / _SMALL - 1).clip(0, 1)
        return tile + (1 - large * (1 - share)) * change


def finish_of(
    adapters: Sequence[AppliedAdapter], cell: int, *, fixed: bool = False
) -> Finish | None:
    """What is done to results with some adapters: by a gate, or as `finishing` says.

    Args:
        adapters, cell, fixed: as for `finishing`.

    Raises:
        AdapterError: the gate is not sound.
    """
    found = gated(adapters)
    if found is None:
        return finishing(adapters, cell, fixed=fixed)
    return Gate(found.adapter, found.strength)


def _shapes(tensors: Named) -> dict[str, tuple[int, ...]]:
    """What the tensors have to be, with the widths that these state."""

    def width(name: str) -> int:
        tensor = tensors.get(f"{name}.weight")
        return tensor.shape[0] if tensor is not None and tensor.ndim else 1

    wide = [width("stem"), width("down.0"), width("down.1")]
    found = {"stem": (wide[0], 28, 3, 3), "head": (4, wide[0], 3, 3)}
    for level in (0, 1):
        found[f"down.{level}"] = (wide[level + 1], 4 * wide[level], 1, 1)
        found[f"up.{level}"] = (4 * wide[level], wide[level + 1], 1, 1)
    middle = [f"middle.{number}" for number in range(_depth(tensors))]
    for block in ("enter.0", "enter.1", *middle, "leave.1", "leave.0"):
        channels = wide[2] if block.startswith("middle") else wide[int(block[-1])]
        for part in ("first", "second"):
            found[f"{block}.{part}"] = (channels, channels, 3, 3)
    return {
        f"{name}.{kind}": shape if kind == "weight" else shape[:1]
        for name, shape in found.items()
        for kind in ("weight", "bias")
    }


def _depth(tensors: Named) -> int:
    """How many blocks the middle has."""
    have = [f"middle.{number}.first.weight" in tensors for number in range(len(_REACH))]
    return max(1, sum(have))


def _positive(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def _apart(x: np.ndarray) -> np.ndarray:
    """Squares of 2 x 2 pixels as channels."""
    channels, height, width = x.shape
    x = x.reshape(channels, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3)
    return x.reshape(4 * channels, height // 2, width // 2)


def _together(x: np.ndarray) -> np.ndarray:
    """Four channels as a square of 2 x 2 pixels."""
    channels, height, width = x.shape
    x = x.reshape(channels // 4, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    return x.reshape(channels // 4, 2 * height, 2 * width)
