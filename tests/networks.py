"""Tiny networks and engines, golden files, and what compares them."""

import json
from pathlib import Path

import numpy as np
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
    create_backbone,
)
from urushi.backbones.checkpoints import read_checkpoint
from urushi.backbones.released_networks import build_released, read_configuration
from urushi.errors import EngineError, OutOfMemoryError
from urushi.inference.engines.base import Precision
from urushi.inference.restorer import Restorer


def batch(height: int = 12, width: int = 20, count: int = 2) -> np.ndarray:
    return np.random.default_rng(height).random((count, 3, height, width), dtype=np.float32)


class RepeatingEngine:
    """Repeats every pixel; local, so tiles must not be seen in its result."""

    name, device, precision = "repeating", "cpu", "float32"
    bytes_per_pixel = 1000.0

    def __init__(self, scale=2, size_multiple=1, fixed_patch=None, most_pixels=None):
        self.scale, self.size_multiple, self.fixed_patch = scale, size_multiple, fixed_patch
        self.most_pixels = most_pixels
        self.shapes = []

    def run(self, batch):
        if self.most_pixels is not None and batch[0, 0].size > self.most_pixels:
            raise OutOfMemoryError("too large")
        self.shapes.append(batch.shape[2:])
        return batch.repeat(self.scale, axis=2).repeat(self.scale, axis=3)

    def in_float32(self):
        return self


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


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


def shaken_network(backbone, config, seed=0, by=0.2):
    """A network of that kind whose every parameter does something, in evaluation mode."""
    torch.manual_seed(seed)
    return shaken(create_backbone(backbone, config), seed, by).eval()


def parameters(module):
    """How many there are."""
    return sum(p.numel() for p in module.parameters())


def close(one, other, tolerance=1e-5):
    """Whether tensors are equal up to rounding."""
    return bool((one - other).abs().max() <= tolerance * max(1.0, float(other.abs().max())))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(module, seed, by=0.2):
    """The module with something random added to each of its parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return module


def shaken_adapter(backbone, seed=1, **config):
    """An adapter as if it were trained."""
    torch.manual_seed(seed)
    return shaken(create_adapter(backbone, config), seed)


def random_images(*shape, seed=0):
    """Random pixels `(B, 3, H, W)` in [0, 1]."""
    count, height, width = shape
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def steps_of_training(wrap, rank, world):
    """The state after three steps on every `world`-th picture of the same batches."""
    torch.manual_seed(0)
    backbone = shaken(TokenNet(), 0)
    configs = [{"method": "lora"}, {"method": "adaptformer", "hidden": 2, "learn_scale": True}]
    adapted = attach(backbone, *(shaken_adapter(backbone, 7, **c) for c in configs))
    model = wrap(adapted)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for step in range(3):
        x = random_images(4, 8, 12, seed=step)[rank::world]
        optimizer.zero_grad()
        (model(x) - x.square()).square().mean().backward()
        optimizer.step()
    return adapted.state_dict()


STAGES = ((1, 3, 16, 1), (6, 3, 24, 2), (6, 5, 40, 2), (6, 3, 80, 3), (6, 5, 112, 3))


def released(stages=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {}

    def convolution(name, normalisation, after, before, kernel):
        spread = (2 / (before * kernel * kernel)) ** 0.5
        shape = (after, before, kernel, kernel)
        made[f"{name}.weight"] = torch.randn(shape, generator=generator) * spread
        made[f"{normalisation}.weight"] = 0.8 + 0.4 * torch.rand(after, generator=generator)
        made[f"{normalisation}.bias"] = 0.2 * torch.randn(after, generator=generator)
        made[f"{normalisation}.running_mean"] = 0.1 * torch.randn(after, generator=generator)
        made[f"{normalisation}.running_var"] = 0.5 + torch.rand(after, generator=generator)

    convolution("_conv_stem", "_bn0", 32, 3, 3)
    before, number = 32, 0
    for expansion, kernel, after, count in STAGES[:stages]:
        for _ in range(count):
            block, inner = f"_blocks.{number}", before * expansion
            if expansion > 1:
                convolution(f"{block}._expand_conv", f"{block}._bn0", inner, before, 1)
            convolution(f"{block}._depthwise_conv", f"{block}._bn1", inner, 1, kernel)
            convolution(f"{block}._project_conv", f"{block}._bn2", after, inner, 1)
            before, number = after, number + 1
    return made


BROKEN = EngineError("broken")


class DarkenEngine:
    """Halves every value, after `healthy` tiles it fails."""

    name = "darken"
    device = "cpu"
    precision: Precision = "float32"
    size_multiple = 8
    scale = 1
    fixed_patch = None
    bytes_per_pixel = 1000.0

    def __init__(self, healthy=1_000_000, failure: BaseException = BROKEN):
        self.healthy = healthy
        self.failure = failure

    def run(self, batch):
        if self.healthy == 0:
            raise self.failure
        self.healthy -= 1
        return batch / 2

    def in_float32(self):
        return self


def darkening(**options):
    """Halves pictures in tiles of 64 pixels; see `DarkenEngine`."""
    return Restorer.from_engine(DarkenEngine(**options), tile=64, overlap=16)


def load_released(path: Path, backbone: str, **options) -> RestorationNetwork:
    """The network of a released `.pth` file; `options` are what tensors cannot tell."""
    state = read_checkpoint(path)
    config = read_configuration(state, backbone)
    return build_released(state, backbone, config, Path(path).name, options)
