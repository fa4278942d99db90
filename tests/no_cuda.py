"""Run after installing: no package may have replaced torch, nor brought torchvision.

Only where the pinned torch is a CPU build is CUDA a sign of that.
"""

import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

PINNED = Path(__file__).parent.parent / "constraints.txt"


def main() -> int:
    wanted = next(
        line.split("==")[1].strip()
        for line in PINNED.read_text().splitlines()
        if line.startswith("torch==")
    )
    found = version("torch")
    if found.split("+")[0] != wanted:
        return fail(f"torch is {found}, constraints.txt pins {wanted}")
    if found.endswith("+cpu") and any(
        "nvidia" in r and "extra" not in r for r in requires("torch") or []
    ):
        return fail(f"torch {found} brings CUDA packages")
    try:
        return fail(f"torchvision {version('torchvision')} was installed")
    except PackageNotFoundError:
        return 0


def fail(sentence: str) -> int:
    sys.stderr.write(sentence + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
