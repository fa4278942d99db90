"""FacT: the deltas of all layers as one tensor, of which most is shared.

Jie and Deng, "FacT: Factor-Tuning for Lightweight Adaptation on Vision Transformer", AAAI 2023,
arXiv 2212.03145, in its tensor-train form: `delta = scale * U S V^T`, with U and V shared by all
layers and a small S for each. The paper cuts every weight into squares of the model's width; so is
it here, per width of a site, and a side that the width does not divide is left whole (ours: the
paper's transformers have one width throughout).
"""

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from urushi.adapters.layers import WeightLayer, choose, weight_layers
from urushi.adapters.method import (
    Array,
    Arrays,
    Fresh,
    Groups,
    Method,
    Start,
    UnfitError,
    linear,
    needed,
    zeros,
)
from urushi.errors import AdapterError
from urushi.settings import Settings

if TYPE_CHECKING:
    from urushi.backbones.network import RestorationNetwork

__all__ = ["METHOD", "FactorTuningSettings"]


class FactorTuningSettings(Settings):
    """Settings of the method.

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


def start(backbone: "RestorationNetwork", settings: FactorTuningSettings) -> Start:
    """Factors of attention projections and feed-forward weights, linear or 1x1.

    Returns:
        `rows.SIZE`, V of `(SIZE, r)`, zero at first, shared by all weights cut into blocks of SIZE
        rows; `columns.SIZE`, U of `(SIZE, r)`, likewise; `core.WEIGHT`, the S of each block,
        `(blocks down, blocks across, r, r)`.

    Raises:
        AdapterError: the backbone has no such layers, or none is chosen.
    """
    layers = {layer.name: layer for layer in weight_layers(backbone)}
    widths = {n: w for n, w in _widths(backbone).items() if _dense(layers.get(n))}
    if not widths:
        raise AdapterError(
            "method fact needs linear or 1x1 layers in attention or feed-forward sites, which this "
            "backbone does not have: choose another method"
        )
    rank = settings.rank
    found: Start = {}
    for name in choose(widths, settings.layers, "layers"):
        layer, width = layers[name], widths[name]
        height = layer.rows if layer.rows % width else width
        breadth = layer.columns if layer.columns % width else width
        found["rows", str(height)] = zeros(height, rank)
        found["columns", str(breadth)] = linear(breadth, rank, inputs=breadth)
        # Each S as a linear layer from r to r would begin.
        blocks = (layer.rows // height, layer.columns // breadth, rank, rank)
        found["core", layer.weight] = Fresh(blocks, 1 / math.sqrt(rank))
    return found


def deltas(tensors: Groups, settings: FactorTuningSettings, base: Arrays) -> dict[str, Array]:
    """`scale * rows @ core @ columns^T` for each block."""
    found = {}
    for name, blocks in tensors["core"].items():
        if name not in base or blocks.ndim != 4:
            raise UnfitError(f"a core of shape {tuple(blocks.shape)} for {name!r}")
        shape, (down, across, rank, _) = tuple(base[name].shape), blocks.shape
        height, breadth = shape[0] // max(down, 1), math.prod(shape[1:]) // max(across, 1)
        left, right = tensors["rows"].get(str(height)), tensors["columns"].get(str(breadth))
        if left is None or right is None or blocks.shape[3] != rank:
            raise UnfitError(
                f"a core of shape {tuple(blocks.shape)}, without factors, for {name!r}"
            )
        if left.shape != (height, rank) or right.shape != (breadth, rank):
            raise UnfitError(
                f"factors of shape {tuple(left.shape)} and {tuple(right.shape)} for {name!r}"
            )
        if (down * height, across * breadth) != (shape[0], math.prod(shape[1:])):
            raise UnfitError(f"a core of shape {tuple(blocks.shape)} for {name!r} of shape {shape}")
        # (down, across, height, breadth) -> (down, height, across, breadth)
        delta = (left @ blocks @ right.T).swapaxes(1, 2)
        found[name] = settings.scale * delta.reshape(shape)
    return found


def _widths(backbone: "RestorationNetwork") -> dict[str, int]:
    """The width of the site to which a layer belongs, by the layer's name."""
    sites = backbone.sites
    needed((*sites.attention, *sites.feed_forward), "attention or feed-forward sites", "fact")
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


METHOD = Method(
    settings=FactorTuningSettings,
    paper="Jie and Deng, FacT, AAAI 2023",
    groups=("rows", "columns", "core"),
    start=start,
    deltas=deltas,
)
