"""SwinIR, a transformer whose attention is within windows that shift from block to block.

Liang et al.: "SwinIR: Image Restoration Using Swin Transformer", ICCV workshops 2021,
arXiv 2108.10257. Tensor names are the released ones; the masks and indices among them are
calculated here (see `swinir_released`).
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones.network import RestorationNetwork, reflected
from urushi.backbones.sites import AttentionSite, FeedForwardSite, Sites, Stage
from urushi.errors import BackboneError

# Whether an upsampler gives a scale, and in words which it gives.
UPSAMPLERS: Mapping[str, tuple[Callable[[int], bool], str]] = {
    "": (lambda s: s == 1, "1"),
    "pixelshuffle": (lambda s: s == 3 or (s > 1 and s.bit_count() == 1), "3 or a power of two"),
    "pixelshuffledirect": (lambda s: s > 1, "2 or more"),
    "nearest+conv": (lambda s: s in (2, 4), "2 or 4"),
}
CONNECTIONS = ("1conv", "3conv")
MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, which the authors subtract from RGB pictures
# What a window keeps grows by the fourth power of it; released ones have 7 or 8 pixels.
LARGEST_WINDOW = 48
FEATURES = 64  # channels of the layers that enlarge
# What keeps tokens apart that a shift has brought into one window. The authors' number, which
# leaves no trace in float32 and, unlike infinity, exists in every precision.
APART = -100.0


class WindowAttention(nn.Module):
    """Attention among the tokens of each window, with a learned bias for their offset.

    Args:
        channels: of the feature map.
        heads: a divisor of `channels`.
        window: side M of the windows in pixels.
        shift: pixels by which the windows are moved, cyclically.
    """

    index: Tensor
    apart: Tensor

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("index", relative_position_index(window), persistent=False)
        if shift:
            self.register_buffer("apart", _apart(window, shift), persistent=False)

    def forward(self, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        m = self.window
        rows, columns = (side // m for side in x.shape[1:3])
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        # (B rows columns, M M, C); the only copy, as what follows are views with heads inside.
        windows = x.reshape(-1, rows, m, columns, m, x.shape[3]).transpose(2, 3)
        parts = self.qkv(windows.reshape(-1, m * m, x.shape[3])).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self._bias(rows, columns).to(query.dtype)
        if self.shift:
            bias = bias.repeat(x.shape[0], 1, 1, 1)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = mixed.transpose(1, 2).reshape(-1, rows, columns, m, m, x.shape[3])
        mixed = mixed.transpose(2, 3).reshape(x.shape)
        if self.shift:
            mixed = mixed.roll((self.shift, self.shift), (1, 2))
        return self.proj(mixed)

    def _bias(self, rows: int, columns: int) -> Float[Tensor, "windows heads mm mm"]:
        """What is added to the scores: of all windows alike, or of each."""
        bias = self.relative_position_bias_table[self.index].permute(2, 0, 1).unsqueeze(0)
        if not self.shift:
            return bias
        kinds = window_kinds(rows, columns, bias.device)
        return (bias + self.apart[:, None]).index_select(0, kinds)


@lru_cache(maxsize=4)
def relative_position_index(window: int) -> Int[Tensor, "mm mm"]:
    """The row of the table of biases for each pair of a window's tokens, row by row.

    All blocks share it. It is calculated on the CPU, also where a network is only sketched.
    """
    # What inference mode makes cannot be trained with later, and this is kept.
    with torch.inference_mode(False):
        place = torch.arange(window, device="cpu")
        offset = place[:, None] - place + window - 1
        index = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]
        return index.reshape(window**2, window**2)


def window_kinds(rows: int, columns: int, device: torch.device) -> Int[Tensor, " windows"]:
    """Where each window lies: 0 inside, 1 in the last column, 2 in the last row, 3 in the corner.

    That is all that matters for a shift, which brings two sides of the picture together in them.
    """
    down, across = (torch.arange(n, device=device) == n - 1 for n in (rows, columns))
    return (2 * down[:, None].long() + across.long()).flatten()


@lru_cache(maxsize=4)
def _apart(window: int, shift: int) -> Float[Tensor, "4 mm mm"]:
    """`APART` for pairs of tokens from different sides of the picture, else 0; by kind."""
    with torch.inference_mode(False):
        beyond = torch.arange(window, device="cpu") >= window - shift
        row, column = beyond.repeat_interleave(window), beyond.repeat(window)
        down, across = row[:, None] != row, column[:, None] != column
        return torch.stack([torch.zeros_like(down), across, down, down | across]) * APART


class SwinBlock(nn.Module):
    """Window attention, then a feed-forward branch, each behind a norm; on `(B, C, H, W)`.

    The height and width must be multiples of the window.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window, shift)
        self.norm2 = nn.LayerNorm(channels)
        fc1, fc2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.mlp = nn.Sequential(OrderedDict(fc1=fc1, act=nn.GELU(), fc2=fc2))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # Between blocks maps are `(B, C, H, W)`, as everywhere, and in memory channels-last.
        features = x.permute(0, 2, 3, 1)
        features = features + self.attn(self.norm1(features))
        features = features + self.mlp(self.norm2(features))
        return features.permute(0, 3, 1, 2)


