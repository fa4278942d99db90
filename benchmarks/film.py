"""Marks of real film laid over clean pictures: what of them goes, and what the rest loses.

    python benchmarks/film.py --data DATA [--adapter FILE] [--limit N] [--sheet FOLDER] [--rows]

Each picture gets two overlays of `film_damage`, one over either half, white and black by turns; no
network learns from these overlays. The same is done by the base alone, and both are given the
clean pictures. Rows for each kind of mark go to results/film.json.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import run_script, write_report
from PIL import Image

from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_adapter

# Pictures that nothing learns from, and how many of each.
SETS = {"bench/Kodak24": 24, "clean/val20_wed": 8}
# A pixel is damaged where a channel is off by more than this, in levels of 255.
VISIBLE = 2
# Pixels that come closer by more levels than that do so by no chance.
SURELY = 3
SEED = 20

Restore = Callable[[np.ndarray], np.ndarray]


class Damaged(NamedTuple):
    """A picture with marks, in 8 bits.

    Attributes:
        name: of the picture.
        clean, damaged: `(h, w, 3)`.
        halves: kind of mark, and the columns where it lies.
    """

    name: str
    clean: np.ndarray
    damaged: np.ndarray
    halves: tuple[tuple[str, slice], ...]


def main() -> None:
    parser = argparse.ArgumentParser(description="Marks of real film over clean pictures.")
    parser.add_argument("--data", type=Path, default=os.environ.get("URUSHI_DATA"))
    parser.add_argument("--adapter", default="film", help="a file, or a name in the zoo")
    parser.add_argument("--limit", type=int, help="pictures in all")
    parser.add_argument("--sheet", type=Path, help="a folder for what was restored, to look at")
    parser.add_argument("--rows", action="store_true", help="print the rows and keep none")
    given = parser.parse_args()
    if given.data is None:
        parser.error("give the folder of the data sets with --data, or set URUSHI_DATA")
    ways = {"film": Restorer(adapters=[find_adapter(given.adapter)]), "base": Restorer()}
    rows = []
    for picture in pictures(Path(given.data), given.limit):
        rows += rows_of(picture, {name: way.restore for name, way in ways.items()}, given.sheet)
        print(json.dumps(rows[-1]), flush=True)
    kinds = sorted({row["kind"] for row in rows})
    table = [means("all", rows)] + [means(k, [r for r in rows if r["kind"] == k]) for k in kinds]
    for row in table:
        print(json.dumps(row))
    if not given.rows:
        told: dict[str, Any] = {"what": "marks of film over clean pictures", "sets": SETS}
        told |= {"seed": SEED, "limit": given.limit}
        write_report("film", told, ("torch", "openvino"), table)


def pictures(data: Path, limit: int | None) -> list[Damaged]:
    """Clean pictures with two kinds of marks each; the same in every run."""
    kinds = sorted(path for path in (data / "film_damage").iterdir() if path.is_dir())
    overlays = [sorted(kind.iterdir()) for kind in kinds]
    found = [p for name, most in SETS.items() for p in sorted((data / name).iterdir())[:most]]
    # Some of every set, where there is to be a part only.
    found = found if limit is None else found[:: -(-len(found) // limit)]
    rng = np.random.default_rng(SEED)
    made = []
    for number, path in enumerate(found):
        clean = np.asarray(Image.open(path).convert("RGB"))
        damaged, middle = clean.astype(np.float32), clean.shape[1] // 2
        halves = []
        for side in (0, 1):
            kind = (2 * number + side) % len(kinds)
            columns = slice(0, middle) if side == 0 else slice(middle, clean.shape[1])
            files = overlays[kind]
            opacity = laid(files[int(rng.integers(len(files)))], damaged[:, columns].shape[:2], rng)
            colour = np.float32(
                255 * (1 - rng.random() * 0.15)
                if (number + side) % 2
                else 255 * rng.random() * 0.15
            )
            damaged[:, columns] += opacity[..., None] * (colour - damaged[:, columns])
            halves.append((kinds[kind].name, columns))
        made.append(Damaged(path.stem, clean, np.rint(damaged).astype(np.uint8), tuple(halves)))
    return made


def laid(path: Path, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Opacity of an overlay, turned by right angles, at its own size, somewhere within a half."""
    alpha = np.asarray(Image.open(path).convert("RGBA"))[..., 3].astype(np.float32) / 255
    alpha = np.rot90(alpha, int(rng.integers(4))) * np.float32(rng.uniform(0.7, 1))
    result = np.zeros(size, np.float32)
    top, left = ((have - want) // 2 for have, want in zip(size, alpha.shape, strict=True))
    shift = rng.integers(-40, 41, 2)
    top, left = top + shift[0], left + shift[1]
    rows = slice(max(0, top), min(size[0], top + alpha.shape[0]))
    cols = slice(max(0, left), min(size[1], left + alpha.shape[1]))
    result[rows, cols] = alpha[
        rows.start - top : rows.stop - top, cols.start - left : cols.stop - left
    ]
    return result


def rows_of(picture: Damaged, ways: dict[str, Restore], sheet: Path | None) -> list[dict[str, Any]]:
    """A row for each half."""
    rows: list[dict[str, Any]] = [
        {"picture": picture.name, "kind": kind, **facts(picture, columns)}
        for kind, columns in picture.halves
    ]
    shown = [picture.damaged]
    for name, restore in ways.items():
        restored, kept = (_restored(restore, p) for p in (picture.damaged, picture.clean))
        shown.append(restored)
        for row, (_, columns) in zip(rows, picture.halves, strict=True):
            own = (picture.clean[:, columns], picture.damaged[:, columns], restored[:, columns])
            row |= {f"{key}_{name}": value for key, value in scores(*own).items()}
            row[f"clean_{name}"] = psnr(kept[:, columns], picture.clean[:, columns])
    if sheet is not None:
        sheet.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(shown[:2], 1)).save(sheet / f"{picture.name}.png")
    return rows


