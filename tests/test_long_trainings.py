"""Trainings whose end is not known, growing networks, and what an accelerator is given."""

import contextlib
import json

import numpy as np
import psutil
import pytest
import torch
import yaml
from commands import run_benchmark, start_long_run
from world import TINY_TRAINING, recipe

from urushi.backbones import create_backbone
from urushi.backbones.nafnet import NAFBlock, configuration_of
from urushi.errors import RecipeError
from urushi.files.model import ModelHeader, read_model, write_model
from urushi.image import write_picture
from urushi.settings import set_values
from urushi.training.build import load_start
from urushi.training.fitting import learning_rate
from urushi.training.loop import train

DATA = {"pictures": ["clean"], "patch": 16, "batch": 4}
REGIONS = {"name": "regions", "share": 0.5, "degradation": TINY_TRAINING["degradation"]}


def test_the_learning_rate_falls_at_the_end_alone():
    schedule = {"steps": 110, "warmup": 10, "decay": 0.25, "final_learning_rate": 0}
    plan = recipe(schedule=schedule, optimizer={"learning_rate": 1.0})
    rates = [
        learning_rate(plan.schedule, plan.optimizer.learning_rate, step) for step in range(110)
    ]
    assert rates[10:84] == [1.0] * 74
    assert rates[84:] == sorted(rates[84:], reverse=True)
    assert 0.4 < rates[97] < 0.6
    assert rates[-1] == pytest.approx(0, abs=1e-6)


def test_precision_may_change_when_a_training_goes_on(pack, tmp_path):
    train(recipe(schedule={"steps": 2}), pack, tmp_path / "run", device="cpu")
    plan = recipe(schedule={"steps": 3}, precision="bf16")
    assert train(plan, pack, tmp_path / "run", resume=True, device="cpu").step == 3


def test_regions_are_named_place_by_place(pack, tmp_path):
    plan = recipe(degradation=REGIONS, pretext={"until": 9, "classify": 1.0})
    assert train(plan, pack, tmp_path / "run", device="cpu").finished


def test_entries_of_lists_are_set_by_number():
    content = {"steps": [{"weight": 1}, {"weight": 2, "size": [3, 4]}]}
    set_values(content, ["steps.1.weight=5", "steps.1.size.0=6"], RecipeError)
    assert content == {"steps": [{"weight": 1}, {"weight": 5, "size": [6, 4]}]}
    for wrong in ("steps.2.weight=1", "steps.-1.weight=1", "steps.x=1", "steps.1.size.2=1"):
        with pytest.raises(RecipeError, match="no entry of a list that ends at"):
            set_values(content, [wrong], RecipeError)


SHAPE = {"width": 4, "enc_blk_nums": [0, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 0]}


def test_placeholders_are_tensors_that_change_nothing():
    torch.manual_seed(0)
    plain = create_backbone("nafnet", SHAPE)
    filled = create_backbone("nafnet", {**SHAPE, "placeholders": True})
    filled.load_state_dict({**filled.state_dict(), **plain.state_dict()})
    picture = torch.rand(1, 3, 18, 22)
    assert torch.equal(plain(picture), filled(picture))
    own = filled.state_dict()
    # What programs that know a NAFNet by its tensors look for.
    for level in ("encoders.0.0", "decoders.1.0"):
        block = {k.removeprefix(f"{level}."): v for k, v in own.items() if k.startswith(level)}
        wanted = NAFBlock(4).state_dict()
        assert {k: v.shape for k, v in block.items()} == {k: v.shape for k, v in wanted.items()}
        assert not block["beta"].any()
        assert not block["gamma"].any()
    assert {name for name, _ in filled.named_parameters()} == set(plain.state_dict())
    # To others it is a NAFNet with these blocks, and the same picture.
    other = create_backbone("nafnet", configuration_of(own))
    other.load_state_dict(own)
    assert configuration_of(own)["enc_blk_nums"] == [1, 1]
    torch.testing.assert_close(other(picture), plain(picture))


