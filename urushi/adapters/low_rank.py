"""Low-rank adapters in training; see `urushi.adapters.low_rank_formula` for formula and sources."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from urushi.adapters.base import key_of, parameter_of
from urushi.adapters.colora import COLORA, CoLoRASettings, matches, resolve
from urushi.adapters.deltas import FormulaAdapter
from urushi.adapters.layers import KINDS, WeightLayer, choose, parameter_kinds, weight_layers
from urushi.adapters.low_rank_formula import LORA, LowRankSettings, factor_shapes, scale_of
from urushi.adapters.sums import plain_sums, summed
from urushi.backbones.factors import Factors
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError

__all__ = ["CoLoRA", "LowRank"]


class LowRank(FormulaAdapter):
    """Low-rank deltas of weights, and whole deltas of what is small.

    Its parameters: `down`, A of every layer, random; `up`, B, zero; `value`, whole deltas, zero.
    So it begins as the identity.

    Raises:
        AdapterError: a layer is not in the backbone, or no layer is left.
    """

    method = "lora"
    formula = LORA
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


class CoLoRA(LowRank):
    """A low-rank adapter with ranks by contribution.

    Its `config` is resolved: it states the ranks, and no profile.

    Raises:
        AdapterError: the budget cannot be had, or the profile belongs to another base.
        FileFormatError: the profile cannot be read.
    """

    method = "colora"
    formula = COLORA

    def __init__(self, backbone: RestorationNetwork, config: CoLoRASettings) -> None:
        config = resolve(backbone, config)
        super().__init__(backbone, config)
        weights = {layer.weight for layer in weight_layers(backbone)}
        kept = {
            key: value
            for key, value in self.value.items()
            if parameter_of(key) in weights or matches(parameter_of(key), config.tuned)
        }
        self.value = nn.ParameterDict(kept)
