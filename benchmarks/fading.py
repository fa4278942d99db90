"""Faded pictures: what the expert for fading makes of them, and what a formula makes of them.

    python benchmarks/fading.py measure --data DATA [--adapter FILE] [--sheet FOLDER] [--rows]
    python benchmarks/fading.py small --data DATA --out FOLDER

`measure` fades Kodak24 by formula, at half its size, and a part of it enlarged twice, where a small
version leads. Beside the expert: stretching each channel between percentiles, in display values or
in densities. What the expert makes of clean pictures is told, too. Rows go to results/fading.json.
`small` makes the pictures that the recipe learns from: short sides of 256 pixels.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import run_script, write_report
from PIL import Image

from urushi.degradations import create_degradation
from urushi.evaluation.metrics import psnr
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_adapter

SEED = 20
SHORT = 256
LEARNED = ("cid22", "clic2025", "wallpapers")
# Sizes: the name of the row, by how much sides of Kodak24 are changed, and each which picture.
SIZES = (("half the size", 0.5, 1), ("twice the size", 2.0, 5))


def main() -> None:
    parser = argparse.ArgumentParser(description="Faded pictures.")
    ways = parser.add_subparsers(dest="way", required=True)
    measure, small = ways.add_parser("measure"), ways.add_parser("small")
    for one in (measure, small):
        one.add_argument("--data", type=Path, default=os.environ.get("URUSHI_DATA"))
    measure.add_argument("--adapter", default="fading", help="a file, or a name in the zoo")
    measure.add_argument("--sheet", type=Path, help="a folder for what was restored, to look at")
    measure.add_argument("--rows", action="store_true", help="print the rows and keep none")
    small.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.data is None:
        parser.error("give the folder of the data sets with --data, or set URUSHI_DATA")
    if given.way == "small":
        make_small(Path(given.data), given.out)
        return
    restorer = Restorer(adapters=[find_adapter(given.adapter)])
    table = []
    for name, factor, each in SIZES:
        rows = measured(Path(given.data), restorer, factor, each, given.sheet)
        means = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
        table.append({"kind": name, "pictures": len(rows), **means})
        print(json.dumps(table[-1]), flush=True)
    if not given.rows:
        told: dict[str, Any] = {"what": "pictures faded by formula", "seed": SEED}
        write_report("fading", told, ("torch", "openvino"), table)


def measured(
    data: Path, restorer: Restorer, factor: float, each: int, sheet: Path | None
) -> list[dict[str, float]]:
    """A row for each picture: PSNR in dB, and whether the expert is ahead."""
    generator, made = torch.Generator().manual_seed(SEED), create_degradation("fading")
    rows = []
    for path in sorted((data / "bench/Kodak24").iterdir())[::each]:
        clean = _sized(Image.open(path).convert("RGB"), factor)
        images = torch.from_numpy(clean.transpose(2, 0, 1))[None]
        faded = made.apply(images, made.sample((1, 3, *clean.shape[:2]), generator))[0]
        faded = np.rint(255 * faded.permute(1, 2, 0).numpy()).astype(np.float32) / 255
        expert, kept = (_restored(restorer, one) for one in (faded, clean))
        dense = stretched_in_densities(faded)
        ways = {
            "input": faded, "stretched": stretched(faded), "densities": dense, "expert": expert,
        }  # fmt: skip
        row = {f"psnr_{name}": psnr(way, clean) for name, way in ways.items()}
        row["clean_expert"] = psnr(kept, clean)
        row["ahead_of_input"] = float(row["psnr_expert"] > row["psnr_input"])
        row["ahead_of_densities"] = float(row["psnr_expert"] > row["psnr_densities"])
        rows.append(row)
        if sheet is not None:
            sheet.mkdir(parents=True, exist_ok=True)
            beside = np.concatenate([faded, dense, expert, clean], 1)
            shown = Image.fromarray(np.rint(255 * beside).astype(np.uint8))
            shown.save(sheet / f"{path.stem}-{factor:g}.png")
    return rows


def stretched(faded: np.ndarray) -> np.ndarray:
    """Display values between percentiles of each channel."""
    low, high = np.percentile(faded, [0.5, 99.5], axis=(0, 1))
    return ((faded - low) / (high - low)).clip(0, 1)


def stretched_in_densities(faded: np.ndarray) -> np.ndarray:
    """Densities between percentiles of each channel."""
    density = -np.log10(np.maximum(faded, 1e-3) ** 2.2 + 0.004)
    low, high = np.percentile(density, [0.5, 99.5], axis=(0, 1))
    light = 10 ** -(2.2 * (density - low) / (high - low)) - 0.004
    return (np.maximum(light, 0) ** (1 / 2.2)).clip(0, 1)


def make_small(data: Path, out: Path) -> None:
    """The pictures with short sides of `SHORT` pixels, as PNG."""
    out.mkdir(parents=True, exist_ok=True)
    for name in LEARNED:
        for number, path in enumerate(sorted((data / "clean" / name).iterdir())):
            picture = Image.open(path).convert("RGB")
            picture = picture.resize(
                _scaled(picture, SHORT / min(picture.size)), Image.Resampling.LANCZOS
            )
            picture.save(out / f"{name}_{number:03}.png")


def _sized(picture: Image.Image, factor: float) -> np.ndarray:
    """A picture with changed sides, `(h, w, 3)` in [0, 1]."""
    if factor < 1:
        picture = picture.reduce(round(1 / factor))
    else:
        picture = picture.resize(_scaled(picture, factor), Image.Resampling.BICUBIC)
    return np.asarray(picture, np.float32) / 255


def _scaled(picture: Image.Image, factor: float) -> tuple[int, int]:
    return round(picture.width * factor), round(picture.height * factor)


def _restored(restorer: Restorer, picture: np.ndarray) -> np.ndarray:
    return np.rint(255 * restorer.restore(picture).clip(0, 1)).astype(np.float32) / 255


if __name__ == "__main__":
    run_script(main)
