"""The two ends of a NAFNet without blocks at full resolution, in an exported graph.

Nothing but convolutions stands there, and those that follow one another are one: the pictures go
to half the resolution in one step and come from there in one, and no feature map of the pictures'
own size is made. On a processor such maps cost more than their arithmetic, and most of the memory.

The step at half the resolution has a cell of 2x2 pixels around each corner where four pixels of
the lower resolution meet: around the outermost ones lie pixels beyond the edge, which are cut off.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones import nafnet

__all__ = ["naf_net"]


def naf_net(self: nafnet.NAFNet, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """`NAFNet.forward`, with sides that are multiples of `size_multiple`."""
    if not _bare_ends(self):
        return nafnet.NAFNet.forward(self, x)
    cells = F.pixel_unshuffle(F.pad(x, (1, 1, 1, 1)), 2)
    features = F.conv2d(cells, *_head(self))
    skips = []
    for blocks, down in zip(self.encoders[1:], self.downs[1:], strict=True):
        assert isinstance(blocks, nn.Sequential)
        features = blocks(features)
        skips.append(features)
        features = down(features)
    features = self.middle_blks(features)
    for blocks, up in zip(self.decoders[:-1], self.ups[:-1], strict=True):
        features = blocks(up(features) + skips.pop())
    across, bias = _skip(self)
    mended = F.conv2d(features, _tail(self), padding=1) + F.conv2d(cells, across, bias, padding=1)
    return F.pixel_shuffle(mended, 2)[..., 1:-1, 1:-1] - _beyond(self, x)


def _bare_ends(net: nafnet.NAFNet) -> bool:
    """Whether no block calculates anything at full resolution."""
    ends = [*net.encoders[:1], *net.decoders[-1:]]
    return bool(ends) and all(
        isinstance(block, nafnet.IdentityBlock) for blocks in ends for block in blocks.children()
    )


def _head(net: nafnet.NAFNet) -> tuple[Tensor, Tensor]:
    """Weight and bias of `intro` and the first of `downs`: 4x4 pixels, in steps of two."""
    down = net.downs[0]
    assert isinstance(down, nn.Conv2d)
    assert net.intro.bias is not None
    assert down.bias is not None
    bias = down.bias + down.weight.sum((2, 3)) @ net.intro.bias
    return _in_cells(_one(down.weight, net.intro.weight)), bias


def _tail(net: nafnet.NAFNet) -> Tensor:
    """Weight of the last of `ups` and `ending`: a pixel reads 2x2 of the lower resolution."""
    up = net.ups[-1].get_submodule("0")
    assert isinstance(up, nn.Conv2d)
    around = _around_corners(net.ending.weight)
    return torch.einsum("oiyx,im->omyx", around, up.weight[:, :, 0, 0])


def _skip(net: nafnet.NAFNet) -> tuple[Tensor, Tensor]:
    """Weight and bias of what passes the blocks by: `intro` and `ending`, and the picture."""
    intro, ending = net.intro, net.ending
    assert intro.bias is not None
    assert ending.bias is not None
    bias = ending.bias + ending.weight.sum((2, 3)) @ intro.bias
    picture = F.pad(torch.eye(len(ending.weight))[:, :, None, None], (2, 2, 2, 2))
    weight = _one(ending.weight, intro.weight) + picture
    return _around_corners(weight), bias.repeat_interleave(4)


def _one(second: Tensor, first: Tensor) -> Tensor:
    """The kernel `(o, i, n + 2, n + 2)` of two convolutions: `first` is `(m, i, 3, 3)`."""
    (outer, mid, *sides), inner = second.shape, first.shape[1]
    taps = second.permute(0, 2, 3, 1).reshape(-1, mid) @ first.reshape(mid, -1)
    taps = taps.reshape(outer, -1, inner, 3, 3)
    placed = []
    for index in range(sides[0] * sides[1]):
        row, column = divmod(index, sides[1])
        amounts = (column, sides[1] - 1 - column, row, sides[0] - 1 - row)
        placed.append(F.pad(taps[:, index], amounts))
    return torch.stack(placed).sum(0)


def _in_cells(kernel: Tensor) -> Tensor:
    """`(o, i, 2n, 2n)` for pixels -> `(o, 4i, n, n)` for cells of 2x2 pixels."""
    outer, inner, side = *kernel.shape[:2], kernel.shape[2] // 2
    split = kernel.reshape(outer, inner, side, 2, side, 2).permute(0, 1, 3, 5, 2, 4)
    return split.reshape(outer, 4 * inner, side, side)


def _around_corners(kernel: Tensor) -> Tensor:
    """`(o, i, n, n)` for pixels, n odd -> `(4o, 4i, m, m)` for cells, m half of n + 1.

    It gives the four pixels around a corner, and reads cells whose grid lies half a cell beside
    or under that of the corners.
    """
    places = [F.pad(kernel, (x, 1 - x, y, 1 - y)) for y in range(2) for x in range(2)]
    return _in_cells(torch.stack(places, 1).flatten(0, 1))


def _beyond(net: nafnet.NAFNet, x: Tensor) -> Tensor:
    """What `ending` would read of `intro` in the ring beyond the picture, which are zeros there."""
    first, bias, last = net.intro.weight, net.intro.bias, net.ending.weight
    rows, columns = (torch.arange(side) for side in x.shape[-2:])
    total = torch.zeros(())
    for end, near, far in ((0, 2, 0), (-1, 0, 2)):
        line = x[:, :, :1] if end == 0 else x[:, :, -1:]
        # The corners of the ring belong to its rows.
        ring = F.conv2d(line, first[:, :, near : near + 1], bias, padding=(0, 2))
        there = (rows == rows[end])[:, None].to(x.dtype)
        total = total + F.conv2d(ring, last[:, :, far : far + 1]) * there
        line = x[..., :1] if end == 0 else x[..., -1:]
        ring = F.conv2d(line, first[..., near : near + 1], bias, padding=(1, 0))
        there = (columns == columns[end]).to(x.dtype)
        total = total + F.conv2d(ring, last[..., far : far + 1], padding=(1, 0)) * there
    return total
