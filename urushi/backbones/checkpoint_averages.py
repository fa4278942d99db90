"""Averaged copies of a network's weights, by what trainers call them."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from urushi.backbones.checkpoint_leaves import Parts

__all__ = ["SWAPPED", "are_averaged", "is_averaged", "is_swapped", "spelled_plainly", "with_dots"]

# Parts of names of averaged copies; `ema` may be written together with another part.
_AVERAGED = re.compile(r"(?:^|_)(ema|swa|averaged?|shadow)(?:_|$)|ema$|^ema")
# Within what averages, the part that is trained; MMCV's "ema_" is either, by when it was saved.
_TRAINED = {"online", "online_model", "collected_params", "ema_"}
# MMEngine saves the average as the network, and what it was trained to as the average.
SWAPPED = {"state_dict": "ema_state_dict", "ema_state_dict": "state_dict"}


def spelled_plainly(part: str) -> str:
    """A part of a name in small letters, with lines between its words."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part).lower().replace("-", "_")


def is_averaged(part: str) -> bool:
    """Whether a part of a name says that what follows is an average."""
    return _AVERAGED.search(spelled_plainly(part)) is not None


def are_averaged(parts: Sequence[str]) -> bool:
    """Whether what lies under all these parts is an average; the last that says so counts."""
    said = next((p for p in reversed(parts) if p in _TRAINED or is_averaged(p)), "online")
    return said not in _TRAINED


def is_swapped(content: object) -> bool:
    """Whether a checkpoint is one of MMEngine that averaged."""
    if not isinstance(content, Mapping) or not SWAPPED.keys() <= content.keys():
        return False
    meta = content.get("meta")
    return "message_hub" in content or (isinstance(meta, Mapping) and "mmengine_version" in meta)


def with_dots(weights: dict[Parts, Tensor]) -> dict[Parts, Tensor]:
    """Averaged copies whose names have lost their dots get them back from the others' names.

    Latent diffusion's trainer keeps its average so, as `model_ema.encoders00conv1weight`, and
    MMCV's a copy as `ema_encoders_0_0_conv1_weight`.
    """
    lost: dict[Parts, tuple[Parts, str]] = {
        p: (p[:-1], p[-1]) for p in weights if len(p) > 1 and is_averaged(p[-2])
    }
    lines = {p: ((*p[:-1], "ema_"), p[-1][4:]) for p in weights if p[-1].startswith("ema_")}
    if not lost and not lines:
        return weights
    ends = {
        joint.join(p[i:]): p[i:]
        for p in weights
        for i in range(len(p))
        for joint in ("", "_")
        if p not in lost and p not in lines
    }
    found = {
        parts: (*start, *ends[end])
        for parts, (start, end) in (lost | lines).items()
        if end in ends and (*start, *ends[end]) not in weights
    }
    return {found.get(parts, parts): tensor for parts, tensor in weights.items()}
