"""A long training in the background: one thread, lowest priority, resumed by the same command.

    python benchmarks/long_run.py start --data DATA    # begins it, or goes on with it
    python benchmarks/long_run.py pause                # while something is timed
    python benchmarks/long_run.py continue
    python benchmarks/long_run.py status
    python benchmarks/long_run.py stop                 # with a checkpoint
    python benchmarks/long_run.py weights FILE         # the averaged weights so far, as a model

`--recipe` is `base-next` unless told, a name or a file; `--run` its folder, `runs/RECIPE`. Where
that holds no checkpoint and `RUN.safetensors` exists, the training begins with those weights: what
`weights` wrote before on another machine. Runs are kept on Linux alone.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from measuring import run_script

ROOT = Path(__file__).resolve().parent.parent
# How long `start` waits for the first step, or for an end in place of it.
START_SECONDS = 15.0


def main() -> None:
    parser = argparse.ArgumentParser(description="A long training in the background.")
    parser.add_argument(
        "action", choices=("start", "pause", "continue", "status", "stop", "weights")
    )
    parser.add_argument("file", nargs="?", type=Path, help="to write, of weights alone")
    parser.add_argument("--recipe", default="base-next")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="A.B=VALUE")
    parser.add_argument("--data", default=os.environ.get("URUSHI_DATA"))
    arguments = parser.parse_args()
    if arguments.file is not None and arguments.action != "weights":
        # Else `stop runs/other` would stop base-next.
        parser.error(f"{arguments.action} takes no file: --run names another folder")
    if not Path("/proc/self").exists():
        raise SystemExit("long runs are kept on Linux alone; elsewhere:  urushi train --resume")
    recipe, name = arguments.recipe, arguments.recipe
    if Path(recipe).is_file():
        recipe, name = str(Path(recipe).resolve()), Path(recipe).stem
    run = (arguments.run or ROOT / "runs" / name).resolve()
    if arguments.action == "start":
        data = arguments.data and str(Path(arguments.data).resolve())
        start(recipe, run, data, arguments.changes)
    elif arguments.action == "status":
        status(run)
    elif arguments.action == "weights":
        if arguments.file is None:
            raise SystemExit("name the file to write:  weights FILE")
        write_weights(run, arguments.file)
    else:
        send(run, arguments.action)


def start(recipe: str, run: Path, data: str | None, changes: list[str]) -> None:
    if process_of(run) is not None:
        print("it was begun before")
        send(run, "continue")
        return
    if data is None:
        raise SystemExit("name the folder of the data sets: --data DATA, or URUSHI_DATA")
    check(recipe, run, Path(data), changes)
    run.mkdir(parents=True, exist_ok=True)
    # -P: not the package of a checkout that the command is given in.
    command = [sys.executable, "-P", "-m", "urushi", "train", recipe]
    command += ["-o", str(run), "--resume", "--data", data]
    for setting in (*start_setting(recipe, run), *arithmetic(), *changes):
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copied_code(run))}
    with (run / "log.txt").open("ab") as log:
        told = log.tell()
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            preexec_fn=step_back,
        )
    (run / "pid").write_text(f"{process.pid}\n")
    print(f"process {process.pid}, log in {run / 'log.txt'}", flush=True)
    watch_start(process, run / "log.txt", told)


def check(recipe: str, run: Path, data: Path, changes: list[str]) -> None:
    """Tells here what would end the training at once, where nobody looks."""
    from urushi.app.train import PACK_NAME
    from urushi.training.recipe import load_recipe

    stated = load_recipe(recipe, changes)
    folders = [] if (run / PACK_NAME).exists() else [data / name for name in stated.data.pictures]
    for folder in folders:
        if not folder.is_dir():
            raise SystemExit(f"{folder} is no folder: --data is the folder of the data sets")


def watch_start(process: "subprocess.Popen[bytes]", log: Path, told: int) -> None:
    """Waits for the first step, or for an end in place of it, which is told."""
    begun = time.monotonic()
    while time.monotonic() - begun < START_SECONDS:
        lines = log.read_bytes()[told:].decode(errors="replace").splitlines()
        if process.poll() is not None:
            if process.returncode:
                raise SystemExit(f"it ended at once: {lines[-1] if lines else 'without a word'}")
            return
        if any(line.startswith("step ") for line in lines):
            return
        time.sleep(0.2)
    print("no step yet: `status` tells when there is one")


def step_back() -> None:
    """Gives this process, alone in its session, the lowest priority."""
    os.nice(19)
    # Where Linux shares the processor between sessions first, nice counts within one alone.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")


def copied_code(run: Path) -> Path:
    """A copy of the package: what is changed in the checkout meanwhile must not meet the run."""
    code = run / "code"
    shutil.rmtree(code, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "urushi", code / "urushi", ignore=ignored)
    return code


def start_setting(recipe: str, run: Path) -> list[str]:
    """`start=FILE` where the training begins, or began, with the weights of a file."""
    import yaml

    resolved = run / "recipe.yaml"
    if resolved.exists() and any((run / "checkpoints").glob("step-*.safetensors")):
        begun = yaml.safe_load(resolved.read_text(encoding="utf-8"))["start"]
        return [] if begun is None else [f"start={begun}"]
    kept = run.with_suffix(".safetensors")
    return [f"start={kept}"] if kept.exists() else []


def arithmetic() -> list[str]:
    """What this processor trains fastest in.

    Without matrix units for bf16 (AMX) it takes 1.4 times as long as float32, and compiling costs
    more than it gives (docs/log.md).
    """
    import torch

    fast = torch.cpu._is_amx_tile_supported()
    return ["precision=bf16", "compile=true"] if fast else ["precision=float32", "compile=false"]


def process_of(run: Path) -> int | None:
    """Number of the running process, paused or not."""
    try:
        number = int((run / "pid").read_text())
        words = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    running = str(run).encode() in words and state_of(number) not in ("Z", None)
    return number if running else None


def send(run: Path, action: str) -> None:
    number = process_of(run)
    if number is None:
        raise SystemExit(f"no training runs in {run}")
    if action == "stop":
        # A paused process answers only when it goes on.
        os.killpg(number, signal.SIGTERM)
        os.killpg(number, signal.SIGCONT)
        while process_of(run) is not None:
            time.sleep(0.5)
        newest = newest_file(run)
        print("stopped", "before its first checkpoint" if newest is None else f"with {newest.name}")
        return
    os.killpg(number, {"pause": signal.SIGSTOP, "continue": signal.SIGCONT}[action])
    # On a busy machine it may calculate for a while before it sees the signal.
    while action == "pause" and state_of(number) not in ("T", None):
        time.sleep(0.1)
    print({"pause": "paused", "continue": "goes on"}[action])


def state_of(number: int) -> str | None:
    """The letter of a process's state, `T` for one that is paused; None where there is none."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def newest_file(run: Path) -> Path | None:
    """The newest checkpoint of a run."""
    return max((run / "checkpoints").glob("step-*.safetensors"), default=None)


