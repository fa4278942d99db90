"""Restormer, a U-shaped transformer whose attention is between channels.

Zamir et al.: "Restormer: Efficient Transformer for High-Resolution Image Restoration", CVPR 2022,
arXiv 2111.09881. Tensor names are the released ones.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones.network import RestorationNetwork, entries, reflected
from urushi.backbones.sites import AttentionSite, FeedForwardSite, Sites, Stage
from urushi.errors import BackboneError

NORM_KINDS = ("WithBias", "BiasFree")
NORM_EPSILON = 1e-5
LENGTH_EPSILON = 1e-12  # of a channel that is zero everywhere

# The runs of blocks: module, role, level (0 is full resolution) and width relative to the first.
# The last decoder takes its skip without a reduction of channels: it and what follows are as wide
# as the level below.
_RUNS: tuple[tuple[str, Literal["encoder", "middle", "decoder"], int, int], ...] = (
    ("encoder_level1", "encoder", 0, 1),
    ("encoder_level2", "encoder", 1, 2),
    ("encoder_level3", "encoder", 2, 4),
    ("latent", "middle", 3, 8),
    ("decoder_level3", "decoder", 2, 4),
    ("decoder_level2", "decoder", 1, 2),
    ("decoder_level1", "decoder", 0, 2),
    ("refinement", "decoder", 0, 2),
)
_DECODER = (
    "up4_3",
    "reduce_chan_level3",
    "decoder_level3",
    "up3_2",
    "reduce_chan_level2",
    "decoder_level2",
    "up2_1",
    "decoder_level1",
    "refinement",
    "output",
)


class BiasFreeNorm(nn.Module):
    """Division by the standard deviation over the last axis, whose mean stays in.

    Without offsets, the network is homogeneous enough to meet noise levels it was not trained on.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        wide = x if x.dtype == torch.float64 else x.float()
        variance = wide.var(-1, correction=0, keepdim=True)
        return (wide * (variance + NORM_EPSILON).rsqrt()).to(x.dtype) * self.weight


