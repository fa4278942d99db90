"""Many small pictures: a folder from end to end beside the engine alone on the same pixels.

    python benchmarks/small.py --data FOLDER [--count 40] [--name small]

Each row is a process of its own. `engine` is the time that the engine needs for the very tiles,
one after the other, ready before the clock starts; `folder` that of `run_batch` from files to
files. Both are measured in seconds on the clock and in seconds of the processor: on a machine that
does other work as well, the latter alone mean something. Sizes `one` are all alike, `several` are
eight sizes in turn, `all` are all different.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from measuring import in_own_process, resident, run_script, write_report

PIXELS = 150_000
SIDES = {"one": 1, "several": 8}


def main() -> None:
    """Reads the command line and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help="folder of pictures, of which pieces are cut")
    parser.add_argument("--count", type=int, default=40, help="pictures of a row")
    parser.add_argument("--threads", type=int, help="of the engine")
    parser.add_argument("--tasks", nargs="+", default=["none", "auto"])
    parser.add_argument("--sizes", nargs="+", default=["one", "several", "all"])
    parser.add_argument("--name", default="small", help="of the report")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(**options.row)))
        return
    rows = []
    for task in options.tasks:
        for sizes in options.sizes:
            plan = {"data": str(options.data), "count": options.count, "task": task}
            plan |= {"sizes": sizes, "threads": options.threads}
            row = in_own_process(__file__, plan)
            rows.append(row)
            print(row, flush=True)
            write_report(options.name, {"pixels": PIXELS}, ("openvino", "pyvips"), rows)


def measure(data: str, count: int, task: str, sizes: str, threads: int | None) -> dict:
    """One row."""
    from urushi.inference.auto import AutoRestorer
    from urushi.inference.batch import plan_batch, run_batch

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        shapes = cut(Path(data), source, count, SIDES.get(sizes, count))
        restorer = AutoRestorer(task=task, threads=threads)
        base = restorer.restorer(AutoRestorer(task="none")._told())
        bare = engine_alone(base, shapes)
        jobs = plan_batch([source], target)
        start, used = time.perf_counter(), time.process_time()
        report = run_batch(restorer, jobs)
        folder_time = time.perf_counter() - start, time.process_time() - used
    assert report.count("restored") == count, report
    row = {"task": task, "sizes": sizes, "count": count, "threads": threads}
    for at, clock in enumerate(("wall", "cpu")):
        row[f"engine_{clock}"] = round(bare[at] / count, 4)
        row[f"folder_{clock}"] = round(folder_time[at] / count, 4)
        row[f"ratio_{clock}"] = round(bare[at] / folder_time[at], 3)
    routes = Counter(
        "+".join(n for n, _ in r.choice.route) or "none" for r in report.results if r.choice
    )
    return {**row, "routes": dict(routes), "peak_bytes": resident("VmHWM")}


def engine_alone(restorer: Any, shapes: list[tuple[int, int]]) -> tuple[float, float]:
    """Seconds on the clock, and of the processor, for pictures of these sizes: the faster of what
    the engine offers, a network for each size where they are all alike."""
    engine = restorer.engine
    multiple = engine.size_multiple
    padded = [tuple(-(-side // multiple) * multiple for side in shape) for shape in shapes]
    random = np.random.default_rng(0)
    batches = {shape: random.random((1, 3, *shape), np.float32) for shape in set(padded)}
    run = engine.run if len(batches) == 1 else getattr(engine, "run_few", engine.run)
    for shape in padded[:2]:
        run(batches[shape])
    start, used = time.perf_counter(), time.process_time()
    for shape in padded:
        run(batches[shape])
    return time.perf_counter() - start, time.process_time() - used


def cut(data: Path, target: Path, count: int, different: int) -> list[tuple[int, int]]:
    """Cuts pieces of pictures out and writes them as JPEG; returns their sizes."""
    from urushi.image import is_picture_name, read_picture, write_picture

    shapes = []
    found = sorted(path for path in data.rglob("*") if is_picture_name(path))
    for path in found:
        try:
            picture = read_picture(path)
        except Exception:
            continue
        number = len(shapes)
        width = 440 - 2 * (number % different)
        height = PIXELS // width
        if picture.shape[0] < height or picture.shape[1] < width:
            continue
        write_picture(target / f"{number:04}.jpg", picture[:height, :width])
        shapes.append((height, width))
        if len(shapes) == count:
            return shapes
    raise SystemExit(f"{data} has {len(shapes)} pictures that are large enough, not {count}")


if __name__ == "__main__":
    run_script(main)
