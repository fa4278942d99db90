"""Many small pictures on a Ray cluster on this machine, beside the command on the same pictures.

    python benchmarks/cluster.py [--count 1000] [--width 320 --height 240] [--parts 4]

`command` is `urushi restore FOLDER -o OUT`, `cluster` the same with `--cluster ray`, each from the
start of its process to its end, told in seconds by the clock and of the processor (`cpu`): all
processes count that it started. `--parts` cuts the folder into so many, each restored by both, one
right after the other, so that both have the same machine. `one` is one picture, and so the start
alone. The results are compared, byte by byte.

`overhead` is what the cluster takes beyond the command, as a share of that: `whole` as measured;
`without_start` with the time of `one` taken off both, once for each part.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import run_script, write_report
from restore import make_picture

ROOT = Path(__file__).resolve().parents[1]
_ADOPTS_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl.h
WAYS: dict[str, list[str]] = {"command": [], "cluster": ["--cluster", "ray"]}


def main() -> None:
    """Reads the command line and writes the rows."""
    parser = argparse.ArgumentParser(description="Small pictures on Ray and by the command.")
    parser.add_argument("--count", type=int, default=1000, help="pictures")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measure(**options.run)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = all_rows(options, Path(folder))
    facts = {
        "what": "small pictures from file to file, on Ray and by the command, seconds",
        "count": options.count,
        "pixels": options.width * options.height,
        "parts": options.parts,
        "overhead": overhead(rows, options.parts),
    }
    write_report("cluster", facts, ("ray", "openvino", "pyvips"), rows)
    print(facts["overhead"])


def all_rows(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """A row for each way, of one picture and of all."""
    parts = make_pictures(folder, options)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for part in parts:
        name = "one" if part.name == "one" else "all"
        for way in WAYS:
            run = {"way": way, "source": str(part), "target": str(folder / way / part.name)}
            found.setdefault((name, way), []).append(in_process_of_its_own(run))
            print(part.name, way, found[name, way][-1], file=sys.stderr, flush=True)
        compare(*(folder / way / part.name for way in WAYS))
    return [
        {
            "pictures": name,
            "way": way,
            "wall": round(sum(run["wall"] for run in runs), 2),
            "cpu": round(sum(run["cpu"] for run in runs), 2),
            "restored": sum(run["restored"] for run in runs),
            "same_bytes": True,
        }
        for (name, way), runs in found.items()
    ]


def make_pictures(folder: Path, options: argparse.Namespace) -> list[Path]:
    """Folders of pieces of one large picture: `one`, and the parts."""
    import pyvips

    make_picture(folder / "large.jpg", 4000, 3000)
    large = pyvips.Image.new_from_file(str(folder / "large.jpg"))
    places = [folder / "in" / str(number) for number in range(options.parts)]
    for place in (one := folder / "in/one", *places):
        place.mkdir(parents=True)
    for number in range(options.count):
        left = number * 37 % (4000 - options.width)
        top = number * 53 % (3000 - options.height)
        piece = large.crop(left, top, options.width, options.height)
        piece.jpegsave(str(places[number % options.parts] / f"{number:04}.jpg"), Q=85)
    shutil.copy(places[0] / "0000.jpg", one)
    return [one, *places]


def in_process_of_its_own(run: dict[str, str]) -> dict[str, Any]:
    words = [sys.executable, __file__, "--run", json.dumps(run)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(way: str, source: str, target: str) -> dict[str, Any]:
    """Runs the command, and waits for whatever it has started."""
    if ctypes.CDLL(None).prctl(_ADOPTS_ORPHANS, 1, 0, 0, 0):
        raise SystemExit("processes can be counted on Linux only")
    # Otherwise Ray has the kernel forget what its workers used when they end.
    counted = {"RAY_kill_child_processes_on_worker_exit_with_raylet_subreaper": "true"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **counted}
    words = [sys.executable, "-m", "urushi", "restore", source, "-o", target, "--json", *WAYS[way]]
    start = time.perf_counter()
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    wall = time.perf_counter() - start
    while True:
        try:
            os.wait()
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout)
    cpu = used.ru_utime + used.ru_stime
    return {"wall": round(wall, 2), "cpu": round(cpu, 2), "restored": told["restored"]}


def compare(one: Path, other: Path) -> None:
    for path in one.iterdir():
        if path.read_bytes() != (other / path.name).read_bytes():
            raise SystemExit(f"{path.name} is not the same in both")


def overhead(rows: list[dict[str, Any]], parts: int) -> dict[str, float]:
    """Shares, see above."""
    found = {}
    for clock in ("wall", "cpu"):
        spent = {(row["pictures"], row["way"]): row[clock] for row in rows}
        whole = spent["all", "cluster"] / spent["all", "command"] - 1
        alone = {way: spent["all", way] - parts * spent["one", way] for way in WAYS}
        found[f"whole_{clock}"] = round(whole, 3)
        found[f"without_start_{clock}"] = round(alone["cluster"] / alone["command"] - 1, 3)
    return found


if __name__ == "__main__":
    run_script(main)
