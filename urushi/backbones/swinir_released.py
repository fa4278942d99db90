"""SwinIR's released files: sizes read off their tensors, and the masks and indices among them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from urushi.backbones.network import entries
from urushi.backbones.swinir import (
    FEATURES,
    SwinIR,
    WindowAttention,
    relative_position_index,
    window_kinds,
)
from urushi.errors import BackboneError

__all__ = ["configuration_of", "from_released", "to_released"]

# What released files carry, though the configuration determines it.
INDEX, MASK = "relative_position_index", "attn_mask"


def configuration_of(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Reads sizes, end and scale off a SwinIR's tensors.

    They do not tell `img_range`: it is 255 for a window of 7 without an upsampler, which the
    released JPEG networks have, and else 1.

    Raises:
        BackboneError: the tensors are not those of a SwinIR.
    """
    groups = entries(state, "layers.")
    depths = [entries(state, f"layers.{g}.residual_group.blocks.") for g in range(groups)]
    starts = [f"layers.{g}.residual_group.blocks.0." for g in range(max(groups, 1))]
    tables = [f"{start}attn.relative_position_bias_table" for start in starts]
    for name in ("conv_first.weight", f"{starts[0]}mlp.fc1.weight", *tables):
        if name not in state:
            raise BackboneError(f"these tensors are not a SwinIR's: {name} was expected")
    width, channels = state["conv_first.weight"].shape[:2]
    hidden = len(state[f"{starts[0]}mlp.fc1.weight"])
    ratio = hidden / width
    window = _window_of(state[tables[0]])
    upsampler, scale = _upsampler_of(state, channels)
    return {
        "depths": depths,
        "embed_dim": width,
        "num_heads": [state[name].shape[1] for name in tables],
        "window_size": window,
        # A product that rounding leaves just below would lose a channel.
        "mlp_ratio": ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf),
        "in_chans": channels,
        "img_range": 255.0 if window == 7 and not upsampler else 1.0,
        "upsampler": upsampler,
        "upscale": scale,
        "resi_connection": "1conv" if "layers.0.conv.weight" in state else "3conv",
        "patch_norm": "patch_embed.norm.weight" in state,
    }


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a released file without its masks and indices, which are calculated.

    Raises:
        BackboneError: one of them is not of a shape, or an index not of values, that belong here.
    """
    kept = {name: t for name, t in state.items() if name.rpartition(".")[2] not in (INDEX, MASK)}
    for name in sorted(state.keys() - kept.keys()):
        tensor, (block, _, kind) = state[name], name.rpartition(".")
        table = state.get(f"{block.removesuffix('.attn')}.attn.relative_position_bias_table")
        window = 0 if table is None else _window_of(table)
        if tensor.shape[-2:] != (window**2, window**2) or (
            kind == INDEX and not torch.equal(tensor.cpu(), relative_position_index(window))
        ):
            raise BackboneError(
                f"{name} is not what a SwinIR with windows of {window} pixels has: the file is "
                "damaged or of another network"
            )
    return kept


def to_released(network: SwinIR, image_size: int = 64) -> dict[str, Tensor]:
    """The network's tensors with the masks and indices that the authors' code stores.

    Args:
        network: whose tensors.
        image_size: side of the patches in training, a multiple of the window.
    """
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    side = image_size // network.size_multiple
    for name, module in network.named_modules():
        if isinstance(module, WindowAttention):
            state[f"{name}.{INDEX}"] = module.index.clone()
            if module.shift:
                kinds = window_kinds(side, side, module.apart.device)
                state[f"{name.removesuffix('.attn')}.{MASK}"] = module.apart[kinds]
    return state


def _window_of(table: Tensor) -> int:
    """The side of the windows to which a table of biases belongs."""
    return (math.isqrt(len(table)) + 1) // 2


def _upsampler_of(state: Mapping[str, Tensor], channels: int) -> tuple[str, int]:
    """The upsampler and the scale."""
    if "conv_up1.weight" in state:
        return "nearest+conv", 4 if "conv_up2.weight" in state else 2
    if "upsample.0.weight" not in state:
        return "", 1
    rows = len(state["upsample.0.weight"])
    if "conv_before_upsample.0.weight" not in state:
        return "pixelshuffledirect", math.isqrt(rows // channels)
    # Convolutions at 0, 2, 4, and shuffles between them.
    return "pixelshuffle", 3 if rows == 9 * FEATURES else 2 ** -(-entries(state, "upsample.") // 2)
