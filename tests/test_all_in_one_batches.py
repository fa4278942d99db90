"""What all-in-one trainings learn from: batches of their classes; damage that none can make."""

import pytest
import torch
from world import TINY_ALL_IN_ONE, tiny_files, tiny_recipe

from urushi.degradations import Rehaze, Rerain
from urushi.errors import DataError, DegradationError
from urushi.files.model import read_model
from urushi.training.all_in_one.datasets import class_stages, pack_all_in_one, router_recipe_of
from urushi.training.all_in_one.stages import StagePlans
from urushi.training.batches import step_generator


@pytest.fixture
def files(world):
    return tiny_files(tiny_recipe(world / "tiny.safetensors"), world, world / "packs")


def test_batches_are_of_all_classes_and_a_function_of_the_step(world, files):
    own = tiny_recipe(world / "tiny.safetensors")
    plan = StagePlans(own, files, _router(), "cpu")
    recipe = plan.guided(read_model(world / "tiny.safetensors")).recipe
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"batch": 60})})
    ((_, draw),) = class_stages(recipe, files, torch.device("cpu"), 0, 1)
    batch, again = draw(7), draw(7)
    assert torch.equal(batch.degraded, again.degraded)
    counts = batch.applied.sum(0)
    assert (counts > 8).all()
    assert batch.applied.sum(1).tolist() == [1] * 60
    clean, noisy, dark = (batch.applied[:, k] for k in range(3))
    change = batch.degraded - batch.clean
    assert not change[clean].any()
    assert change[noisy].std() > 0.1
    # Half of the dark patches are from the pairs, which are exactly 0.3 times as bright.
    real = [(c * 0.3 - d).abs().max() < 0.01 for c, d in
            zip(batch.clean[dark], batch.degraded[dark], strict=True)]  # fmt: skip
    assert 0.2 < sum(real) / len(real) < 0.8
    # Two processes draw one batch.
    halves = [class_stages(recipe, files, torch.device("cpu"), r, 2)[0][1](7) for r in range(2)]
    assert torch.equal(torch.cat([half.degraded for half in halves]), batch.degraded)


def test_a_class_may_end_with_pairs_alone_and_have_patches_of_its_own(world, files):
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["dark"] |= {
        "real": 0.0,
        "final_share": 0.5,
        "patch": 24,
        "batch": 6,
        "loss": {"grid": 2},
    }
    own = tiny_recipe(world / "tiny.safetensors", classes=classes)
    model = read_model(world / "tiny.safetensors")
    plans = StagePlans(own, files, _router(), "cpu")
    stage = plans.expert("dark", model, None)
    (first, made), (second, real) = stage.material.stages(torch.device("cpu"), 0, 1)
    assert (first, second) == (0, 2)  # of four steps
    assert made(1).degraded.shape == real(2).degraded.shape == (6, 3, 24, 24)

    def from_pairs(batch):
        return [((c * 0.3 - d).abs().max() < 0.01).item() for c, d in
                zip(batch.clean, batch.degraded, strict=True)]  # fmt: skip

    assert not any(from_pairs(made(1)))
    assert all(from_pairs(real(2)))
    other = plans.expert("noise", model, None).recipe
    assert (other.data.patch, other.data.batch) == (16, 4)
    assert (stage.recipe.loss.grid, other.loss.grid) == (2, 0)


def test_patches_of_a_class_may_grow(world, tmp_path):
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["dark"]["patches"] = [{"from_step": 3, "patch": 28, "batch": 1}]
    own = tiny_recipe(world / "tiny.safetensors", classes=classes)
    assert own.largest_patch == 28
    made = tiny_files(own, world, tmp_path / "packs")
    plans = StagePlans(own, made, _router(), "cpu")
    stage = plans.expert("dark", read_model(world / "tiny.safetensors"), None)
    (first, small), (second, large) = stage.material.stages(torch.device("cpu"), 0, 1)
    assert (first, second) == (0, 3)
    assert small(2).degraded.shape == (4, 3, 16, 16)
    assert large(3).degraded.shape == (1, 3, 28, 28)


def test_pairs_can_be_left_out(world, tmp_path):
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["dark"]["without"] = ["1"]
    own = tiny_recipe(world / "tiny.safetensors", classes=classes)
    made = tiny_files(own, world, tmp_path / "packs")
    assert list(made.pairs["dark"].names) == ["0/0", "0/2"]
    assert len(made.router.real["dark"]) == len(made.router.real["clean"]) == 2
    # Other pairs are another pack, in the same folder too.
    whole = tiny_files(tiny_recipe(world / "tiny.safetensors"), world, tmp_path / "packs")
    assert len(whole.pairs["dark"]) == 3
    classes["dark"]["without"] = ["7"]
    with pytest.raises(DataError, match="there is no pair named '7'"):
        tiny_files(tiny_recipe(world / "tiny.safetensors", classes=classes), world, tmp_path)
    classes["dark"]["without"] = ["0", "1", "2"]
    with pytest.raises(DataError, match="no pairs are left"):
        tiny_files(tiny_recipe(world / "tiny.safetensors", classes=classes), world, tmp_path)


