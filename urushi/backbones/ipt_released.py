"""IPT's released files: sizes read off their tensors, names and constants translated."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from urushi.backbones.ipt import IPT, MEAN, RELEASED_HEADS, RELEASED_RANGE
from urushi.backbones.network import entries
from urushi.errors import BackboneError

__all__ = ["configuration_of", "from_released", "to_released"]

_CONSTANTS = ("sub_mean.", "add_mean.", "body.position_encoding.position_ids")


def configuration_of(state: Mapping[str, Tensor]) -> dict[str, object]:
    """Reads sizes and heads off an IPT's tensors, released names or ours.

    Tensors do not tell which task a head that keeps the size is for: it gets its name where the
    scales are those of the released pre-trained file, else `restore` (then `restore2`, ...).
    `num_heads` cannot be read off unless tokens have the released width.

    Raises:
        BackboneError: the tensors are not those of an IPT.
    """
    names = ("head.0.0.weight", "body.linear_encoding.weight", "body.query_embed.weight")
    if any(name not in state for name in names) or "body.position_encoding.pe.weight" not in state:
        raise BackboneError(
            "these tensors are not an IPT's: head.0, body.linear_encoding, body.query_embed and "
            "body.position_encoding were expected among the names"
        )
    n_feats, width = len(state[names[0]]), len(state[names[1]])
    patch = math.isqrt(width // n_feats)
    scales = [_scale_read(state, index) for index in range(entries(state, "head."))]
    if scales == list(RELEASED_HEADS.values()):
        heads = list(RELEASED_HEADS)
    else:
        same = [f"restore{index or ''}" for index in (0, *range(2, len(scales) + 1))]
        heads = [f"x{scale}" if scale > 1 else same.pop(0) for scale in scales]
    return {
        "n_feats": n_feats,
        "patch_size": patch * math.isqrt(len(state["body.position_encoding.pe.weight"])),
        "patch_dim": patch,
        "num_layers": entries(state, "body.encoder.layers."),
        "heads": heads,
        "num_queries": len(state[names[2]]),
        "rgb_range": _range_read(state),
    }


def from_released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a released file by our names, without the constants among them.

    Raises:
        BackboneError: the constants are those of another mean than DIV2K's.
    """
    for name, sign in (("sub_mean.bias", -1), ("add_mean.bias", 1)):
        expected = sign * _range_read(state) * torch.tensor(MEAN)
        if name in state and not torch.allclose(state[name].float().cpu(), expected, rtol=1e-3):
            raise BackboneError(
                f"{name} is {state[name].tolist()} and not {expected.tolist()}: only networks that "
                "shift by the mean of DIV2K are supported"
            )
    return {
        name.replace("in_proj_weight", "in_proj.weight"): tensor
        for name, tensor in state.items()
        if not name.startswith(_CONSTANTS)
    }


def to_released(network: IPT) -> dict[str, Tensor]:
    """The network's tensors as the authors' code names them, with its constants."""
    state = {
        name.replace("in_proj.weight", "in_proj_weight"): tensor.detach().clone()
        for name, tensor in network.state_dict().items()
    }
    for name, sign in (("sub_mean", -1.0), ("add_mean", 1.0)):
        state[f"{name}.weight"] = torch.eye(3)[:, :, None, None].clone()
        state[f"{name}.bias"] = sign * network.rgb_range * torch.tensor(MEAN)
    count = len(network.body.position_encoding.pe.weight)
    state["body.position_encoding.position_ids"] = torch.arange(count)[None]
    return state


def _scale_read(state: Mapping[str, Tensor], index: int) -> int:
    first, second = (state.get(f"tail.{index}.0.{place}.weight") for place in (0, 2))
    if first is None:
        return 1
    return 4 if second is not None else math.isqrt(len(first) // first.shape[1])


def _range_read(state: Mapping[str, Tensor]) -> float:
    """What white is for the weights, by the shift stored with them; 255 where there is none."""
    shift = state.get("sub_mean.bias")
    return RELEASED_RANGE if shift is None else round(-float(shift[0]) / MEAN[0], 3)
