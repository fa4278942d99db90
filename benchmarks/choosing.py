"""What choosing costs: looking at a picture, and trying experts on it, beside mending it.

    python benchmarks/choosing.py [--threads 1] [--rounds 3]

Each way in a process of its own: `quick`, a look alone, and `tries`, as the file that ships says.
Seconds to make ready and memory are those of the first picture, with all libraries; those of
choosing are medians over the rounds, and relative to what mending the picture with the base takes
in the same round. Pictures are noise around grey: what they show changes nothing here.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from measuring import in_own_process, resident, write_report

SIDES = {"0.15": (480, 320), "2": (1600, 1200), "12": (4000, 3000)}
PACKAGES = ("openvino", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description="What choosing an expert costs.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--row", help="used by the program itself")
    options = parser.parse_args()
    if options.row is not None:
        print(json.dumps(measured(json.loads(options.row))))
        return
    rows = []
    for quick in (True, False):
        plan = {"quick": quick, "threads": options.threads, "rounds": options.rounds}
        rows.append({"way": "quick" if quick else "tries", **in_own_process(__file__, plan)})
        print(rows[-1], flush=True)
    rows[1]["more_memory"] = rows[1]["peak"] - rows[0]["peak"]
    facts = {"what": "choosing an expert", "threads": options.threads, "rounds": options.rounds}
    write_report("choosing", facts, PACKAGES, rows)


def measured(plan: dict) -> dict:
    from urushi.inference.auto import AutoRestorer, Choice

    begin = time.perf_counter()
    auto = AutoRestorer(
        engine="openvino", device="cpu", threads=plan["threads"], quick=plan["quick"]
    )
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
