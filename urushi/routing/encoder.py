"""What all encoders have in common, and the statistics that ours are made of."""

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from urushi.errors import AdapterError
from urushi.files.router_file import EncoderFacts

__all__ = ["GAIN", "Encoder", "blockiness", "statistics"]

GAIN = 16.0
"""Residuals of a few grey levels should be of the order of 1, where a network sees them."""

# Side of the blocks of JPEG.
_BLOCK = 8


class Encoder(nn.Module):
    """Turns views into embeddings.

    Attributes:
        width: numbers of an embedding.
        view_size: side that views must have in pixels; None for any.
    """

    width: int
    view_size: int | None = None

    @property
    @abstractmethod
    def facts(self) -> EncoderFacts:
        """What a router file says about this encoder."""

    @abstractmethod
    def embed(self, views: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Embeddings of single views in [0, 1]."""

    def forward(self, views: Float[Tensor, "b v 3 s s"]) -> Float[Tensor, "b v d"]:
        """Embeddings of the views of pictures, in [0, 1].

        Raises:
            AdapterError: the views have another side than the encoder needs.
        """
        if self.view_size is not None and views.shape[-1] != self.view_size:
            raise AdapterError(
                f"views of {views.shape[-1]} pixels: this encoder takes {self.view_size}, give the "
                f"views size={self.view_size}"
            )
        batch, count = views.shape[:2]
        return self.embed(views.flatten(0, 1)).unflatten(0, (batch, count))


def statistics(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 2*c"]:
    """Mean and logarithmic variance of each channel: what a texture is like, not where it is."""
    mean = features.mean((2, 3))
    deviation = features - mean[..., None, None]
    variance = deviation.square().mean((2, 3))
    return torch.cat([mean, (variance + 1e-4).log()], 1)


def blockiness(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2"]:
    """How far steps in brightness keep to one of the 8 places of a grid, across and down.

    A step is counted for what it differs from its neighbours on both sides, so that slopes count
    for nothing; 0 where every place has as many, about 3 where all are at one. After Wang, Bovik,
    Evans: "Blind measurement of blocking artifacts in images", ICIP 2000; the measure is ours.
    """
    grey = images.mean(1)
    found = []
    for lines in (grey, grey.transpose(1, 2)):
        steps = lines[..., 1:] - lines[..., :-1]
        excess = (steps[..., 1:-1] - (steps[..., :-2] + steps[..., 2:]) / 2).abs()
        # Edges of things are no larger than edges of blocks: each counts once.
        excess = (GAIN * excess).tanh()
        whole = excess.shape[-1] // _BLOCK * _BLOCK
        places = excess[..., :whole].unflatten(-1, (-1, _BLOCK)).mean((1, 2))
        mean = places.mean(1)
        found.append((places.amax(1) - mean) / (mean + 1e-3))
    return torch.stack(found, 1)
