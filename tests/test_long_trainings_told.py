"""What the scripts of long trainings say to wrong input, and what they leave alone."""

import contextlib
import json
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from commands import run_benchmark as run
from commands import start_long_run
from world import TINY_TRAINING

from urushi.backbones import create_backbone
from urushi.files.model import ModelHeader, write_model
from urushi.image import write_picture

SHAPE = {"width": 4, "enc_blk_nums": [0, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 0]}


def refused(name, *words, cwd=None):
    done = run(name, *words, cwd=cwd)
    assert done.returncode != 0, done.stdout
    return done.stderr


@pytest.fixture
def place(tmp_path):
    """A recipe, its pictures, and a model of another configuration than the recipe's."""
    pixels = np.random.default_rng(0).random((140, 140, 3), np.float32)
    (tmp_path / "data/clean").mkdir(parents=True)
    write_picture(tmp_path / "data/clean/one.png", pixels)
    plan = {**TINY_TRAINING, "data": {"pictures": ["clean"], "patch": 16, "batch": 4}}
    plan["schedule"] = {**plan.get("schedule", {}), "steps": 100_000}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(plan))
    network = create_backbone("nafnet", SHAPE)
    tensors = {k: v.numpy() for k, v in network.state_dict().items()}
    write_model(tmp_path / "m.safetensors", tensors, ModelHeader(backbone="nafnet", config=SHAPE))
    return tmp_path


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="long runs are kept on Linux alone")
def test_a_long_run_tells_what_it_cannot_do(place):
    here = ("--run", "run", "--data", "data")
    start = ("long_run.py", "start", "--recipe")
    assert "no recipe 'nosuch'" in refused(*start, "nosuch", *here, cwd=place)
    text = refused(*start, "tiny.yaml", "--run", "run", "--data", "nosuch", cwd=place)
    assert "nosuch/clean is no folder" in text
    assert not (place / "run").exists()
    # A name after the action is not what --run is.
    assert "stop takes no file" in refused("long_run.py", "stop", "run", cwd=place)
    assert "is no run" in refused("long_run.py", "status", "--run", "run", cwd=place)
    assert "no training runs in" in refused("long_run.py", "pause", "--run", "run", cwd=place)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="long runs are kept on Linux alone")
def test_a_long_run_of_a_recipe_beside_the_caller_is_paused_and_stopped(place):
    here = ("--recipe", "tiny.yaml", "--run", "run")
    changes = ("--set", "compile=false", "--set", "precision=float32")
    start_long_run(place / "run", *here[:2], "--data", "data", *changes, cwd=place)
    number = int((place / "run/pid").read_text())
    try:
        assert run("long_run.py", "pause", *here, cwd=place).stdout == "paused\n"
        assert psutil.Process(number).status() == psutil.STATUS_STOPPED
        assert "goes on" in run("long_run.py", "start", *here, "--data", "data", cwd=place).stdout
        said = run("long_run.py", "stop", *here, cwd=place).stdout
        newest = max((place / "run/checkpoints").glob("step-*.safetensors"), default=None)
        wanted = "before its first checkpoint" if newest is None else f"with {newest.name}"
        assert said == f"stopped {wanted}\n"
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(number).wait(600)
    finally:
        if psutil.pid_exists(number):
            psutil.Process(number).kill()


def test_packing_empties_no_folder_of_others(place):
    given = ("accelerator.py", "pack", "--recipe", place / "tiny.yaml", "--data")
    text = refused(*given, place / "data", "--folder", place)
    assert "which is kept" in text
    assert (place / "data/clean/one.png").exists()
    bundle = ("--folder", place / "bundle")
    assert "holds no pictures" in refused(*given, place / "nosuch", *bundle)
    assert "more room" in refused(*given, place / "data", *bundle, "--megabytes", 0.001)
    start = ("--start", place / "m.safetensors")
    assert "another configuration" in refused(*given, place / "data", *bundle, *start)
    for _ in range(2):
        assert run(*given, place / "data", *bundle).returncode == 0
    assert "facts.json" in refused("accelerator.py", "unpack", place, place / "out.safetensors")
    text = refused("accelerator_run.py", place / "data", place / "out", "--device", "cpu")
    assert "accelerator.py pack writes it" in text


def test_time_that_is_over_leaves_the_weights_of_the_start(place):
    given = ("--recipe", place / "tiny.yaml", "--data", place / "data")
    assert run("accelerator.py", "pack", *given, "--folder", place / "bundle").returncode == 0
    words = ("--device", "cpu", "--minutes", 0, "--batch", 2, "--patch", 16, "--no-compile")
    done = run("accelerator_run.py", place / "bundle", place / "out", *words)
    assert done.returncode == 0, done.stderr
    assert "over before the first step" in done.stdout
    assert json.loads((place / "out/facts.json").read_text())["steps"] == 0


@pytest.mark.parametrize(
    ("encoder", "decoder"), [((0, 1), (1, 0)), ((0, 2, 1), (1, 1, 0)), ((0, 1, 1), (1, 1, 1))]
)
def test_a_network_grows_by_one_level(place, encoder, decoder):
    words = (place / "m.safetensors", place / "g.safetensors", "--middle", 1)
    text = refused("grow.py", *words, "--encoder", *encoder, "--decoder", *decoder)
    assert "expected the old numbers with one more, 0 1 N and N 1 0" in text
    assert not (place / "g.safetensors").exists()


def test_a_search_of_unknown_groups_is_refused(place):
    text = refused("search.py", "--data", place, "--pack", place, "--only", "nosuch")
    assert "--only is 'nosuch'" in text
    text = refused("architectures.py", "--only", "nosuch")
    assert "--only is 'nosuch'" in text
