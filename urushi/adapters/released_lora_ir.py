"""LoRA-IR's released checkpoint of the restoration network, `setting1_ir.pth` and such like.

It holds a NAFNet whose layers are each wrapped (`conv.`), the gates of its stages, and after the
second stage of training the factors of all experts, stacked (`lora_A_list`, `lora_B_list`). Here
they become a backbone, its guidance and its experts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from urushi.adapters import create_adapter
from urushi.adapters.base import key_of
from urushi.adapters.experts import Experts
from urushi.adapters.guidance import Guidance
from urushi.adapters.host import Host
from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.released_networks import load_strictly
from urushi.errors import BackboneError

__all__ = ["LoRAIR", "lora_ir_from"]

_STAGE = r"(encoders\.\d+|middle_blks|decoders\.\d+)"
_OF_GATE = re.compile(rf"{_STAGE}\.(conv[1-4]\.(?:weight|bias)|norm\.(?:weight|bias)|beta)")
_LAYERS = {"conv1": "reduce", "conv2": "expand", "conv3": "squeeze", "conv4": "excite"}


@dataclass(frozen=True)
class LoRAIR:
    """What such a checkpoint holds.

    Attributes:
        backbone: the network.
        guidance: for that network.
        experts: for that network and the guidance, to be attached together with both; None if
            they were not trained yet.
    """

    backbone: RestorationNetwork
    guidance: Guidance
    experts: Experts | None


def lora_ir_from(state: Mapping[str, Tensor], source: str) -> LoRAIR:
    """Builds backbone and adapters from a checkpoint's tensors, sizes read off them.

    Args:
        state: the tensors.
        source: what messages call them.

    Raises:
        BackboneError: tensors are missing, left over or of the wrong shape.
    """
    stages = _guided(state, source)
    network, gates, factors = _sorted(state, stages)
    # Depths are read off the numbers in names; one without would not be a NAFNet's.
    known = {n: t for n, t in network.items() if not re.match(rf"{_STAGE}\.(?!\d)", n)}
    backbone = create_backbone("nafnet", BACKBONES["nafnet"].configuration_of(known))
    load_strictly(backbone, network, source)
    guidance = _guidance(backbone, gates, stages, source)
    return LoRAIR(backbone, guidance, _experts(backbone, guidance, factors, source))


def _guided(state: Mapping[str, Tensor], source: str) -> list[str]:
    """The guided stages, in the order of execution."""
    needed = ["intro.conv.weight", "intro_de.0.conv.weight", "encoders.0.conv1.conv.weight"]
    needed += ["encoders.0.conv3.conv.weight", "encoders.0.beta"]
    for name in needed:
        if name not in state:
            raise BackboneError(
                f"{source} is no restoration network of LoRA-IR: {name} was expected among its "
                "tensors"
            )
    names = [name.removesuffix(".beta") for name in state if re.fullmatch(rf"{_STAGE}\.beta", name)]
    return sorted(names, key=lambda n: (["e", "m", "d"].index(n[0]), int(n.partition(".")[2] or 0)))


def _sorted(
    state: Mapping[str, Tensor], stages: list[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the backbone, the guidance and the experts, by our names.

    The factors keep the suffixes `.lora_A_list` and `.lora_B_list` behind the name of a layer.
    """
    network: dict[str, Tensor] = {}
    gates: dict[str, Tensor] = {}
    factors: dict[str, Tensor] = {}
    for full, tensor in state.items():
        factor = re.fullmatch(r"(.+)\.(lora_[AB]_list)", full)
        name = f"{factor[1]}.weight" if factor else re.sub(r"\.conv\.(weight|bias)$", r".\1", full)
        name = (
            re.sub(rf"^{_STAGE}\.blocks\.", r"\1.", name)
            if ".blocks." in name
            else _gate_name(name, stages)
        )
        if factor:
            factors[f"{name.removesuffix('.weight')}.{factor[2]}"] = tensor
        elif name.startswith("guidance."):
            gates[name.removeprefix("guidance.")] = _flat(name, tensor)
        else:
            network[name] = tensor
    return network, gates, factors


def _gate_name(name: str, stages: list[str]) -> str:
    """The name of a parameter of the guidance; others are returned as they are."""
    if name.startswith("intro_de."):
        return f"guidance.embed.{name.removeprefix('intro_de.')}"
    found = _OF_GATE.fullmatch(name)
    if not found or found[1] not in stages:
        return name
    layer, dot, rest = found[2].partition(".")
    return f"guidance.stages.{stages.index(found[1])}.{_LAYERS.get(layer, layer)}{dot}{rest}"


def _flat(name: str, tensor: Tensor) -> Tensor:
    """A 1x1 convolution's weight as that of a linear layer, and a map of one pixel as a vector."""
    if tensor.ndim != 4 or tensor.shape[2:] != (1, 1):
        return tensor
    tensor = tensor[..., 0, 0]
    return tensor[0] if name.endswith(".beta") and len(tensor) == 1 else tensor


def _guidance(
    backbone: RestorationNetwork, gates: Mapping[str, Tensor], stages: list[str], source: str
) -> Guidance:
    first, inner = gates["stages.0.reduce.weight"], gates["stages.0.squeeze.weight"]
    config = {
        "method": "guidance",
        "vector": first.shape[1],
        "hidden": first.shape[0],
        "reduction": inner.shape[-1] // inner.shape[0],
        "stages": stages,
    }
    guidance = create_adapter(backbone, config)
    assert isinstance(guidance, Guidance)
    load_strictly(guidance, gates, source)
    return guidance


def _experts(
    backbone: RestorationNetwork,
    guidance: Guidance,
    factors: Mapping[str, Tensor],
    source: str,
) -> Experts | None:
    if not factors:
        return None
    first = factors.get("intro.lora_A_list")
    if first is None or first.ndim != 3 or first.shape[1] % 3:
        raise BackboneError(f"{source}: intro.lora_A_list was expected, of shape (n, 3 rank, ...)")
    config = {"method": "experts", "count": len(first), "freeze": "base"}
    config["expert"] = {"method": "lora", "rank": first.shape[1] // 3}
    experts = create_adapter(Host(backbone, guidance), config)
    assert isinstance(experts, Experts)
    parts = {"lora_A_list": "down", "lora_B_list": "up"}
    state = {}
    for name, stacked in factors.items():
        layer, _, kind = name.rpartition(".")
        for index, factor in enumerate(stacked):
            state[f"experts.{index}.{parts[kind]}.{key_of(f'{layer}.weight')}"] = factor
    load_strictly(experts, state, source)
    return experts
