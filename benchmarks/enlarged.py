"""Pairs enlarged: what becomes of haze and low light where a picture is larger than a tile.

    python benchmarks/enlarged.py --data DATA [--times 4] [--limit N] [--against CHECKOUT]

Both pictures of each pair are enlarged by bicubic interpolation, the input is restored by its
expert, and the result is reduced again by means and scored; beside it the pair as it is. With
`--against` the same is done by another checkout. Rows go to results/enlarged.json.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from measuring import RESULTS
from PIL import Image

from urushi.data.pairs import PairedFolder
from urushi.inference.auto import AutoRestorer

HERE = Path(__file__).resolve()
PAIRS = {"low-light": "lowlight_lol", "haze": "dehaze_sots_indoor"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Pairs enlarged, beside the pairs as they are.")
    parser.add_argument("--data", type=Path, default=os.environ.get("URUSHI_DATA"))
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--against", type=Path, help="a checkout to measure as well")
    parser.add_argument("--rows", action="store_true", help="print the rows and keep none")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give the folder of the data sets with --data, or set URUSHI_DATA")
    rows = [
        row_of(task, Path(arguments.data) / "pairs" / name / "val", arguments)
        for task, name in PAIRS.items()
    ]
    if arguments.rows:
        print(json.dumps(rows))
        return
    report: dict[str, Any] = {"what": "pairs enlarged", "times": arguments.times, "rows": rows}
    if arguments.against is not None:
        report["against"] = elsewhere(arguments)
    (RESULTS / "enlarged.json").write_text(json.dumps(report, indent=1) + "\n")


def row_of(task: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Mean PSNR of the pairs in a folder, as they are and enlarged."""
    restorer = AutoRestorer(task=task)
    scores = []
    for pair in PairedFolder(folder).pairs[: arguments.limit]:
        pictures = [Image.open(path).convert("RGB") for path in (pair.input, pair.target)]
        size, target = pictures[0].size, _values(pictures[1])
        plain = psnr(restorer.restore(_values(pictures[0])), target)
        large = pictures[0].resize([arguments.times * s for s in size], Image.Resampling.BICUBIC)
        restored = np.rint(255 * restorer.restore(_values(large))).astype(np.uint8)
        reduced = Image.fromarray(restored).resize(size, Image.Resampling.BOX)
        scores.append((plain, psnr(_values(reduced), target)))
        print(f"{task} {pair.name}: {plain:.2f} dB, enlarged {scores[-1][1]:.2f}", file=sys.stderr)
    plain, enlarged = np.mean(scores, axis=0)
    return {
        "task": task,
        "pictures": len(scores),
        "as_they_are": round(float(plain), 2),
        "enlarged": round(float(enlarged), 2),
    }


def elsewhere(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of another checkout."""
    command = [sys.executable, str(HERE), "--rows", "--data", str(arguments.data)]
    command += ["--times", str(arguments.times)]
    if arguments.limit is not None:
        command += ["--limit", str(arguments.limit)]
    there = {**os.environ, "PYTHONPATH": str(arguments.against.resolve())}
    done = subprocess.run(command, env=there, check=True, stdout=subprocess.PIPE, text=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def _values(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float32) / 255


def psnr(found: np.ndarray, target: np.ndarray) -> float:
    """Of RGB in [0, 1], in dB."""
    return float(-10 * np.log10(np.square(np.clip(found, 0, 1) - target).mean()))


if __name__ == "__main__":
    main()
