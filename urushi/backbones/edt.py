"""EDT, windows in two directions between a convolutional head and tail for every task.

Li et al.: "On Efficient Transformer-Based Image Pre-training for Low-Level Vision", IJCAI 2023,
arXiv 2112.10175. Half of the channels attend in flat windows, the other half in tall ones. Tensor
names are the released ones; the released masks, which follow from a picture's size, are no tensors
here.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones.edt_settings import check_connection, check_heads, check_sizes, scale_of
from urushi.backbones.network import RestorationNetwork, mirrored
from urushi.backbones.sites import AttentionSite, FeedForwardSite, Sites, Stage

MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, red, green, blue
MASKED = -100.0  # added to what attention must not see
SLOPE = 0.2
RELEASED_NUM_HEADS = {60: 6, 120: 6, 180: 6, 240: 8}  # by `embed_dim`
RELEASED_WINDOW = (6, 24)
Map = Float[Tensor, "b h w c"]
Maps = Float[Tensor, "b c h w"]
Mask = Float[Tensor, "n t t"]
Sides = tuple[int, int]  # height and width


class WindowAttention(nn.Module):
    """Attention inside windows of one direction, with a convolution of the values beside it.

    Args:
        channels: of its half of the block's.
        heads: among which they are divided.
        window: height and width.
        shift: by how much windows are moved down and to the right, or zeros.
    """

    def __init__(self, channels: int, heads: int, window: Sides, shift: Sides) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.lepe = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, qkv: Float[Tensor, "b h w 3 c"], mask: Mask) -> Map:
        """The attended values; `mask` is for the windows of one picture, and unused unshifted."""
        count, height, width, _, channels = qkv.shape
        (rows, columns), (down, right) = self.window, self.shift
        down_by, across = height // rows, width // columns
        if down or right:
            qkv = qkv.roll((-down, -right), (1, 2))
        parts = qkv.view(count, down_by, rows, across, columns, 3, self.heads, -1)
        parts = parts.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(1, 3)
        q, k, v = parts.unbind()
        added = None
        if down or right:
            added = mask.to(q.dtype).expand(count, *mask.shape).flatten(0, 1)[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, added)
        near = self.lepe(v.transpose(2, 3).reshape(-1, channels, rows, columns))
        mixed = mixed + near.view(v.shape[0], self.heads, -1, rows * columns).transpose(2, 3)
        whole = mixed.reshape(count, down_by, across, self.heads, rows, columns, -1)
        whole = whole.permute(0, 1, 4, 2, 5, 3, 6).reshape(count, height, width, channels)
        return whole.roll((down, right), (1, 2)) if down or right else whole


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dwconv = nn.Conv2d(hidden, hidden, 5, padding=2, groups=hidden)

    def forward(self, x: Map) -> Map:
        inner = F.gelu(self.fc1(x)).permute(0, 3, 1, 2)
        return self.fc2(F.gelu(self.dwconv(inner)).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Attention in flat and in tall windows, then a feed-forward branch, each behind a norm."""

    def __init__(self, width: int, heads: int, window: Sides, shifted: bool, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        flat, tall = window, (window[1], window[0])
        self.attns = nn.ModuleList(
            WindowAttention(width // 2, heads, side, _half(side) if shifted else (0, 0))
            for side in (flat, tall)
        )
        self.mlp = _FeedForward(width, hidden)

    def forward(self, x: Map, flat_mask: Mask, tall_mask: Mask) -> Map:
        # Queries, keys and values one after the other; in each, the flat windows' half first.
        parts = self.qkv(self.norm1(x)).unflatten(3, (3, 2, -1)).unbind(4)
        masks = (flat_mask, tall_mask)
        mixed = [a(part, m) for a, part, m in zip(self.attns, parts, masks, strict=True)]
        x = x + self.proj(torch.cat(mixed, -1))
        return x + self.mlp(self.norm2(x))


class _Blocks(nn.Module):
    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class _Group(nn.Module):
    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.residual_group = _Blocks(blocks)

    def forward(self, x: Map, flat_mask: Mask, tall_mask: Mask) -> Map:
        y = x
        for block in self.residual_group.blocks:
            y = block(y, flat_mask, tall_mask)
        return y + x


class _Body(nn.Module):
    """From features to features at one resolution: the part that all tasks share."""

    def __init__(
        self,
        width: int,
        depths: Sequence[int],
        heads: Sequence[int],
        window: Sides,
        hidden: int,
        connection: str,
    ) -> None:
        super().__init__()
        self.window = window
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(width)})
        self.layers = nn.ModuleList(
            _Group([Block(width, h, window, bool(b % 2), hidden) for b in range(depth)])
            for depth, h in zip(depths, heads, strict=True)
        )
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = _connection(width, connection)

    def forward(self, features: Maps) -> Maps:
        x = self.patch_embed["norm"](features.permute(0, 2, 3, 1))
        tall = (self.window[1], self.window[0])
        masks = [window_mask(x.shape[1], x.shape[2], w, x.device) for w in (self.window, tall)]
        for group in self.layers:
            x = group(x, *masks)
        return self.conv_after_body(self.norm(x).permute(0, 3, 1, 2)) + features


