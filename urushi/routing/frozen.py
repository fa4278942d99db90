"""What encoders have in common that read statistics of a frozen network."""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from urushi.routing.encoder import Encoder

__all__ = ["FrozenEncoder", "Reading"]

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
