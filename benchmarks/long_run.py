"""A long training in the background: one thread, lowest priority, resumed by the same command.

    python benchmarks/long_run.py start --data DATA    # begins it, or goes on with it
    python benchmarks/long_run.py pause                # while something is timed
    python benchmarks/long_run.py continue
    python benchmarks/long_run.py status
    python benchmarks/long_run.py stop                 # with a checkpoint
    python benchmarks/long_run.py weights FILE         # the averaged weights so far, as a model

`--recipe` is `base-next` unless told, `--run` its folder, `runs/RECIPE`. Where that holds no
checkpoint and `RUN.safetensors` exists, the training begins with those weights: what
`weights` wrote before on another machine.
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

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description="A long training in the background.")
    parser.add_argument(
        "action", choices=("start", "pause", "continue", "status", "stop", "weights")
    )
    parser.add_argument("file", nargs="?", type=Path, help="of weights")
    parser.add_argument("--recipe", default="base-next")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="A.B=VALUE")
    parser.add_argument("--data", default=os.environ.get("URUSHI_DATA"))
    arguments = parser.parse_args()
    run = (arguments.run or ROOT / "runs" / arguments.recipe).resolve()
    if arguments.action == "start":
        data = arguments.data and str(Path(arguments.data).resolve())
        start(arguments.recipe, run, data, arguments.changes)
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
        send(run, "continue")
        print("it is running already")
        return
    if data is None:
        raise SystemExit("name the folder of the data sets: --data DATA, or URUSHI_DATA")
    run.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "urushi", "train", recipe]
    command += ["-o", str(run), "--resume", "--data", data]
    for setting in (*start_setting(recipe, run), *arithmetic(), *changes):
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(copied_code(run))}
    with (run / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=run,
            env=environment,
            start_new_session=True,
            preexec_fn=step_back,
        )
    (run / "pid").write_text(f"{process.pid}\n")
    print(f"process {process.pid}, log in {run / 'log.txt'}")


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
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError):
        return None
    return number if str(run).encode() in words and state != "Z" else None


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
        print("stopped, with a checkpoint")
        return
    os.killpg(number, {"pause": signal.SIGSTOP, "continue": signal.SIGCONT}[action])


def status(run: Path) -> None:
    number = process_of(run)
    if number is None:
        print("not running")
    else:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        print(f"process {number}, {'paused' if state == 'T' else 'running'}")
    with contextlib.suppress(OSError):
        print("".join((run / "log.txt").read_text(errors="replace").splitlines(True)[-1:]), end="")
    newest = max((run / "checkpoints").glob("step-*.safetensors"), default=None)
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
    main()
