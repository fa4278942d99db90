"""The router: views to logits and a degradation vector.

LoRA-IR (Ai, Huang, He, arXiv 2410.15385), its degradation-guided router: the embeddings of the
whole picture and of its windows, averaged, fused by two linear layers with GELUs into the
degradation vector; a linear head on it classifies the degradation.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.errors import AdapterError, FileFormatError
from urushi.files.container import Storage
from urushi.files.router_file import (
    LoadedRouter,
    RouterHeader,
    RouterMemory,
    ViewGeometry,
    write_router,
)
from urushi.routing.encoders import Encoder, create_encoder
from urushi.routing.views import plan_views

__all__ = [
    "Router",
    "RouterHead",
    "RouterOutput",
    "batch_views",
    "load_router",
    "router_tensors",
    "save_router",
]


def batch_views(
    images: Float[Tensor, "b 3 h w"], geometry: ViewGeometry
) -> Float[Tensor, "b v 3 s s"]:
    """The views of pictures of one size; differs from `make_views` by roundings of resized pixels.

    Args:
        images: RGB in [0, 1], on any device.
        geometry: which views.
    """
    height, width = images.shape[-2:]
    plan = plan_views(geometry, height, width)
    size = plan.size
    views = [_squared(_resized(images, plan.whole), size)]
    large = _resized(images, plan.local)
    for top, left in plan.windows:
        views.append(_squared(large[..., top : top + size, left : left + size], size))
    return torch.stack(views, 1)


def _resized(images: Tensor, target: tuple[int, int]) -> Tensor:
    """As Pillow does it: along rows, then along columns, each time clipped and in 8 bits."""
    for size in ((images.shape[-2], target[1]), target):
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True)
            images = (images.clamp(0, 1) * 255).round() / 255
    return images


def _squared(images: Tensor, size: int) -> Tensor:
    """Filled up below and on the right with mirror images, as often as it takes."""
    for axis in (-2, -1):
        side = images.shape[axis]
        if side < size:
            period = torch.arange(size, device=images.device) % (2 * side)
            images = images.index_select(axis, torch.minimum(period, 2 * side - 1 - period))
    return images


class RouterOutput(NamedTuple):
    """What a router says about a batch.

    Attributes:
        logits: one for each class.
        vector: the degradation vector, half as long as an embedding.
    """

    logits: Float[Tensor, "b n"]
    vector: Float[Tensor, "b half"]


class RouterHead(nn.Module):
    """Fusion of embeddings, 2d -> d -> d / 2, and a classifier.

    Args:
        width: numbers of an embedding, d.
        classes: how many.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.extractor = nn.Sequential(
            nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width // 2), nn.GELU()
        )
        self.classifier = nn.Linear(width // 2, classes)

    def forward(self, embeddings: Float[Tensor, "b v d"]) -> RouterOutput:
        """Logits and degradation vectors of pictures, from the embeddings of their views.

        Args:
            embeddings: at least two for each picture, that of the whole one first.
        """
        assert embeddings.shape[1] >= 2, embeddings.shape
        fused = torch.cat([embeddings[:, 0], embeddings[:, 1:].mean(1)], 1)
        vector = self.extractor(fused)
        return RouterOutput(self.classifier(vector), vector)


class Router(nn.Module):
    """Encoder and head, with the views they look at.

    Args:
        encoder: turns views into embeddings.
        head: classifies them.
        views: geometry of the views.

    Raises:
        AdapterError: the encoder takes views of another side.
    """

    def __init__(self, encoder: Encoder, head: RouterHead, views: ViewGeometry) -> None:
        super().__init__()
        if encoder.view_size not in (None, views.size):
            raise AdapterError(
                f"views have size {views.size}, but the encoder takes {encoder.view_size}: set "
                "the views' size to that"
            )
        self.encoder = encoder
        self.head = head
        self.views = views

    def forward(self, views: Float[Tensor, "b v 3 s s"]) -> RouterOutput:
        """Logits and degradation vectors of pictures, from their views in [0, 1]."""
        return self.head(self.encoder(views))

    def read(self, images: Float[Tensor, "b 3 h w"]) -> RouterOutput:
        """Logits and degradation vectors of whole pictures of one size, in [0, 1]."""
        return self(batch_views(images, self.views))


def router_tensors(router: Router) -> dict[str, np.ndarray]:
    """What the file of a router holds; of one with CLIP, the head alone."""
    own = "encoder." if router.encoder.facts.own else "head."
    return {
        name: tensor.detach().cpu().float().numpy()
        for name, tensor in router.state_dict().items()
        if name.startswith(("head.", own)) and tensor.is_floating_point()
    }


def save_router(
    path: Path,
    router: Router,
    classes: Sequence[str],
    storage: Storage = "float32",
    memory: RouterMemory | None = None,
    **facts: Any,
) -> RouterHeader:
    """Writes a router to a file.

    Args:
        path: target, `NAME.safetensors`.
        router: as trained.
        classes: names of the classes, in the order of its logits.
        storage: dtype on disk.
        memory: what it makes of pictures that it did not learn from, so that classes can be added.
        facts: other fields of `RouterHeader`: mode, temperature, threshold, scores, ...

    Raises:
        FileFormatError: a tensor or a fact cannot be stored, or the disk refuses.
    """
    from pydantic import ValidationError

    try:
        header = RouterHeader(
            classes=tuple(classes), views=router.views, encoder=router.encoder.facts, **facts
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the header"
        raise FileFormatError(f"{path}: {where} cannot be written: {first['msg']}") from error
    remembered = {} if memory is None else memory.tensors
    return write_router(path, {**router_tensors(router), **remembered}, header, storage)


def load_router(stored: LoadedRouter, *, clip: str | None = None, download: bool = False) -> Router:
    """Builds the router of a file, frozen and in evaluation mode.

    Args:
        stored: a checked router file.
        clip, download: see `create_encoder`.

    Raises:
        AdapterError: its tensors do not fit its configuration, or its CLIP is not there.
        MissingExtraError: its encoder is a CLIP, and transformers is not installed.
    """
    header = stored.header
    head = RouterHead(header.encoder.width, len(header.classes))
    _fill(head, stored.part("head"), stored.path)
    encoder = create_encoder(header.encoder, clip=clip, download=download)
    if header.encoder.own:
        _fill(encoder, stored.part("encoder"), stored.path)
    return Router(encoder, head, header.views).eval().requires_grad_(False)


def _fill(module: nn.Module, tensors: Mapping[str, np.ndarray], path: Path) -> None:
    """Loads every tensor a module has, counters of batch normalisation excepted."""
    wanted = module.state_dict()
    # Copies: the network must not share memory with the arrays of the file.
    state = {name: torch.tensor(array) for name, array in tensors.items()}
    for name, tensor in wanted.items():
        if not tensor.is_floating_point():
            state.setdefault(name, tensor)
    for name in sorted(wanted.keys() | state.keys()):
        if name in wanted and name in state and wanted[name].shape == state[name].shape:
            continue
        what = "missing" if name not in state else "unknown" if name not in wanted else "misshapen"
        raise AdapterError(
            f"{path} is not a valid router: its tensor {name!r} is {what}: get it again"
        )
    module.load_state_dict(state)
