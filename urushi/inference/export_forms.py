"""How layers are written in an exported graph: the same functions, in operations engines run fast.

Of a NAFNet, OpenVINO spends a third of its time on the transpositions around layer normalisation
and on splitting the gates' input. Written as below there are none, and what depends on weights
alone is calculated once, when the graph is compiled.
"""

from collections.abc import Callable, Mapping
from types import MethodType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.adapters.adaptir import FrequencyBranch
from urushi.backbones import nafnet
from urushi.inference.export_ends import naf_net
from urushi.inference.export_fourier import frequency_branch

__all__ = ["ADAPTER_FORMS", "EXPORT_FORMS", "in_export_form"]

Forms = Mapping[type[nn.Module], Callable[..., Tensor]]


def _scaled_to_unit(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Divide by the standard deviation over channels; what normalisation subtracts, `_folded` does.

    The variance is the mean square less the squared mean: one reading of the feature map for each,
    no map of deviations in between.
    """
    mean = x.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    variance = (length * length / x.shape[1] - mean * mean).clamp_min(0)
    return x / (variance + nafnet.NORM_EPSILON).sqrt()


def _folded(norm: nafnet.ChannelNorm, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
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
