"""Low-rank adapters: `W + scale * view(B @ A)`, for linear layers and any convolution.

Hu et al., "LoRA", ICLR 2022, arXiv 2106.09685; for convolutions in two layouts. `flat`: the weight
as a matrix of `out` rows and `in / groups * kh * kw` columns, with factors of rank r (as in CoLoRA,
ECCV 2024, arXiv 2408.01099). `loralib`: that of the library of LoRA's authors, which LoRA-IR uses,
with factors `(r k, in k)` and `(out / groups k, r k)` whose product is read as the weight row by
row. Both work on grouped and depth-wise convolutions, and on transposed ones (ours), whose weights
have the inputs first.
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from urushi.adapters.base import Adapter, key_of, parameter_of
from urushi.adapters.layers import KINDS, WeightLayer, choose, parameter_kinds, weight_layers
from urushi.adapters.sums import plain_sums, summed
from urushi.backbones.factors import Factors
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError
from urushi.files.low_rank import Layout, Scaling, product_scale
from urushi.settings import Settings

__all__ = ["LowRank", "LowRankSettings", "factor_shapes", "scale_of"]


class LowRankSettings(Settings):
    """Settings of `LowRank`.

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
    if layout == "flat":
        return (rank, layer.columns), (layer.rows, rank)
    height, width = layer.kernel
    if height != width:
        raise AdapterError(
            f"{layer.name} has a kernel of {height}x{width}: the loralib layout needs square ones, "
            "use flat"
        )
    inputs = layer.shape[1] * layer.groups
    return (rank * height, inputs * height), (layer.rows // layer.groups * height, rank * height)


class LowRank(Adapter):
    """Low-rank deltas of weights, and whole deltas of what is small.

    Its parameters: `down`, A of every layer, random; `up`, B, zero; `value`, whole deltas, zero.
    So it begins as the identity.

    Raises:
        AdapterError: a layer is not in the backbone, or no layer is left.
    """

    method: ClassVar[str] = "lora"
    config: LowRankSettings

    def __init__(self, backbone: RestorationNetwork, config: LowRankSettings) -> None:
        super().__init__(config)
        layers = {layer.name: layer for layer in weight_layers(backbone)}
        self.down, self.up, self.value = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._scales: dict[str, float] = {}
        dense = choose(layers, config.dense, "dense")
        for name, rank in self._ranks(layers).items():
            if name not in dense:
                self._add_factors(layers[name], rank)
        for name in dense:
            self.value[key_of(layers[name].weight)] = nn.Parameter(torch.zeros(layers[name].shape))
        kinds = parameter_kinds(backbone)
        assert set(config.tune) <= set(KINDS)
        for name, parameter in backbone.named_parameters():
            if kinds[name] in config.tune:
                self.value[key_of(name)] = nn.Parameter(torch.zeros_like(parameter))
        if not self.down and not self.value:
            raise AdapterError("all ranks are 0 and nothing else is tuned: nothing would train")

    def _ranks(self, layers: Mapping[str, WeightLayer]) -> dict[str, int]:
        config = self.config
        for name in config.ranks:
            if name not in layers:
                raise AdapterError(f"ranks names {name!r}, which is no layer of this backbone")
        chosen = set(choose(layers, config.layers, "layers")) if config.rank else set()
        ranks = {name: config.rank for name in layers if name in chosen}
        ranks = {**ranks, **config.ranks}
        return {n: ranks[n] for n in layers if ranks.get(n)}

    def _add_factors(self, layer: WeightLayer, rank: int) -> None:
        down, up = factor_shapes(layer, rank, self.config.layout)
        key = key_of(layer.weight)
        first = torch.empty(down)
        nn.init.kaiming_uniform_(first, a=math.sqrt(5))  # as LoRA's authors
        self.down[key] = nn.Parameter(first)
        self.up[key] = nn.Parameter(torch.zeros(up))
        self._shapes[key] = layer.shape
        self._scales[key] = scale_of(self.config, rank)

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        deltas = {}
        for key, shape in self._shapes.items():
            product = self.up[key].float() @ self.down[key].float()
            deltas[parameter_of(key)] = self._scales[key] * product.view(shape)
        return {**deltas, **{parameter_of(key): delta for key, delta in self.value.items()}}

    def added_to(
        self, base: Mapping[str, Tensor], changed: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        names = [parameter_of(key) for key in (*self._shapes, *self.value)]
        below = {name: changed.get(name, base[name]) for name in names}
        if not plain_sums(below.values(), self.parameters()):
            return super().added_to(base, changed)
        return summed(
            below,
            {parameter_of(key): delta for key, delta in self.value.items()},
            {
                parameter_of(key): Factors(self.down[key], self.up[key], self._scales[key])
                for key in self._shapes
            },
            float(self.strength),
        )