class _Convolutions(nn.Module):
    """Two convolutions beside a pointwise one; the activation is inside the sum."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(inputs, middle, 3, padding=1)
        self.conv_2 = nn.Conv2d(middle, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Maps) -> Float[Tensor, "b c2 h w"]:
        y = F.leaky_relu(self.conv_1(x), SLOPE)
        return F.leaky_relu(self.conv_2(y), SLOPE) + self.shortcut(x)


class _Down(_Convolutions):
    """A stage of a head; `conv_down` makes what goes on from it half as large."""

    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__(inputs, inputs, outputs)
        self.conv_down = nn.Conv2d(outputs, outputs, 4, 2, 1, bias=False) if halves else None


class _Up(nn.Module):
    """A stage of a tail: twice as large where the head halved, then joined with its features."""

    def __init__(self, inputs: int, outputs: int, doubles: bool) -> None:
        super().__init__()
        if doubles:
            self.up = nn.ConvTranspose2d(inputs, outputs, 2, 2)
        else:
            self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.block = _Convolutions(2 * outputs, outputs, outputs)
        self._first = "up" if doubles else "conv"

    def forward(self, x: Maps, skip: Float[Tensor, "b c2 h2 w2"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.block(torch.cat([self.get_submodule(self._first)(x), skip], 1))


class EDT(RestorationNetwork):
    """EDT with any heads, of which one is in use; picture sizes are arbitrary, odd ones too.

    Args:
        num_feat: channels at the beginning of a head, doubled by each of its stages.
        embed_dim: channels of the body.
        depths: blocks of each of the body's groups.
        heads: names of heads and tails: `sr_x2`, `sr_x3`, `sr_x4` enlarge; `dn_...` and `dr_...`,
            such as `dn_g15` for noise of sigma 15 and `dr_L` for light rain, keep the size.
        head: the one in use; None is the first.
        num_heads: heads of each direction's attention, for each group; None is what the released
            networks of that `embed_dim` have.
        window_size: height and width of the flat windows in feature pixels.
        mlp_ratio: channels inside feed-forward branches, relative to `embed_dim`.
        head_depth: stages of a head.
        upsampler: how tails enlarge: `pixelshuffle`, or `pixelshuffledirect` with fewer layers.
        downsample: whether stages of heads that keep the size halve it for the body.
        image_range: by which pixels are multiplied inside.
        resi_connection: what ends the body: `1conv` as in all released networks, or `3conv`, which
            narrows to a quarter of the channels in between.

    Attributes:
        head_in_use: name of the head in use.

    Raises:
        BackboneError: a size is impossible, or a head unknown.
    """

    mean: Tensor

    def __init__(
        self,
        *,
        num_feat: int,
        embed_dim: int,
        depths: Sequence[int],
        heads: Sequence[str],
        head: str | None = None,
        num_heads: Sequence[int] | None = None,
        window_size: Sequence[int] = RELEASED_WINDOW,
        mlp_ratio: float = 2,
        head_depth: int = 2,
        upsampler: str = "pixelshuffle",
        downsample: bool = True,
        image_range: float = 1.0,
        resi_connection: str = "1conv",
    ) -> None:
        super().__init__()
        if num_heads is None and embed_dim in RELEASED_NUM_HEADS:
            num_heads = [RELEASED_NUM_HEADS[embed_dim]] * len(depths)
        check_sizes(num_feat, embed_dim, depths, num_heads, window_size, head_depth)
        check_heads(heads, head, upsampler)
        check_connection(resi_connection, embed_dim)
        assert num_heads is not None
        self.head_in_use = heads[0] if head is None else head
        self.scale = scale_of(self.head_in_use)
        self.image_range = image_range
        halves = downsample and self.scale == 1
        self._downscale = 2**head_depth if halves else 1
        rows, columns = window_size
        self.size_multiple = math.lcm(rows, columns) * self._downscale
        hidden = int(embed_dim * mlp_ratio)
        self.body = _Body(embed_dim, depths, num_heads, (rows, columns), hidden, resi_connection)
        widths = [num_feat * 2**stage for stage in range(head_depth + 1)]
        for name in heads:
            resamples = downsample and scale_of(name) == 1
            self.add_module(f"head_{name}", _head(widths, embed_dim, resamples))
            self.add_module(f"tail_{name}", _tail(widths, embed_dim, resamples, name, upsampler))
        for module in self.body.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        """Restores `(B, 3, H, W)` pictures in `[0, 1]`; the result is not clipped.

        Its sides are `scale` times as long.
        """
        height, width = x.shape[2:]
        shifted = (mirrored(x, self.size_multiple) - self.mean) * self.image_range
        first, *downs, last = self.get_submodule(f"head_{self.head_in_use}").children()
        features, skips = first(shifted), []
        for down in downs:
            assert isinstance(down, _Down)
            features = down(features)
            skips.append(features)
            features = features if down.conv_down is None else down.conv_down(features)
        features = self.body(last(features))
        for module in self.get_submodule(f"tail_{self.head_in_use}").children():
            features = module(features, skips.pop()) if skips else module(features)
        if self.scale > 1:
            shifted = F.interpolate(shifted, scale_factor=float(self.scale), mode="bilinear")
        result = (features + shifted) / self.image_range + self.mean
        return result[..., : height * self.scale, : width * self.scale]

    @property
    def sites(self) -> Sites:
        """Where this network can be adapted."""
        c = self.body.norm.normalized_shape[0]
        stages = []
        for index, group in enumerate(self.body.layers):
            assert isinstance(group, _Group)
            name = f"body.layers.{index}.residual_group.blocks"
            blocks = (f"{name}.{block}" for block in range(len(group.residual_group.blocks)))
            stages.append(Stage(name, "middle", tuple(blocks), c, self._downscale, "bhwc"))
        feed_forward, attention = [], []
        for block in (block for stage in stages for block in stage.blocks):
            layers = tuple(f"{block}.mlp.{name}" for name in ("fc1", "dwconv", "fc2"))
            feed_forward.append(
                FeedForwardSite(f"{block}.norm2", layers, layers[-1], None, c, "bhwc")
            )
            attention.append(AttentionSite.packed(f"{block}.qkv", f"{block}.proj", c, "bhwc"))
        return Sites(
            feed_forward=tuple(feed_forward),
            attention=tuple(attention),
            stages=tuple(stages),
            decoder=(f"tail_{self.head_in_use}",),
        )


def window_mask(rows: int, columns: int, window: Sides, device: torch.device) -> Mask:
    """What is added to attention in windows shifted by half: the rolled map's ends do not touch.

    Args:
        rows, columns: sides of the map, multiples of the window's.
        window: height and width.
        device: of the result.

    Returns:
        For every window, row by row, 0 or `MASKED` for each pair of its places.
    """
    regions = []
    for size, side, shift in zip((rows, columns), window, _half(window), strict=True):
        place = torch.arange(size, device=device)
        regions.append((place >= size - side).int() + (place >= size - shift).int())
    region = 3 * regions[0][:, None] + regions[1]
    region = region.unflatten(1, (-1, window[1])).unflatten(0, (-1, window[0]))
    region = region.transpose(1, 2).flatten(2).flatten(0, 1)
    return MASKED * (region[:, :, None] != region[:, None]).float()


def _head(widths: Sequence[int], embed_dim: int, halves: bool) -> nn.Sequential:
    first, last = nn.Conv2d(3, widths[0], 3, padding=1), nn.Conv2d(widths[-1], embed_dim, 3, 1, 1)
    return nn.Sequential(first, *(_Down(a, b, halves) for a, b in pairwise(widths)), last)


def _tail(
    widths: Sequence[int], embed_dim: int, doubles: bool, name: str, upsampler: str
) -> nn.Sequential:
    inputs = (embed_dim, *reversed(widths[2:]))
    ups = [_Up(a, b, doubles) for a, b in zip(inputs, reversed(widths[1:]), strict=True)]
    o, scale = widths[1], scale_of(name)
    if scale == 1:
        return nn.Sequential(*ups, nn.Conv2d(o, 3, 3, padding=1))
    if upsampler == "pixelshuffledirect":
        enlarging = [nn.Conv2d(o, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        return nn.Sequential(*ups, nn.Sequential(*enlarging), nn.Identity())
    enlarging = []
    for step in (2, 2) if scale == 4 else (scale,):
        enlarging += [nn.Conv2d(o, step**2 * o, 3, padding=1), nn.PixelShuffle(step)]
    return nn.Sequential(*ups, nn.Sequential(*enlarging), nn.Conv2d(o, 3, 3, padding=1))


def _connection(width: int, kind: str) -> nn.Module:
    """What ends the body."""
    if kind == "1conv":
        return nn.Conv2d(width, width, 3, padding=1)
    narrow = width // 4
    return nn.Sequential(
        nn.Conv2d(width, narrow, 3, padding=1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(narrow, narrow, 1),
        nn.LeakyReLU(SLOPE),
        nn.Conv2d(narrow, width, 3, padding=1),
    )


def _half(window: Sides) -> Sides:
    return window[0] // 2, window[1] // 2
