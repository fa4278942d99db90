"""VeRA: two trained vectors for each layer, around random matrices that nobody trains or stores.

Kopiczko, Blankevoort, Asano: "VeRA: Vector-based Random Matrix Adaptation", ICLR 2024, arXiv
2310.11454, equation 2: `h = W0 x + diag(b) B diag(d) A x`, with A and B random, frozen and shared
by all layers, b zero and d 0.1 at first. The numbers of A and B are a function of the seed and of
their place, so a file holds the seed alone.

Ours: a convolution is the matrix of `out` rows and `in / groups * kh * kw` columns, as in LoRA's
layout `flat`, of a transposed one with the inputs first; layers of different sizes take the top
left corners of one A and one B without end (the paper has layers of one size); and A and B of each
layer are uniform with the bounds of Kaiming for its own inputs.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from urushi.adapters.layers import choose, weight_layers
from urushi.adapters.method import (
    Array,
    Arrays,
    Fresh,
    Groups,
    Method,
    Start,
    UnfitError,
    array_like,
    linear,
    zeros,
)
from urushi.settings import Settings

if TYPE_CHECKING:
    from urushi.backbones.network import RestorationNetwork

__all__ = ["METHOD", "VeRASettings", "random_matrix"]

# No layer has as many; a file that claims more would only cost memory.
_MOST_RANKS = 4096


class VeRASettings(Settings):
    """Settings of the method.

    Attributes:
        rank: rows of A and columns of B. They cost a number each in the file, and arithmetic while
            the weights are put together. Ours; the paper has 256 to 1024 for widths from 768 on.
        initial: what d is at first; 0.1 as in the paper.
        seed: of A and B.
        layers: patterns of the names of layers; all by default.
    """

    rank: Annotated[int, Field(ge=1, le=_MOST_RANKS)] = 64
    initial: float = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    layers: list[str] = ["*"]


def start(backbone: "RestorationNetwork", settings: VeRASettings) -> Start:
    """`inner`, d of `(rank,)`, and `outer`, b of `(rows,)`, for each weight."""
    layers = {layer.name: layer for layer in weight_layers(backbone)}
    found: Start = {}
    for name in choose(layers, settings.layers, "layers"):
        layer = layers[name]
        found["inner", layer.weight] = Fresh((settings.rank,), value=settings.initial)
        found["outer", layer.weight] = zeros(layer.rows)
    return found


def deltas(tensors: Groups, settings: VeRASettings, base: Arrays) -> dict[str, Array]:
    """`diag(outer) B diag(inner) A` for each weight."""
    inner, outer = tensors["inner"], tensors["outer"]
    if unpaired := sorted(inner.keys() ^ outer.keys()):
        raise UnfitError(f"one of the two vectors for {unpaired[0]!r} is missing")
    for name, scales in inner.items():
        weight = base.get(name)
        if weight is None or weight.ndim < 2:
            raise UnfitError(f"it changes {name}, which is no weight of a layer of its base")
        if tuple(scales.shape) != (settings.rank,) or outer[name].shape != weight.shape[:1]:
            raise UnfitError(
                f"vectors of shape {tuple(scales.shape)} and {tuple(outer[name].shape)} for "
                f"{name!r} of shape {tuple(weight.shape)}"
            )
    if not inner:
        return {}
    # One corner that holds those of all layers, made once.
    weights = {name: base[name].reshape(base[name].shape[0], -1) for name in inner}
    columns = max(matrix.shape[1] for matrix in weights.values())
    rows = max(matrix.shape[0] for matrix in weights.values())
    like = next(iter(outer.values()))
    first = array_like(random_matrix(settings.seed, "A", settings.rank, columns), like)
    second = array_like(random_matrix(settings.seed, "B", rows, settings.rank), like)
    found = {}
    for name, matrix in weights.items():
        height, width = matrix.shape
        bounds = linear(inputs=width).bound * linear(inputs=settings.rank).bound
        up = outer[name].reshape(-1, 1) * second[:height]
        product = (up * inner[name]) @ first[:, :width]
        found[name] = (bounds * product).reshape(base[name].shape)
    return found


@lru_cache(maxsize=8)
def random_matrix(seed: int, which: str, rows: int, columns: int) -> np.ndarray:
    """The top left corner of a matrix without end, uniform in [-1, 1), read-only.

    Every number is a hash of the seed and its place (splitmix64, Steele, Lea, Flood, OOPSLA 2014),
    calculated in integers, of which the upper 24 bits become the number: the same bits on every
    processor, with every version of numpy and torch.

    Args:
        seed: below 2^32.
        which: `A` or `B`: two matrices that have nothing to do with each other.
        rows: of the corner.
        columns: of the corner.

    Returns:
        `(rows, columns)`, float32: multiples of 2^-23, which float32 holds exactly.
    """
    row, column = np.arange(rows, dtype=np.uint64), np.arange(columns, dtype=np.uint64)
    stream = np.array([2 * seed + (which == "B")], dtype=np.uint64)
    # Mixed one after another: places of neighbouring rows and seeds are then unrelated.
    state = _mixed(_mixed(_mixed(stream)[:, None] ^ row[:, None]) ^ column)
    numbers = (state >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    numbers.flags.writeable = False
    return numbers


def _mixed(state: np.ndarray) -> np.ndarray:
    """The next number of splitmix64 from each state; sums and products modulo 2^64."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


METHOD = Method(
    settings=VeRASettings,
    paper="Kopiczko et al., VeRA, ICLR 2024",
    groups=("inner", "outer"),
    start=start,
    deltas=deltas,
)
