"""What every backbone is, apart from a torch module."""

from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from urushi.backbones.sites import Sites

__all__ = ["RestorationNetwork"]


class RestorationNetwork(nn.Module):
    """Maps pictures to restored pictures, of any size.

    Attributes:
        size_multiple: sides that are multiples of this need no padding inside the network.
    """

    size_multiple: int

    @property
    @abstractmethod
    def sites(self) -> Sites:
        """Where this network can be adapted."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Restores pictures in [0, 1]; the result is not clipped."""
