"""Ways to change a frozen backbone. They know no particular backbone.

`METHODS` is the table of those that are built in; the command line, the documentation and the
contract tests read it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from urushi.adapters.adaptir import AdaptIR, AdaptIRSettings
from urushi.adapters.attach import Adapted, FixedRoute, ParameterReport, attach
from urushi.adapters.base import Adapter
from urushi.adapters.bottleneck import (
    AdaptFormer,
    AdaptFormerSettings,
    ClassicMixture,
    ClassicMixtureSettings,
    Houlsby,
    HoulsbySettings,
)
from urushi.adapters.colora import CoLoRA, CoLoRASettings
from urushi.adapters.experts import Experts, ExpertsSettings
from urushi.adapters.factor import FactorTuning, FactorTuningSettings
from urushi.adapters.guidance import Guidance, GuidanceSettings
from urushi.adapters.host import Host
from urushi.adapters.low_rank import LowRank, LowRankSettings
from urushi.adapters.partial import (
    BitFit,
    DecoderOnly,
    Frozen,
    Full,
    NormOnly,
    PartialSettings,
)
from urushi.adapters.prompt import Prompts, PromptSettings
from urushi.adapters.scale_shift import ScaleShift, ScaleShiftSettings
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError, nearest
from urushi.settings import Settings, parse_settings

__all__ = [
    "METHODS",
    "Adapted",
    "Adapter",
    "FixedRoute",
    "Host",
    "Method",
    "ParameterReport",
    "attach",
    "create_adapter",
]


@dataclass(frozen=True)
class Method:
    """An entry of `METHODS`.

    Args:
        build: the adapter's class; called with a backbone and its settings.
        settings: class of its settings.
        paper: reference.
        mergeable: whether its effect can be put into the backbone's weights.
        identity: whether a fresh one changes nothing yet.
    """

    build: Callable[[RestorationNetwork, Any], Adapter]
    settings: type[Settings]
    paper: str
    mergeable: bool
    identity: bool = True


def _experts(backbone: RestorationNetwork, settings: ExpertsSettings) -> Experts:
    return Experts(backbone, settings, create_adapter)


METHODS: Mapping[str, Method] = {
    "colora": Method(CoLoRA, CoLoRASettings, "CoLoRA, ECCV 2024, arXiv 2408.01099", mergeable=True),
    "lora": Method(LowRank, LowRankSettings, "Hu et al., LoRA, ICLR 2022", mergeable=True),
    "fact": Method(
        FactorTuning, FactorTuningSettings, "Jie and Deng, FacT, AAAI 2023", mergeable=True
    ),
    "adaptir": Method(
        AdaptIR, AdaptIRSettings, "Guo et al., AdaptIR, NeurIPS 2024", mergeable=False
    ),
    "houlsby": Method(
        Houlsby, HoulsbySettings, "Houlsby et al., adapters, ICML 2019", mergeable=False
    ),
    "adaptformer": Method(
        AdaptFormer, AdaptFormerSettings, "Chen et al., AdaptFormer, NeurIPS 2022", mergeable=False
    ),
    "moe": Method(
        ClassicMixture,
        ClassicMixtureSettings,
        "identical branches, summed: a baseline of AdaptIR, NeurIPS 2024",
        mergeable=False,
    ),
    "vpt": Method(
        Prompts,
        PromptSettings,
        "Jia et al., VPT, ECCV 2022",
        mergeable=False,
        identity=False,
    ),
    "guidance": Method(
        Guidance, GuidanceSettings, "Ai et al., LoRA-IR, arXiv 2410.15385", mergeable=False
    ),
    "experts": Method(
        _experts, ExpertsSettings, "Ai et al., LoRA-IR, arXiv 2410.15385", mergeable=False
    ),
    "ssf": Method(ScaleShift, ScaleShiftSettings, "Lian et al., SSF, NeurIPS 2022", mergeable=True),
    "bitfit": Method(BitFit, PartialSettings, "Ben Zaken et al., BitFit, ACL 2022", mergeable=True),
    "norm": Method(NormOnly, PartialSettings, "normalisation layers alone", mergeable=True),
    "decoder": Method(DecoderOnly, PartialSettings, "the decoder alone", mergeable=True),
    "full": Method(Full, PartialSettings, "full fine-tuning", mergeable=True),
    "frozen": Method(Frozen, PartialSettings, "nothing is trained", mergeable=True),
}


def create_adapter(backbone: RestorationNetwork, config: Mapping[str, Any]) -> Adapter:
    """Makes an adapter for a backbone, freshly initialised.

    Attached, it changes nothing yet, but for the methods whose entry says otherwise.

    Args:
        backbone: what it is made for; stays as it is. A `Host` adapts adapters, too.
        config: `{"method": NAME, ...}` with the settings of that method.

    Raises:
        AdapterError: the method is unknown or cannot go onto this backbone, or a setting is wrong.
    """
    options = dict(config)
    name = str(options.pop("method", ""))
    if name not in METHODS:
        raise AdapterError(
            f"method {name!r} is unknown{nearest(name, METHODS)}: known are {', '.join(METHODS)}"
        )
    settings = parse_settings(options, METHODS[name].settings, AdapterError, f"method {name}")
    return METHODS[name].build(backbone, settings)
