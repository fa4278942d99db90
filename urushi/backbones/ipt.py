"""IPT, an encoder and a decoder of tokens shared by many tasks, each with a head and a tail.

Chen et al.: "Pre-Trained Image Processing Transformer", CVPR 2021, arXiv 2012.00364. It works on
squares of 48x48 pixels, each by itself. Tensor names are the released ones but for the packed
projections of attention, `in_proj_weight` there and `in_proj.weight` here, where they are layers
like all others.
"""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones.network import RestorationNetwork, mirrored
from urushi.backbones.sites import AttentionSite, FeedForwardSite, Sites, Stage, TokenSite
from urushi.errors import BackboneError
from urushi.names import counted

# The tasks of the released pre-trained file, in its order, with their scales. AdaptIR's hybrids of
# low resolution and noise or JPEG use `x4`, its low light `denoise50`.
RELEASED_HEADS = {"x2": 2, "x3": 3, "x4": 4, "derain": 1, "denoise30": 1, "denoise50": 1}
RELEASED_WIDTH, RELEASED_NUM_HEADS = 576, 12
RELEASED_RANGE = 255.0
MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, red, green, blue
EXPANSION = 4  # of feed-forward branches

Tokens = Float[Tensor, "l b d"]
Memory = Float[Tensor, "m b d"]  # of a number of its own: prompts may stand among the tokens


class PackedProjection(nn.Linear):
    """Queries, keys and values from one weight, without biases."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width, bias=False)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, query: Tokens, key: Memory, value: Memory
    ) -> tuple[Tokens, Memory, Memory]:
        d = self.in_features
        if query is key and key is value:
            q, k, v = F.linear(query, self.weight).chunk(3, -1)
        elif query is key:
            q, k = F.linear(query, self.weight[: 2 * d]).chunk(2, -1)
            v = F.linear(value, self.weight[2 * d :])
        else:
            assert key is value
            q = F.linear(query, self.weight[:d])
            k, v = F.linear(key, self.weight[d:]).chunk(2, -1)
        return q, k, v


class Attention(nn.Module):
    """Attention of several heads over `(L, B, D)`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = PackedProjection(width)
        self.out_proj = nn.Linear(width, width, bias=False)

    def forward(self, query: Tokens, key: Memory, value: Memory) -> Tokens:
        parts = [
            part.unflatten(2, (self.heads, -1)).permute(1, 2, 0, 3)
            for part in self.in_proj(query, key, value)
        ]
        mixed = F.scaled_dot_product_attention(*parts)
        return self.out_proj(mixed.permute(2, 0, 1, 3).flatten(2))


class EncoderLayer(nn.Module):
    """Attention among tokens, then a feed-forward branch, each behind a norm."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tokens) -> Tokens:
        z = self.norm1(tokens)
        tokens = tokens + self.self_attn(z, z, z)
        return tokens + self.linear2(F.relu(self.linear1(self.norm2(tokens))))


class DecoderLayer(nn.Module):
    """As an encoder layer, with attention to the encoder's result between.

    The query embedding, which tells the task, is added to what makes queries and, among the tokens
    themselves, keys.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.multihead_attn = Attention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        for attention in (self.self_attn, self.multihead_attn):
            nn.init.xavier_uniform_(attention.in_proj.weight)

    def forward(self, tokens: Tokens, memory: Memory, query: Float[Tensor, "l 1 d"]) -> Tokens:
        z = self.norm1(tokens)
        placed = z + query
        tokens = tokens + self.self_attn(placed, placed, z)
        z = self.norm2(tokens)
        tokens = tokens + self.multihead_attn(z + query, memory, memory)
        return tokens + self.linear2(F.relu(self.linear1(self.norm3(tokens))))


