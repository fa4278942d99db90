"""What every backbone is, apart from a torch module."""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from urushi.backbones.sites import Sites

__all__ = ["RestorationNetwork", "entries", "mirrored", "reflected"]


class RestorationNetwork(nn.Module):
    """Maps pictures to restored pictures, of any size.

    Attributes:
        size_multiple: sides that are multiples of this need no padding inside the network.
        scale: sides of the result divided by those of the picture; 1 but for super-resolution.
        fixed_patch: side in pixels of the squares that the network restores one by one, blind to
            what is beyond them, or None. It cuts a picture into such squares, side by side;
            whoever wants them to overlap gives it tiles of that side.
    """

    size_multiple: int
    scale: int = 1
    fixed_patch: int | None = None

    @property
    @abstractmethod
    def sites(self) -> Sites:
        """Where this network can be adapted."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Restores pictures in [0, 1]; the result is not clipped."""


def mirrored(x: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c h2 w2"]:
    """Fills a picture up at bottom and right until its sides are multiples of `multiple`.

    It is mirrored with the edge pixel repeated, back and forth where it is smaller than what is
    missing. It does not decide by the size, so that one exported graph holds for all of them.
    """
    return _filled_up(x, multiple, edge=1)


def reflected(x: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c h2 w2"]:
    """As `mirrored`, but without repeating the edge pixel."""
    return _filled_up(x, multiple, edge=0)


def _filled_up(x: Tensor, multiple: int, edge: int) -> Tensor:
    for axis in (2, 3):
        size = x.shape[axis]
        # The size as a tensor: graphs have no remainder of one that is open.
        last = torch.arange(size, device=x.device)[-1:]
        period = (2 * (last + edge)).clamp(min=1)
        whole = (size + multiple - 1) // multiple * multiple
        index = torch.arange(whole, device=x.device) % period
        x = x.index_select(axis, torch.minimum(index, period - edge - index))
    return x


def entries(names: Iterable[str], prefix: str) -> int:
    """How many numbered modules `PREFIX0`, `PREFIX1`, ... the names of tensors lie below."""
    numbers = (name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix))
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=-1)
