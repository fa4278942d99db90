"""Encoders: what turns the views of a picture into embeddings; frozen when a network trains."""

import hashlib
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.errors import AdapterError, BrokenExtraError, MissingExtraError
from urushi.files.router_file import (
    ClipFacts,
    CompactFacts,
    EncoderFacts,
    FeatureFacts,
    VisionFacts,
)
from urushi.names import counted
from urushi.routing.encoder import GAIN, Encoder, blockiness, statistics
from urushi.routing.features import FeatureEncoder
from urushi.routing.vision import VisionEncoder

__all__ = ["ClipEncoder", "CompactEncoder", "Encoder", "blockiness", "create_encoder"]

# Of the pictures CLIP was trained on: Radford et al., ICML 2021, arXiv 2103.00020.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class CompactEncoder(Encoder):
    """A small convolutional encoder for kinds of damage; ours.

    What tells kinds of damage apart are statistics of texture at several scales: noise and blocks
    in the finest detail, streaks and flakes above it, veils and darkness in the colours. So a view
    goes in as colours and, amplified, as what a small blur takes away from them; nothing normalises
    a single picture, which would hide how strong something is; and the embedding is made of mean
    and logarithmic spread of the feature maps of every stage, not of the last alone, and of how
    much steps in brightness keep to a grid of 8 pixels, which tells compression from texture.

    Args:
        widths: channels of the stages, from full resolution down; each halves the resolution.
        width: numbers of an embedding.
        blocks: residual blocks of each stage but the first.
    """

    def __init__(
        self,
        widths: tuple[int, ...] | list[int] = (24, 48, 96, 160, 192),
        width: int = 256,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.width = width
        self._facts = CompactFacts(widths=list(widths), width=width, blocks=blocks)
        self.stages = nn.ModuleList()
        before = 6
        for index, channels in enumerate(widths):
            layers: list[nn.Module] = [_normalised(before, channels, 2 if index else 1), nn.GELU()]
            layers += [_Residual(channels) for _ in range(blocks if index else 0)]
            self.stages.append(nn.Sequential(*layers))
            before = channels
        # Spreads and shares have scales of their own: each is standardised over the training.
        self.standardise = nn.BatchNorm1d(2 * sum(widths) + 2)
        self.project = nn.Linear(2 * sum(widths) + 2, width)

    @property
    def facts(self) -> CompactFacts:
        """What a router file says about this encoder."""
        return self._facts

    def embed(self, views: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Embeddings of single views in [0, 1], of any side."""
        residual = (GAIN * (views - _blurred(views))).tanh()
        features = torch.cat([4 * views - 2, residual], 1)
        found = [blockiness(views)]
        for stage in self.stages:
            features = stage(features)
            found.append(statistics(features))
        return self.project(self.standardise(torch.cat(found, 1)))


class ClipEncoder(Encoder):
    """The vision tower of a CLIP with its projection, frozen; embeddings are not normalised.

    Args:
        name: a checkpoint on the hub, such as `openai/clip-vit-large-patch14-336`, or its folder.
        download: fetch it from the hub where it is not there yet.

    Attributes:
        name: as given.
        tower: `transformers.CLIPVisionModelWithProjection`.

    Raises:
        MissingExtraError: transformers is not installed.
        AdapterError: there is no such checkpoint, or it is not of a CLIP.
    """

    tower: Any
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, *, download: bool = True) -> None:
        super().__init__()
        self._take(name, _load_tower(name, download))

    @classmethod
    def from_tower(cls, name: str, tower: nn.Module) -> "ClipEncoder":
        """An encoder of a tower that is loaded already, a `CLIPVisionModelWithProjection`."""
        encoder = cls.__new__(cls)
        Encoder.__init__(encoder)
        encoder._take(name, tower)
        return encoder

    def _take(self, name: str, tower: Any) -> None:
        self.name = name
        self.tower = tower.eval().requires_grad_(False)
        self.width = int(tower.config.projection_dim)
        self.view_size = int(tower.config.image_size)
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(3, 1, 1), persistent=False)

    @property
    def facts(self) -> ClipFacts:
        """What a router file says about this encoder."""
        weight = self.tower.visual_projection.weight.detach().cpu()
        # In bfloat16, so that a copy that was stored in it is recognised as the same.
        digest = hashlib.sha256(weight.bfloat16().float().numpy().tobytes()).hexdigest()
        return ClipFacts(name=self.name, width=self.width, projection_hash=digest)

    def train(self, mode: bool = True) -> "ClipEncoder":
        """Stays in evaluation mode: it is frozen."""
        return super().train(False)

    def embed(self, views: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Embeddings of single views in [0, 1], of the tower's own side."""
        with torch.no_grad():
            return self.tower(pixel_values=(views - self.mean) / self.std).image_embeds.float()


def create_encoder(
    facts: EncoderFacts,
    *,
    clip: str | None = None,
    download: bool = False,
) -> Encoder:
    """Builds the encoder a router file describes; one of ours with fresh weights.

    Args:
        facts: what the file says.
        clip: name or folder of the CLIP checkpoint, instead of the file's.
        download: whether a CLIP may be fetched from the hub. A file is from anybody, and what it
            names has a gigabyte: off by default.

    Raises:
        AdapterError: the CLIP is not there, or is another one than the router was trained with.
        MissingExtraError: transformers is not installed.
    """
    if not isinstance(facts, ClipFacts):
        if clip is not None:
            raise AdapterError(
                f"clip is {clip!r}, but this router has its own {facts.kind} encoder: leave it out"
            )
        if isinstance(facts, FeatureFacts):
            return FeatureEncoder(facts)
        if isinstance(facts, VisionFacts):
            return VisionEncoder(facts)
        return CompactEncoder(facts.widths, facts.width, facts.blocks)
    encoder = ClipEncoder(clip or facts.name, download=download)
    if encoder.facts.projection_hash != facts.projection_hash or encoder.width != facts.width:
        raise AdapterError(
            f"{clip or facts.name} is not this router's CLIP ({facts.name}): give that one"
        )
    return encoder


def unusable_transformers(error: Exception) -> MissingExtraError:
    """Why transformers cannot be imported: it is not there, or does not get on with another."""
    what = "transformers, which CLIP encoders need,"
    try:
        there = find_spec("transformers") is not None
    except (ImportError, ValueError):
        there = False
    return BrokenExtraError(what, "clip", error) if there else MissingExtraError(what, "clip")


def _load_tower(name: str, download: bool) -> nn.Module:
    try:
        from transformers import CLIPVisionModelWithProjection
    except Exception as error:
        # Much besides ImportError: whatever a package raises that it does not get on with.
        raise unusable_transformers(error) from error
    # A folder may hold pickles: these are never opened.
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": not download}
    from safetensors import SafetensorError

    try:
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **options
        )
        tower, report = loaded
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        way_out = "give its folder" if download else "give its folder, or allow downloading it"
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise AdapterError(
            f"the CLIP checkpoint {name!r} cannot be loaded: {way_out} ({reason})"
        ) from error
    if missing := sorted(report["missing_keys"]):
        lacks = counted(len(missing), "tensor is", "tensors are")
        raise AdapterError(
            f"{name!r} is not a CLIP vision tower with its projection: {lacks} missing, the first "
            f"is {missing[0]}"
        )
    return tower


def _normalised(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """A convolution and batch normalisation, whose statistics are fixed once it is trained."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after)
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _normalised(channels, channels)
        self.second = _normalised(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.second(F.gelu(self.first(x))))


def _blurred(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """The binomial blur of 3x3 pixels, edges repeated."""
    line = torch.tensor([0.25, 0.5, 0.25], dtype=images.dtype, device=images.device)
    kernel = (line[:, None] * line).expand(3, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
