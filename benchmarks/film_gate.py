"""Trains the gate of the expert for film: which share of what it changes is to be taken.

    python benchmarks/film_gate.py pool --pack PACK --out POOL --seed 21 --patches 960
    python benchmarks/film_gate.py train --pools POOL [POOL ...] --adapter film --out FILE

`pool` makes patches with marks by formula, and what the expert makes of them; `train` learns from
them and writes the adapter with its gate. PACK is what `urushi data pack` makes of clean pictures.
Real overlays are not learned from: `film.py` measures with them.
"""

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from film_gate_patches import Patches
from measuring import run_script
from torch import Tensor, nn

from urushi.files.adapter import GATE, read_adapter, write_adapter
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_adapter

PATCH, BATCH = 128, 8
WIDTHS = (16, 24, 32)
RATE, WARMUP = 3e-3, 60
# Smaller marks are neither damage nor none.
VISIBLE = 2.5 / 255


class Block(nn.Module):
    """Two convolutions beside the input."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Network(nn.Module):
    """`urushi.inference.change_gate.GateNetwork`, and for training what is damaged."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = WIDTHS
        self.stem = nn.Conv2d(28, a, 3, padding=1)
        self.enter = nn.ModuleList([Block(a), Block(b)])
        self.down = nn.ModuleList([nn.Conv2d(4 * a, b, 1), nn.Conv2d(4 * b, c, 1)])
        self.middle = nn.ModuleList([Block(c), Block(c, 2)])
        self.up = nn.ModuleList([nn.Conv2d(b, 4 * a, 1), nn.Conv2d(c, 4 * b, 1)])
        self.leave = nn.ModuleList([Block(a), Block(b)])
        self.head = nn.Conv2d(a, 8, 3, padding=1)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                bent = name == "stem" or name.endswith("first")
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if bent else "linear")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
                if name.endswith("second"):
                    module.weight.data *= 0.5
        nn.init.normal_(self.head.weight, 0, 0.02)
        assert self.head.bias is not None
        self.head.bias.data[4:] = -2.5

    def forward(self, tile: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """The share of the change, and how likely a pixel is damaged, before the sigmoid."""
        largest = (20 * change.abs().amax(1, keepdim=True)).clamp(max=2)
        x = torch.cat([tile - 0.5, (8 * change).clamp(-1.5, 1.5), largest], 1)
        halves = self.enter[0](F.relu(self.stem(F.pixel_unshuffle(x, 2))))
        quarters = self.enter[1](self.down[0](F.pixel_unshuffle(halves, 2)))
        x = self.down[1](F.pixel_unshuffle(quarters, 2))
        x = self.middle[1](self.middle[0](x))
        x = self.leave[1](quarters + F.pixel_shuffle(self.up[1](x), 2))
        x = self.head(self.leave[0](halves + F.pixel_shuffle(self.up[0](x), 2)))
        return F.pixel_shuffle(x[:, :4], 2).sigmoid(), F.pixel_shuffle(x[:, 4:], 2)


def losses(network: Network, tile: Tensor, clean: Tensor, change: Tensor) -> tuple[Tensor, ...]:
    """How far off the result is, the share from the best one, and the mask from the true one."""
    share, mask = network(tile, change)
    off = (tile - clean).abs().amax(1, keepdim=True)
    damaged, sure = (off > VISIBLE).float(), ((off < 1e-6) | (off > VISIBLE)).float()
    # What hardly changes does not matter.
    strength = change.abs().amax(1, keepdim=True)
    strength = strength / (strength + 0.02)
    square = change.square().sum(1, keepdim=True).clamp_min(1e-6)
    best = ((change * (clean - tile)).sum(1, keepdim=True) / square).clamp(0, 1)
    weight = (strength + 0.1) * sure
    # Pixels without damage are many more.
    apart = 1 + 2 * damaged
    error = (apart * (tile + share * change - clean).abs()).mean()
    cross = F.binary_cross_entropy_with_logits(mask, damaged, reduction="none")
    return (
        50 * error,
        5 * (apart * (share - best).square() * strength**2 * sure).mean(),
        (cross * weight).sum() / weight.sum(),
    )


def make_pool(pack: Path, out: Path, seed: int, count: int) -> None:
    patches = Patches(pack, seed, PATCH)
    engine = Restorer(adapters=[find_adapter("film")], threads=1).engine
    kept = []
    while 16 * len(kept) < count:
        damaged, clean = patches.batch(16)
        change = torch.from_numpy(np.asarray(engine.run(damaged.numpy()))) - damaged
        kept.append(((255 * damaged).round().byte(), (255 * clean).round().byte(), change.half()))
    torch.save(tuple(torch.cat(part) for part in zip(*kept, strict=True)), out)


def batches(pools: list[Path]) -> Iterator[list[Tensor]]:
    """Batches without end, turned, mirrored, and with colours in any order."""
    parts = zip(*(torch.load(path) for path in pools), strict=True)
    damaged, clean, change = (torch.cat(part) for part in parts)
    while True:
        rows = torch.randint(len(damaged), (BATCH,))
        made = [damaged[rows].float() / 255, clean[rows].float() / 255, change[rows].float()]
        turned = [axis for axis in (2, 3) if torch.rand(1) < 0.5]
        colours = torch.randperm(3) if torch.rand(1) < 0.5 else torch.arange(3)
        made = [part.flip(turned)[:, colours] for part in made]
        if torch.rand(1) < 0.5:
            made = [part.transpose(2, 3) for part in made]
        yield [part.contiguous(memory_format=torch.channels_last) for part in made]


def train(pools: list[Path], seconds: float) -> Network:
    """The averaged network after so many seconds of the processor."""
    torch.manual_seed(0)
    network = Network().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    averaged = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.01)
    begun = time.process_time()
    for step, batch in enumerate(batches(pools), 1):
        done = (time.process_time() - begun) / seconds
        if done >= 1:
            break
        rate = RATE * min(1, step / WARMUP) * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        found = losses(network, *batch)
        optimizer.zero_grad()
        torch.stack(found).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            pairs = zip(averaged.parameters(), network.parameters(), strict=True)
            for mean, new in pairs:
                mean.lerp_(new, 1 - min(0.99, step / (step + 10)))
        if step % 200 == 0:
            print(
                step, round(done, 2), [round(float(one.detach()), 4) for one in found], flush=True
            )
    return averaged


def write(network: Network, adapter: str, out: Path) -> None:
    """Writes the adapter with this gate in place of the one it may have."""
    read = read_adapter(find_adapter(adapter))
    tensors = dict(read.own)
    for name, tensor in network.state_dict().items():
        # What is damaged was of use for training alone.
        kept = tensor[:4] if name.startswith("head.") else tensor
        tensors[GATE + name] = kept.contiguous().numpy()
    write_adapter(out, tensors, read.header.model_copy(update={"gate": True}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the gate of the expert for film.")
    ways = parser.add_subparsers(dest="way", required=True)
    pool = ways.add_parser("pool")
    pool.add_argument("--pack", type=Path, required=True)
    pool.add_argument("--seed", type=int, default=21)
    pool.add_argument("--patches", type=int, default=960)
    learn = ways.add_parser("train")
    learn.add_argument("--pools", type=Path, nargs="+", required=True)
    learn.add_argument("--adapter", default="film")
    learn.add_argument("--seconds", type=float, default=300)
    for one in (pool, learn):
        one.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if given.way == "pool":
        make_pool(given.pack, given.out, given.seed, given.patches)
    else:
        write(train(given.pools, given.seconds), given.adapter, given.out)


if __name__ == "__main__":
    run_script(main)
