"""What the tests of engines share: a tiny network, batches, processes that are watched."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from urushi.backbones import BACKBONES, create_backbone
from urushi.files.model import ModelHeader, write_model

EXAMPLE = dict(BACKBONES["nafnet"].example)
ROOT = Path(__file__).parents[1]

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


def write_tiny(path: Path, seed: int = 0, **changes) -> Path:
    """Write a tiny NAFNet that does something: fresh ones are the identity."""
    config = {**EXAMPLE, **changes}
    with torch.random.fork_rng(devices=[]):
        # With other initial weights the variance over four channels may vanish somewhere, where
        # normalisation makes any rounding large. In trained networks it does not.
        torch.manual_seed(9)
        network = create_backbone("nafnet", config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: (tensor + 0.1 * torch.randn(tensor.shape, generator=generator)).numpy()
        for name, tensor in network.state_dict().items()
    }
    write_model(path, tensors, ModelHeader(backbone="nafnet", config=config))
    return path


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


def batch(height: int = 12, width: int = 20, count: int = 2) -> np.ndarray:
    return np.random.default_rng(height).random((count, 3, height, width), dtype=np.float32)