class ChannelNorm(nn.Module):
    """Normalisation over the channels of each pixel, on `(B, C, H, W)`."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.body = (
            nn.LayerNorm(channels, NORM_EPSILON) if kind == "WithBias" else BiasFreeNorm(channels)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # On channels-last tensors both permutations are free.
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """Attention in which channels take the place of tokens (MDTA, section 3.1).

    The attention map has a side of `channels / heads`; the cost is linear in the pixels.
    """

    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        c = channels
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(c, 3 * c, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * c, 3 * c, 3, padding=1, groups=3 * c, bias=bias)
        self.project_out = nn.Conv2d(c, c, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        parts = self.qkv_dwconv(self.qkv(x)).unflatten(1, (3, len(self.temperature), -1))
        query, key, value = parts.flatten(4).unbind(1)  # each (B, heads, C / heads, H W)
        # Written out, because fused attention is made for long sequences of short vectors, and
        # these are a few vectors as long as the picture has pixels. So the lengths of the keys
        # divide a small matrix instead of a feature map.
        query = query * (self.temperature / _lengths(query))
        scores = query @ key.transpose(-2, -1) / _lengths(key).transpose(-2, -1)
        mixed = scores.softmax(-1).to(value.dtype) @ value
        return self.project_out(mixed.flatten(1, 2).unflatten(2, x.shape[-2:]))


def _lengths(x: Float[Tensor, "b heads c l"]) -> Float[Tensor, "b heads c 1"]:
    """Euclidean length of every channel, nowhere zero."""
    lengths = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return lengths.clamp_min(max(LENGTH_EPSILON, torch.finfo(lengths.dtype).tiny))


class GatedFeedForward(nn.Module):
    """Feed-forward branch whose one half, through GELU, gates the other (GDFN, section 3.2)."""

    def __init__(self, channels: int, hidden: int, bias: bool) -> None:
        super().__init__()
        c, m = channels, hidden
        self.project_in = nn.Conv2d(c, 2 * m, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * m, 2 * m, 3, padding=1, groups=2 * m, bias=bias)
        self.project_out = nn.Conv2d(m, c, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        gate, passed = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * passed)


class RestormerBlock(nn.Module):
    """Channel attention, then a gated feed-forward branch, each behind a norm."""

    def __init__(self, channels: int, heads: int, factor: float, bias: bool, kind: str) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, kind)
        self.attn = ChannelAttention(channels, heads, bias)
        self.norm2 = ChannelNorm(channels, kind)
        self.ffn = GatedFeedForward(channels, int(channels * factor), bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Restormer(RestorationNetwork):
    """Restormer with its four levels; picture sizes are arbitrary, odd ones too.

    Args:
        inp_channels: channels of the input; 6 for the two views of a dual-pixel sensor, the left
            one first.
        out_channels: channels of the result.
        dim: channels at full resolution, even; doubled by every level.
        num_blocks: blocks of the levels 1 to 4; decoders have as many as their encoder.
        num_refinement_blocks: blocks behind the last decoder.
        heads: attention heads of the levels 1 to 4.
        ffn_expansion_factor: channels inside a feed-forward branch relative to its width.
        bias: biases of the layers of blocks and of the convolutions that join levels or make the
            result.
        LayerNorm_type: `WithBias`, or `BiasFree`, which divides by the standard deviation and
            neither centres nor shifts.
        dual_pixel_task: the first features take the place of the input picture in what is added to
            the result.

    Raises:
        BackboneError: a size is impossible, or the result cannot be added to the input.
    """

    def __init__(
        self,
        *,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        num_refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: str = "WithBias",  # noqa: N803
        dual_pixel_task: bool = False,
    ) -> None:
        super().__init__()
        d = dim
        _check_channels(inp_channels, out_channels, dual_pixel_task)
        _check_blocks(d, num_blocks, num_refinement_blocks, heads)
        if LayerNorm_type not in NORM_KINDS:
            raise BackboneError(
                f"LayerNorm_type is {LayerNorm_type!r}: expected {' or '.join(NORM_KINDS)}"
            )
        if int(d * ffn_expansion_factor) < 1:
            raise BackboneError(
                f"ffn_expansion_factor {ffn_expansion_factor} leaves no channel of {d} inside a "
                "feed-forward branch: choose a greater one"
            )
        self.size_multiple = 8
        self.patch_embed = _named("proj", nn.Conv2d(inp_channels, d, 3, padding=1, bias=False))
        runs = []
        for name, _, level, times in _RUNS:
            count = num_refinement_blocks if name == "refinement" else num_blocks[level]
            block = (d * times, heads[level], ffn_expansion_factor, bias, LayerNorm_type)
            runs.append(nn.Sequential(*(RestormerBlock(*block) for _ in range(count))))
        self.encoder_level1, self.encoder_level2, self.encoder_level3, self.latent = runs[:4]
        self.decoder_level3, self.decoder_level2, self.decoder_level1, self.refinement = runs[4:]
        self.down1_2, self.down2_3, self.down3_4 = (_down(d * times) for times in (1, 2, 4))
        self.up4_3, self.up3_2, self.up2_1 = (_up(d * times) for times in (8, 4, 2))
        self.reduce_chan_level3 = nn.Conv2d(8 * d, 4 * d, 1, bias=bias)
        self.reduce_chan_level2 = nn.Conv2d(4 * d, 2 * d, 1, bias=bias)
        self.skip_conv = nn.Conv2d(d, 2 * d, 1, bias=bias) if dual_pixel_task else None
        self.output = nn.Conv2d(2 * d, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h w"]:
        """Restores `(B, C, H, W)` pictures in `[0, 1]`; the result is not clipped."""
        height, width = x.shape[-2:]
        padded = reflected(x, self.size_multiple)
        first = self.patch_embed(padded)
        level1 = self.encoder_level1(first)
        level2 = self.encoder_level2(self.down1_2(level1))
        level3 = self.encoder_level3(self.down2_3(level2))
        features = self.latent(self.down3_4(level3))
        features = self.reduce_chan_level3(torch.cat([self.up4_3(features), level3], 1))
        features = self.decoder_level3(features)
        features = self.reduce_chan_level2(torch.cat([self.up3_2(features), level2], 1))
        features = self.decoder_level2(features)
        features = self.decoder_level1(torch.cat([self.up2_1(features), level1], 1))
        features = self.refinement(features)
        if self.skip_conv is not None:
            restored = self.output(features + self.skip_conv(first))
        else:
            restored = self.output(features) + padded
        return restored[..., :height, :width]

    @property
    def sites(self) -> Sites:
        """Where this network can be adapted."""
        width = self.reduce_chan_level2.out_channels // 2
        stages = []
        for name, role, level, times in _RUNS:
            count = len(list(self.get_submodule(name).children()))
            paths = tuple(f"{name}.{block}" for block in range(count))
            stages.append(Stage(name, role, paths, width * times, 2**level))
        places = [(block, stage.width) for stage in stages for block in stage.blocks]
        feed_forward = tuple(
            FeedForwardSite(
                norm=f"{block}.norm2",
                modules=(
                    f"{block}.ffn.project_in",
                    f"{block}.ffn.dwconv",
                    f"{block}.ffn.project_out",
                ),
                output=f"{block}.ffn.project_out",
                scale=None,
                width=c,
                layout="bchw",
            )
            for block, c in places
        )
        attention = tuple(
            AttentionSite.packed(f"{block}.attn.qkv", f"{block}.attn.project_out", c, "bchw")
            for block, c in places
        )
        skip = () if self.skip_conv is None else ("skip_conv",)
        return Sites(feed_forward, attention, tuple(stages), decoder=(*_DECODER, *skip))


def configuration_of(state: dict[str, Tensor]) -> dict[str, object]:
    """Reads the configuration off the names and shapes of a Restormer's tensors.

    Raises:
        BackboneError: the tensors are not those of a Restormer.
    """
    runs = [name for name, *_ in _RUNS[:4]]
    needed = ["patch_embed.proj.weight", "output.weight"]
    needed += [f"{run}.0.attn.temperature" for run in runs]
    needed += [f"{run}.0.ffn.project_out.weight" for run in runs]
    for name in needed:
        if name not in state:
            raise BackboneError(f"these tensors are not a Restormer's: {name} was expected")

    first = runs[0]
    with_bias = f"{first}.0.norm1.body.bias" in state
    return {
        "inp_channels": state["patch_embed.proj.weight"].shape[1],
        "out_channels": state["output.weight"].shape[0],
        "dim": state["patch_embed.proj.weight"].shape[0],
        "num_blocks": [entries(state, f"{run}.") for run in runs],
        "num_refinement_blocks": entries(state, "refinement."),
        "heads": [len(state[f"{run}.0.attn.temperature"]) for run in runs],
        "ffn_expansion_factor": _factor([state[f"{r}.0.ffn.project_out.weight"] for r in runs]),
        "bias": f"{first}.0.attn.qkv.bias" in state,
        "LayerNorm_type": "WithBias" if with_bias else "BiasFree",
        "dual_pixel_task": "skip_conv.weight" in state,
    }


def _factor(weights: Sequence[Tensor]) -> float:
    """The shortest decimal that gives feed-forward branches the channels they have.

    Channels are truncated, so that each level leaves an interval of factors.

    Raises:
        BackboneError: no one factor fits all levels.
    """
    sizes = [(len(weight), weight.shape[1]) for weight in weights]
    least = max(hidden / channels for channels, hidden in sizes)
    for digits in range(12):
        factor = math.ceil(least * 10**digits - 1e-9) / 10**digits
        if all(int(channels * factor) == hidden for channels, hidden in sizes):
            return factor
    raise BackboneError(
        "these tensors are not a Restormer's: no factor makes the channels of its feed-forward "
        f"branches, {[hidden for _, hidden in sizes]}, from their widths, "
        f"{[channels for channels, _ in sizes]}"
    )


def _named(name: str, module: nn.Module) -> nn.Sequential:
    """A module inside another, as the released names have it."""
    return nn.Sequential(OrderedDict([(name, module)]))


def _down(channels: int) -> nn.Sequential:
    """Half the sides, twice the channels."""
    conv = nn.Conv2d(channels, channels // 2, 3, padding=1, bias=False)
    return _named("body", nn.Sequential(conv, nn.PixelUnshuffle(2)))


def _up(channels: int) -> nn.Sequential:
    """Twice the sides, half the channels."""
    conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
    return _named("body", nn.Sequential(conv, nn.PixelShuffle(2)))


def _check_channels(inputs: int, outputs: int, dual: bool) -> None:
    if inputs < 1 or outputs < 1:
        raise BackboneError(f"inp_channels {inputs}, out_channels {outputs}: both must be positive")
    if not dual and inputs != outputs:
        raise BackboneError(
            f"inp_channels {inputs}, out_channels {outputs}: the result is added to the input and "
            "needs as many channels, unless dual_pixel_task is true"
        )


def _check_blocks(dim: int, blocks: Sequence[int], refinement: int, heads: Sequence[int]) -> None:
    if len(blocks) != 4 or len(heads) != 4:
        raise BackboneError(
            f"num_blocks {list(blocks)}, heads {list(heads)}: a Restormer has four levels"
        )
    if min(blocks) < 1 or refinement < 0 or min(heads) < 1:
        raise BackboneError(
            f"num_blocks {list(blocks)}, num_refinement_blocks {refinement}, heads {list(heads)}: "
            "every level needs a block and a head, and no count may be negative"
        )
    if dim < 2 or dim % 2:
        raise BackboneError(f"dim is {dim}: expected an even number of channels")
    for level, count in enumerate(heads):
        if dim * 2**level % count:
            raise BackboneError(
                f"heads {list(heads)}: the {dim * 2**level} channels of level {level + 1} cannot "
                f"be divided among {count}"
            )
