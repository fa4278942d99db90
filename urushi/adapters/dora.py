"""DoRA: a low-rank change of the direction of weights, and a trained magnitude.

Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024, arXiv 2402.09353, equation 5:
`W' = m (W0 + B A) / ||W0 + B A||`, where m is `||W0||` at first. Its norm is of columns by the
text of the paper, and of what makes one output in the usual implementations: both are here, as
`norm`.

Ours: a convolution is the matrix of `out` rows and `in / groups * kh * kw` columns (LoRA's layout
`flat`, or `loralib`), so that a row is what makes one output channel, of a transposed convolution
what one input channel makes; m is stored as its change from `||W0||`, so that zeros change nothing;
and 1e-12 is added to squared norms, so that a row of zeros has a direction to go to.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from urushi.adapters.layers import choose, weight_layers
from urushi.adapters.low_rank_formula import LowRankSettings, factor_shapes
from urushi.adapters.low_rank_formula import deltas as low_rank_deltas
from urushi.adapters.method import (
    Array,
    Arrays,
    Groups,
    Method,
    Start,
    UnfitError,
    constant,
    linear,
    zeros,
)
from urushi.settings import Settings

if TYPE_CHECKING:
    from urushi.backbones.network import RestorationNetwork

__all__ = ["METHOD", "DoRASettings"]

_TINY = 1e-12


class DoRASettings(Settings):
    """Settings of the method.

    Attributes:
        rank: of the change of direction.
        layers: patterns of the names of layers; all by default.
        layout: how two factors make a convolution's weight; see `LowRankSettings`.
        scaling: of their product; see `LowRankSettings`.
        alpha: see `LowRankSettings`.
        norm: `row`: a magnitude for each row, of what makes one output channel; `column`: for each
            column, as the paper's text has it.
        constant_norm: gradients take `||W0 + B A||` as a constant, as the paper recommends (its
            equation 11); the result is the same, what is learned is not.
    """

    rank: Annotated[int, Field(ge=1)] = 8
    layers: list[str] = ["*"]
    layout: Literal["flat", "loralib"] = "flat"
    scaling: Literal["alpha/r", "alpha/sqrt(r)", "alpha"] = "alpha/r"
    alpha: Annotated[float, Field(gt=0)] | None = None
    norm: Literal["row", "column"] = "row"
    constant_norm: bool = True

    @property
    def low_rank(self) -> LowRankSettings:
        """What says how the factors make a weight."""
        return LowRankSettings(
            rank=self.rank, layout=self.layout, scaling=self.scaling, alpha=self.alpha
        )


def start(backbone: "RestorationNetwork", settings: DoRASettings) -> Start:
    """`down`, A; `up`, B, zero; and `magnitude`, m less `||W0||`, zero; for each weight."""
    layers = {layer.name: layer for layer in weight_layers(backbone)}
    found: Start = {}
    for name in choose(layers, settings.layers, "layers"):
        layer = layers[name]
        down, up = factor_shapes(layer, settings.rank, settings.layout)
        found["down", layer.weight] = linear(*down, inputs=down[1])
        found["up", layer.weight] = zeros(*up)
        count = layer.rows if settings.norm == "row" else layer.columns
        found["magnitude", layer.weight] = zeros(count)
    return found


def deltas(tensors: Groups, settings: DoRASettings, base: Arrays) -> dict[str, Array]:
    """What is between `W0` and the weight of that direction and magnitude."""
    factors = {"down": tensors["down"], "up": tensors["up"], "value": {}}
    turns, magnitudes = low_rank_deltas(factors, settings.low_rank, base), tensors["magnitude"]
    if unpaired := sorted(turns.keys() ^ magnitudes.keys()):
        raise UnfitError(f"{unpaired[0]!r} lacks factors or a magnitude")
    axis = 1 if settings.norm == "row" else 0
    found = {}
    for name, turn in turns.items():
        weight = base[name]
        before = weight.reshape(weight.shape[0], -1)
        change = magnitudes[name]
        if tuple(change.shape) != (before.shape[1 - axis],):
            raise UnfitError(f"a magnitude of shape {tuple(change.shape)} for {name!r}")
        after = before + turn.reshape(before.shape)
        length = _norms(after, axis)
        if settings.constant_norm:
            length = constant(length)
        # At first a norm by itself, which is 1 to the last bit.
        factor = (_norms(before, axis) + change) / length
        scaled = after * (factor.reshape(-1, 1) if axis else factor)
        found[name] = (scaled - before).reshape(weight.shape)
    return found


def _norms(matrix: Array, axis: int) -> Array:
    """Lengths of the rows (axis 1) or columns (axis 0) of a matrix, never quite zero."""
    return ((matrix * matrix).sum(axis) + _TINY) ** 0.5


METHOD = Method(
    settings=DoRASettings,
    paper="Liu et al., DoRA, ICML 2024",
    groups=("down", "up", "magnitude"),
    start=start,
    deltas=deltas,
)
