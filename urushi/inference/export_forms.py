"""How layers are written in an exported graph: the same functions, in operations engines run fast.

Of a NAFNet, OpenVINO spends a third of its time on the transpositions around layer normalisation
and on splitting the gates' input. Written as below there are none, and what depends on weights
alone is calculated once, when the graph is compiled.
"""

from collections.abc import Callable, Mapping
from types import MethodType

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones import nafnet

__all__ = ["EXPORT_FORMS", "in_export_form"]


def _channel_norm(
    self: nafnet.ChannelNorm, x: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Normalise over channels where they are, instead of moving them to the end and back."""
    deviation = x - x.mean(1, keepdim=True)
    variance = (deviation * deviation).mean(1, keepdim=True)
    scaled = deviation / (variance + nafnet.NORM_EPSILON).sqrt()
    return scaled * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def _naf_block(self: nafnet.NAFBlock, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Calculate the gates' halves apart, and scale weights by beta and gamma, not feature maps."""
    c = self.beta.shape[1]
    norm = self.norm1(x)
    first, second = (
        _rows(self.conv2, _rows(self.conv1, norm, start, c), start, c) for start in (0, c)
    )
    mixed = first * second
    x = x + _scaled(self.conv3, mixed * self.sca(mixed), self.beta)
    norm = self.norm2(x)
    gated = _rows(self.conv4, norm, 0, c) * _rows(self.conv4, norm, c, c)
    return x + _scaled(self.conv5, gated, self.gamma)


def _rows(conv: nn.Conv2d, x: Tensor, start: int, count: int) -> Tensor:
    """Apply the output channels `start` to `start + count` of a dense or depth-wise convolution."""
    assert conv.bias is not None
    chosen = slice(start, start + count)
    groups = 1 if conv.groups == 1 else count
    return F.conv2d(x, conv.weight[chosen], conv.bias[chosen], padding=conv.padding, groups=groups)


def _scaled(conv: nn.Conv2d, x: Tensor, scale: Tensor) -> Tensor:
    """Apply a convolution whose output channels are multiplied by `scale` `(1, C, 1, 1)`."""
    assert conv.bias is not None
    return F.conv2d(x, conv.weight * scale.view(-1, 1, 1, 1), conv.bias * scale.view(-1))


EXPORT_FORMS: Mapping[type[nn.Module], Callable[..., Tensor]] = {
    nafnet.ChannelNorm: _channel_norm,
    nafnet.NAFBlock: _naf_block,
}


def in_export_form(network: nn.Module) -> nn.Module:
    """Give the modules of `network` that have one their export form, in place; return it."""
    for module in network.modules():
        form = EXPORT_FORMS.get(type(module))
        if form is not None:
            module.forward = MethodType(form, module)
    return network
