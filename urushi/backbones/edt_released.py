"""EDT's released files: sizes read off their tensors, and the masks among them."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from urushi.backbones.edt import EDT, MASKED, RELEASED_WINDOW, window_mask
from urushi.backbones.edt_settings import UPSAMPLERS, scale_of
from urushi.errors import BackboneError

__all__ = ["configuration_of", "from_released", "to_released"]


def configuration_of(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Reads sizes and heads off an EDT's tensors.

    The window can be read off the released masks alone: without them it is the released one.

    Raises:
        BackboneError: the tensors are not those of an EDT.
    """
    blocks = re.compile(r"body\.layers\.(\d+)\.residual_group\.blocks\.(\d+)\.mlp\.fc1\.weight")
    found = [match for name in state if (match := blocks.fullmatch(name))]
    heads = [m[1] for name in state if (m := re.fullmatch(r"head_(\w+)\.0\.weight", name))]
    if not found or not heads:
        raise BackboneError(
            "these tensors are not an EDT's: head_... and body.layers.0.residual_group.blocks were "
            "expected among the names"
        )
    heads.sort(key=_released_order)
    hidden, width = state[found[0].string].shape
    groups = 1 + max(int(match[1]) for match in found)
    depth = max(int(name.split(".")[1]) for name in state if name.startswith(f"head_{heads[0]}."))
    enlarging = next((name for name in heads if scale_of(name) > 1), None)
    same = next((name for name in heads if scale_of(name) == 1), None)
    plain = enlarging is None or f"tail_{enlarging}.{depth}.weight" in state
    # Left out where it is what all released networks have: the files of those say nothing of it.
    ends = {"resi_connection": "3conv"} if "body.conv_after_body.0.weight" in state else {}
    return {
        "num_feat": len(state[f"head_{heads[0]}.0.weight"]),
        "embed_dim": width,
        "depths": [sum(int(match[1]) == group for match in found) for group in range(groups)],
        "heads": heads,
        "window_size": list(_window_read(state)),
        "mlp_ratio": hidden / width,
        "head_depth": depth - 1,
        "upsampler": UPSAMPLERS[0 if plain else 1],
        "downsample": same is None or f"head_{same}.1.conv_down.weight" in state,
        **ends,
    }


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a released file without its masks, which follow from a picture's size."""
    return {name: tensor for name, tensor in state.items() if ".attn_mask_" not in name}


def to_released(network: EDT, image_size: int = 48) -> dict[str, Tensor]:
    """The network's tensors with the masks that the authors' code stores.

    Args:
        network: whose tensors.
        image_size: side of the body's map in training.
    """
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    flat, cpu = network.body.window, torch.device("cpu")
    for site in network.sites.feed_forward:
        block = site.norm.removesuffix(".norm2")
        if int(block.rpartition(".")[2]) % 2:
            for which, window in (("h", flat), ("v", (flat[1], flat[0]))):
                mask = window_mask(image_size, image_size, window, cpu)
                state[f"{block}.attn_mask_{which}"] = mask
    return state


def _released_order(head: str) -> tuple[int, int, str]:
    """Scales, then noise levels by size, then rain."""
    number = re.search(r"\d+", head)
    return ("sr", "dn", "dr").index(head[:2]), int(number[0]) if number else 0, head


def _window_read(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Height and width of flat windows, from where the last one of a map is cut in two."""
    mask = next((state[name] for name in state if name.endswith("attn_mask_h")), None)
    if mask is None or not (mask[-1, 0] == MASKED).any():
        return RELEASED_WINDOW
    area, half = len(mask[-1]), int((mask[-1, 0] == MASKED).int().argmax())
    width = 2 * half if area % (2 * half) == 0 else 2 * half - 1
    return area // width, width
