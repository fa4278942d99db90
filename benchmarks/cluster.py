"""Many small pictures on a Ray cluster on this machine, beside the command on the same pictures.

    python benchmarks/cluster.py [--count 1000] [--width 320 --height 240] [--parts 4]

`command` is `urushi restore FOLDER -o OUT`, `cluster` the same with `--cluster ray`, each from the
start of its process to the end of the last one that it started, told in seconds by the clock and of
the processor (`cpu`), of all those processes. `--parts` cuts the folder into so many, each restored
by both, one right after the other, so that both have the same machine. `one` is one picture, and so
the start alone. `other_bytes` counts results that are not the same in both, byte by byte.

`overhead` is what the cluster takes beyond the command, as a share of that: `whole` as measured;
`without_start` with the time of `one` taken off both, once for each part.
"""

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from measuring import run_script, write_report
from restore import make_picture

ROOT = Path(__file__).resolve().parents[1]
_MARK = "URUSHI_BENCHMARK"  # in the environment of all processes that are counted
_SECONDS = 0.25  # between two looks at them: so much of the last of each may be missed
WAYS: dict[str, list[str]] = {"command": [], "cluster": ["--cluster", "ray"]}


def main() -> None:
    """Reads the command line and writes the rows."""
    parser = argparse.ArgumentParser(description="Small pictures on Ray and by the command.")
    parser.add_argument("--count", type=int, default=1000, help="pictures")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--parts", type=int, default=4)
    options = parser.parse_args()
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
    others: dict[str, int] = dict.fromkeys(("one", "all"), 0)
    for part in parts:
        name = "one" if part.name == "one" else "all"
        targets = {way: folder / way / part.name for way in WAYS}
        for way, target in targets.items():
            found.setdefault((name, way), []).append(measure(way, part, target))
            print(part.name, way, found[name, way][-1], file=sys.stderr, flush=True)
        others[name] += count_others(part, *targets.values())
    return [
        {
            "pictures": name,
            "way": way,
            "wall": round(sum(run["wall"] for run in runs), 2),
            "cpu": round(sum(run["cpu"] for run in runs), 2),
            "restored": sum(run["restored"] for run in runs),
            "other_bytes": others[name],
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


def measure(way: str, source: Path, target: Path) -> dict[str, Any]:
    """Runs the command, and waits for whatever it has started."""
    mark = secrets.token_hex(8)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), _MARK: mark}
    words = [sys.executable, "-m", "urushi", "restore", source, "-o", target, "--json", *WAYS[way]]
    counter = Counter(mark)
    start = time.perf_counter()
    with counter:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        while counter.running():
            time.sleep(_SECONDS / 10)
    wall = time.perf_counter() - start
    restored = json.loads(done.stdout)["restored"]
    return {"wall": round(wall, 2), "cpu": round(counter.seconds, 2), "restored": restored}


class Counter:
    """Counts the processor's time of processes with a mark; a context manager. Linux only.

    Ray's processes cannot be waited for: they leave their parents, and some end unseen.

    Args:
        mark: in their environment.
    """

    def __init__(self, mark: str) -> None:
        self._mark = f"{_MARK}={mark}".encode()
        self._spent: dict[tuple[str, str], float] = {}  # by number and time of start
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @property
    def seconds(self) -> float:
        """Of all that were seen."""
        return sum(self._spent.values())

    def running(self) -> bool:
        """Looks at all processes; tells whether any with the mark is there."""
        there = False
        for place in Path("/proc").glob("[0-9]*"):
            try:
                # Behind the name, which may hold anything.
                told = (place / "stat").read_text().rpartition(")")[2].split()
                known = place.name, told[19]
                # Ray's workers write their titles over their environment, after a while.
                if known not in self._spent and not self._is_marked(place):
                    continue
            except OSError:
                continue
            ticks = int(told[11]) + int(told[12])
            self._spent[known] = ticks / os.sysconf("SC_CLK_TCK")
            there = there or told[0] != "Z"
        return there

    def _is_marked(self, place: Path) -> bool:
        return self._mark in (place / "environ").read_bytes()

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS):
            self.running()

    def __enter__(self) -> "Counter":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def count_others(source: Path, one: Path, other: Path) -> int:
    """How many pictures did not become the same bytes."""
    names = [path.name for path in source.iterdir()]
    return sum((one / name).read_bytes() != (other / name).read_bytes() for name in names)


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
