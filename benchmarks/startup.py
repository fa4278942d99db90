"""How long one picture takes from the start of a process, and what of it was compiled before.

    python benchmarks/startup.py [--threads 1] [--rounds 5] [--quick] [--against SOURCE]

`urushi restore PICTURE` in a process of its own, as the command line runs it, with the automatic
choice: `cold` has nothing kept from before (and keeps it), `warm` finds what was compiled, `off`
keeps nothing. `import` is the import of the engine alone, which nothing can be faster than. Seconds
of the processor (user and system) are told beside those that passed, because they hold on a busy
machine as well; ratios are of rounds. `--against` measures another source tree in the same rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import write_report
from restore import make_picture

ROOT = Path(__file__).resolve().parents[1]
SIDES = (480, 320)


def main() -> None:
    parser = argparse.ArgumentParser(description="From the start of a process to a picture.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--router", help="an all-in-one file; the one that ships if not given")
    parser.add_argument("--against", help="another source tree, measured in the same rounds")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(options, rounds, Path(folder))
    facts = {
        "what": "one picture of 0.15 megapixels, from the start of the process",
        "threads": options.threads,
        "rounds": rounds,
    }
    for row in rows:
        print(row)
    write_report("startup", facts, ("openvino", "numpy"), rows)


def measured(options: argparse.Namespace, rounds: int, folder: Path) -> list[dict]:
    make_picture(folder / "picture.jpg", *SIDES)
    ways = {"import": ROOT, "cold": ROOT, "warm": ROOT, "off": ROOT}
    if options.against:
        ways["against"] = Path(options.against)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(-1, rounds):  # the first reads the files into memory, and does not count
        for name, source in ways.items():
            cache = folder / f"cache-{number}"
            once = run(options, folder, name, source, cache)
            if number >= 0:
                found[name].append(once)
    rows = []
    for name, times in found.items():
        cpu, wall, memory = zip(*times, strict=True)
        row = {
            "way": name,
            "cpu_seconds": round(statistics.median(cpu), 2),
            "seconds": round(statistics.median(wall), 2),
            "megabytes": round(max(memory)),
        }
        for other in ("import", "against"):
            if other in found and other != name:
                ratios = [a[0] / b[0] for a, b in zip(times, found[other], strict=True)]
                row[f"cpu_to_{other}"] = round(statistics.median(ratios), 2)
        rows.append(row)
    return rows


def run(
    options: argparse.Namespace, folder: Path, name: str, source: Path, cache: Path
) -> tuple[float, float, float]:
    """Seconds of the processor, seconds, and megabytes of one process."""
    words = [sys.executable, "-P", "-m", "urushi", "restore", str(folder / "picture.jpg")]
    words += ["-o", str(folder / "result.jpg"), "--overwrite", "--quiet"]
    words += ["--threads", str(options.threads)]
    words += ["--router", options.router] if options.router else []
    if name == "import":
        words = [sys.executable, "-c", "import openvino; openvino.Core()"]
    kept = {"URUSHI_CACHE": str(cache), "URUSHI_KEEP_COMPILED": "0" if name == "off" else "1"}
    begin = time.perf_counter()
    child = subprocess.Popen(words, env={**os.environ, **kept, "PYTHONPATH": str(source)})
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {child.returncode}")
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
