"""What tests of methods share: a tiny backbone of tokens, and adapters with random parameters."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from urushi.adapters import attach, create_adapter
from urushi.backbones import (
    AttentionSite,
    FeedForwardSite,
    RestorationNetwork,
    Sites,
    Stage,
    TokenSite,
)

GOLDEN = Path(__file__).parent / "golden"


def read_golden(name):
    """All tensors in float32, and the configuration."""
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, config


def below(tensors, start):
    """The tensors whose names begin with `start`, without it."""
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


class TokenBlock(nn.Module):
    """A transformer layer on `(L, B, C)`, with a position embedding at every token."""

    def __init__(self, width, heads=2):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens, positions):
        length, count, width = tokens.shape
        parts = self.qkv(self.norm1(tokens) + positions)
        q, k, v = parts.view(length, count, 3, self.heads, -1).permute(2, 1, 3, 0, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        tokens = tokens + self.proj(mixed.permute(2, 0, 1, 3).reshape(length, count, width))
        return tokens + self.fc2(F.relu(self.fc1(self.norm2(tokens))))


class TokenNet(RestorationNetwork):
    """Squares of 4x4 pixels as tokens, two blocks, and pixels again."""

    size_multiple = 4

    def __init__(self, width=8):
        super().__init__()
        self.width = width
        self.embed, self.head = nn.Conv2d(48, width, 1), nn.Conv2d(width, 48, 1)
        self.blocks = nn.ModuleList(TokenBlock(width) for _ in range(2))

    def forward(self, x):
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % 4, 0, -height % 4))
        maps = self.embed(F.pixel_unshuffle(padded, 4))
        tokens = maps.flatten(2).permute(2, 0, 1)
        positions = torch.linspace(-1, 1, len(tokens), dtype=x.dtype)[:, None, None]
        for block in self.blocks:
            tokens = block(tokens, positions.expand(-1, 1, self.width))
        maps = tokens.permute(1, 2, 0).reshape(maps.shape)
        return (F.pixel_shuffle(self.head(maps), 4) + padded)[..., :height, :width]

    @property
    def sites(self):
        c = self.width
        names = [f"blocks.{index}" for index in range(len(self.blocks))]
        feed_forward = [
            FeedForwardSite(f"{n}.norm2", (f"{n}.fc1", f"{n}.fc2"), f"{n}.fc2", None, c, "lbc")
            for n in names
        ]
        rows = [(0, c), (c, 2 * c), (2 * c, 3 * c)]
        attention = [
            AttentionSite(*((f"{n}.qkv", *part) for part in rows), f"{n}.proj", c, "lbc")
            for n in names
        ]
        return Sites(
            feed_forward=tuple(feed_forward),
            attention=tuple(attention),
            stages=(Stage("blocks", "middle", tuple(names), c, 4, "lbc"),),
            decoder=("head",),
            tokens=tuple(TokenSite(n, c, "lbc", companions=(1,)) for n in names),
        )


class Bare(RestorationNetwork):
    """A sequence of modules that offers no site."""

    size_multiple = 1

    def __init__(self, *modules):
        super().__init__()
        self.layers = nn.Sequential(*modules)

    def forward(self, x):
        return self.layers(x)

    @property
    def sites(self):
        return Sites((), (), (), ())


def shaken(module, seed, by=0.2):
    """The module with something random added to each of its parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return module


def random_adapter(backbone, seed=1, **config):
    """An adapter as if it were trained."""
    torch.manual_seed(seed)
    return shaken(create_adapter(backbone, config), seed)


def picture(*shape, seed=0):
    """Random pixels `(B, 3, H, W)` in [0, 1]."""
    count, height, width = shape
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def steps_of_training(wrap, rank, world):
    """The state after three steps on every `world`-th picture of the same batches."""
    torch.manual_seed(0)
    backbone = shaken(TokenNet(), 0)
    configs = [{"method": "lora"}, {"method": "adaptformer", "hidden": 2, "learn_scale": True}]
    adapted = attach(backbone, *(random_adapter(backbone, 7, **c) for c in configs))
    model = wrap(adapted)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for step in range(3):
        x = picture(4, 8, 12, seed=step)[rank::world]
        optimizer.zero_grad()
        (model(x) - x.square()).square().mean().backward()
        optimizer.step()
    return adapted.state_dict()


def same(one, other):
    """Whether two dictionaries of tensors are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
