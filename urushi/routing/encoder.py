"""What all encoders have in common, and the statistics that ours are made of."""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from urushi.errors import AdapterError
from urushi.files.router_file import EncoderFacts

__all__ = ["GAIN", "Encoder", "FrozenEncoder", "Reading", "blockiness", "statistics"]

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


# Statistics of pictures unlike any that was learnt from go no farther than this, in deviations.
_FARTHEST = 5.0


class Reading(NamedTuple):
    """What is read from views.

    Attributes:
        statistics: of each view.
        places: features of each place of each view, where these are read.
    """

    statistics: Float[Tensor, "*b k"]
    places: Float[Tensor, "*b c p"] | None


class FrozenEncoder(Encoder):
    """Statistics of a frozen network, standardised over the training pictures and projected.

    It makes the same of a picture each time, so that what it reads from a number of pictures can be
    calculated once and learnt from many times (`urushi.training.router.router_pool`).

    Args:
        numbers: statistics of one view.
        width: numbers of an embedding.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, numbers: int, width: int) -> None:
        super().__init__()
        self.width, self.numbers = width, numbers
        self.register_buffer("centre", torch.zeros(numbers))
        self.register_buffer("spread", torch.ones(numbers))
        self.project = nn.Linear(numbers, width)

    @property
    def frozen(self) -> dict[str, Tensor]:
        """The weights of the frozen network, by name."""
        learnt = ("centre", "spread", "project.", "place", "pooled.")
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith(learnt)
        }

    @abstractmethod
    def read(self, views: Float[Tensor, "n 3 s s"]) -> Reading:
        """What is learnt from, not standardised; without gradients."""

    def train(self, mode: bool = True) -> "FrozenEncoder":
        """Stays in evaluation mode: the network is frozen."""
        return super().train(False)

    def standardise(
        self,
        rows: Float[Tensor, "n k"],
        places: tuple[Float[Tensor, " c"], Float[Tensor, " c"]] | None = None,
    ) -> None:
        """Makes these the ones by whose mean and deviation all are measured.

        Args:
            rows: statistics of views.
            places: mean and deviation of the features of places, where they are read.
        """
        assert places is None, "this encoder reads no places"
        self.centre.copy_(rows.mean(0))
        self.spread.copy_(rows.std(0) + 1e-3)

    def embedded(
        self, reading: Reading, drop: Callable[[Tensor], Tensor] | None = None
    ) -> Float[Tensor, "*b d"]:
        """Embeddings from what was read from views.

        Args:
            reading: as `read` gives it, with any number of leading axes.
            drop: takes some of the numbers away while it is trained.
        """
        rows = self.standard(reading.statistics, self.centre, self.spread)
        return self.project(rows if drop is None else drop(rows))

    @staticmethod
    def standard(values: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        """In deviations from the mean, at most 5."""
        return ((values - centre) / spread).clamp(-_FARTHEST, _FARTHEST)

    def embed(self, views: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n d"]:
        """Embeddings of single views in [0, 1]."""
        return self.embedded(self.read(views))
