"""Partial tuning: some of the backbone's own parameters are trained, as deltas.

`full` trains all, `frozen` none; `bitfit` biases (Ben Zaken et al., ACL 2022, arXiv 2106.10199);
`norm` gains and offsets of normalisation layers; `decoder` the decoder, CoLoRA's baseline "only
deconv".
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from urushi.adapters.layers import KINDS, ParameterKind, choose, parameter_kinds
from urushi.adapters.method import Array, Arrays, Groups, Method, Start, zeros
from urushi.errors import AdapterError
from urushi.settings import Settings

if TYPE_CHECKING:
    from urushi.backbones.network import RestorationNetwork

__all__ = ["BITFIT", "DECODER", "FROZEN", "FULL", "NORM", "PartialSettings"]


class PartialSettings(Settings):
    """Settings of these methods.

    Attributes:
        parameters: patterns of parameter names; of those that the method stands for, only those
            that match are trained.
    """

    parameters: list[str] = ["*"]


def _whole(
    method: str, kinds: tuple[ParameterKind, ...] = KINDS, decoder: bool = False
) -> Callable[["RestorationNetwork", PartialSettings], Start]:
    """What starts with deltas of whole parameters: of some kinds, in the decoder alone or not."""

    def start(backbone: "RestorationNetwork", settings: PartialSettings) -> Start:
        known = parameter_kinds(backbone)
        chosen = choose(known, settings.parameters, "parameters")
        if decoder:
            starts = tuple(f"{name}." for name in backbone.sites.decoder)
            chosen = [name for name in chosen if name.startswith(starts)]
        chosen = [name for name in chosen if known[name] in kinds]
        if not chosen:
            raise AdapterError(
                f"method {method} finds no {' or '.join(kinds)} parameters to train in this "
                "backbone"
            )
        own = dict(backbone.named_parameters())
        return {("value", name): zeros(*own[name].shape) for name in chosen}

    return start


def _nothing(backbone: "RestorationNetwork", settings: PartialSettings) -> Start:
    """No tensors; the patterns have to fit all the same."""
    choose(parameter_kinds(backbone), settings.parameters, "parameters")
    return {}


def deltas(tensors: Groups, settings: PartialSettings, base: Arrays) -> dict[str, Array]:
    """The whole deltas `value`."""
    return dict(tensors["value"])


def _method(paper: str, start: Callable[..., Start]) -> Method:
    return Method(
        settings=PartialSettings,
        paper=paper,
        groups=("value",),
        start=start,
        deltas=deltas,
        whole=True,
    )


BITFIT = _method("Ben Zaken et al., BitFit, ACL 2022", _whole("bitfit", kinds=("bias",)))
NORM = _method("normalisation layers alone", _whole("norm", kinds=("norm",)))
DECODER = _method("the decoder alone", _whole("decoder", decoder=True))
FULL = _method("full fine-tuning", _whole("full"))
FROZEN = _method("nothing is trained", _nothing)
