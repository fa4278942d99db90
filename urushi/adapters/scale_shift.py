"""SSF: a gain and an offset for every channel behind every layer.

Lian et al., "Scaling & Shifting Your Features", NeurIPS 2022, arXiv 2210.08823. A gain and an
offset of a layer's output are a gain of its weight and bias and an offset of its bias; here they
are trained as that, and cost no pass over the feature map. Layers without a bias get no offset by
default, since weights could not hold it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from urushi.adapters.base import Adapter, OutputChange, key_of, parameter_of
from urushi.adapters.layers import choose, parameter_kinds, weight_layers
from urushi.backbones.network import RestorationNetwork
from urushi.settings import Settings

__all__ = ["ScaleShift", "ScaleShiftSettings"]


class ScaleShiftSettings(Settings):
    """Settings of `ScaleShift`.

    Attributes:
        layers: patterns of the names of modules: convolutions, linear and normalisation layers;
            transposed convolutions are none of them.
        offsets: `bias`: for layers that have a bias. `all`: for convolutions and linear layers
            without one as well, as the paper has it; these are added to feature maps, and such an
            adapter cannot be merged.
    """

    layers: list[str] = ["*"]
    offsets: Literal["bias", "all"] = "bias"


class ScaleShift(Adapter):
    """Parameters: `gain`, the gains less one, and `shift`, both zero at first; `(C,)` each."""

    method: ClassVar[str] = "ssf"
    config: ScaleShiftSettings

    def __init__(self, backbone: RestorationNetwork, config: ScaleShiftSettings) -> None:
        super().__init__(config)
        kinds = parameter_kinds(backbone)
        layers = weight_layers(backbone)
        # Channels of their output are not the first axis of their weights: left alone.
        transposed = {layer.name for layer in layers if layer.transposed}
        modules = {
            name.rpartition(".")[0]: None
            for name, kind in kinds.items()
            if kind in ("weight", "norm") and name.rpartition(".")[0] not in transposed
        }
        self.gain, self.shift = nn.ParameterDict(), nn.ParameterDict()
        self._added: dict[str, Callable[[Tensor], Tensor]] = {}
        own = dict(backbone.named_parameters())
        mixing = {layer.name for layer in layers}
        for name in choose(modules, config.layers, "layers"):
            weight = own[f"{name}.weight"]
            self.gain[key_of(name)] = nn.Parameter(torch.zeros(len(weight)))
            biased = f"{name}.bias" in own
            if biased or (config.offsets == "all" and name in mixing):
                self.shift[key_of(name)] = nn.Parameter(torch.zeros(len(weight)))
            if not biased and name in mixing and config.offsets == "all":
                # Of a convolution the channels are the third axis from the end, else the last.
                axes = (-1, *[1] * (weight.ndim - 2))
                self._added[name] = partial(self._offset, key_of(name), axes)

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        deltas = {}
        for key, gain in self.gain.items():
            name = parameter_of(key)
            weight = base[f"{name}.weight"]
            deltas[f"{name}.weight"] = weight * gain.view(-1, *[1] * (weight.ndim - 1))
            if key in self.shift and name not in self._added:
                deltas[f"{name}.bias"] = base[f"{name}.bias"] * gain + self.shift[key]
        return deltas

    def output_changes(self) -> list[OutputChange]:
        return [OutputChange(name, change) for name, change in self._added.items()]

    def _offset(self, key: str, axes: tuple[int, ...], output: Tensor) -> Tensor:
        return self.shift[key].view(axes).expand_as(output)
