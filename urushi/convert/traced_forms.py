"""How layers are written in an exported graph: the same functions, in operations engines run fast.

Of a NAFNet, OpenVINO spends a third of its time on the transpositions around layer normalisation
and on splitting the gates' input. Written as below there are none, and what depends on weights
alone is calculated once, when the graph is compiled.
"""

import math
from collections.abc import Callable, Mapping
from types import MethodType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.adapters.adaptir import FrequencyBranch
from urushi.backbones import nafnet
from urushi.backbones.nafnet_block import NORM_EPSILON, ChannelNorm

__all__ = [
    "ADAPTER_FORMS",
    "EXPORT_FORMS",
    "frequency_branch",
    "in_export_form",
    "naf_net",
]


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


def frequency_branch(self: FrequencyBranch, x: Float[Tensor, "b c h w"]) -> Tensor:
    """`FrequencyBranch.forward`, for sides that are known only when the graph runs."""
    height, width = x.shape[-2:]
    columns = width // 2 + 1  # the others are their mirror image, as in `torch.fft.rfft2`
    cos_y, sin_y = _waves(height, height)
    cos_x, sin_x = _waves(width, columns)
    count = _size(height) * _size(width)
    there, back = {
        "backward": (1.0, 1 / count),
        "ortho": (count.rsqrt(), count.rsqrt()),
        "forward": (1 / count, 1.0),
    }[self.norm or "backward"]
    real, imaginary = x @ cos_x, -(x @ sin_x)
    real, imaginary = cos_y @ real + sin_y @ imaginary, cos_y @ imaginary - sin_y @ real
    real, imaginary = real * there, imaginary * there
    amplitude = self.amplitude((real * real + imaginary * imaginary).sqrt())
    phase = self.phase(_angle(real, imaginary))
    real, imaginary = amplitude * phase.cos(), amplitude * phase.sin()
    real, imaginary = cos_y @ real - sin_y @ imaginary, cos_y @ imaginary + sin_y @ real
    # A column stands for its mirror image as well, but for those that have none.
    column = torch.arange(columns)
    alone = (column == 0) | (2 * column == _size(width))
    twice = torch.where(alone, 1.0, 2.0) * back
    result = (real * twice) @ cos_x.T - (imaginary * twice) @ sin_x.T
    result = result.abs() if self.rectify else result
    return result if self.scale is None else self.scale(result)


def _size(length: int) -> Tensor:
    """A length as a tensor, from which a graph can calculate."""
    return torch.arange(length)[-1:] + 1


def _waves(length: int, count: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, `(length, count)`: each place of each wave.

    Sines that are zero are exactly so: where a picture's spectrum is real, an imaginary part that
    is nearly zero turns the angle of a negative number over.
    """
    size = _size(length)
    # Whole turns are left out while the numbers are integers, which have no rounding.
    places = torch.arange(length)[:, None] * torch.arange(count)[None]
    turned = torch.remainder(places, size)
    angle = turned.float() * (2 * math.pi / size.float())
    return angle.cos(), torch.where(2 * turned == size, 0.0, angle.sin())


def _angle(real: Tensor, imaginary: Tensor) -> Tensor:
    """`torch.atan2(imaginary, real)`; what the exporter makes of that is wrong on the axes."""
    upright = real == 0
    slope = torch.atan(imaginary / torch.where(upright, 1.0, real))
    turn = torch.where(real < 0, torch.where(imaginary < 0, -math.pi, math.pi), 0.0)
    return torch.where(upright, imaginary.sign() * (math.pi / 2), slope + turn)


Forms = Mapping[type[nn.Module], Callable[..., Tensor]]


def _scaled_to_unit(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Divide by the standard deviation over channels; what normalisation subtracts, `_folded` does.

    The variance is the mean square less the squared mean: one reading of the feature map for each,
    no map of deviations in between.
    """
    mean = x.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    variance = (length * length / x.shape[1] - mean * mean).clamp_min(0)
    return x / (variance + NORM_EPSILON).sqrt()


def _folded(norm: ChannelNorm, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a 1x1 convolution that takes over the norm's centring, gain and offset."""
    assert conv.bias is not None
    weight = conv.weight[:, :, 0, 0]
    bias = conv.bias + weight @ norm.bias
    weight = weight * norm.weight
    weight = weight - weight.mean(1, keepdim=True)
    return weight[:, :, None, None], bias


def _naf_block(self: nafnet.NAFBlock, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Calculate the gates' halves apart, and scale weights by beta and gamma, not feature maps."""
    c = self.beta.shape[1]
    unit = _scaled_to_unit(x)
    weight, bias = _folded(self.norm1, self.conv1)
    first, second = (
        _rows(self.conv2, F.conv2d(unit, weight[s : s + c], bias[s : s + c]), s, c) for s in (0, c)
    )
    mixed = first * second
    x = x + _scaled(self.conv3, mixed * self.sca(mixed), self.beta)
    unit = _scaled_to_unit(x)
    weight, bias = _folded(self.norm2, self.conv4)
    first, second = (F.conv2d(unit, weight[s : s + c], bias[s : s + c]) for s in (0, c))
    return x + _scaled(self.conv5, first * second, self.gamma)


def _rows(conv: nn.Conv2d, x: Tensor, start: int, count: int) -> Tensor:
    """Apply the output channels `start` to `start + count` of a depth-wise convolution."""
    assert conv.bias is not None
    chosen = slice(start, start + count)
    return F.conv2d(x, conv.weight[chosen], conv.bias[chosen], padding=conv.padding, groups=count)


def _scaled(conv: nn.Conv2d, x: Tensor, scale: Tensor) -> Tensor:
    """Apply a convolution whose output channels are multiplied by `scale` `(1, C, 1, 1)`."""
    assert conv.bias is not None
    return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), conv.bias * scale.view(-1))


EXPORT_FORMS: Forms = {nafnet.NAFBlock: _naf_block, nafnet.NAFNet: naf_net}
# Of what stands beside a network; the forms above pass by the places where adapters stand.
ADAPTER_FORMS: Forms = {FrequencyBranch: frequency_branch}


def in_export_form(network: nn.Module, forms: Forms = EXPORT_FORMS) -> nn.Module:
    """Give the modules of `network` that have one their export form, in place; return it."""
    for module in network.modules():
        form = forms.get(type(module))
        if form is not None:
            module.forward = MethodType(form, module)
    return network
