"""Options of a training: stages of patches, a start from a model, and tasks beside restoring."""

import json

import numpy as np
import pytest
import torch
import yaml
from networks import same
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from world import TINY_TRAINING, newest, recipe, write_random

from urushi.backbones import create_backbone
from urushi.degradations import create_degradation
from urushi.errors import AdapterError, FileFormatError, RecipeError
from urushi.files.adapter import read_adapter
from urushi.files.model import ModelHeader, read_model, write_model
from urushi.training.build import load_start
from urushi.training.loop import train
from urushi.training.pretext import Pretext, draw_cells
from urushi.training.recipe import PretextSettings

CONFIG = TINY_TRAINING["backbone"]["config"]


def interrupted(plan, pack, run, at):
    """Trains to step `at`, forgets everything, and goes on to the end."""
    first = {**plan.model_dump(), "schedule": {**plan.schedule.model_dump(), "steps": at}}
    train(recipe(**first), pack, run, device="cpu")
    return train(plan, pack, run, resume=True, device="cpu")


# --- stages of patches ---


def shapes_seen(monkeypatch):
    seen = []
    original = torch.nn.Module.__call__

    def spy(self, *args, **kwargs):
        if type(self).__name__ == "NAFNet":
            seen.append(tuple(args[0].shape))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "__call__", spy)
    return seen


def test_stages_change_the_patches_at_their_steps(pack, tmp_path, monkeypatch):
    stages = [
        {"from_step": 2, "patch": 24, "batch": 2},
        {"from_step": 4, "patch": 32, "batch": 1},
    ]
    seen = shapes_seen(monkeypatch)
    train(recipe(schedule={"steps": 5, "patches": stages}), pack, tmp_path, device="cpu")
    assert seen == [(4, 3, 16, 16)] * 2 + [(2, 3, 24, 24)] * 2 + [(1, 3, 32, 32)]


def test_a_training_resumed_in_a_later_stage_is_the_same(pack, tmp_path):
    # A constant rate: an interrupted training of a shorter schedule must see the same one.
    schedule = {
        "steps": 6,
        "final_learning_rate": 1e-3,
        "patches": [{"from_step": 2, "patch": 24, "batch": 2}],
    }
    plan = recipe(schedule=schedule)
    whole = train(plan, pack, tmp_path / "whole", device="cpu")
    parts = interrupted(plan, pack, tmp_path / "parts", 4)
    assert same(whole.weights, parts.weights)


def test_stages_out_of_order_are_refused():
    stages = [{"from_step": 4, "patch": 32, "batch": 1}, {"from_step": 2, "patch": 24, "batch": 2}]
    with pytest.raises(RecipeError, match="ascending"):
        recipe(schedule={"steps": 5, "patches": stages})


# --- start ---


