"""What restoring takes of memory, beside what `--dry-run` says.

    python benchmarks/memory.py [--threads 2] [--quick]

Each row is `urushi restore` of one JPEG file in a process of its own, with the automatic choice or
with a task. `peak` is the largest resident size of the process, `runtime` that of a process that
restores a picture of 64 pixels in the same way: interpreter, libraries, router and network. A row
of twice the height tells whether height matters.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import write_report
from restore import make_picture

SIZES = {"0.06 MP": (320, 200), "1 MP": (1216, 832), "12 MP": (4000, 3000), "24 MP": (4000, 6000)}
ROWS = (
    ("auto", "0.06 MP"), ("auto", "1 MP"), ("auto", "12 MP"), ("auto", "24 MP"),
    ("none", "12 MP"), ("haze", "12 MP"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="What restoring takes of memory.")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="small pictures alone")
    parser.add_argument("--router", help="an all-in-one file; the one that ships if not given")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_picture(folder / "tiny.jpg", 64, 64)
        runtime: dict[str, float] = {}
        for task, size in [row for row in ROWS if not options.quick or row[1] == "0.06 MP"]:
            picture = folder / f"{size.replace(' ', '-')}.jpg"
            if not picture.exists():
                make_picture(picture, *SIZES[size])
            if task not in runtime:
                runtime[task] = peak(folder / "tiny.jpg", task, options)
            rows.append(row_of(picture, task, size, runtime[task], options))
            print(rows[-1], flush=True)
    facts = {
        "what": "memory of restoring a JPEG file into a JPEG file",
        "threads": options.threads,
    }
    write_report("memory", facts, ("openvino", "pyvips-binary"), rows)


def row_of(
    picture: Path, task: str, size: str, runtime: float, options: argparse.Namespace
) -> dict:
    words = command(picture, task, options)
    told = subprocess.run([*words, "--dry-run", "--json"], stdout=subprocess.PIPE, check=True)
    estimate = json.loads(told.stdout)["memory"]
    found = peak(picture, task, options)
    return {
        "task": task,
        "size": size,
        "runtime": round(runtime),
        "peak": round(found),
        "beyond": round(found - runtime),
        "estimate": round(estimate["usual"] / 1e6),
        "estimate_most": round(estimate["most"] / 1e6),
        "estimate_to_peak": round(estimate["usual"] / 1e6 / found, 2),
    }


def command(picture: Path, task: str, options: argparse.Namespace) -> list[str]:
    words = [sys.executable, "-m", "urushi", "restore", str(picture), "--overwrite", "--quiet"]
    words += ["-o", str(picture.with_name("result.jpg")), "--threads", str(options.threads)]
    words += ["--task", task] if task != "auto" or options.router else []
    return words + (["--router", options.router] if options.router and task != "none" else [])


def peak(picture: Path, task: str, options: argparse.Namespace) -> float:
    """Megabytes that a process takes at most."""
    child = subprocess.Popen(command(picture, task, options))
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"restoring {picture} ended with {child.returncode}")
    return usage.ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
