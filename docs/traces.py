"""Counts what three tasks touch: functions called, files they lie in, and calls between files.

python docs/traces.py                    # a table of restore, adapt and train
PYTHONPATH=CHECKOUT python docs/traces.py    # of another version

A picture through `restore`, two pairs through one step of `adapt`, a recipe through one step of
`train`; made pictures, one process. Every function of the package counts once, and every pair of
files where one calls the other.
"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

SIDE = 160


def main() -> None:
    print("| path | functions | files | calls between files |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        prepare()
        for name, arguments in {
            "restore": ["restore", "a.png", "-o", "b.png", "--quiet"],
            "adapt": ["adapt", "--pairs", "pairs", "-o", "x.safetensors", "--steps", "1"],
            "train": ["train", "recipe.yaml", "-o", "run", "--data", "."],
        }.items():
            print(f"| `{name}` | " + " | ".join(str(n) for n in counted(arguments)) + " |")


def prepare() -> None:
    """The pictures, pairs and recipe that the three read."""
    from urushi.image import write_picture

    random = np.random.default_rng(0)
    for place in ("a", "pairs/input/1", "pairs/input/2", "pairs/target/1", "pairs/target/2"):
        path = Path(f"{place}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, random.random((SIDE, SIDE, 3)).astype(np.float32))
    Path("recipe.yaml").write_text(
        "name: traced\ndescription: One step.\n"
        "backbone: {name: nafnet, config: {width: 4, enc_blk_nums: [], middle_blk_num: 1, "
        "dec_blk_nums: []}}\n"
        "data: {pictures: [pairs/target], patch: 16, batch: 2}\n"
        "degradation: {name: gaussian_noise, sigma_255: [25, 25]}\ndegradations: [noise]\n"
        "optimizer: {learning_rate: 1.0e-6}\nschedule: {steps: 1}\nema: 0\n"
    )


def counted(arguments: list[str]) -> tuple[int, int, int]:
    """Functions, files and calls between files of one command."""
    functions: set[tuple[str, str]] = set()
    between: set[tuple[str, str]] = set()

    def seen(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        callee = place_of(frame)
        if callee is None:
            return
        functions.add((callee, frame.f_code.co_qualname))
        caller = place_of(frame.f_back) if frame.f_back is not None else None
        if caller not in (None, callee):
            between.add((str(caller), callee))

    from urushi.app import cli

    before = sys.argv
    sys.argv = ["urushi", *arguments]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        sys.setprofile(seen)
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                sys.setprofile(None)
                raise SystemExit(f"{' '.join(arguments)} failed: {said.getvalue()}") from None
        finally:
            sys.setprofile(None)
            sys.argv = before
    return len(functions), len({file for file, _ in functions}), len(between)


def place_of(frame: FrameType | None) -> str | None:
    """The file of a frame within the package, if it is one of its functions."""
    if frame is None or frame.f_code.co_name.startswith("<module"):
        return None
    path = frame.f_code.co_filename
    marker = f"{os.sep}urushi{os.sep}"
    return path.rpartition(marker)[2] if marker in path and "site-packages" not in path else None


if __name__ == "__main__":
    main()