class _Layers(nn.Module):
    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class _Positions(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pe = nn.Embedding(tokens, width)


class _Body(nn.Module):
    """From the features of squares to features again: the part that all tasks share."""

    def __init__(
        self, width: int, patch: int, tokens: int, layers: int, heads: int, queries: int
    ) -> None:
        super().__init__()
        self.patch = patch
        hidden = EXPANSION * width
        self.linear_encoding = nn.Linear(width, width)
        # The released numbering has a dropout at 1.
        self.mlp_head = nn.Sequential(
            nn.Linear(width, hidden), nn.Identity(), nn.ReLU(), nn.Linear(hidden, width)
        )
        self.query_embed = nn.Embedding(queries, tokens * width)
        self.position_encoding = _Positions(tokens, width)
        self.encoder = _Layers([EncoderLayer(width, heads, hidden) for _ in range(layers)])
        self.decoder = _Layers([DecoderLayer(width, heads, hidden) for _ in range(layers)])

    def forward(self, features: Float[Tensor, "b n s s"], task: int) -> Float[Tensor, "b n s s"]:
        maps = F.pixel_unshuffle(features, self.patch)
        # Contiguous: on other layouts torch's sums depend on whether weights want gradients.
        tokens = maps.flatten(2).permute(2, 0, 1).contiguous()
        tokens = self.linear_encoding(tokens) + tokens
        tokens = tokens + self.position_encoding.pe.weight[:, None]
        for layer in self.encoder.layers:
            tokens = layer(tokens)
        memory = tokens
        query = self.query_embed.weight[task].unflatten(0, (len(tokens), 1, -1))
        for layer in self.decoder.layers:
            tokens = layer(tokens, memory, query)
        tokens = self.mlp_head(tokens) + tokens
        return F.pixel_shuffle(tokens.permute(1, 2, 0).unflatten(2, maps.shape[2:]), self.patch)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 5, padding=2) for _ in range(2))
        self.body = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.body(x)