def model_file(path, config, seed=0):
    torch.manual_seed(seed)
    network = create_backbone("nafnet", config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    tensors = {name: p.detach().numpy() for name, p in network.named_parameters()}
    write_model(path, tensors, ModelHeader(backbone="nafnet", config=config), "float32")
    return network


def test_a_deeper_network_starts_as_the_model_it_begins_with(tmp_path):
    smaller = model_file(tmp_path / "m.safetensors", CONFIG)
    deeper = create_backbone("nafnet", {**CONFIG, "middle_blk_num": 3, "enc_blk_nums": [1, 2]})
    new = load_start(deeper, str(tmp_path / "m.safetensors"))
    picture = torch.rand(1, 3, 21, 34)
    torch.testing.assert_close(deeper(picture), smaller(picture))
    assert {name.rsplit(".", 2)[0].split(".")[0] for name in new} == {"middle_blks", "encoders"}


@pytest.mark.parametrize("change", [{"width": 8}, {"middle_blk_num": 0}])
def test_a_start_of_another_shape_is_refused(tmp_path, change):
    model_file(tmp_path / "m.safetensors", CONFIG)
    other = create_backbone("nafnet", {**CONFIG, **change})
    with pytest.raises(RecipeError, match="start from a model of the same widths"):
        load_start(other, str(tmp_path / "m.safetensors"))


def test_training_begins_with_the_start_and_resumes_without_it(pack, tmp_path):
    path = tmp_path / "m.safetensors"
    begun = model_file(path, CONFIG)
    plan = recipe(
        start=str(path),
        optimizer={"learning_rate": 1e-12},
        schedule={"steps": 2, "final_learning_rate": 1e-12},
    )
    result = train(plan, pack, tmp_path / "run", device="cpu")
    for name, parameter in begun.named_parameters():
        torch.testing.assert_close(result.weights[name], parameter.detach())
    path.unlink()
    longer = {**plan.model_dump(), "schedule": {"steps": 3}}
    assert train(recipe(**longer), pack, tmp_path / "run", resume=True, device="cpu").step == 3
    with pytest.raises(FileFormatError, match="neither a file nor a name"):
        train(plan, pack, tmp_path / "other", device="cpu")


def test_a_training_is_resumed_whose_recipe_is_of_former_names(pack, tmp_path):
    run = tmp_path / "run"
    train(recipe(schedule={"steps": 2}), pack, run, device="cpu")
    stated = yaml.safe_load((run / "recipe.yaml").read_text())
    stated["begin"] = stated.pop("initial_adapter")
    (run / "recipe.yaml").write_text(yaml.safe_dump(stated))
    last = max((run / "checkpoints").glob("step-*"))
    with safe_open(last, "pt") as file:
        facts = json.loads(file.metadata()["urushi"])
    facts["recipe"]["begin"] = facts["recipe"].pop("initial_adapter")
    save_file(load_file(last), last, {"urushi": json.dumps(facts)})
    with pytest.raises(RecipeError, match="--resume"):
        train(recipe(schedule={"steps": 3}), pack, run, device="cpu")
    assert train(recipe(schedule={"steps": 3}), pack, run, resume=True, device="cpu").step == 3
    assert "initial_adapter" in yaml.safe_load((run / "recipe.yaml").read_text())


def test_an_adapter_is_trained_on_from_a_file_of_its_own_method(pack, tmp_path):
    path, begun = tmp_path / "m.safetensors", tmp_path / "a.safetensors"
    model_file(path, CONFIG)
    model = read_model(path)
    write_random(begun, model)
    stored = read_adapter(begun)
    changes = {
        "start": str(path),
        "backbone": None,
        "adapter": {"method": stored.header.method, **stored.header.config},
        "initial_adapter": str(begun),
        "optimizer": {"learning_rate": 1e-12},
        "schedule": {"steps": 1, "final_learning_rate": 1e-12},
    }
    result = train(recipe(**changes), pack, tmp_path / "run", device="cpu")
    for name, array in stored.tensors.items():
        found = result.weights[f"adapters.0.{name}"].numpy()
        np.testing.assert_allclose(found, array, atol=1e-6, err_msg=name)
    with pytest.raises(RecipeError, match="initial_adapter has no effect"):
        recipe(initial_adapter=str(begun))
    other = recipe(**{**changes, "adapter": {"method": "ssf"}})
    with pytest.raises(RecipeError, match="of method"):
        train(other, pack, tmp_path / "ssf", device="cpu")
    model_file(tmp_path / "other.safetensors", {**CONFIG, "middle_blk_num": 3})
    write_random(begun, read_model(tmp_path / "other.safetensors"))
    with pytest.raises(AdapterError, match="made for the base"):
        train(recipe(**changes), pack, tmp_path / "other", device="cpu")


# --- tasks beside restoring ---


def test_cells_are_square_whole_and_as_many_as_asked_for():
    mask = draw_cells((50, 40, 36), 0.3, 8, torch.Generator().manual_seed(1))
    assert mask.shape == (50, 1, 40, 36)
    assert 0.25 < mask.float().mean() < 0.35
    whole = mask[..., :32].reshape(50, 5, 8, 4, 8).float().mean((2, 4))
    assert set(whole.unique().tolist()) == {0.0, 1.0}


def test_masked_inputs_are_zero_in_the_cells_and_untouched_elsewhere():
    network = create_backbone("nafnet", CONFIG)
    pretext = Pretext(PretextSettings(until=1, mask=0.5, cell=4), network, 2)
    images = torch.rand(2, 3, 16, 16) * 0.9 + 0.1
    masked = pretext.mask(images, torch.Generator().manual_seed(3), slice(2, 4), 6)
    cells = draw_cells((6, 16, 16), 0.5, 4, torch.Generator().manual_seed(3))[2:4]
    assert torch.equal(masked, torch.where(cells, 0.0, images))


def test_a_chain_tells_which_steps_each_picture_went_through():
    chain = create_degradation(
        "chain",
        steps=[{"name": "gaussian_noise"}, {"name": "jpeg"}, {"name": "gaussian_blur"}],
        count=[1, 2],
        clean=0.3,
    )
    parameters = chain.sample((200, 3, 8, 8), torch.Generator().manual_seed(0))
    applied = chain.applied(parameters)
    for row, order in zip(applied, parameters["order"], strict=True):
        assert row.nonzero()[:, 0].tolist() == sorted(o for o in order.tolist() if o >= 0)
    assert (applied.sum(1) == 0).any()
    assert (applied.sum(1) == 2).any()


def test_the_classification_reaches_head_and_network():
    """What it asks for can be learned through the features, and nothing else is needed."""
    torch.manual_seed(0)
    network = create_backbone("nafnet", CONFIG)
    pretext = Pretext(PretextSettings(until=1, classify=1.0), network, 2)
    pretext.listen(True)
    optimizer = torch.optim.Adam([*network.parameters(), *pretext.parameters()], lr=1e-2)
    clean = torch.rand(16, 3, 2, 2).repeat_interleave(8, 2).repeat_interleave(8, 3)
    applied = torch.tensor([[True, False], [False, True]] * 8)
    noisy = clean + 0.3 * torch.randn(clean.shape) * applied[:, :1, None, None]
    losses = []
    for _ in range(80):
        network(noisy)
        loss = pretext(applied)
        loss.backward()
        assert network.intro.weight.grad.abs().max() > 0
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("at", [2, 5])
def test_a_training_with_a_pretext_resumes_bit_for_bit(pack, tmp_path, at):
    plan = recipe(
        pretext={"until": 4, "mask": 0.4, "cell": 4, "classify": 1.0},
        schedule={"steps": 7, "final_learning_rate": 1e-3},
    )
    whole = train(plan, pack, tmp_path / "whole", device="cpu")
    parts = interrupted(plan, pack, tmp_path / "parts", at)
    assert same(whole.weights, parts.weights)
    assert same(newest(tmp_path / "whole").tensors, newest(tmp_path / "parts").tensors)
    assert not any("head" in name for name in whole.weights)


def test_after_the_pretext_nothing_of_it_is_left_in_a_step(pack, tmp_path):
    """Two trainings that differ in a pretext of no effect are the same."""
    plain = train(recipe(), pack, tmp_path / "plain", device="cpu")
    idle = recipe(pretext={"until": 3})
    assert same(plain.weights, train(idle, pack, tmp_path / "idle", device="cpu").weights)


def test_a_network_without_a_middle_cannot_classify():
    network = create_backbone("nafnet", {**CONFIG, "middle_blk_num": 0})
    with pytest.raises(RecipeError, match="middle"):
        Pretext(PretextSettings(until=1, classify=1.0), network, 2)


def test_the_global_random_state_has_no_say_in_the_masks(pack, tmp_path):
    plan = recipe(pretext={"until": 4, "mask": 0.4})
    one = train(plan, pack, tmp_path / "one", device="cpu")
    torch.manual_seed(99)
    assert same(one.weights, train(plan, pack, tmp_path / "two", device="cpu").weights)
