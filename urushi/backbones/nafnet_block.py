"""The block of a NAFNet, and how it is calculated in training.

Chen, Chu, Zhang, Sun: "Simple Baselines for Image Restoration", ECCV 2022, arXiv 2204.04676.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones.nafnet_steps import (
    FeedForward,
    Spatial,
    Widen,
    doubled,
    feed_forward,
    spatial,
    widen_of,
)

__all__ = ["ChannelNorm", "NAFBlock", "Pooling", "enlarged"]

NORM_EPSILON = 1e-6  # the released code's value, not torch's default


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, on `(B, C, H, W)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # On channels-last tensors the permutation is free and the fused kernel reads in order.
        y = F.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, NORM_EPSILON
        )
        return y.permute(0, 3, 1, 2)


class Pooling(nn.Module):
    """The average that feeds channel attention: global, or over a sliding window (TLC).

    Args:
        window: `(height, width)` in pixels of this feature map, or None for the global average.
    """

    def __init__(self, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        height, width = x.shape[-2:]
        if self.window is None or (self.window[0] >= height and self.window[1] >= width):
            return x.mean((2, 3), keepdim=True)
        rows, columns = min(height, self.window[0]), min(width, self.window[1])
        # A box mean is separable and a cumulative sum makes its cost independent of the window.
        mean = _sliding_mean(_sliding_mean(x.float(), rows, -2), columns, -1).to(x.dtype)
        missing_rows, missing_columns = height - mean.shape[-2], width - mean.shape[-1]
        margins = (
            missing_columns // 2,
            (missing_columns + 1) // 2,
            missing_rows // 2,
            (missing_rows + 1) // 2,
        )
        return F.pad(mean, margins, mode="replicate")


def _sliding_mean(x: Tensor, window: int, axis: int) -> Tensor:
    """Mean over `window` neighbours along `axis`, valid positions only; float32 expected."""
    size = x.shape[axis]
    # Sums of deviations stay small, so that float32 keeps its digits on long rows.
    offset = x.mean(axis, keepdim=True)
    sums = F.pad((x - offset).cumsum(axis), (1, 0) if axis == -1 else (0, 0, 1, 0))
    upper = sums.narrow(axis, window, size - window + 1)
    return (upper - sums.narrow(axis, 0, size - window + 1)) / window + offset


class NAFBlock(nn.Module):
    """One block: a spatial branch with channel attention, then a feed-forward branch.

    Both are scaled by `beta` and `gamma`, zero at first, so that a fresh block is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.norm1 = ChannelNorm(c)
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Sequential(Pooling(), nn.Conv2d(c, c, 1))
        self.conv3 = nn.Conv2d(c, c, 1)
        self.norm2 = ChannelNorm(c)
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    @property
    def pooling(self) -> Pooling:
        """The average before channel attention."""
        pooling = self.sca[0]
        assert isinstance(pooling, Pooling)
        return pooling

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if torch.is_grad_enabled() and self._undisturbed():
            return self._stepped(x) if self._whole(x) else self._trained(x)
        first, second = self.conv2(self.conv1(self.norm1(x))).chunk(2, dim=1)
        mixed = first * second
        x = x + self.beta * self.conv3(mixed * self.sca(mixed))
        first, second = self.conv4(self.norm2(x)).chunk(2, dim=1)
        return x + self.gamma * self.conv5(first * second)

    def _trained(self, x: Tensor) -> Tensor:
        """The same up to rounding, and faster with its way back.

        What scales channels is put into the weights beside it, so that its gradient is a sum over
        weights and not over feature maps.
        """
        first, second = self.conv2(_after_norm(self.norm1, self.conv1, x)).chunk(2, dim=1)
        mixed = first * second
        x = x + _scaled(self.conv3, mixed * self.sca(mixed), self.beta)
        first, second = _after_norm(self.norm2, self.conv4, x).chunk(2, dim=1)
        return x + _scaled(self.conv5, first * second, self.gamma)

    def _stepped(self, x: Tensor) -> Tensor:
        """The same once more, each branch as one function; see `nafnet_steps`."""
        attention = self.sca[1]
        assert isinstance(attention, nn.Conv2d)
        y = spatial(
            x.permute(0, 2, 3, 1),
            _widen(self.norm1, self.conv1),
            Spatial(
                self.conv2.weight,
                _bias(self.conv2),
                attention.weight.flatten(1),
                _bias(attention),
                *_joined(self.conv3, self.beta),
            ),
            NORM_EPSILON,
        )
        join = FeedForward(*_joined(self.conv5, self.gamma))
        return feed_forward(y, _widen(self.norm2, self.conv4), join, NORM_EPSILON).permute(
            0, 3, 1, 2
        )

    def _whole(self, x: Tensor) -> bool:
        """Whether the branches can be one function each."""
        window = self.pooling.window
        if not _takes_steps(x):
            return False
        if window is not None and (window[0] < x.shape[-2] or window[1] < x.shape[-1]):
            return False
        layers = (self.conv2, self.sca, self.sca[0], self.sca[1])
        plain = (nn.Conv2d, nn.Sequential, Pooling, nn.Conv2d)
        return all(type(a) is b and _alone(a) for a, b in zip(layers, plain, strict=True))

    def _undisturbed(self) -> bool:
        """Whether nobody listens to, replaces or wraps the layers that are put together."""
        layers = (self.norm1, self.conv1, self.conv3, self.norm2, self.conv4, self.conv5)
        # A layer of a class of its own has weights, too, and does more with them: PEFT's have.
        if any(type(layer) not in (nn.Conv2d, ChannelNorm) for layer in layers):
            return False
        return all(_alone(layer) for layer in layers)


