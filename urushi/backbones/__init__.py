"""Restoration networks. They know nothing of adapters, routers or data.

`BACKBONES` is the table; the command line, the documentation and the contract tests read it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from urushi.backbones import (
    edt,
    edt_released,
    ipt,
    ipt_released,
    nafnet,
    restormer,
    swinir,
    swinir_released,
)
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import AttentionSite, FeedForwardSite, Sites, Stage, TokenSite
from urushi.errors import BackboneError
from urushi.plugins import Table

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
        counts: settings that say how many layers there are, or lists of such.
        from_released: translates a state dict of the released layout to our names, and leaves out
            what is no parameter.
    """

    build: Callable[..., RestorationNetwork]
    configuration_of: Callable[[dict[str, Tensor]], dict[str, object]]
    example: Mapping[str, object]
    paper: str
    licence: str
    counts: tuple[str, ...]
    from_released: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict


_BUILT_IN: Mapping[str, Backbone] = {
    "nafnet": Backbone(
        build=nafnet.NAFNet,
        configuration_of=nafnet.configuration_of,
        example={"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
        paper="Chen et al., Simple Baselines for Image Restoration, ECCV 2022",
        licence="MIT",
        counts=("enc_blk_nums", "middle_blk_num", "dec_blk_nums"),
    ),
    "restormer": Backbone(
        build=restormer.Restormer,
        configuration_of=restormer.configuration_of,
        example={
            "dim": 4,
            "num_blocks": [1, 1, 1, 1],
            "num_refinement_blocks": 1,
            "heads": [1, 1, 2, 2],
            "bias": True,
            "LayerNorm_type": "BiasFree",
        },
        paper="Zamir et al., Restormer, CVPR 2022",
        licence="Academic Public License: not commercial",
        counts=("num_blocks", "num_refinement_blocks"),
    ),
    "swinir": Backbone(
        build=swinir.SwinIR,
        configuration_of=swinir_released.configuration_of,
        example={"depths": [2], "embed_dim": 8, "num_heads": [2], "window_size": 4},
        paper="Liang et al., SwinIR, ICCV workshops 2021",
        licence="Apache-2.0",
        counts=("depths",),
        from_released=swinir_released.from_released,
    ),
    "ipt": Backbone(
        build=ipt.IPT,
        configuration_of=ipt_released.configuration_of,
        example={
            "n_feats": 1,
            "patch_size": 12,
            "num_layers": 1,
            "num_heads": 3,
            "heads": ["denoise30"],
            "rgb_range": 1.0,
        },
        paper="Chen et al., Pre-Trained Image Processing Transformer, CVPR 2021",
        licence="Apache-2.0",
        counts=("num_layers",),
        from_released=ipt_released.from_released,
    ),
    "edt": Backbone(
        build=edt.EDT,
        configuration_of=edt_released.configuration_of,
        example={
            "num_feat": 2,
            "embed_dim": 8,
            "depths": [2],
            "num_heads": [2],
            "heads": ["dn_g15"],
            "window_size": [2, 4],
            "head_depth": 1,
        },
        paper="Li et al., On Efficient Transformer-Based Image Pre-training for Low-Level Vision, "
        "IJCAI 2023",
        licence="none stated: all rights reserved",
        counts=("depths", "head_depth"),
        from_released=edt_released.from_released,
    ),
}

BACKBONES: Table[Backbone] = Table(
    "backbone",
    "urushi.backbones",
    _BUILT_IN,
    fits=lambda entry, name: isinstance(entry, Backbone),
    expected="a urushi.backbones.Backbone",
)


def create_backbone(name: str, config: Mapping[str, object]) -> RestorationNetwork:
    """Builds the network `name` with freshly initialised weights.

    Raises:
        BackboneError: the name is not in `BACKBONES`, or the configuration does not fit it.
    """
    entry = BACKBONES.find(name, BackboneError)
    try:
        return entry.build(**config)
    except TypeError as error:
        # A wrong or missing keyword: the constructor's own words name it.
        reason = str(error).replace(f"{entry.build.__name__}.__init__() ", "")
        raise BackboneError(
            f"backbone {name!r} cannot be built from {str(dict(config))[:300]}: {reason[:200]}"
        ) from error