def test_a_training_begins_with_a_network_that_has_placeholders(tmp_path):
    config = {**SHAPE, "placeholders": True}
    network = create_backbone("nafnet", config)
    tensors = {k: v.numpy() for k, v in network.state_dict().items()}
    write_model(tmp_path / "m.safetensors", tensors, ModelHeader(backbone="nafnet", config=config))
    again = create_backbone("nafnet", config)
    assert load_start(again, str(tmp_path / "m.safetensors")) == []
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def script(name, *words):
    done = run_benchmark(name, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def small_recipe(tmp_path):
    for number in range(3):
        pixels = np.random.default_rng(number).random((150, 140, 3), np.float32)
        (tmp_path / "data/clean").mkdir(parents=True, exist_ok=True)
        write_picture(tmp_path / f"data/clean/{number}.png", pixels)
    plan = {**TINY_TRAINING, "data": {**DATA, "pages": 1}, "degradation": REGIONS}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(plan))
    return tmp_path / "tiny.yaml"


def test_an_accelerator_is_given_all_it_needs(small_recipe, tmp_path):
    torch.manual_seed(0)
    config = TINY_TRAINING["backbone"]["config"]
    network = create_backbone("nafnet", config)
    tensors = {k: v.numpy() for k, v in network.state_dict().items()}
    write_model(tmp_path / "m.safetensors", tensors, ModelHeader(backbone="nafnet", config=config))
    packed, came = tmp_path / "packed", tmp_path / "came"
    given = ("--data", tmp_path / "data", "--recipe", small_recipe, "--folder", packed)
    script("accelerator.py", "pack", *given, "--start", tmp_path / "m.safetensors")
    options = ("--device", "cpu", "--steps", 3, "--batch", 2, "--patch", 32, "--no-compile")
    said = script("accelerator_run.py", packed, came, "--minutes", 5, *options)
    assert "4 pictures" in said
    assert "begins with the weights" in said
    script("accelerator.py", "unpack", came, tmp_path / "out.safetensors")
    model = read_model(tmp_path / "out.safetensors")
    assert model.header.config == config
    moved = [np.abs(model.tensors[k].astype(np.float32) - v).max() for k, v in tensors.items()]
    assert max(moved) > 0
    assert max(moved) < 0.1
    assert json.loads((came / "facts.json").read_text())["steps"] == 3


def test_a_grown_network_is_the_same_function(tmp_path):
    torch.manual_seed(0)
    config = {"width": 4, "enc_blk_nums": [0, 1], "middle_blk_num": 3, "dec_blk_nums": [1, 0]}
    network = create_backbone("nafnet", config)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    tensors = {k: v.detach().numpy() for k, v in network.state_dict().items()}
    write_model(tmp_path / "m.safetensors", tensors, ModelHeader(backbone="nafnet", config=config))
    counts = ("--encoder", 0, 1, 2, "--middle", 2, "--decoder", 1, 1, 0)
    script("grow.py", tmp_path / "m.safetensors", tmp_path / "grown.safetensors", *counts)
    model = read_model(tmp_path / "grown.safetensors")
    grown = create_backbone("nafnet", model.header.config)
    grown.load_state_dict({k: torch.from_numpy(v) for k, v in model.tensors.items()})
    picture = torch.rand(1, 3, 16, 24)
    torch.testing.assert_close(grown(picture), network(picture), rtol=1e-4, atol=1e-5)


def test_the_long_run_goes_on_and_gives_its_weights(small_recipe, tmp_path):
    run = tmp_path / "runs/tiny"
    here = ("--recipe", small_recipe, "--run", run, "--data", tmp_path / "data")
    changes = ("--set", "compile=false", "--set", "precision=float32")
    start_long_run(run, *here[:2], *here[4:], *changes)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int((run / "pid").read_text())).wait()
    said = script("long_run.py", "status", *here)
    assert "not running" in said
    assert "checkpoint step-000000006" in said
    kept = tmp_path / "runs/tiny.safetensors"
    script("long_run.py", "weights", kept, *here)
    assert read_model(kept).header.backbone == "nafnet"
