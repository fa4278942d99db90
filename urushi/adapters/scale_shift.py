"""SSF: a gain and an offset for every channel behind every layer.

Lian et al., "Scaling & Shifting Your Features", NeurIPS 2022, arXiv 2210.08823. A gain and an
offset of a layer's output are a gain of its weight and bias and an offset of its bias; here they
are trained as that, and cost no pass over the feature map. Layers without a bias get no offset by
default, since weights could not hold it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from urushi.adapters.layers import choose, parameter_kinds, weight_layers
from urushi.adapters.method import Array, Arrays, Groups, Method, Start, UnfitError, zeros
from urushi.settings import Settings

if TYPE_CHECKING:
    from urushi.backbones.network import RestorationNetwork

__all__ = ["METHOD", "ScaleShiftSettings"]


class ScaleShiftSettings(Settings):
    """Settings of the method.

    Attributes:
        layers: patterns of the names of modules: convolutions, linear and normalisation layers;
            transposed convolutions are none of them.
        offsets: `bias`: for layers that have a bias. `all`: for convolutions and linear layers
            without one as well, as the paper has it; these are added to feature maps, and such an
            adapter cannot be merged.
    """

    layers: list[str] = ["*"]
    offsets: Literal["bias", "all"] = "bias"


def start(backbone: "RestorationNetwork", settings: ScaleShiftSettings) -> Start:
    """`gain`, the gains less one, and `shift`, both zero at first; `(C,)` each, by module."""
    kinds, layers = parameter_kinds(backbone), weight_layers(backbone)
    # Channels of their output are not the first axis of their weights: left alone.
    transposed = {layer.name for layer in layers if layer.transposed}
    modules = {
        name.rpartition(".")[0]: None
        for name, kind in kinds.items()
        if kind in ("weight", "norm") and name.rpartition(".")[0] not in transposed
    }
    own, mixing = dict(backbone.named_parameters()), {layer.name for layer in layers}
    found: Start = {}
    for name in choose(modules, settings.layers, "layers"):
        channels = len(own[f"{name}.weight"])
        found["gain", name] = zeros(channels)
        if f"{name}.bias" in own or (settings.offsets == "all" and name in mixing):
            found["shift", name] = zeros(channels)
    return found


def deltas(tensors: Groups, settings: ScaleShiftSettings, base: Arrays) -> dict[str, Array]:
    """A gain of weight and bias, and an offset of the bias."""
    gain, shift = tensors["gain"], tensors["shift"]
    if alone := sorted(shift.keys() - gain.keys()):
        raise UnfitError(f"an offset of {alone[0]!r} without a gain")
    found = {}
    for module, factors in gain.items():
        weight, bias = base.get(f"{module}.weight"), base.get(f"{module}.bias")
        if weight is None or factors.shape != weight.shape[:1]:
            raise UnfitError(f"a gain of shape {tuple(factors.shape)} for {module!r}")
        found[f"{module}.weight"] = weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
        if bias is None:
            if module in shift and settings.offsets != "all":
                raise UnfitError(f"an offset of {module!r}, which has no bias")
            continue
        if module not in shift:
            raise UnfitError(f"the offset of {module!r} is missing")
        if shift[module].shape != bias.shape:
            raise UnfitError(f"an offset of shape {tuple(shift[module].shape)} for {module!r}")
        found[f"{module}.bias"] = bias * factors + shift[module]
    return found


def offsets(
    tensors: Groups, settings: ScaleShiftSettings, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
    """Offsets of layers without a bias."""
    # Of a convolution the channels are the third axis from the end, else the last.
    return {
        module: shift.reshape(-1, *[1] * (len(shapes[f"{module}.weight"]) - 2))
        for module, shift in tensors["shift"].items()
        if f"{module}.bias" not in shapes
    }


def _foldable(config: Mapping[str, Any]) -> bool:
    return config.get("offsets") != "all"


METHOD = Method(
    settings=ScaleShiftSettings,
    paper="Lian et al., SSF, NeurIPS 2022",
    groups=("gain", "shift"),
    start=start,
    deltas=deltas,
    offsets=offsets,
    foldable=_foldable,
)
