"""Feature maps in the orders of axes that backbones have, and layers for each."""

import math
from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from urushi.backbones.sites import FeedForwardSite, Layout
from urushi.errors import AdapterError
from urushi.names import counted

__all__ = ["from_map", "grid_of", "pointwise", "to_map"]


def pointwise(inputs: int, outputs: int, layout: Layout, bias: bool = True) -> nn.Module:
    """A layer that maps the channels of every place alike: a 1x1 convolution or a linear layer."""
    if layout == "bchw":
        return nn.Conv2d(inputs, outputs, 1, bias=bias)
    return nn.Linear(inputs, outputs, bias=bias)


def to_map(x: Tensor, layout: Layout, grid: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """Features as `(B, C, H, W)`.

    Args:
        x: in the order of axes `layout`.
        grid: rows and columns of the tokens; used by the layouts that have tokens.
    """
    if layout == "bchw":
        return x
    if layout == "bhwc":
        return x.permute(0, 3, 1, 2)
    tokens = x.permute(1, 2, 0) if layout == "lbc" else x.transpose(1, 2)
    return tokens.unflatten(2, grid)


def from_map(x: Float[Tensor, "b c h w"], layout: Layout) -> Tensor:
    """The reverse of `to_map`."""
    if layout == "bchw":
        return x
    if layout == "bhwc":
        return x.permute(0, 2, 3, 1)
    tokens = x.flatten(2)
    return tokens.permute(2, 0, 1) if layout == "lbc" else tokens.transpose(1, 2)


def grid_of(x: Tensor, site: FeedForwardSite, sides: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns of a site's features.

    Those that the site states; else those that have the proportions of the picture; else a square
    (as AdaptIR's authors assume for sequences).

    Args:
        x: the features, in the site's layout.
        site: where they are.
        sides: height and width of the padded picture, if known.

    Raises:
        AdapterError: they are tokens, and none of this gives their number.
    """
    if site.layout in ("bchw", "bhwc"):
        rows, columns = x.shape[2:] if site.layout == "bchw" else x.shape[1:3]
        return rows, columns
    count = x.shape[0 if site.layout == "lbc" else 1]
    for rows, columns in (grids := list(_grids(count, site, sides))):
        if rows * columns == count:
            return rows, columns
    raise AdapterError(
        f"{site.norm} gives {counted(count, 'token')}, which do not make a grid of "
        f"{' or '.join(f'{rows}x{columns}' for rows, columns in grids)}: the backbone's site has "
        "to state its grid, and prompts cannot be among its tokens"
    )


def _grids(
    count: int, site: FeedForwardSite, sides: tuple[int, int] | None
) -> Iterator[tuple[int, int]]:
    """Grids to try for so many tokens, the likeliest first."""
    if site.grid:
        yield site.grid
        return
    if sides:
        unit = [side // math.gcd(*sides) for side in sides]
        times = math.isqrt(count // math.prod(unit))
        yield unit[0] * times, unit[1] * times
    yield math.isqrt(count), math.isqrt(count)
