"""What the tests of the commands share: running one, small pictures, a tiny network."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from typer.testing import CliRunner, Result

from urushi.app.cli import app
from urushi.backbones import BACKBONES, create_backbone
from urushi.files.model import ModelHeader, write_model
from urushi.image import write_picture

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


def picture(height: int = 48, width: int = 64, shift: float = 0.0) -> np.ndarray:
    """A smooth picture with a bright square, `(H, W, 3)` in [0, 1]."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = 0.4 + 0.2 * np.sin(columns / 5 + shift) + 0.1 * np.cos(rows / 7)
    pixels = np.stack([waves, waves[::-1], 0.5 + 0.3 * np.sin(rows / 9 + shift)], axis=2)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 0.9
    return pixels.astype(np.float32)


def write_pictures(folder: Path, count: int = 3, suffix: str = ".png", **size) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"picture{i}{suffix}" for i in range(count)]
    for i, path in enumerate(paths):
        write_picture(path, picture(shift=float(i), **size))
    return paths


def write_tiny_model(path: Path) -> Path:
    """A NAFNet that changes little: its last layer is scaled down, its inner ones do something."""
    config: dict[str, Any] = dict(BACKBONES["nafnet"].example)
    torch.manual_seed(0)
    network = create_backbone("nafnet", config)
    weights = {}
    for name, tensor in network.state_dict().items():
        if name.endswith(("beta", "gamma")):
            tensor = torch.full_like(tensor, 0.1)
        weights[name] = (tensor * 0.05 if name.startswith("ending") else tensor).numpy()
    header = ModelHeader(backbone="nafnet", config=config, description="A tiny test network.")
    write_model(path, weights, header)
    return path
