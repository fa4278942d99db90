"""Trains the gate of the expert for film: which share of what it changes is to be taken.

    python benchmarks/film_gate.py windows --pack PACK --out WINDOWS
    python benchmarks/film_gate.py pool --pack PACK --windows WINDOWS --out POOL --seed 21
    python benchmarks/film_gate.py train --pools POOL [POOL ...] --held POOL --out FILE

`windows` finds the parts of clean pictures that the expert changes most. `pool` makes patches with
marks by formula, many of them of such parts, and what the expert makes of them; `train` learns from
them and writes the adapter with its gate. One picture of twelve is held out. PACK is what `urushi
data pack` makes of clean pictures. Real overlays are not learned from: `film.py` measures with
them.
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

from urushi.data.packed import PackedPictures
from urushi.files.adapter import GATE, read_adapter, write_adapter
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_adapter

PATCH, BATCH = 128, 8
WIDTHS = (16, 24, 32)
# How far the convolutions of the middle reach.
MIDDLE = (1, 2, 4, 1)
WARMUP = 60
# Windows: sides of pictures at most, and of that a share by chance; what counts of a change; how
# many of a picture, and of all.
LONGEST, SCALES, LARGE, EACH, WINDOWS = 1000, (0.5, 1.0), 5 / 255, 24, 3000
SEED = 5
# Smaller marks are neither damage nor none.
VISIBLE = 2.5 / 255
# What pixels of patches without marks count beside 1.
CLEAN = 0.5


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
        self.middle = nn.ModuleList([Block(c, reach) for reach in MIDDLE])
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
        for block in self.middle:
            x = block(x)
        x = self.leave[1](quarters + F.pixel_shuffle(self.up[1](x), 2))
        x = self.head(self.leave[0](halves + F.pixel_shuffle(self.up[0](x), 2)))
        return F.pixel_shuffle(x[:, :4], 2).sigmoid(), F.pixel_shuffle(x[:, 4:], 2)


def losses(
    network: Network, tile: Tensor, clean: Tensor, change: Tensor, *, more: float
) -> tuple[Tensor, ...]:
    """How far off the result is, the share from the best one, and the mask from the true one.

    Damaged pixels count `more` beside 1.
    """
    share, mask = network(tile, change)
    off = (tile - clean).abs().amax(1, keepdim=True)
    damaged, sure = (off > VISIBLE).float(), ((off < 1e-6) | (off > VISIBLE)).float()
    # What hardly changes does not matter.
    strength = change.abs().amax(1, keepdim=True)
    strength = strength / (strength + 0.02)
    square = change.square().sum(1, keepdim=True).clamp_min(1e-6)
    best = ((change * (clean - tile)).sum(1, keepdim=True) / square).clamp(0, 1)
    weight = (strength + 0.1) * sure
    # Pixels without damage are many more; those of patches without any count more than others.
    whole = (damaged.amax((2, 3), keepdim=True) == 0).float()
    apart = 1 + more * damaged + CLEAN * whole
    error = (apart * (tile + share * change - clean).abs()).mean()
    cross = F.binary_cross_entropy_with_logits(mask, damaged, reduction="none")
    return (
        50 * error,
        5 * (apart * (share - best).square() * strength**2 * sure).mean(),
        (cross * weight).sum() / weight.sum(),
    )


def make_windows(pack: Path, out: Path) -> None:
    """Rows of (picture, scale, top, left), of squares of PATCH pixels at that scale."""
    pictures, rng = PackedPictures(pack), np.random.default_rng(SEED)
    engine = Restorer(adapters=[find_adapter("film")], threads=1).engine
    found = []
    for number in range(len(pictures)):
        picture = np.asarray(pictures.picture(number))
        scale = rng.uniform(*SCALES) * min(1, LONGEST / max(picture.shape[:2]))
        scale = min(1, max(scale, 1.1 * PATCH / min(picture.shape[:2])))
        scene = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        sides = [side // 8 * 8 for side in scene.shape[:2]]
        scene = scene[: sides[0], : sides[1]].astype(np.float32).transpose(2, 0, 1)[None] / 255
        change = np.abs(np.asarray(engine.run(scene)) - scene)[0].max(0)
        summed = cv2.integral(np.maximum(change - LARGE, 0))
        own = []
        for top in range(0, sides[0] - PATCH + 1, PATCH // 4):
            for left in range(0, sides[1] - PATCH + 1, PATCH // 4):
                corners = summed[top : top + PATCH + 1 : PATCH, left : left + PATCH + 1 : PATCH]
                total = corners[0, 0] + corners[1, 1] - corners[0, 1] - corners[1, 0]
                own.append((total, number, scale, top, left))
        found += sorted(own, reverse=True)[:EACH]
    found.sort(reverse=True)
    np.save(out, np.array([row[1:] for row in found[:WINDOWS]]))


def make_pool(pack: Path, windows: Path, out: Path, seed: int, count: int, *, held: bool) -> None:
    patches = Patches(pack, seed, PATCH, windows=np.load(windows), held=held)
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


def begin(network: Network, adapter: str) -> None:
    """Goes on from the gate that an adapter has; blocks that it has not change nothing at first."""
    own, have = network.state_dict(), read_adapter(find_adapter(adapter)).gate
    for name, tensor in own.items():
        if name.startswith("head."):
            tensor[:4] = torch.from_numpy(have[name].copy())
        elif name in have:
            tensor.copy_(torch.from_numpy(have[name].copy()))
        elif ".second." in name:
            tensor.zero_()


def train(
    pools: list[Path], seconds: float, held: Path, start: str | None, more: float, rate: float
) -> Network:
    """The averaged network after so many seconds of the processor."""
    kept = [part.float() for part in torch.load(held)]
    kept = [kept[0] / 255, kept[1] / 255, kept[2]]
    torch.manual_seed(0)
    network = Network().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if start is not None:
        begin(network, start)
    averaged = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.01)
    begun = time.process_time()
    for step, batch in enumerate(batches(pools), 1):
        done = (time.process_time() - begun) / seconds
        if done >= 1:
            break
        now = rate * min(1, step / WARMUP) * (0.02 + 0.49 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = now
        found = losses(network, *batch, more=more)
        optimizer.zero_grad()
        torch.stack(found).sum().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            pairs = zip(averaged.parameters(), network.parameters(), strict=True)
            for mean, new in pairs:
                mean.lerp_(new, 1 - min(0.99, step / (step + 10)))
        if step % 400 == 0:
            with torch.no_grad():
                found = losses(averaged, *kept, more=more)
            print(step, round(done, 2), [round(float(one), 4) for one in found], flush=True)
    return averaged


def write(network: Network, adapter: str, lift: float, out: Path) -> None:
    """Writes the adapter with this gate in place of the one it may have.

    Shares are lifted by so much before the sigmoid.
    """
    read = read_adapter(find_adapter(adapter))
    tensors = dict(read.own)
    for name, tensor in network.state_dict().items():
        # What is damaged was of use for training alone.
        kept = tensor[:4] if name.startswith("head.") else tensor
        kept = kept + lift if name == "head.bias" else kept
        tensors[GATE + name] = kept.contiguous().numpy()
    write_adapter(out, tensors, read.header.model_copy(update={"gate": True}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the gate of the expert for film.")
    ways = parser.add_subparsers(dest="way", required=True)
    find = ways.add_parser("windows")
    pool = ways.add_parser("pool")
    for one in (find, pool):
        one.add_argument("--pack", type=Path, required=True)
    pool.add_argument("--windows", type=Path, required=True)
    pool.add_argument("--held", action="store_true", help="of the pictures that are held out")
    pool.add_argument("--seed", type=int, default=21)
    pool.add_argument("--patches", type=int, default=960)
    learn = ways.add_parser("train")
    learn.add_argument("--pools", type=Path, nargs="+", required=True)
    learn.add_argument("--held", type=Path, required=True, help="a pool that is not learned from")
    learn.add_argument("--adapter", default="film")
    learn.add_argument("--start", help="an adapter whose gate is to be trained on")
    learn.add_argument("--more", type=float, default=2, help="what damaged pixels count beside 1")
    learn.add_argument("--lift", type=float, default=0, help="of shares, before the sigmoid")
    learn.add_argument("--rate", type=float, default=2e-3)
    learn.add_argument("--seconds", type=float, default=1500)
    for one in (find, pool, learn):
        one.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if given.way == "windows":
        make_windows(given.pack, given.out)
    elif given.way == "pool":
        make_pool(given.pack, given.windows, given.out, given.seed, given.patches, held=given.held)
    else:
        found = train(given.pools, given.seconds, given.held, given.start, given.more, given.rate)
        write(found, given.adapter, given.lift, given.out)


if __name__ == "__main__":
    run_script(main)
