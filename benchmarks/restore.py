"""Speed and memory of restoring, as ratios within one run.

    python benchmarks/restore.py [--model base] [--threads 2] [--skip-large]

Every row is measured in a process of its own. The network and its weights are the same in all:

* `eager`: one forward pass after another over 512x512 tiles, torch as it comes.
* `eager, kept allocator`: the same, freed memory kept (see `urushi.inference.hardware`).
* `engine ...`: `restore_picture` from a JPEG file into a JPEG file: decoding, tiles and their
  overlap, blending and encoding included. Its pixels are those of the picture.

Memory is the peak resident size of the process, beyond what it was when the engine was ready
and had run one tile of 64x64 pixels: interpreter, libraries and compiled network are not in it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import in_own_process, resident, write_report

SIZES = {"12 MP": (4000, 3000), "100 MP": (11600, 8700)}
TILE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of restoring.")
    parser.add_argument("--model", default="base")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-large", action="store_true", help="leave the 100 MP picture out")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        measure(json.loads(arguments.row))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = list(all_rows(arguments, Path(folder)))
    facts = {
        "what": "restoring a JPEG file into a JPEG file",
        "model": arguments.model,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
    }
    write_report("restore", facts, ("torch", "openvino", "pyvips-binary"), rows)
    print(table(rows))


def all_rows(arguments: argparse.Namespace, folder: Path) -> Iterator[dict]:
    plans = [
        {"name": "eager", "kind": "eager", "kept": False},
        {"name": "eager, kept allocator", "kind": "eager", "kept": True},
    ]
    engines = [("torch", "float32"), ("openvino", "float32"), ("openvino", "bf16")]
    if has_int8(arguments.model):
        engines.append(("openvino", "int8"))
    else:
        print(f"no row for int8: {arguments.model} has no int8 file beside it", file=sys.stderr)
    for engine, precision in engines:
        plans.append(
            {
                "name": f"engine {engine} {precision}, 12 MP",
                "kind": "picture",
                "engine": engine,
                "precision": precision,
                "size": "12 MP",
            }
        )
    exact = next(p for p in plans if p.get("engine") == "openvino" and p["precision"] == "float32")
    large = {**exact, "name": "engine openvino float32, 100 MP", "size": "100 MP"}
    pictures = {size: folder / f"{size.replace(' ', '-')}.jpg" for size in SIZES}
    for size in {"12 MP"} if arguments.skip_large else SIZES:
        make_picture(pictures[size], *SIZES[size])
    for plan in [*plans, large]:
        plan |= {"model": arguments.model, "threads": arguments.threads}
        if "size" in plan:
            plan["source"] = str(pictures[plan["size"]])
    # Rounds, because the speed of a shared machine drifts: a row is compared with the eager pass
    # of its own round, and the median ratio counts.
    rounds = [[one_row(plan) for plan in plans] for _ in range(arguments.rounds)]
    for index, plan in enumerate(plans):
        speeds = [r[index]["pixels_per_second"] for r in rounds]
        ratios = [r[index]["pixels_per_second"] / r[0]["pixels_per_second"] for r in rounds]
        order = sorted(range(len(ratios)), key=lambda i, r=ratios, s=speeds: (r[i], s[i]))
        middle = order[len(order) // 2]
        yield {
            "name": plan["name"],
            **rounds[middle][index],
            "ratio_to_eager": round(ratios[middle], 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "pixels_per_second_of_rounds": speeds,
        }
    if not arguments.skip_large:
        eager, row = one_row(plans[0]), one_row(large)
        ratio = row["pixels_per_second"] / eager["pixels_per_second"]
        yield {"name": large["name"], **row, "ratio_to_eager": round(ratio, 2)}


def has_int8(model: str) -> bool:
    from urushi.files.int8_file import int8_path
    from urushi.inference.zoo import find_model

    return int8_path(find_model(model)).is_file()


def one_row(plan: dict) -> dict:
    row = in_own_process(__file__, plan)
    print(f"{plan['name']}: {row['pixels_per_second'] / 1e6:.3f} MP/s", file=sys.stderr)
    return row


def measure(plan: dict) -> None:
    row = measure_eager(plan) if plan["kind"] == "eager" else measure_picture(plan)
    print(json.dumps(row))


def measure_eager(plan: dict) -> dict:
    import torch

    from urushi.files.model import read_model
    from urushi.inference.engines.torch_engine import build_network
    from urushi.inference.hardware import keep_freed_memory
    from urushi.inference.zoo import find_model

    torch.set_num_threads(plan["threads"])
    if plan["kept"]:
        keep_freed_memory()
    network = build_network(read_model(find_model(plan["model"])))
    tile = torch.rand(1, 3, TILE, TILE)
    seconds = []
    with torch.inference_mode():
        for _ in range(9):
            start = time.perf_counter()
            network(tile)
            seconds.append(time.perf_counter() - start)
    median = sorted(seconds[2:])[3]
    return {"pixels_per_second": round(TILE**2 / median), "seconds": round(median, 3)}


def measure_picture(plan: dict) -> dict:
    import numpy as np

    from urushi.inference.picture_files import restore_picture
    from urushi.inference.restorer import Restorer

    restorer = Restorer(
        plan["model"],
        engine=plan["engine"],
        precision=plan["precision"],
        threads=plan["threads"],
        device="cpu",
    )
    restorer.restore(np.zeros((64, 64, 3), np.float32))
    source = Path(plan["source"])
    before = resident("VmRSS")
    outcome = restore_picture(restorer, source, source.with_name("restored.jpg"), overwrite=True)
    cut = restorer.plan(outcome.height, outcome.width)
    return {
        "pixels_per_second": round(outcome.pixels / outcome.seconds),
        "seconds": round(outcome.seconds, 2),
        "megapixels": round(outcome.pixels / 1e6, 1),
        "tile": restorer.describe()["tile"],
        "pixels_restored_per_pixel": round(cut.ratio, 3),
        "runtime_megabytes": round(before / 1e6),
        "peak_megabytes_beyond": round((resident("VmHWM") - before) / 1e6),
    }


def make_picture(path: Path, width: int, height: int) -> None:
    """Something like a photograph: smooth shapes of many sizes with noise."""
    import pyvips

    layers = pyvips.Image.black(width, height).cast("float")
    for octave, cell in enumerate((1024, 256, 64, 16)):
        waves = pyvips.Image.perlin(width, height, cell_size=cell, seed=octave)
        layers += waves * (60 / 2**octave)
    bands = [
        layers * gain + 128 + pyvips.Image.gaussnoise(width, height, sigma=12, mean=0, seed=seed)
        for seed, gain in enumerate((1.0, 0.8, 0.6))
    ]
    picture = bands[0].bandjoin(bands[1:]).cast("uchar").copy(interpretation="srgb")
    picture.jpegsave(str(path), Q=92)


def table(rows: list[dict]) -> str:
    lines = [f"{'row':<36}{'MP/s':>8}{'x eager':>9}{'s':>9}{'peak MB beyond runtime':>24}"]
    for row in rows:
        peak = row.get("peak_megabytes_beyond", "")
        lines.append(
            f"{row['name']:<36}{row['pixels_per_second'] / 1e6:>8.3f}{row['ratio_to_eager']:>9.2f}"
            f"{row['seconds']:>9.2f}{peak:>24}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