def status(run: Path) -> None:
    if not run.is_dir():
        raise SystemExit(f"{run} is no run: --recipe or --run names one")
    number = process_of(run)
    if number is None:
        print("not running")
    else:
        print(f"process {number}, {'paused' if state_of(number) == 'T' else 'running'}")
    with contextlib.suppress(OSError, IndexError):
        print((run / "log.txt").read_text(errors="replace").splitlines()[-1])
    newest = newest_file(run)
    if newest is None:
        print("no checkpoint yet")
        return
    minutes = (time.time() - newest.stat().st_mtime) / 60
    print(f"checkpoint {newest.name}, {minutes:.0f} minutes old")
    from urushi.training.checkpoint import read_checkpoint

    scored = [row for row in read_checkpoint(newest).log if len(row) > 3]
    for row in scored[-5:]:
        print(json.dumps(row))


def write_weights(run: Path, path: Path) -> None:
    from urushi.files.model import ModelHeader, write_model
    from urushi.training.checkpoint import newest_checkpoint
    from urushi.training.recipe import Recipe

    checkpoint = newest_checkpoint(run / "checkpoints")
    if checkpoint is None:
        raise SystemExit(f"{run} holds no checkpoint")
    recipe = Recipe.model_validate(checkpoint.recipe)
    assert recipe.backbone is not None
    weights = checkpoint.group("weights") | checkpoint.group("ema")
    tensors = {k: v.float().numpy() for k, v in weights.items() if not k.startswith("pretext.")}
    header = ModelHeader(
        backbone=recipe.backbone.name,
        config=recipe.backbone.config,
        description=f"{recipe.name} after {checkpoint.step} steps; not finished.",
        licence=recipe.licence,
        data=recipe.data_statement,
    )
    write_model(path, tensors, header, "float16")
    print(f"{path}: step {checkpoint.step}")


if __name__ == "__main__":
    run_script(main)
