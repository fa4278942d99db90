"""SSF: a gain and an offset for every channel behind every layer.

Lian et al., "Scaling & Shifting Your Features", NeurIPS 2022, arXiv 2210.08823. A gain and an
offset of a layer's output are a gain of its weight and bias and an offset of its bias; here they
are trained as that, and cost no pass over the feature map. Layers without a bias get no offset.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from urushi.adapters.base import Adapter, key_of, parameter_of
from urushi.adapters.layers import choose, parameter_kinds
from urushi.backbones.network import RestorationNetwork
from urushi.settings import Settings

__all__ = ["ScaleShift", "ScaleShiftSettings"]


class ScaleShiftSettings(Settings):
    """Settings of `ScaleShift`.

    Attributes:
        layers: patterns of the names of modules: convolutions, linear and normalisation layers.
    """

    layers: list[str] = ["*"]


class ScaleShift(Adapter):
    """Parameters: `gain`, the gains less one, and `shift`, both zero at first; `(C,)` each."""

    method: ClassVar[str] = "ssf"
    config: ScaleShiftSettings

    def __init__(self, backbone: RestorationNetwork, config: ScaleShiftSettings) -> None:
        super().__init__(config)
        kinds = parameter_kinds(backbone)
        modules = {
            name.rpartition(".")[0]: None
            for name, kind in kinds.items()
            if kind in ("weight", "norm")
        }
        self.gain, self.shift = nn.ParameterDict(), nn.ParameterDict()
        own = dict(backbone.named_parameters())
        for name in choose(modules, config.layers, "layers"):
            weight = own[f"{name}.weight"]
            self.gain[key_of(name)] = nn.Parameter(torch.zeros(len(weight)))
            if f"{name}.bias" in own:
                self.shift[key_of(name)] = nn.Parameter(torch.zeros(len(weight)))

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        deltas = {}
        for key, gain in self.gain.items():
            name = parameter_of(key)
            weight = base[f"{name}.weight"]
            deltas[f"{name}.weight"] = weight * gain.view(-1, *[1] * (weight.ndim - 1))
            if key in self.shift:
                deltas[f"{name}.bias"] = base[f"{name}.bias"] * gain + self.shift[key]
        return deltas
