"""Large pictures from file to file, beside the engine alone, and beside another version.

    python benchmarks/large.py [--isa avx2] [--against CHECKOUT] [--threads 2] [--rounds 3]

Rows, each of them a process of its own, one after the other in every round:

* `engine`: the tiles of the picture through the engine and nothing else, as many at once as it can.
* `none`, `task`, `automatic`: JPEG to JPEG with the base, an expert, and what is chosen.
* `tiff`: a TIFF of 16 bits with a Display P3 profile into another, `--task none`.

Seconds are told by the clock and of the processor (`cpu`): others may use the machine, too.
`of_engine` is the engine's time by that of the row, `against` the other version's by ours; medians
over the rounds, each ratio within one round. The engine's pixels count with what tiles repeat.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SIZES = {"12 MP": (4000, 3000), "6 MP": (3072, 2048)}
ROWS = ("engine", "none", "task", "automatic", "tiff")
TASK = "noise"


def main() -> None:
    parser = argparse.ArgumentParser(description="Large pictures from file to file.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--size", choices=SIZES, default="12 MP")
    parser.add_argument("--quick", action="store_true", help="6 megapixels, one round")
    parser.add_argument("--isa", choices=["all", "avx2"], default="all")
    parser.add_argument("--against", type=Path, help="folder of another version")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(json.loads(options.row))))
        return
    if options.isa == "avx2":
        # Before anything reads them.
        os.environ.update(ONEDNN_MAX_CPU_ISA="AVX2", OV_CPU_MAX_ISA="AVX2")
    if options.quick:
        options.size, options.rounds = "6 MP", 1
    from measuring import write_report

    with tempfile.TemporaryDirectory() as folder:
        rows = all_rows(options, Path(folder))
    facts = {
        "what": "large pictures from file to file, seconds",
        "size": options.size,
        "threads": options.threads,
        "rounds": options.rounds,
        "task": TASK,
    }
    write_report("large", facts, ("openvino", "pyvips-binary"), rows)
    for row in rows:
        print(row)


def all_rows(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from restore import make_picture

    picture = folder / "picture.jpg"
    make_picture(picture, *SIZES[options.size])
    if "tiff" in options.rows:
        make_wide(picture, folder / "picture.tif")
    trees = {"ours": HERE.parent, "other": options.against}
    trees = {name: tree for name, tree in trees.items() if tree is not None}
    rounds: list[dict[tuple[str, str], dict[str, float]]] = []
    for _ in range(options.rounds):
        found = {}
        for row in options.rows:
            for name, tree in trees.items():
                plan = {"row": row, "folder": str(folder), "threads": options.threads}
                found[row, name] = in_tree(tree.resolve(), plan)
                print(row, name, found[row, name], file=sys.stderr, flush=True)
        rounds.append(found)
    return [told(row, rounds) for row in options.rows]


def told(row: str, rounds: list[dict[tuple[str, str], dict[str, float]]]) -> dict[str, Any]:
    """A row of the report."""

    def median(key: str, over: tuple[str, str], under: tuple[str, str]) -> float:
        return round(statistics.median(r[over][key] / r[under][key] for r in rounds), 3)

    own = row, "ours"
    result: dict[str, Any] = {"row": row}
    for key in ("seconds", "cpu", "megabytes"):
        result[key] = round(statistics.median(r[own][key] for r in rounds), 2)
    for key in ("seconds", "cpu"):
        end = "" if key == "seconds" else "_cpu"
        if row != "engine" and ("engine", "ours") in rounds[0]:
            result[f"of_engine{end}"] = median(key, ("engine", "ours"), own)
        if (row, "other") in rounds[0]:
            result[f"against{end}"] = median(key, (row, "other"), own)
    return result


def in_tree(tree: Path, plan: dict[str, Any]) -> dict[str, float]:
    """What this script measures with the package in another folder."""
    words = [sys.executable, __file__, "--row", json.dumps(plan)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def measure(plan: dict[str, Any]) -> dict[str, float]:
    from measuring import resident

    folder, row = Path(plan["folder"]), plan["row"]
    act = engine_alone(plan) if row == "engine" else from_file_to_file(folder, row, plan["threads"])
    before = resident("VmRSS")
    start, used = time.perf_counter(), time.process_time()
    act()
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu": round(time.process_time() - used, 2),
        "megabytes": round((resident("VmHWM") - before) / 1e6),
    }


def engine_alone(plan: dict[str, Any]) -> Any:
    """Runs as many tiles as the picture has, of their size."""
    import numpy as np

    from urushi.image import inspect_picture
    from urushi.inference.restorer import Restorer

    info = inspect_picture(Path(plan["folder"]) / "picture.jpg")
    restorer = Restorer("base", engine="openvino", threads=plan["threads"])
    cut = restorer.plan(info.height, info.width)
    shape = (1, 3, cut.rows.size, cut.columns.size)
    tile = np.random.default_rng(0).random(shape, dtype=np.float32)
    engine: Any = restorer.engine
    run = getattr(engine, "run_beside", engine.run)
    lanes = getattr(engine, "lanes", 1)

    def act(count: int = cut.count) -> None:
        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(lambda _: run(tile).shape, range(count)))

    act(2 * lanes)
    return act


def from_file_to_file(folder: Path, row: str, threads: int) -> Any:
    import numpy as np

    from urushi.inference.auto import AutoRestorer
    from urushi.inference.picture_files import restore_picture

    suffix = ".tif" if row == "tiff" else ".jpg"
    source, target = folder / f"picture{suffix}", folder / f"result{suffix}"
    task = {"automatic": "auto", "task": TASK}.get(row, "none")
    auto = AutoRestorer(task=task, engine="openvino", threads=threads)
    # What a process does once, such as loading libraries, is in none of the rows.
    auto.restorer(auto.choose(np.full((64, 64, 3), 0.5, np.float32))).restore(
        np.zeros((64, 64, 3), np.uint8)
    )

    def act() -> None:
        restorer = auto.restorer(auto.choose_file(source))
        restore_picture(restorer, source, target, overwrite=True)

    return act


def make_wide(picture: Path, target: Path) -> None:
    """The picture in 16 bits and Display P3."""
    import pyvips

    image = pyvips.Image.new_from_file(str(picture)).cast("ushort") * 257
    image = image.cast("ushort").copy(interpretation="rgb16")
    image = image.icc_transform("p3", input_profile="srgb", depth=16)
    image.tiffsave(str(target), compression="deflate", predictor="horizontal")


if __name__ == "__main__":
    main()