class ResidualGroup(nn.Module):
    """A run of blocks closed by a convolution, with a skip around both (RSTB)."""

    def __init__(self, blocks: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.residual_group = nn.Sequential(OrderedDict(blocks=blocks))
        self.conv = conv

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv(self.residual_group(x))


class SwinIR(RestorationNetwork):
    """SwinIR with any of its ends; picture sizes are arbitrary.

    Args:
        depths: blocks of each group.
        embed_dim: channels C of the body.
        num_heads: attention heads of each group, divisors of `embed_dim`.
        window_size: side of the windows in pixels.
        mlp_ratio: channels inside a feed-forward branch relative to C.
        in_chans: channels of input and output; a mean is subtracted from three, none from others.
        img_range: factor of the pixels inside; 255 for the released JPEG networks, else 1.
        upsampler: `pixelshuffle` (classical super-resolution), `pixelshuffledirect` (lightweight),
            `nearest+conv` (real-world), or empty: the result is added to the picture.
        upscale: sides of the result divided by those of the picture; a power of two or 3 with
            `pixelshuffle`, 2 or 4 with `nearest+conv`, 1 without an upsampler.
        resi_connection: convolutions that close each group, `1conv`, or `3conv` through a quarter
            of the channels.
        patch_norm: a norm in front of the first group.

    Raises:
        BackboneError: a size is impossible, or the upsampler does not reach that scale.
    """

    mean: Tensor

    def __init__(
        self,
        *,
        depths: Sequence[int],
        embed_dim: int,
        num_heads: Sequence[int],
        window_size: int = 8,
        mlp_ratio: float = 2.0,
        in_chans: int = 3,
        img_range: float = 1.0,
        upsampler: str = "",
        upscale: int = 1,
        resi_connection: str = "1conv",
        patch_norm: bool = True,
    ) -> None:
        super().__init__()
        c, hidden = embed_dim, int(embed_dim * mlp_ratio)
        _check_sizes(in_chans, c, hidden, window_size, img_range)
        _check_groups(c, depths, num_heads, resi_connection)
        _check_scale(upsampler, upscale)
        self.size_multiple, self.scale = window_size, upscale
        self.img_range, self.upsampler, self._depths = img_range, upsampler, tuple(depths)
        mean = torch.tensor(MEAN if in_chans == 3 else (0.0,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(in_chans, c, 3, padding=1)
        first = {"norm": nn.LayerNorm(c)} if patch_norm else {}
        self.patch_embed = nn.Sequential(OrderedDict(first))
        self.layers = nn.ModuleList()
        for depth, heads in zip(depths, num_heads, strict=True):
            shifts = (window_size // 2 * (block % 2) for block in range(depth))
            blocks = (SwinBlock(c, heads, window_size, shift, hidden) for shift in shifts)
            group = ResidualGroup(nn.Sequential(*blocks), _connection(resi_connection, c))
            self.layers.append(group)
        self.norm = nn.LayerNorm(c)
        self.conv_after_body = _connection(resi_connection, c)
        end = _end(upsampler, upscale, c, in_chans)
        self._end = tuple(end)
        for name, module in end.items():
            self.add_module(name, module)
        # As the authors: linear layers begin near zero, convolutions as torch makes them.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Restores `(B, C, H, W)` pictures in `[0, 1]`; the result is not clipped."""
        height, width = x.shape[-2:]
        centred = (reflected(x, self.size_multiple) - self.mean) * self.img_range
        first = self.conv_first(centred)
        features = _on_last_axis(self.patch_embed, first)
        for group in self.layers:
            features = group(features)
        features = self.conv_after_body(_on_last_axis(self.norm, features)) + first
        for name in self._end:
            features = self.get_submodule(name)(features)
        if self.upsampler == "":
            features = centred + features
        restored = features / self.img_range + self.mean
        return restored[..., : height * self.scale, : width * self.scale]

    @property
    def sites(self) -> Sites:
        """Where this network can be adapted."""
        c, stages = self.conv_first.out_channels, []
        for group, depth in enumerate(self._depths):
            name = f"layers.{group}"
            blocks = tuple(f"{name}.residual_group.blocks.{block}" for block in range(depth))
            stages.append(Stage(name, "middle", blocks, c, 1))
        blocks = [block for stage in stages for block in stage.blocks]
        feed_forward = tuple(
            FeedForwardSite(
                f"{b}.norm2", (f"{b}.mlp.fc1", f"{b}.mlp.fc2"), f"{b}.mlp.fc2", None, c, "bhwc"
            )
            for b in blocks
        )
        attention = tuple(
            AttentionSite.packed(f"{b}.attn.qkv", f"{b}.attn.proj", c, "bhwc") for b in blocks
        )
        end = (n for n in self._end if any(True for _ in self.get_submodule(n).parameters()))
        return Sites(feed_forward, attention, tuple(stages), ("conv_after_body", *end))


def _on_last_axis(module: nn.Module, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _connection(kind: str, c: int) -> nn.Module:
    """What closes a group."""
    if kind == "1conv":
        return nn.Conv2d(c, c, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(c, c // 4, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(c // 4, c // 4, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(c // 4, c, 3, padding=1),
    )


def _end(upsampler: str, scale: int, c: int, channels: int) -> dict[str, nn.Module]:
    """The layers behind the body, in the order of execution."""
    if upsampler == "pixelshuffledirect":
        return {"upsample": nn.Sequential(*_shuffled(c, channels, scale))}
    if upsampler == "":
        return {"conv_last": nn.Conv2d(c, channels, 3, padding=1)}
    before = nn.Conv2d(c, FEATURES, 3, padding=1)
    end: dict[str, nn.Module] = {"conv_before_upsample": nn.Sequential(before, nn.LeakyReLU(0.01))}
    if upsampler == "pixelshuffle":
        steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        layers = [layer for step in steps for layer in _shuffled(FEATURES, FEATURES, step)]
        end["upsample"] = nn.Sequential(*layers)
    else:
        for name in (*("conv_up1", "conv_up2")[: scale // 2], "conv_hr"):
            if name != "conv_hr":
                end[f"enlarge_{name}"] = nn.Upsample(scale_factor=2.0, mode="nearest")
            end[name] = nn.Conv2d(FEATURES, FEATURES, 3, padding=1)
            end[f"act_{name}"] = nn.LeakyReLU(0.2)
    end["conv_last"] = nn.Conv2d(FEATURES, channels, 3, padding=1)
    return end


def _shuffled(inputs: int, outputs: int, scale: int) -> tuple[nn.Module, nn.Module]:
    """A convolution and a shuffle that enlarge the sides."""
    return nn.Conv2d(inputs, outputs * scale**2, 3, padding=1), nn.PixelShuffle(scale)


def _check_sizes(channels: int, width: int, hidden: int, window: int, img_range: float) -> None:
    if min(channels, width, hidden) < 1:
        raise BackboneError(
            f"in_chans {channels}, embed_dim {width}, and by mlp_ratio {hidden} channels in "
            "feed-forward branches: all must be positive"
        )
    if not 2 <= window <= LARGEST_WINDOW or not 0 < img_range < math.inf:
        raise BackboneError(
            f"window_size {window}, img_range {img_range}: expected 2 to {LARGEST_WINDOW} pixels, "
            "and a positive factor, mostly 1"
        )


def _check_groups(width: int, depths: Sequence[int], heads: Sequence[int], connection: str) -> None:
    if not depths or len(depths) != len(heads) or min([*depths, *heads]) < 1:
        raise BackboneError(
            f"depths {list(depths)}, num_heads {list(heads)}: expected as many of one as of the "
            "other, at least one, all positive"
        )
    if any(width % count for count in heads):
        raise BackboneError(f"num_heads {list(heads)}: each must divide embed_dim, {width}")
    if connection not in CONNECTIONS or (connection == "3conv" and width < 4):
        raise BackboneError(
            f"resi_connection is {connection!r}: expected {' or '.join(CONNECTIONS)}, and for "
            f"3conv an embed_dim of at least 4, not {width}"
        )


def _check_scale(upsampler: str, scale: int) -> None:
    if upsampler not in UPSAMPLERS:
        raise BackboneError(
            f"upsampler is {upsampler!r}: expected one of {', '.join(map(repr, UPSAMPLERS))}"
        )
    gives, words = UPSAMPLERS[upsampler]
    if not gives(scale):
        raise BackboneError(f"upscale is {scale}: upsampler {upsampler!r} gives {words}")
