"""Low-rank adapters as a formula: `W + scale * view(B @ A)`, for linear layers and convolutions.

Hu et al., "LoRA", ICLR 2022, arXiv 2106.09685; for convolutions in two layouts. `flat`: the weight
as a matrix of `out` rows and `in / groups * kh * kw` columns, with factors of rank r (as in CoLoRA,
ECCV 2024, arXiv 2408.01099). `loralib`: that of the library of LoRA's authors, which LoRA-IR uses,
with factors `(r k, in k)` and `(out / groups k, r k)` whose product is read as the weight row by
row. Both work on grouped and depth-wise convolutions, and on transposed ones (ours), whose weights
have the inputs first. `urushi.adapters.low_rank` trains them.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from urushi.adapters.layers import WeightLayer
from urushi.adapters.method import Array, Arrays, Groups, Method, UnfitError
from urushi.errors import AdapterError
from urushi.settings import Settings

__all__ = ["LORA", "LowRankSettings", "deltas", "factor_shapes", "product_scale", "scale_of"]

Layout = Literal["flat", "loralib"]
Scaling = Literal["alpha/r", "alpha/sqrt(r)", "alpha"]


class LowRankSettings(Settings):
    """Settings of `urushi.adapters.low_rank.LowRank`.

    Attributes:
        rank: of every layer not named in `ranks`; 0 leaves such layers alone.
        ranks: rank by the name of a layer; 0 leaves it alone.
        dense: names of layers, or patterns of them, whose weight gets a full delta instead of two
            factors; of depthwise convolutions in the layout `loralib` that is far fewer numbers.
        layers: patterns of the names of layers that `rank` is for; all by default.
        layout: how the factors make a convolution's weight, see above.
        scaling: of the product: `alpha/r` (LoRA), `alpha/sqrt(r)` (rank-stabilised LoRA,
            Kalajdzievski, arXiv 2312.03732) or `alpha`, which treats layers of all ranks alike.
        alpha: null is the rank with `alpha/r`, its root with `alpha/sqrt(r)`, and 1 with `alpha`:
            a scale of 1 in each case.
        tune: kinds of parameters besides that are trained whole: `bias`, `norm`, `scale`.
    """

    rank: Annotated[int, Field(ge=0)] = 8
    ranks: dict[str, Annotated[int, Field(ge=0)]] = {}
    dense: list[str] = []
    layers: list[str] = ["*"]
    layout: Layout = "flat"
    scaling: Scaling = "alpha/r"
    alpha: Annotated[float, Field(gt=0)] | None = None
    tune: list[Literal["bias", "norm", "scale"]] = []

    @model_validator(mode="after")
    def _once(self) -> "LowRankSettings":
        both = set(self.dense) & {name for name, rank in self.ranks.items() if rank}
        if both:
            raise ValueError(f"{min(both)} is both in ranks and in dense: choose one")
        return self


def product_scale(scaling: Scaling, alpha: float | None, rank: int) -> float:
    """Return the factor of `B @ A` for a layer of that rank; 1 where `alpha` is None."""
    if alpha is None:
        return 1.0
    divisor = {"alpha/r": rank, "alpha/sqrt(r)": math.sqrt(rank), "alpha": 1}[scaling]
    return alpha / divisor


def scale_of(settings: LowRankSettings, rank: int) -> float:
    """The factor of `B @ A` for a layer of that rank."""
    return product_scale(settings.scaling, settings.alpha, rank)


def factor_shapes(
    layer: WeightLayer, rank: int, layout: Layout
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of A and B, whose product `B @ A` has as many numbers as the layer's weight.

    Raises:
        AdapterError: the layout needs square kernels.
    """
    height, width = layer.kernel
    if layout == "loralib" and height != width:
        raise AdapterError(
            f"{layer.name} has a kernel of {height}x{width}: the loralib layout needs square ones, "
            "use flat"
        )
    return _shapes(layer.shape, rank, layer.groups, layout)


def _shapes(
    shape: tuple[int, ...], rank: int, groups: int, layout: Layout
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of A and B for a weight; `groups` counts in the layout `loralib` alone."""
    if layout == "flat":
        return (rank, math.prod(shape[1:])), (shape[0], rank)
    kernel = _kernel(shape)
    return (rank * kernel, shape[1] * groups * kernel), (shape[0] // groups * kernel, rank * kernel)


def _kernel(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) == 4 else 1


def deltas(tensors: Groups, settings: LowRankSettings, base: Arrays) -> dict[str, Array]:
    """`scale * view(up @ down)`, and the whole deltas `value`."""
    down, up, value = tensors["down"], tensors["up"], tensors["value"]
    if unpaired := sorted(down.keys() ^ up.keys()):
        raise UnfitError(f"one of the two factors for {unpaired[0]!r} is missing")
    if twice := sorted(down.keys() & value.keys()):
        raise UnfitError(f"{twice[0]!r} has factors and a whole delta")
    found = {}
    for name, first in down.items():
        if name not in base:
            raise UnfitError(f"it changes {name}, which its base does not have")
        shape, second = tuple(base[name].shape), up[name]
        rank = _rank(shape, first, second, settings.layout)
        if rank is None:
            raise UnfitError(
                f"factors of shape {tuple(first.shape)} and {tuple(second.shape)} do not make "
                f"{name!r} of shape {shape}"
            )
        found[name] = scale_of(settings, rank) * (second @ first).reshape(shape)
    return {**found, **value}


def _rank(shape: tuple[int, ...], first: Array, second: Array, layout: Layout) -> int | None:
    """The rank of two factors; None where they do not make a weight of that shape."""
    down, up = tuple(first.shape), tuple(second.shape)
    if len(shape) < 2 or len(down) != 2 or len(up) != 2:
        return None
    kernel = _kernel(shape) if layout == "loralib" else 1
    rank = max(down[0] // kernel, 1)
    # The weight alone does not tell how many groups a convolution has: `up` does.
    groups = max(shape[0] * kernel // max(up[0], 1), 1)
    return rank if (down, up) == _shapes(shape, rank, groups, layout) else None


LORA = Method(
    settings=LowRankSettings,
    paper="Hu et al., LoRA, ICLR 2022",
    groups=("down", "up", "value"),
    deltas=deltas,
    adapter="urushi.adapters.low_rank:LowRank",
)
