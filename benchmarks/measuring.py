"""What the benchmarks share: memory, processor and versions, and rows in processes of their own."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# What OpenVINO, and the oneDNN in it and in torch, may use of the processor; all if not set.
LIMIT = os.environ.get("ONEDNN_MAX_CPU_ISA", "").lower()


def run_script(main: Callable[[], None]) -> None:
    """Runs a script; an error that a user may see ends it with its sentence alone."""
    from urushi.errors import UrushiError

    try:
        main()
    except UrushiError as error:
        raise SystemExit(str(error)) from None


def resident(field: str) -> int:
    """Bytes of resident memory, now (VmRSS) or at most (VmHWM); Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit("memory is measured on Linux only")


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def versions(*names: str) -> dict[str, str]:
    """Versions of installed packages."""
    from importlib.metadata import version

    return {name: version(name) for name in names}


def in_own_process(script: str, plan: dict) -> dict:
    """Runs `script --row PLAN` and returns the row that it prints."""
    done = subprocess.run(
        [sys.executable, script, "--row", json.dumps(plan)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        # Without this a row that is to run without a kept allocator might inherit one.
        env={k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")},
    )
    return json.loads(done.stdout)


def best(act: Callable[[], Any]) -> float:
    """Seconds, of the quickest of three."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        act()
        seconds.append(time.perf_counter() - start)
    return round(min(seconds), 4)


def middle(values: list[float]) -> int:
    """Index of the (lower) median."""
    order = sorted(range(len(values)), key=values.__getitem__)
    return order[(len(order) - 1) // 2]


def write_report(name: str, facts: dict, packages: tuple[str, ...], rows: list[dict]) -> None:
    """Writes `NAME.json` to `results`, or to the folder `$URUSHI_RESULTS`.

    Where the instruction set is limited, its name is `NAME-LIMIT.json`.
    """
    report = {
        **facts,
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "instructions": LIMIT or "all",
        },
        "versions": versions("urushi", *packages),
        "rows": rows,
    }
    folder = Path(os.environ.get("URUSHI_RESULTS") or RESULTS)
    folder.mkdir(exist_ok=True)
    text = json.dumps(report, indent=1)
    (folder / f"{name}{f'-{LIMIT}' if LIMIT else ''}.json").write_text(
        text + "\n", encoding="utf-8"
    )
