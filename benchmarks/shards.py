"""How many patches a second shards give to a training, and a pack beside them.

    python benchmarks/shards.py [--workers 2] [--seconds 8] [--rounds 3] [--quick] [--place URL]

Patches of 128 pixels in batches of 32, cut, turned and made into tensors, and nothing else: no
network takes time. Pictures are made (shapes with noise, as hard to decode as a photograph), as
JPEG and as PNG, of the sizes of two common sets. `crops` is how many patches a picture gives each
time it comes; every picture comes once an epoch whatever it is. The processor's time for each patch
is told beside the rate, because it holds on a busy machine as well, and what two cores could do
with it at most; `load` is the machine's load before.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import run_script, write_report
from restore import make_picture

# Width and height, of BSD's and of DIV2K's pictures, and how many there are.
SETS = {"480x320": (480, 320, 64), "2040x1356": (2040, 1356, 16)}
PATCH, BATCH = 128, 32
WHY = (
    "Patches wait for decoding alone: a picture is decoded each time it comes, whether one patch "
    "is cut out of it or several."
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Patches a second out of shards.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", help="where shards go, such as s3://bucket/x/; a folder if not")
    parser.add_argument("--quick", action="store_true", help="half a second of each")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = 0.5, 1
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measured(options, Path(folder)))
    facts = {
        "what": f"patches of {PATCH} in batches of {BATCH}, without a network",
        "workers": options.workers,
        "load": round(load, 1),
        "why": WHY,
        "store": "a folder" if options.place is None else options.place.partition(":")[0],
    }
    write_report("shards", facts, ("numpy", "torch", "pyvips"), rows)


def measured(options: argparse.Namespace, folder: Path):  # noqa: ANN201 - rows
    import torch

    from urushi.data.pack import pack_pictures
    from urushi.data.packed import PackedPictures
    from urushi.data.shards.shard_store import open_store
    from urushi.data.shards.shard_writing import find_samples, write_shards
    from urushi.data.shards.sharded import open_shards

    torch.set_num_threads(1)  # the threads that decode are to have the cores
    for size, (width, height, count) in SETS.items():
        for suffix in ("jpg", "png"):
            name = f"{size}-{suffix}"
            pictures(folder / name, suffix, width, height, count)
            place = f"{options.place or folder}/{name}-shards"
            write_shards(find_samples([folder / name]), open_store(place), overwrite=True)
            for crops in (1, 8, 16):
                shards = open_shards(place, workers=options.workers)
                yield told(f"{name}, {crops} of each", rates(options, shards, crops), count)
            if suffix == "jpg":
                pack = pack_pictures([folder / name], folder / f"{name}.safetensors")
                yield told(f"{size}, packed", rates(options, PackedPictures(pack.path), 1), count)


def pictures(folder: Path, suffix: str, width: int, height: int, count: int) -> None:
    import pyvips

    folder.mkdir()
    for index in range(count):
        path = folder / f"{index}.jpg"
        make_picture(path, width, height)
        if suffix == "png":
            pyvips.Image.new_from_file(str(path)).pngsave(str(path.with_suffix(".png")))
            path.unlink()


def rates(options: argparse.Namespace, pack, crops: int) -> list[tuple[float, float]]:  # noqa: ANN001
    """Patches a second, and milliseconds of the processor for each, of every round."""
    import torch

    from urushi.data.shards.sharded import ShardedPictures
    from urushi.training.batches import CleanBatches
    from urushi.training.streaming import Stream

    stream = None
    if isinstance(pack, ShardedPictures):
        stream = Stream(pack, np.arange(len(pack)), BATCH, 0, crops)
    batches = CleanBatches(pack, PATCH, BATCH, True, 0, torch.device("cpu"), stream=stream)
    step, found = 0, []
    for number in range(-1, options.rounds):  # the first fills what is read ahead
        begin, busy, first = time.perf_counter(), os.times(), step
        while time.perf_counter() - begin < (options.seconds if number >= 0 else 1.0):
            batches(step)
            step += 1
        spent, now = time.perf_counter() - begin, os.times()
        patches = BATCH * (step - first)
        cpu = now.user + now.system - busy.user - busy.system
        if number >= 0:
            found.append((patches / spent, 1000 * cpu / patches))
    if stream is not None:
        pack.forget()
    return found


def told(name: str, found: list[tuple[float, float]], count: int) -> dict:
    rate, cpu = (statistics.median(values) for values in zip(*found, strict=True))
    row = {
        "name": name,
        "pictures": count,
        "patches_per_second": round(rate),
        "cpu_milliseconds_per_patch": round(cpu, 3),
        "two_cores_at_most": round(2000 / cpu),
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    run_script(main)
