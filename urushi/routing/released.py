"""LoRA-IR's released router checkpoint (`setting1_router.pth`): its head, and the CLIP within.

The layout is that of the authors' code: `de_extractor.*` and `cls_head.*`, beside the vision tower
of a CLIP with the names `transformers` gives it, behind a prefix. All in bfloat16.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from urushi.backbones.checkpoints import read_checkpoint
from urushi.backbones.released_networks import load_strictly
from urushi.errors import AdapterError, BackboneError
from urushi.files.router_file import ViewGeometry
from urushi.routing.encoders import ClipEncoder, unusable_transformers
from urushi.routing.router import Router, RouterHead

__all__ = ["RELEASED_CLIP", "SETTING_1_CLASSES", "head_from_released", "load_released_router"]

SETTING_1_CLASSES = ("snow", "rain", "raindrop")
"""Classes of the released checkpoint of Setting I, in the order of its logits."""

RELEASED_CLIP = "openai/clip-vit-large-patch14-336"
"""The CLIP it was trained with, as `transformers` knows it."""

_HEAD = {"de_extractor.": "extractor.", "cls_head.": "classifier."}
_PROJECTION = "visual_projection.weight"
# Of every CLIP that was published; a state dict does not tell how a layer's channels are shared.
_HEAD_CHANNELS = 64


def load_released_router(path: Path | str, *, clip: str | None = None) -> Router:
    """Reads a released router, frozen and in evaluation mode.

    Args:
        path: a file written by `torch.save`.
        clip: name or folder of a CLIP, for a file that holds the head alone; of one that holds the
            tower too, the name by which it is known, `RELEASED_CLIP` by default.

    Raises:
        FileFormatError: the file is not a checkpoint of plain, finite tensors.
        AdapterError: it is no router, or neither holds a tower nor is given one.
        MissingExtraError: transformers is not installed.
    """
    state = read_checkpoint(path)
    source = Path(path).name
    head, rest = head_from_released(state, source)
    if rest:
        encoder = ClipEncoder.from_tower(clip or RELEASED_CLIP, _tower(rest, source))
    elif clip is None:
        raise AdapterError(f"{source} holds no CLIP: name the one it was trained with as clip")
    else:
        encoder = ClipEncoder(clip)
    if encoder.width != head.width:
        raise AdapterError(
            f"{source} takes embeddings of {head.width} numbers, its CLIP gives {encoder.width}: "
            "name the one it was trained with"
        )
    size = encoder.view_size
    assert size is not None
    geometry = ViewGeometry(layout="squashed", size=size)
    return Router(encoder, head, geometry).eval().requires_grad_(False)


def head_from_released(
    state: Mapping[str, Tensor], source: str
) -> tuple[RouterHead, dict[str, Tensor]]:
    """The head in a released state dict, and the tensors that are not of it.

    Raises:
        AdapterError: there is no head, or its shapes do not fit together.
    """
    head: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in state.items():
        start = next((start for start in _HEAD if name.startswith(start)), None)
        if start is None:
            rest[name] = tensor
        else:
            head[_HEAD[start] + name.removeprefix(start)] = tensor.float()
    classifier = head.get("classifier.weight")
    if classifier is None or classifier.ndim != 2:
        raise AdapterError(f"{source} is not a router of LoRA-IR: it has no matrix cls_head.weight")
    made = RouterHead(2 * classifier.shape[1], classifier.shape[0])
    try:
        load_strictly(made, head, source)
    except BackboneError as error:
        raise AdapterError(f"{error}: it is not a router of LoRA-IR") from error
    return made, rest


def _tower(state: Mapping[str, Tensor], source: str) -> Any:
    """The vision tower of the tensors beside the head, its sizes read off them."""
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    except Exception as error:
        # Much besides ImportError: whatever a package raises that it does not get on with.
        raise unusable_transformers(error) from error
    prefix = next((n.removesuffix(_PROJECTION) for n in state if n.endswith(_PROJECTION)), None)
    if prefix is None:
        raise AdapterError(f"{source} has no {_PROJECTION}: its CLIP is missing or incomplete")
    # Older releases of transformers stored a list of positions as well.
    plain = {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in state.items()
        if not name.endswith("position_ids")
    }
    config = CLIPVisionConfig(**_sizes(plain, source))
    tower = CLIPVisionModelWithProjection(config)
    try:
        load_strictly(tower, plain, source)
    except BackboneError as error:
        raise AdapterError(str(error)) from error
    return tower


def _sizes(state: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    try:
        patches = state["vision_model.embeddings.patch_embedding.weight"]
        positions = state["vision_model.embeddings.position_embedding.weight"]
        inner = state["vision_model.encoder.layers.0.mlp.fc1.weight"]
        projection = state[_PROJECTION]
    except KeyError as error:
        raise AdapterError(f"{source} has no tensor {error}: its CLIP is incomplete") from error
    hidden, patch = patches.shape[0], patches.shape[-1]
    layers = {int(m[1]) for n in state if (m := re.search(r"encoder\.layers\.(\d+)\.", n))}
    return {
        "hidden_size": hidden,
        "intermediate_size": inner.shape[0],
        "projection_dim": projection.shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, hidden // _HEAD_CHANNELS),
        "patch_size": patch,
        "image_size": patch * round((positions.shape[0] - 1) ** 0.5),
    }