def test_the_router_may_be_shown_stronger_damage_than_the_expert(world, files):
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["noise"]["router_degradation"] = {"name": "speckle_noise"}
    own = tiny_recipe(world / "tiny.safetensors", classes=classes)
    seen = router_recipe_of(own, files).classes
    assert seen["noise"].degradation == {"name": "speckle_noise"}
    assert seen["dark"].degradation == {"name": "low_light"}
    model = read_model(world / "tiny.safetensors")
    stage = StagePlans(own, files, _router(), "cpu").expert("noise", model, None)
    assert stage.recipe.classes["noise"].degradation["name"] == "gaussian_noise"


def _router():
    from dataclasses import replace
    from pathlib import Path

    from world import CLASSES, tiny_router

    from urushi.files.router_file import LoadedRouter, RouterHeader
    from urushi.routing.router import router_tensors

    router = tiny_router()
    header = RouterHeader(
        classes=CLASSES, views=router.views, encoder=router.encoder.facts, tensors_hash="0"
    )
    return replace(LoadedRouter(header, router_tensors(router), Path("router")))


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"rehaze": {"power": [2, 1]}}, "power"),
        ({"rerain": {"thin": [2, 1]}}, "thin"),
        ({"degradation": {"name": "low_lihgt"}}, "did you mean 'low_light'"),
        ({"router_degradation": {"name": "low_light", "exposure": 3}}, "exposure"),
    ],
)
def test_damage_that_cannot_be_made_is_told_before_anything_is_packed(world, tmp_path, own, words):
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["dark"] |= own
    recipe = tiny_recipe(world / "tiny.safetensors", classes=classes)
    with pytest.raises(DegradationError, match=words):
        pack_all_in_one(recipe, tmp_path / "packs", world)
    assert not (tmp_path / "packs").exists()


def test_pairs_of_a_class_may_be_varied(world, files):
    """The dark pairs show no haze, so that they stay as they are; that it is asked for is seen."""
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["dark"] |= {"rehaze": {"power": [1, 2], "elsewhere": 0.5}, "level": True}
    own = tiny_recipe(world / "tiny.safetensors", classes=classes)
    stage = StagePlans(own, files, _router(), "cpu").expert(
        "dark", read_model(world / "tiny.safetensors"), None
    )
    ((_, draw),) = stage.material.stages(torch.device("cpu"), 0, 1)
    assert draw.classes[0].real.rehaze == Rehaze(power=(1, 2), elsewhere=0.5)
    assert draw.classes[0].real.scenes.pack is files.clean
    assert draw.classes[0].made.degradation.name == "low_light"
    # The dark pairs are exactly 0.3 times as bright; levelled, their means are their targets'.
    batch = draw.classes[0].real.some(step_generator(0, 0), slice(0, 4))
    torch.testing.assert_close(batch.clean.mean((2, 3)), batch.degraded.mean((2, 3)))
    details = (image - image.mean((2, 3), keepdim=True) for image in batch[:2])
    torch.testing.assert_close(next(details), 0.3 * next(details), atol=0.01, rtol=0)


def test_rain_of_pairs_may_be_varied_in_its_place(world, files):
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["dark"] |= {"rerain": {"lighter": 1}}
    own = tiny_recipe(world / "tiny.safetensors", classes=classes)
    model = read_model(world / "tiny.safetensors")
    stage = StagePlans(own, files, _router(), "cpu").expert("dark", model, None)
    ((_, draw),) = stage.material.stages(torch.device("cpu"), 0, 1)
    assert draw.classes[0].real.rerain == Rerain(lighter=1)
    assert draw.classes[0].real.scenes.pack is files.clean


def test_damage_may_lie_over_scenes_that_were_made_first(world, files):
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    model = read_model(world / "tiny.safetensors")

    def batch(scene):
        classes["noise"]["scene"] = scene
        own = tiny_recipe(world / "tiny.safetensors", classes=classes)
        stage = StagePlans(own, files, _router(), "cpu").expert("noise", model, None)
        ((_, draw),) = stage.material.stages(torch.device("cpu"), 0, 1)
        return draw(1)

    plain, dim = batch(None), batch({"name": "low_light", "exposure": [0.1, 0.1]})
    assert dim.clean.mean() < 0.6 * plain.clean.mean()
    # What is learned is to take the noise away, and not to make it light again.
    assert dim.degraded.mean() < 0.8 * plain.degraded.mean()
    assert torch.equal(dim.clean, batch({"name": "low_light", "exposure": [0.1, 0.1]}).clean)
    classes["noise"]["scene"] = {"name": "dusk"}
    own = tiny_recipe(world / "tiny.safetensors", classes=classes)
    with pytest.raises(DegradationError, match="degradation 'dusk' is unknown"):
        pack_all_in_one(own, world / "packs", world)
