"""The two branches of a NAFNet's block for training on a CPU, with ways back of their own.

Autograd records every operation and goes back through each: it scales, slices and joins feature
maps that matrix products can scale, slice and join on the way. Here a branch is one function. What
is equal, up to rounding, is its result and every gradient; what is less is the passes over feature
maps, which a CPU's memory makes as dear as the convolutions.

Where a weight is the sum of a frozen one and of a product of two thin factors, the factors get
their gradients from feature maps made thin first, and that of the whole weight is never formed.

Feature maps are `(B, H, W, C)`, dense in memory; weights are matrices `(out, in)`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from urushi.backbones.factors import Factors, factors_of

__all__ = [
    "FeedForward",
    "Spatial",
    "Widen",
    "doubled",
    "feed_forward",
    "spatial",
    "widen_of",
]

Maps = Float[Tensor, "b h w c"]
Others = TypeVar("Others")
_layer_norm_back = torch.ops.aten.native_layer_norm_backward.default
_convolution_back = torch.ops.aten.convolution_backward.default


class Widen(NamedTuple):
    """A norm and the layer behind it, for C channels.

    Attributes:
        gain: of the norm, `(C,)`; ones where it lies in the weight.
        offset: of the norm, `(C,)`; zeros where it lies in the bias.
        weight: `(2 C, C)`.
        bias: `(2 C,)`.
        down: A of `weight = frozen + scale * B @ A`, `(r, C)`; None where it is no such sum.
        up: B, `(2 C, r)`.
        scale: of the product.
    """

    gain: Tensor
    offset: Tensor
    weight: Tensor
    bias: Tensor
    down: Tensor | None
    up: Tensor | None
    scale: float


def widen_of(gain: Tensor, offset: Tensor, weight: Tensor, bias: Tensor) -> Widen:
    """The norm and the layer behind it, by factors where its weight has some that are thin enough.

    Args:
        gain: of the norm.
        offset: of the norm.
        weight: of a layer of one pixel, `(2 C, C, 1, 1)`.
        bias: of the layer.
    """
    found = factors_of(weight)
    matrix = weight.flatten(1)
    if found is None or not _thin(found, matrix):
        # Gain and offset lie in the matrix: their gradients are sums over it, and not over maps.
        one, zero = torch.ones_like(gain), torch.zeros_like(offset)
        return Widen(one, zero, matrix * gain, bias + matrix @ offset, None, None, 1.0)
    return Widen(gain, offset, matrix.detach(), bias, *found)


def _thin(factors: Factors, weight: Tensor) -> bool:
    """Whether gradients by factors take less than half of the multiplications."""
    rank, (rows, columns) = len(factors.down), weight.shape
    return 4 * rank * (rows + columns) < rows * columns


class Spatial(NamedTuple):
    """Other weights of the spatial branch, for C channels.

    Attributes:
        depthwise: `(2 C, 1, 3, 3)`.
        depthwise_bias: `(2 C,)`.
        attention: `(C, C)`, from means to factors of channels.
        attention_bias: `(C,)`.
        join: `(C, C)`.
        join_bias: `(C,)`.
    """

    depthwise: Tensor
    depthwise_bias: Tensor
    attention: Tensor
    attention_bias: Tensor
    join: Tensor
    join_bias: Tensor


class FeedForward(NamedTuple):
    """Other weights of the feed-forward branch, for C channels.

    Attributes:
        join: `(C, C)`.
        join_bias: `(C,)`.
    """

    join: Tensor
    join_bias: Tensor


def spatial(x: Maps, widen: Widen, weights: Spatial, epsilon: float) -> Maps:
    """Adds to x what the spatial branch makes of it, with attention over the whole map.

    Args:
        x: feature maps.
        widen: norm and first layer.
        weights: of the layers behind them.
        epsilon: added to variances in the norm.
    """
    result = _Spatial.apply(x.contiguous(), epsilon, widen.scale, *widen[:-1], *weights)
    assert isinstance(result, Tensor)
    return result


def feed_forward(x: Maps, widen: Widen, weights: FeedForward, epsilon: float) -> Maps:
    """Adds to x what the feed-forward branch makes of it; see `spatial`."""
    result = _FeedForward.apply(x.contiguous(), epsilon, widen.scale, *widen[:-1], *weights)
    assert isinstance(result, Tensor)
    return result


class _Spatial(torch.autograd.Function):
    """x + join (attention * gate(depthwise(widen(norm(x)))))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float, scale: float, *tensors: Any) -> Tensor:
        widen, own = _unpacked(tensors, scale, Spatial)
        batch, height, width, channels = x.shape
        normed, wide = _widened(x, widen, epsilon)
        maps = wide.view(batch, height, width, -1).permute(0, 3, 1, 2)
        groups = len(own.depthwise)
        mixed = F.conv2d(maps, own.depthwise, own.depthwise_bias, padding=1, groups=groups)
        mixed = mixed.permute(0, 2, 3, 1).contiguous()
        gated = _gate(mixed).view(batch, -1, channels)
        means = gated.mean(1)
        factors = torch.addmm(own.attention_bias, means, own.attention.t())
        # The factors of a picture scale the columns of a small matrix, and not its maps.
        result = (x + own.join_bias).view(batch, -1, channels)
        result.baddbmm_(gated, factors[:, :, None] * own.join.t())
        ctx.scale = scale
        ctx.save_for_backward(x, *normed, wide, mixed, gated, means, factors, *tensors)
        return result.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, normed, mean, inverse, wide, mixed, gated, means, factors, *tensors = ctx.saved_tensors
        widen, own = _unpacked(tensors, ctx.scale, Spatial)
        depthwise, depthwise_bias, attention, attention_bias, join, join_bias = (
            ctx.needs_input_grad[9:]
        )
        batch, height, width, channels = x.shape
        grad = grads[0].contiguous()
        maps = grad.view(batch, -1, channels)
        # Of each picture: how much each product of two channels counts, (B, out, in).
        products = torch.bmm(maps.transpose(1, 2), gated)
        g_factors = (products * own.join).sum(1)
        g_means = (g_factors @ own.attention) / (height * width)
        g_gated = torch.baddbmm(g_means[:, None], maps, own.join * factors[:, None])
        g_mixed = _gate_back(g_gated.view(x.shape), mixed)
        wide = wide.view(batch, height, width, -1)
        g_wide, g_depthwise = _depthwise_back(g_mixed, wide, own.depthwise, depthwise)
        g_widen = _widen_back(
            g_wide, _Normed(normed, mean, inverse), x, widen, ctx.needs_input_grad[3:9]
        )
        return (
            None if g_widen.x is None else g_widen.x.add_(grad),
            None,
            None,
            *g_widen.tensors,
            g_depthwise,
            _sum(g_mixed) if depthwise_bias else None,
            g_factors.t() @ means if attention else None,
            g_factors.sum(0) if attention_bias else None,
            (products * factors[:, None]).sum(0) if join else None,
            _sum(grad) if join_bias else None,
        )