def facts(picture: Damaged, columns: slice) -> dict[str, float]:
    """How much of a half is damaged, and how far off it is."""
    clean, damaged = picture.clean[:, columns], picture.damaged[:, columns]
    return {"share": float(_marks(clean, damaged).mean()), "psnr_input": psnr(damaged, clean)}


def scores(clean: np.ndarray, damaged: np.ndarray, restored: np.ndarray) -> dict[str, float]:
    """PSNR of all and of what was not damaged, and which share of damaged pixels came closer.

    What changes a little and at random comes closer half of the time: `surely` counts those that
    came closer by more than `SURELY` levels.
    """
    marks = _marks(clean, damaged)
    untouched = (clean == damaged).all(2)
    before, after = (_distance(one, clean)[marks] for one in (damaged, restored))
    return {
        "psnr": psnr(restored, clean),
        "outside": psnr(restored[untouched], clean[untouched]),
        "closer": float((after < before).mean()),
        "surely": float((after < before - SURELY).mean()),
        "left": float(after.sum() / before.sum()),
    }


def psnr(found: np.ndarray, target: np.ndarray) -> float:
    """Of 8-bit pixels, in dB; at most 80."""
    error = np.square(found.astype(np.float32) - target.astype(np.float32)).mean()
    return float(10 * np.log10(255**2 / max(error, 255**2 * 1e-8)))


def means(kind: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each number."""
    numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
    return {
        "kind": kind,
        "halves": len(rows),
        **{key: round(float(np.mean([row[key] for row in rows])), 4) for key in numbers},
    }


def _restored(restore: Restore, picture: np.ndarray) -> np.ndarray:
    result = restore(picture.astype(np.float32) / 255)
    return np.rint(255 * np.clip(result, 0, 1)).astype(np.uint8)


def _marks(clean: np.ndarray, damaged: np.ndarray) -> np.ndarray:
    return np.abs(clean.astype(np.int16) - damaged).max(2) > VISIBLE


def _distance(found: np.ndarray, clean: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(found.astype(np.float32) - clean).sum(2))


if __name__ == "__main__":
    run_script(main)
