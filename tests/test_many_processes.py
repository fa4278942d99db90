"""Trainings that several processes share: the same as one, whoever goes on, whoever dies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT
from safetensors.torch import load_file
from together import everything, losses_of, plan
from world import newest

from urushi.training.loop import train


def launched(script: Path, *words: object, restarts: int = 0) -> subprocess.CompletedProcess:
    """Runs a script in two processes that find one another, as `torchrun` starts them."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2", "--max-restarts", str(restarts)]
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(ROOT)])
    return subprocess.run(
        [*launch, str(script), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def folders(world, pack, tmp_path_factory):
    """What one process made, and what two have made of the same; and the losses on the way."""
    root = tmp_path_factory.mktemp("together")
    train(plan(2), pack, root / "begun", device="cpu")
    for name in ("one", "two"):
        shutil.copytree(root / "begun", root / name / "begun")
    done = launched(
        Path(__file__).with_name("together.py"), world, pack.path, root / "two"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    losses = losses_of(lambda: everything(world, pack.path, root / "one"))
    return root / "one", root / "two", losses, json.loads((root / "two/losses.json").read_text())


def test_losses_of_two_are_those_of_one_with_twice_the_batch(folders):
    *_, one, two = folders
    assert one.keys() == {"base", "begun", "adapter.run", "router", "noise", "dark"}
    assert one.keys() == two.keys()
    for name, losses in one.items():
        assert two[name] == pytest.approx(losses, abs=2e-3, rel=1e-3), name


@pytest.mark.parametrize(
    "name", ["adapter", "all/noise", "all/dark", "all/all"]
)
def test_what_two_leave_is_what_one_leaves(folders, name):
    one, two = (load_file(folder / f"{name}.safetensors") for folder in folders[:2])
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, atol=2e-3, rtol=2e-2)


def test_checkpoints_are_gone_on_with_by_any_number(folders, pack, tmp_path):
    whole = train(plan(4), pack, tmp_path / "whole", device="cpu").weights
    base = shutil.copytree(folders[1] / "base", tmp_path / "base")
    by_one = train(plan(4), pack, base, device="cpu", resume=True).weights
    by_two = newest(folders[1] / "begun").group("ema")
    for key, tensor in whole.items():
        torch.testing.assert_close(by_one[key], tensor, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(by_two[key], tensor, atol=1e-4, rtol=1e-3)
