"""Partial tuning: some of the backbone's own parameters are trained, as deltas.

`full` trains all, `frozen` none; `bitfit` biases (Ben Zaken et al., ACL 2022, arXiv 2106.10199);
`norm` gains and offsets of normalisation layers; `decoder` the decoder, CoLoRA's baseline "only
deconv".
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from urushi.adapters.base import Adapter, key_of, parameter_of
from urushi.adapters.layers import ParameterKind, choose, parameter_kinds
from urushi.adapters.sums import plain_sums, summed
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError
from urushi.settings import Settings

__all__ = ["BitFit", "DecoderOnly", "Frozen", "Full", "NormOnly", "Partial", "PartialSettings"]


class PartialSettings(Settings):
    """Settings of `Partial` adapters.

    Attributes:
        parameters: patterns of parameter names; of those that the method stands for, only those
            that match are trained.
    """

    parameters: list[str] = ["*"]


class Partial(Adapter):
    """Deltas of whole parameters, zero at first.

    Raises:
        AdapterError: the backbone has none of the parameters.
    """

    kinds: ClassVar[tuple[ParameterKind, ...]] = ("weight", "bias", "norm", "scale")
    part: ClassVar[Literal["all", "decoder", "none"]] = "all"
    config: PartialSettings

    def __init__(self, backbone: RestorationNetwork, config: PartialSettings) -> None:
        super().__init__(config)
        kinds = parameter_kinds(backbone)
        chosen = choose(kinds, config.parameters, "parameters")
        if self.part == "decoder":
            starts = tuple(f"{name}." for name in backbone.sites.decoder)
            chosen = [name for name in chosen if name.startswith(starts)]
        chosen = [] if self.part == "none" else [n for n in chosen if kinds[n] in self.kinds]
        if not chosen and self.part != "none":
            raise AdapterError(
                f"method {self.method} finds no {' or '.join(self.kinds)} parameters to train in "
                "this backbone"
            )
        own = dict(backbone.named_parameters())
        self.value = nn.ParameterDict(
            {key_of(name): nn.Parameter(torch.zeros_like(own[name])) for name in chosen}
        )

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {parameter_of(key): delta for key, delta in self.value.items()}

    def added_to(
        self, base: Mapping[str, Tensor], changed: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        deltas = self.deltas(base)
        below = {name: changed.get(name, base[name]) for name in deltas}
        if not plain_sums(below.values(), deltas.values()):
            return super().added_to(base, changed)
        return summed(below, deltas, {}, float(self.strength))


class Full(Partial):
    """Full fine-tuning."""

    method: ClassVar[str] = "full"


class Frozen(Partial):
    """Nothing is trained: the frozen backbone, as a row to compare with."""

    method: ClassVar[str] = "frozen"
    part = "none"


class BitFit(Partial):
    """Biases of convolutions and linear layers."""

    method: ClassVar[str] = "bitfit"
    kinds = ("bias",)


class NormOnly(Partial):
    """Gains and offsets of normalisation layers."""

    method: ClassVar[str] = "norm"
    kinds = ("norm",)


class DecoderOnly(Partial):
    """All parameters of the decoder."""

    method: ClassVar[str] = "decoder"
    part = "decoder"
