"""What choosing an expert costs beside mending the picture.

    python benchmarks/choosing.py [--threads 1] [--rounds 5] [--isa avx2] [--router FILE]

In a process of its own. Seconds to make ready and memory are those of the first picture, with all
libraries; those of choosing are medians over the rounds, and relative to what mending the picture
with the base takes in the same round. Pictures are noise around grey: what they show changes
nothing here, but that the guard has to look at all of it. `--isa avx2` keeps OpenVINO from wider
instructions, which most people's processors have not.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
from measuring import in_own_process, resident, write_report

SIDES = {"0.15": (480, 320), "0.4": (760, 526), "2": (1600, 1200), "12": (4000, 3000)}
PACKAGES = ("openvino", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description="What choosing an expert costs.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--isa", choices=("avx2", "avx512_core"), help="limit OpenVINO to this")
    parser.add_argument("--router", help="an all-in-one file; else the one that ships")
    parser.add_argument("--row", help="used by the program itself")
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(measured(json.loads(options.row))))
        return
    if options.isa:
        os.environ["ONEDNN_MAX_CPU_ISA"] = os.environ["OV_CPU_MAX_ISA"] = options.isa.upper()
    plan = {"router": options.router, "threads": options.threads, "rounds": options.rounds}
    rows = [in_own_process(__file__, plan)]
    print(rows[0], flush=True)
    facts = {"what": "choosing an expert", "isa": options.isa, **plan}
    write_report("choosing" + (f"-{options.isa}" if options.isa else ""), facts, PACKAGES, rows)


def measured(plan: dict) -> dict:
    from urushi.inference.auto import AutoRestorer
    from urushi.inference.choice import Choice

    begin = time.perf_counter()
    auto = AutoRestorer(plan["router"], engine="openvino", device="cpu", threads=plan["threads"])
    picture = noise(*SIDES["0.15"])
    auto.choose(picture)
    row = {"ready": round(time.perf_counter() - begin, 2), "peak": resident("VmHWM")}
    base = auto.restorer(Choice((), ""))
    for name, sides in SIDES.items():
        picture = noise(*sides)
        base.restore(picture)
        chosen, mended = [], []
        for _ in range(plan["rounds"]):
            chosen.append(seconds(lambda image=picture: auto.choose(image)))
            mended.append(seconds(lambda image=picture: base.restore(image)))
        row[f"{name} MP"] = {
            "choosing": round(statistics.median(chosen), 3),
            "of_mending": round(
                statistics.median(a / b for a, b in zip(chosen, mended, strict=True)), 3
            ),
        }
    return row


def noise(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.clip(rng.normal(0.5, 0.1, (height, width, 3)), 0, 1).astype(np.float32)


def seconds(what: Callable[[], object]) -> float:
    begin = time.perf_counter()
    what()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