def _takes_steps(x: Tensor) -> bool:
    """Whether `nafnet_steps` are for these maps: on CPUs, in training, where they are faster."""
    kind = x.device.type
    if kind != "cpu" or not torch.is_grad_enabled():
        return False
    return not torch.is_autocast_enabled(kind) and not torch.compiler.is_compiling()


def _alone(layer: nn.Module) -> bool:
    """Whether a layer has no hooks and its own `forward`."""
    return not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
    )


def _bias(layer: nn.Conv2d) -> Tensor:
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias


def _widen(norm: ChannelNorm, layer: nn.Conv2d) -> Widen:
    return widen_of(norm.weight, norm.bias, layer.weight, _bias(layer))


def _joined(layer: nn.Conv2d, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of `scale * layer`, for a kernel of one pixel."""
    scale = scale.flatten()
    return layer.weight.flatten(1) * scale[:, None], _bias(layer) * scale


def _after_norm(norm: ChannelNorm, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer(norm(x))` for a kernel of one pixel."""
    weight = layer.weight.flatten(1)
    bias = weight @ norm.bias
    if layer.bias is not None:
        bias = bias + layer.bias
    y = F.layer_norm(x.permute(0, 2, 3, 1), norm.weight.shape, eps=NORM_EPSILON)
    return F.linear(y, weight * norm.weight, bias).permute(0, 3, 1, 2)


def _scaled(layer: nn.Conv2d, x: Tensor, scale: Tensor) -> Tensor:
    """`scale * layer(x)` for a kernel of one pixel and a scale of each channel."""
    scale = scale.flatten()
    bias = None if layer.bias is None else layer.bias * scale
    y = F.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1) * scale[:, None], bias)
    return y.permute(0, 3, 1, 2)


def enlarged(up: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """Maps of twice the sides, with what was skipped added."""
    if _takes_steps(x) and type(up) is nn.Sequential and _alone(up):
        layer, shuffle = up
        plain = type(layer) is nn.Conv2d and type(shuffle) is nn.PixelShuffle
        if plain and _alone(layer) and _alone(shuffle):
            maps, shown = (t.permute(0, 2, 3, 1).contiguous() for t in (x, skip))
            assert isinstance(layer.weight, Tensor)
            return doubled(maps, layer.weight, shown).permute(0, 3, 1, 2)
    return up(x) + skip