class IPT(RestorationNetwork):
    """IPT with any heads, of which one is in use.

    A picture of any size is filled up by mirroring and cut into squares side by side, which are
    restored as one batch; see `fixed_patch` for squares that overlap.

    Args:
        n_feats: channels of heads and tails.
        patch_size: side in pixels of the squares.
        patch_dim: side in pixels of what one token stands for.
        num_layers: layers of the encoder, and of the decoder.
        num_heads: of each attention; None is the released 12 for tokens of the released width.
        heads: names of the heads in the order of their weights: `x2`, `x3` and `x4` enlarge, all
            others, such as `derain` or `denoise50`, keep the size.
        head: the one in use; None is the first.
        num_queries: query embeddings, of which each head uses the one at its own place; None is as
            many as heads.
        rgb_range: what white is for the weights; pixels outside are in `[0, 1]` all the same.

    Attributes:
        head_in_use: place of the head in use.

    Raises:
        BackboneError: a size is not positive or does not divide another, or a head is unknown.
    """

    mean: Tensor

    def __init__(
        self,
        *,
        n_feats: int = 64,
        patch_size: int = 48,
        patch_dim: int = 3,
        num_layers: int = 12,
        num_heads: int | None = None,
        heads: Sequence[str] = tuple(RELEASED_HEADS),
        head: str | None = None,
        num_queries: int | None = None,
        rgb_range: float = RELEASED_RANGE,
    ) -> None:
        super().__init__()
        width = n_feats * patch_dim**2
        if num_heads is None and width == RELEASED_WIDTH:
            num_heads = RELEASED_NUM_HEADS
        _check_sizes(n_feats, patch_size, patch_dim, num_layers, num_heads, rgb_range)
        _check_heads(heads, head, num_queries)
        assert num_heads is not None
        self.head_in_use = 0 if head is None else list(heads).index(head)
        self.scale = _scale_of(heads[self.head_in_use])
        self.rgb_range = rgb_range
        self.fixed_patch = self.size_multiple = patch_size
        self.head = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(3, n_feats, 3, padding=1), *(_ResidualBlock(n_feats) for _ in range(2))
            )
            for _ in heads
        )
        tokens, queries = (patch_size // patch_dim) ** 2, num_queries or len(heads)
        self.body = _Body(width, patch_dim, tokens, num_layers, num_heads, queries)
        self.tail = nn.ModuleList(
            nn.Sequential(_upsampler(n_feats, _scale_of(n)), nn.Conv2d(n_feats, 3, 3, padding=1))
            for n in heads
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        """Restores `(B, 3, H, W)` pictures in `[0, 1]`; the result is not clipped.

        Its sides are `scale` times as long.
        """
        count, _, height, width = x.shape
        side = self.size_multiple
        padded = mirrored(x, side)
        rows, columns = padded.shape[2] // side, padded.shape[3] // side
        squares = padded.view(count, 3, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        # Until the division below, the only place where pixels are of another range.
        shifted = self.rgb_range * (squares.reshape(-1, 3, side, side) - self.mean)
        features = self.head[self.head_in_use](shifted)
        features = self.body(features, self.head_in_use) + features
        restored = self.tail[self.head_in_use](features) / self.rgb_range + self.mean
        side *= self.scale
        whole = restored.view(count, rows, columns, 3, side, side).permute(0, 3, 1, 4, 2, 5)
        whole = whole.reshape(count, 3, rows * side, columns * side)
        return whole[..., : height * self.scale, : width * self.scale]

    @property
    def sites(self) -> Sites:
        """Where this network can be adapted."""
        patch = self.body.patch
        d, side = self.body.linear_encoding.in_features, self.size_multiple // patch
        parts = [
            ("encoder", self.body.encoder, "norm2", ("self_attn",), ()),
            ("decoder", self.body.decoder, "norm3", ("self_attn", "multihead_attn"), (2,)),
        ]
        feed_forward, attention, stages, tokens = [], [], [], []
        for role, part, norm, attentions, companions in parts:
            blocks = [f"body.{role}.layers.{index}" for index in range(len(part.layers))]
            stages.append(Stage(f"body.{role}.layers", role, tuple(blocks), d, patch, "lbc"))
            for block in blocks:
                modules = (f"{block}.linear1", f"{block}.linear2")
                site = (f"{block}.{norm}", modules, modules[-1], None, d, "lbc", (side, side))
                feed_forward.append(FeedForwardSite(*site))
                tokens.append(TokenSite(block, d, "lbc", companions))
                for name in (f"{block}.{name}" for name in attentions):
                    packed = AttentionSite.packed(f"{name}.in_proj", f"{name}.out_proj", d, "lbc")
                    attention.append(packed)
        return Sites(
            feed_forward=tuple(feed_forward),
            attention=tuple(attention),
            stages=tuple(stages),
            decoder=("body.decoder", "body.mlp_head", f"tail.{self.head_in_use}"),
            tokens=tuple(tokens),
        )


def _upsampler(channels: int, scale: int) -> nn.Sequential:
    steps = {1: [], 2: [2], 3: [3], 4: [2, 2]}[scale]
    layers: list[nn.Module] = []
    for step in steps:
        layers += [nn.Conv2d(channels, step**2 * channels, 3, padding=1), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)


def _scale_of(head: str) -> int:
    return int(head[1]) if re.fullmatch(r"x[234]", head) else 1


def _check_sizes(
    n_feats: int,
    patch_size: int,
    patch_dim: int,
    num_layers: int,
    num_heads: int | None,
    rgb_range: float,
) -> None:
    if min(n_feats, patch_size, patch_dim, num_layers) < 1 or not rgb_range > 0:
        raise BackboneError(
            f"n_feats {n_feats}, patch_size {patch_size}, patch_dim {patch_dim}, num_layers "
            f"{num_layers}, rgb_range {rgb_range}: each must be positive"
        )
    if patch_size % patch_dim:
        raise BackboneError(
            f"patch_size {patch_size} is no multiple of patch_dim {patch_dim}: squares must divide "
            "into tokens"
        )
    width = n_feats * patch_dim**2
    if num_heads is None or num_heads < 1 or width % num_heads:
        raise BackboneError(
            f"num_heads is {num_heads}: tokens have {width} channels, which it must divide; give "
            "the number with which the network was trained"
        )


def _check_heads(heads: Sequence[str], head: str | None, num_queries: int | None) -> None:
    known = ", ".join(heads)
    if not heads or len(set(heads)) < len(heads):
        raise BackboneError(f"heads are [{known}]: at least one is needed, each name once")
    for name in heads:
        if re.fullmatch(r"x\d+", name) and _scale_of(name) == 1:
            raise BackboneError(f"head {name!r} is unknown: an IPT enlarges by x2, x3 or x4")
    if head is not None and head not in heads:
        raise BackboneError(f"head {head!r} is unknown: this network has {known}")
    if num_queries is not None and num_queries < len(heads):
        raise BackboneError(
            f"num_queries is {num_queries}: {counted(len(heads), 'head needs', 'heads need')} at "
            f"least as many"
        )
