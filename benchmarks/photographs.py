"""What the router makes of photographs, of clean pictures and of damage that it never saw.

    python benchmarks/photographs.py --data DATA [--quick] [--threads 1]

Every picture of some folders of DATA goes through `AutoRestorer.choose`, as `urushi restore` would
do it without options. A row for each picture tells what was seen and which expert would act; the
table counts them by folder. Nothing is restored: whether an expert does a picture good is for the
eye (`urushi restore DATA/real -o OUT --compare`).
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import write_report

# What pictures of a folder want: a class of the router, `clean`, or None, where no expert is for
# them: the router should abstain.
FOLDERS: dict[str, str | None] = {
    "real/deblur": "blur",
    "real/denoise": "noise",
    "real/dehaze": "haze",
    "real/derain": "rain",
    "real/desnow": "snow",
    "real/lowlight": "low-light",
    "real/raindrop": "raindrop",
    "real/mixed": None,
    "real/oldphoto": None,
    "real/shadow": None,
    "real/underwater": None,
    "bench/Kodak24": "clean",
    "bench/CBSD68": "clean",
    "bench/Set14": "clean",
}
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp"}
PACKAGES = ("openvino", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description="What the router makes of photographs.")
    parser.add_argument("--data", required=True, type=Path, help="folder of the data sets")
    parser.add_argument("--folders", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument("--quick", action="store_true", help="by a look alone, trying no expert")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--name", default="photographs", help="of the file of results")
    options = parser.parse_args()
    rows = []
    for row in measured(options):
        print(f"{row['folder']}/{row['picture']}: {row['reason']}", flush=True)
        rows.append(row)
    facts = {
        "what": "what a router makes of pictures by itself",
        "quick": options.quick,
        "wanted": {name: FOLDERS[name] for name in options.folders},
    }
    write_report(options.name, facts, PACKAGES, rows)
    print(table(rows))


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from urushi.inference.auto import AutoRestorer

    auto = AutoRestorer(quick=options.quick, threads=options.threads)
    for folder in options.folders:
        for path in sorted((options.data / folder).iterdir()):
            if path.suffix.lower() not in SUFFIXES:
                continue
            found = auto.choose_file(path).describe()
            order = sorted(found["probabilities"].items(), key=lambda item: -item[1])
            yield {
                "folder": folder,
                "picture": path.name,
                "seen": found["seen"],
                "sure": found["sure"],
                "expert": next(iter(found["route"]), None),
                "reason": found["reason"],
                "likeliest": dict(order[:3]),
            }


def table(rows: list[dict[str, Any]]) -> str:
    """Counts by folder: left to the base, given the expert they want, given another."""
    lines = ["| folder | pictures | wanted | left to the base | right expert | another |"]
    lines.append("|---|---|---|---|---|---|")
    for folder in dict.fromkeys(row["folder"] for row in rows):
        given = [row["expert"] for row in rows if row["folder"] == folder]
        wanted = FOLDERS[folder]
        alone, right = given.count(None), given.count(wanted) if wanted is not None else 0
        told = "none" if wanted in (None, "clean") else str(right)
        lines.append(
            f"| {folder} | {len(given)} | {wanted or 'nothing there is'} | {alone} | {told} "
            f"| {len(given) - alone - right} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
