"""FacT: the deltas of all layers as one tensor, of which most is shared.

Jie and Deng, "FacT: Factor-Tuning for Lightweight Adaptation on Vision Transformer", AAAI 2023,
arXiv 2212.03145, in its tensor-train form: `delta = scale * U S V^T`, with U and V shared by all
layers and a small S for each. The paper cuts every weight into squares of the model's width; so is
it here, per width of a site, and a side that the width does not divide is left whole (ours: the
paper's transformers have one width throughout).
"""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from urushi.adapters.base import Adapter, key_of, needed, parameter_of
from urushi.adapters.layers import WeightLayer, choose, weight_layers
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError
from urushi.settings import Settings

__all__ = ["FactorTuning", "FactorTuningSettings"]


class FactorTuningSettings(Settings):
    """Settings of `FactorTuning`.

    Attributes:
        rank: columns of U and V; ours, as neither this nor the scale could be found for AdaptIR's
            comparison.
        scale: factor of the deltas, which the paper searches between 0.01 and 100.
        layers: patterns of the names of layers, among the attention projections and the layers of
            feed-forward branches; all by default.
    """

    rank: Annotated[int, Field(ge=1)] = 16
    scale: float = 1.0
    layers: list[str] = ["*"]


class FactorTuning(Adapter):
    """Deltas of attention projections and feed-forward weights, linear or 1x1.

    Its parameters: `rows.SIZE`, V of `(SIZE, r)`, zero at first, shared by all weights cut into
    blocks of SIZE rows; `columns.SIZE`, U of `(SIZE, r)`, likewise; `core.WEIGHT`, the S of each
    block, `(blocks down, blocks across, r, r)`.

    Raises:
        AdapterError: the backbone has no such layers, or none is chosen.
    """

    method: ClassVar[str] = "fact"
    config: FactorTuningSettings

    def __init__(self, backbone: RestorationNetwork, config: FactorTuningSettings) -> None:
        super().__init__(config)
        self.rows, self.columns, self.core = (nn.ParameterDict() for _ in range(3))
        self._blocks: dict[str, tuple[int, int]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        layers = {layer.name: layer for layer in weight_layers(backbone)}
        widths = {n: w for n, w in _widths(backbone, self.method).items() if _dense(layers.get(n))}
        if not widths:
            raise AdapterError(
                f"method {self.method} needs linear or 1x1 layers in attention or feed-forward "
                "sites, which this backbone does not have: choose another method"
            )
        for name in choose(widths, config.layers, "layers"):
            self._add(layers[name], widths[name])

    def _add(self, layer: WeightLayer, width: int) -> None:
        rank, key = self.config.rank, key_of(layer.weight)
        height = layer.rows if layer.rows % width else width
        breadth = layer.columns if layer.columns % width else width
        if str(height) not in self.rows:
            self.rows[str(height)] = nn.Parameter(torch.zeros(height, rank))
        if str(breadth) not in self.columns:
            first = torch.empty(breadth, rank)
            nn.init.kaiming_uniform_(first.T, a=math.sqrt(5))
            self.columns[str(breadth)] = nn.Parameter(first)
        blocks = torch.empty(layer.rows // height, layer.columns // breadth, rank, rank)
        # Each S as a linear layer from r to r would begin.
        nn.init.uniform_(blocks, -1 / math.sqrt(rank), 1 / math.sqrt(rank))
        self.core[key] = nn.Parameter(blocks)
        self._blocks[key], self._shapes[key] = (height, breadth), layer.shape

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        deltas = {}
        for key, core in self.core.items():
            height, breadth = self._blocks[key]
            left, right = self.rows[str(height)].float(), self.columns[str(breadth)].float()
            # (down, across, height, breadth) -> (down, height, across, breadth)
            blocks = (left @ core.float() @ right.T).transpose(1, 2)
            deltas[parameter_of(key)] = self.config.scale * blocks.reshape(self._shapes[key])
        return deltas


def _widths(backbone: RestorationNetwork, method: str) -> dict[str, int]:
    """The width of the site to which a layer belongs, by the layer's name."""
    sites = backbone.sites
    needed((*sites.attention, *sites.feed_forward), "attention or feed-forward sites", method)
    widths: dict[str, int] = {}
    for site in sites.attention:
        for name, _, _ in (site.query, site.key, site.value):
            widths[name] = site.width
        widths[site.output] = site.width
    for site in sites.feed_forward:
        widths.update(dict.fromkeys(site.modules, site.width))
    return widths


def _dense(layer: WeightLayer | None) -> bool:
    """Whether a layer's weight is one matrix of inputs to outputs."""
    return layer is not None and layer.kernel == (1, 1) and layer.groups == 1
