"""Another base beside the one that ships, on the same pictures.

    python benchmarks/bases.py FILE --data DATA [--limit 12] [--name base-next]

FILE is a model, such as `python benchmarks/long_run.py weights FILE` writes. Both are measured on
noise, JPEG, rain and real noise, on motion blur over nine pixels, and on how near clean pictures
come back. Rows go to `results/NAME.json`; PSNR in dB, means over the pictures, the network alone.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from measuring import RESULTS, run_script

from urushi.evaluation.benchmark import evaluate
from urushi.evaluation.catalog import Benchmark, clean_benchmark, find_benchmark
from urushi.files.model import read_model
from urushi.inference.restorer import Restorer

BENCHMARKS = (
    "cbsd68-noise25",
    "cbsd68-jpeg10",
    "validation-mixed",
    "derain-rain100l",
    "denoise-polyu",
    "kodak24-clean",
)
MOTION = {"name": "motion_blur", "length": [9, 9], "shake_share": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description="Two bases side by side.")
    parser.add_argument("file", type=Path, help="a model")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--limit", type=int, help="pictures of each benchmark; default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--name", default="base-next", help="of the file of results")
    options = parser.parse_args()
    bases = {
        "ships": Restorer(threads=options.threads),
        "other": Restorer(options.file, threads=options.threads),
    }
    rows = []
    for name, benchmark in measured(options.data):
        row: dict[str, Any] = {"benchmark": name}
        for told, base in bases.items():
            result = evaluate(base, benchmark, root=options.data, limit=options.limit)
            row["pictures"], row["input"] = len(result.pictures), round(result.means.psnr_input, 2)
            assert result.means.psnr is not None
            row[told] = round(result.means.psnr, 2)
        print(row, flush=True)
        rows.append(row)
    document = {"other": read_model(options.file).header.description, "rows": rows}
    target = RESULTS / f"{options.name}.json"
    target.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measured(data: Path) -> list[tuple[str, Benchmark]]:
    motion = clean_benchmark(data / "bench" / "Kodak24", MOTION)
    return [*((name, find_benchmark(name)) for name in BENCHMARKS), ("kodak24-motion9", motion)]


if __name__ == "__main__":
    run_script(main)
