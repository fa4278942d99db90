"""Restoration networks. They know nothing of adapters, routers or data.

`BACKBONES` is the table of those that are built in; the command line, the documentation and the
contract tests read it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from urushi.backbones import nafnet
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import AttentionSite, FeedForwardSite, Sites, Stage, TokenSite
from urushi.errors import BackboneError

__all__ = [
    "BACKBONES",
    "AttentionSite",
    "Backbone",
    "FeedForwardSite",
    "RestorationNetwork",
    "Sites",
    "Stage",
    "TokenSite",
    "create_backbone",
]


@dataclass(frozen=True)
class Backbone:
    """An entry of `BACKBONES`.

    Args:
        build: makes the network from the keyword arguments of its configuration.
        configuration_of: reads the configuration off a state dict of the released layout.
        example: a tiny configuration, for tests and documentation.
        paper: reference.
        licence: licence of the authors' released code and weights.
    """

    build: Callable[..., RestorationNetwork]
    configuration_of: Callable[[dict[str, Tensor]], dict[str, object]]
    example: Mapping[str, object]
    paper: str
    licence: str


BACKBONES: Mapping[str, Backbone] = {
    "nafnet": Backbone(
        build=nafnet.NAFNet,
        configuration_of=nafnet.configuration_of,
        example={"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
        paper="Chen et al., Simple Baselines for Image Restoration, ECCV 2022",
        licence="MIT",
    ),
}


def create_backbone(name: str, config: Mapping[str, object]) -> RestorationNetwork:
    """Builds the network `name` with freshly initialised weights.

    Raises:
        BackboneError: the name is not in `BACKBONES`, or the configuration does not fit it.
    """
    if name not in BACKBONES:
        raise BackboneError(f"backbone {name!r} is unknown: known are {', '.join(BACKBONES)}")
    try:
        return BACKBONES[name].build(**config)
    except TypeError as error:
        # A wrong or missing keyword: the constructor's own words name it.
        reason = str(error).replace(f"{BACKBONES[name].build.__name__}.__init__() ", "")
        raise BackboneError(
            f"backbone {name!r} cannot be built from {dict(config)}: {reason}"
        ) from error