class _FeedForward(torch.autograd.Function):
    """x + join gate(widen(norm(x)))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float, scale: float, *tensors: Any) -> Tensor:
        widen, own = _unpacked(tensors, scale, FeedForward)
        normed, wide = _widened(x, widen, epsilon)
        gated = _gate(wide)
        result = x + own.join_bias
        result.view(gated.shape).addmm_(gated, own.join.t())
        ctx.scale = scale
        ctx.save_for_backward(x, *normed, wide, gated, *tensors)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, normed, mean, inverse, wide, gated, *tensors = ctx.saved_tensors
        widen, own = _unpacked(tensors, ctx.scale, FeedForward)
        join, join_bias = ctx.needs_input_grad[9:]
        grad = grads[0].contiguous()
        rows = grad.view(gated.shape)
        g_wide = _gate_back(rows @ own.join, wide)
        g_widen = _widen_back(
            g_wide, _Normed(normed, mean, inverse), x, widen, ctx.needs_input_grad[3:9]
        )
        return (
            None if g_widen.x is None else g_widen.x.add_(grad),
            None,
            None,
            *g_widen.tensors,
            rows.t() @ gated if join else None,
            _sum(grad) if join_bias else None,
        )


def _unpacked(
    tensors: Sequence[Any], scale: float, kind: Callable[..., Others]
) -> tuple[Widen, Others]:
    """The weights of a branch, from the tensors that its function is given one by one."""
    gain, offset, weight, bias, down, up, *others = tensors
    return Widen(gain, offset, weight, bias, down, up, scale), kind(*others)


class _Normed(NamedTuple):
    """What a norm gave: its result, means and inverse deviations."""

    result: Tensor
    mean: Tensor
    inverse: Tensor


class _WidenBack(NamedTuple):
    """Gradients of x, and of the tensors of a `Widen`."""

    x: Tensor | None
    tensors: tuple[Tensor | None, ...]


def _widened(x: Tensor, widen: Widen, epsilon: float) -> tuple[_Normed, Tensor]:
    """The norm, and rows of what the layer makes of its result."""
    normed = _Normed(
        *torch.native_layer_norm(x, widen.gain.shape, widen.gain, widen.offset, epsilon)
    )
    return normed, torch.addmm(widen.bias, normed.result.view(-1, x.shape[-1]), widen.weight.t())


def _widen_back(
    grad: Tensor, normed: _Normed, x: Tensor, widen: Widen, wanted: tuple[bool, ...]
) -> _WidenBack:
    """Back through a norm and the layer behind it.

    Args:
        grad: of what was widened.
        normed: what the norm gave.
        x: what it was given.
        widen: both.
        wanted: which of its tensors' gradients are.
    """
    g_rows, rows = grad.view(-1, len(widen.weight)), normed.result.view(-1, x.shape[-1])
    g_down = g_up = g_bias = None
    if widen.down is not None and widen.up is not None:
        g_down = widen.scale * ((g_rows @ widen.up).t() @ rows)
        # A column of ones beside the thin maps: the bias' gradient costs no pass of its own.
        thin = torch.addmm(_last(widen.down), rows, F.pad(widen.down, (0, 0, 0, 1)).t())
        both = g_rows.t() @ thin
        g_up, g_bias = widen.scale * both[:, :-1], both[:, -1]
    elif wanted[3]:
        g_bias = _sum(g_rows)
    g_x, g_gain, g_offset = _layer_norm_back(
        (g_rows @ widen.weight).view(x.shape),
        x,
        widen.gain.shape,
        normed.mean,
        normed.inverse,
        widen.gain,
        widen.offset,
        [True, *wanted[:2]],
    )
    g_weight = g_rows.t() @ rows if wanted[2] else None
    return _WidenBack(g_x, (g_gain, g_offset, g_weight, g_bias, g_down, g_up))


def doubled(
    x: Maps, weight: Tensor, skip: Float[Tensor, "b h2 w2 c2"]
) -> Float[Tensor, "b h2 w2 c2"]:
    """A layer of one pixel, its channels laid out as squares of 2x2, and what is added to them.

    Args:
        x: feature maps.
        weight: `(4 out, C, 1, 1)`; four rows after one another make a square.
        skip: `(B, 2 H, 2 W, out)`, added.
    """
    batch, height, width, _ = x.shape
    channels = len(weight) // 4
    # Rows of one place in the square together: squares are then laid out by whole pixels.
    matrix = weight.view(channels, 4, -1).transpose(0, 1).flatten(0, 1)
    squares = F.linear(x, matrix).view(batch, height, width, 2, 2, channels).transpose(2, 3)
    return (skip.view(squares.shape) + squares).view(skip.shape)


def _last(down: Tensor) -> Tensor:
    """Zeros for each row of A, and a one behind them."""
    return F.pad(down.new_zeros(len(down)), (0, 1), value=1.0)


def _gate(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return first * second


def _gate_back(grad: Tensor, x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    result = torch.empty_like(x)
    own_first, own_second = result.chunk(2, dim=-1)
    torch.mul(grad, second, out=own_first)
    torch.mul(grad, first, out=own_second)
    return result


def _depthwise_back(
    grad: Tensor, x: Tensor, weight: Tensor, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of a depth-wise convolution's input and of its weight; maps `(B, H, W, C)`."""
    given, maps = grad.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2)
    fixed = ([1, 1], [1, 1], [1, 1], False, [0, 0], len(weight))

    # One call for both, with the bias, takes up to a quarter longer than two and a sum.
    first = _convolution_back(given, maps, weight, [len(weight)], *fixed, [True, False, False])
    g_x = first[0].permute(0, 2, 3, 1).contiguous()
    if not wanted:
        return g_x, None
    second = _convolution_back(given, maps, weight, [len(weight)], *fixed, [False, True, False])
    return g_x, second[1]


def _sum(x: Tensor) -> Tensor:
    """Over all but the channels."""
    return x.view(-1, x.shape[-1]).sum(0)
