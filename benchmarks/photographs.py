"""What the router makes of photographs, and of good pictures that only look like damage.

    python benchmarks/photographs.py --data DATA [--router FILE] [--confusion FILE.png]
    python benchmarks/photographs.py --apart RUN/photographs.json

Every picture of the folders below goes through `AutoRestorer.choose_file`, as `urushi restore`
would do it without options. A row for each picture tells what was seen and which expert would act;
the table counts by kind of damage who gets a right expert, another one, or none, and how many good
pictures are left alone. Nothing is restored: what an expert makes of them is for the eye.

A router knows photographs that it learnt from better than others. `--apart` counts the rows that
`urushi train router-photographs` leaves: each photograph as it was judged by a router that was
fitted without its source (what one collector or one camera made).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import write_report

# What pictures of a folder have: a class of the router, `clean`, or None, where no expert is for
# them: the router should abstain.
FOLDERS: dict[str, str | None] = {
    "photographs/haze": "haze",
    "photographs/rain": "rain",
    "photographs/snow": "snow",
    "photographs/raindrop": "raindrop",
    "photographs/lowlight": "low-light",
    "photographs/blur": "blur",
    "photographs/noise": "noise",
    "photographs/jpeg": "jpeg",
    "photographs/old": None,
    "photographs/clean": "clean",
    "real/dehaze": "haze",
    "real/derain": "rain",
    "real/desnow": "snow",
    "real/raindrop": "raindrop",
    "real/lowlight": "low-light",
    "real/deblur": "blur",
    "real/denoise": "noise",
    "real/mixed": None,
    "real/oldphoto": None,
    "real/shadow": None,
    "real/underwater": None,
    "bench/Kodak24": "clean",
    "bench/CBSD68": "clean",
    "bench/Set14": "clean",
}
NOTHING, CLEAN = "nothing there is", "clean"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp"}
PACKAGES = ("openvino", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the router makes of photographs.")
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--folders", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument(
        "--router", default=None, help="an all-in-one file; else the one that ships"
    )
    parser.add_argument("--quick", action="store_true", help="by a look alone, trying no expert")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--confusion", type=Path, help="draw what was taken for what")
    parser.add_argument("--name", default="photographs", help="of the file of results")
    parser.add_argument("--apart", type=Path, help="rows of a training, in place of pictures")
    options = parser.parse_args()
    if options.apart is None and options.data is None:
        parser.error("give --data, or --apart")
    rows = []
    for row in judged_apart(options.apart) if options.apart else measured(options):
        rows.append(row)
        print(f"{row['folder']}/{row['picture']}: {row['reason']}", flush=True)
    facts = {
        "what": "what a router makes of pictures by itself",
        "by": "routers without the source" if options.apart else options.router or "what ships",
        "quick": options.quick,
    }
    write_report(options.name, facts, PACKAGES, rows)
    print(table(rows))
    if options.confusion is not None:
        draw(rows, options.confusion)


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from urushi.inference.auto import AutoRestorer
    from urushi.training.photographs.photographs_recipe import load_photographic_recipe

    also = load_photographic_recipe("router-photographs").photographs.also
    auto = AutoRestorer(options.router, quick=options.quick, threads=options.threads)
    for folder in options.folders:
        wanted = FOLDERS[folder]
        for path in sorted((options.data / folder).iterdir()):
            if path.suffix.lower() not in SUFFIXES:
                continue
            found = auto.choose_file(path).describe()
            order = sorted(found["probabilities"].items(), key=lambda item: -item[1])
            acting = list(found["route"])
            if found["in_turn"]:
                # What was seen at the first look first.
                acting.sort(key=lambda name: name != found["seen"])
            yield {
                "folder": folder,
                "picture": path.name,
                "kind": wanted or NOTHING,
                "also": also.get(path.stem, []),
                "seen": found["seen"],
                "sure": found["sure"],
                "expert": acting[0] if acting else None,
                "second": acting[1] if found["in_turn"] else None,
                "reason": found["reason"],
                "likeliest": dict(order[:3]),
            }


def judged_apart(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a training, decided as the file that it wrote would."""
    from urushi.files.router_file import read_router_header
    from urushi.routing.decision import decide

    header = read_router_header(next(path.parent.glob("*.onnx")).with_suffix(".safetensors"))
    for row in json.loads(path.read_text(encoding="utf-8")):
        decision = decide(np.array(row["logits"], np.float32), header)
        order = sorted(decision.probabilities.items(), key=lambda item: -item[1])
        acting = [name for name, weight in decision.weights.items() if weight > 0]
        yield {
            "folder": f"without {row['source']}",
            "picture": row["picture"],
            "kind": row["classes"][0] if row["classes"] else NOTHING,
            "also": row["classes"][1:],
            "seen": decision.seen,
            "sure": round(order[0][1], 4),
            "expert": acting[0] if acting else None,
            "reason": decision.reason,
            "likeliest": {name: round(chance, 4) for name, chance in order[:3]},
        }


def table(rows: list[dict[str, Any]]) -> str:
    """Counts by kind: given a right expert, given another, left to the base."""
    lines = ["| kind | pictures | right expert | another | left alone |", "|---|---|---|---|---|"]
    kinds = [name for name in dict.fromkeys(FOLDERS.values()) if name not in (None, CLEAN)]
    totals = np.zeros(4, int)
    for kind in [*kinds, None, NOTHING, CLEAN]:
        if kind is None:
            share = 100 * totals[1] / max(1, totals[0])
            lines.append(f"| **all of these** | {totals[0]} | **{totals[1]} ({share:.0f} %)** "
                         f"| {totals[2]} | {totals[3]} |")  # fmt: skip
            continue
        own = [row for row in rows if row["kind"] == kind]
        if not own:
            continue
        right = sum(row["expert"] in (kind, *row["also"]) for row in own)
        alone = sum(row["expert"] is None for row in own)
        counts = np.array([len(own), right, len(own) - right - alone, alone])
        if kind in kinds:
            totals += counts
        told = "" if kind in (NOTHING, CLEAN) else counts[1]
        lines.append(f"| {kind} | {counts[0]} | {told} | {counts[2]} | {counts[3]} |")
    return "\n".join(lines)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws which expert pictures of each kind are given; `clean` is to be left alone."""
    from urushi.evaluation.confusion import draw_confusion

    kinds = [
        CLEAN,
        *(name for name in dict.fromkeys(FOLDERS.values()) if name not in (None, CLEAN)),
    ]
    matrix = np.zeros((len(kinds), len(kinds)), int)
    for row in rows:
        if row["kind"] == NOTHING:
            continue
        acting = row["expert"] or CLEAN
        truth = acting if acting in row["also"] else row["kind"]
        matrix[kinds.index(truth), kinds.index(acting)] += 1
    names = ["left alone" if name == CLEAN else name for name in kinds]
    draw_confusion(matrix, names, path, title="photographs")


if __name__ == "__main__":
    main()
