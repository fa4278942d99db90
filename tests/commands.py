"""Running commands and pieces of Python, in this process and in others."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from urushi.app.cli import app

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: object) -> Result:
    """Runs `urushi ARGUMENTS` in this process; a fault of ours stays an exception."""
    return CliRunner().invoke(app, [str(word) for word in arguments], catch_exceptions=False)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def start(*arguments: object, **options) -> subprocess.Popen:
    """Starts `python -m urushi ARGUMENTS` as a user would."""
    command = [sys.executable, "-m", "urushi", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **{"env": environment(), **pipes, **options})


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)


# Runs first in a process of its own: whoever looks up a name or connects is written down.
WATCH = """
import sys
calls = []
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        calls.append((event, str(args)))
sys.addaudithook(watch)
from pathlib import Path
import numpy as np
from urushi.files.model import read_model
from urushi.inference.engines import create_engine
"""


def run_watched(code: str, home: Path, *arguments: object) -> str:
    """Run `code` in its own process, which must neither call out nor write into its home."""
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("CI", None)  # OpenVINO's telemetry is silent there by itself
    # After the threads that were started meanwhile have ended.
    tail = "\nimport atexit; atexit.register(lambda: print(calls))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCH + code + tail, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *output, calls = done.stdout.strip().splitlines()
    assert calls == "[]"
    assert list(home.iterdir()) == []
    return "\n".join(output)


def run_benchmark(
    name: str, *words: object, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """Runs a script of `benchmarks` in this process: importing torch takes longer than most do."""
    script, out, errors = ROOT / "benchmarks" / name, io.StringIO(), io.StringIO()
    precision = torch.get_float32_matmul_precision()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", [str(script), *map(str, words)])
        patch.setattr(sys, "path", [str(script.parent), *sys.path])
        patch.chdir(cwd or Path.cwd())
        with contextlib.redirect_stderr(errors):
            try:
                runpy.run_path(str(script), run_name="__main__")
                code = 0
            except SystemExit as end:
                code = end.code
    torch.set_float32_matmul_precision(precision)
    if isinstance(code, str):
        errors.write(code)
        code = 1
    return subprocess.CompletedProcess(words, code or 0, out.getvalue(), errors.getvalue())


def start_long_run(run: Path, *words: object, cwd: Path | None = None) -> None:
    """Starts a long training, which gives way to all else, and hurries it, where one may."""
    words = ("start", "--run", run, *words)
    command = [sys.executable, str(ROOT / "benchmarks" / "long_run.py"), *map(str, words)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": cwd}
    hurried, said = False, None
    with subprocess.Popen(command, env=environment(), **options) as process:
        while said is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                said, _ = process.communicate(timeout=0.1)
            if not hurried and (run / "pid").exists() and (text := (run / "pid").read_text()):
                hurried = True
                with contextlib.suppress(psutil.Error, OSError):
                    psutil.Process(int(text)).nice(0)
                    Path(f"/proc/{int(text)}/autogroup").write_text("0")
    assert process.returncode == 0, said


def run_script(script, plan, pack, run, *more):
    """Runs `script` in a process of its own, which alone has a main thread that gets signals."""
    path = run.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(plan))
    return [sys.executable, "-c", script, str(path), str(pack.path), str(run), *more]


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Runs as a user whom permissions bind; the superuser may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    # The folders of tests are closed to others, however deep they lie below the temporary one.
    for parent in [folder, *folder.parents]:
        if parent == Path(tempfile.gettempdir()):
            break
        if parent.stat().st_mode & 0o055 != 0o055:
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
