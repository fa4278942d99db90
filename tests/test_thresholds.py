"""Lower thresholds for experts that harm little: measured on what needs them and what does not."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run
from world import TINY_ALL_IN_ONE, tiny_files, tiny_recipe, write_all_in_one

from urushi.errors import RecipeError
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.model import read_model
from urushi.files.router_file import read_router, write_router
from urushi.inference.restorer import Restorer
from urushi.training.all_in_one import assembling as thresholds
from urushi.training.all_in_one.assembling import break_even, measure_thresholds
from urushi.training.all_in_one.run import AllInOneTraining


def test_break_even_is_where_gain_and_loss_are_equal():
    for gain, loss in ((1.6, 0.6), (12.8, 14.3), (0.2, 4.0)):
        p = break_even(gain, loss)
        assert p * gain == pytest.approx((1 - p) * loss)
    assert break_even(2.0, -0.1) == break_even(2.0, 0.0) == 0
    assert break_even(0.0, 0.0) == break_even(-1.0, 0.0) == 1


def training(world, run_folder, **changes):
    own = tiny_recipe(world / "tiny.safetensors", **changes)
    files = tiny_files(own, world, world / "packs")
    told: list[str] = []
    return AllInOneTraining(
        own, files, run_folder, root=world, device="cpu", on_stage=told.append
    ), told


@pytest.fixture(scope="module")
def measured(world, tmp_path_factory):
    """A training that has measured its thresholds, its file, and what it told."""
    folder = tmp_path_factory.mktemp("measured")
    made, told = training(world, folder, thresholds={"pictures": 3})
    return made, made.train().path, told


class Pretended(Restorer):
    """Moves pictures by a fixed amount, as its expert is pretended to."""

    by = 0.0

    def restore(self, image, on_progress=None):
        return image + np.float32(self.by)


@pytest.mark.parametrize(
    ("noise", "dark", "wanted"),
    [
        # Of clean pictures, which were 40 dB off at once, as far as anybody sees: nothing lost.
        (0.005, 0.2, {"noise": 0.25}),
        # 0.02 is 34 dB: six are lost.
        (0.02, 0.2, {}),
    ],
)
def test_what_harms_little_has_a_lower_threshold(world, measured, monkeypatch, noise, dark, wanted):
    first, path, told = measured
    assert any(line.startswith("thresholds:") for line in told)
    members = read_all_in_one(path)
    damaged = {"noise": 0.015 if noise == 0.005 else 0.1, "dark": 0.1}

    def pretended(_model, *, adapters=(), device):
        made = Pretended(_model, device=device, engine="torch")
        names = [adapter.header.name for adapter, _ in adapters]
        made.by = {"noise": noise, "dark": dark}[names[0]] if names else 0.0
        return made

    def shown(_recipe, _files, name, plan):
        clean = np.full((16, 16, 3), 0.5, np.float32)
        return [(clean - damaged[name], clean)] * plan.pictures

    monkeypatch.setattr(thresholds, "Restorer", pretended)
    monkeypatch.setattr(thresholds, "_damaged", shown)
    found = measure_thresholds(
        first.recipe, first.files, members, read_model(world / "tiny.safetensors")
    )
    assert found == wanted


def test_the_training_measures_and_the_file_says_so(world, tmp_path):
    made, told = training(world, tmp_path, thresholds={"pictures": 3, "ceiling": 8})
    result = made.train()
    # Under so low a ceiling nothing is lost or gained anywhere, so that nothing is to be had.
    assert result.header.thresholds == {}
    assert [line.partition(":")[0] for line in told if " dB where" in line] == ["noise", "dark"]
    stored = read_router(result.path)
    header = stored.header.model_copy(update={"thresholds": {"noise": 0.3}})
    write_router(result.path, stored.tensors, header)
    shown = run("inspect", result.path)
    assert "below 50 %, for noise below 30 %" in " ".join(shown.stdout.split())
    assert read_router(result.path).alone().header.thresholds == {}


def test_a_router_that_sees_several_kinds_has_one_threshold(world, measured, tmp_path):
    stored = read_router(measured[1])
    several = stored.header.model_copy(update={"mode": "multi", "thresholds": {}})
    write_router(tmp_path / "multi.safetensors", stored.alone().tensors, several)
    router = {"file": str(tmp_path / "multi.safetensors")}
    made, told = training(world, tmp_path / "b", thresholds={"pictures": 3}, router=router)
    assert made.train().header.thresholds == {}
    assert any("left out" in line for line in told)


def test_pictures_are_made_and_from_pairs_and_clean(world):
    own = tiny_recipe(world / "tiny.safetensors", thresholds={"pictures": 4})
    files = tiny_files(own, world, world / "packs")
    dark = list(thresholds._damaged(own, files, "dark", own.thresholds))
    real = [np.abs(0.3 * clean - shown).max() < 0.01 for shown, clean in dark]
    assert (len(real), sum(real)) == (4, 2)
    noisy = list(thresholds._damaged(own, files, "noise", own.thresholds))
    assert all(0.1 < (shown - clean).std() < 0.3 for shown, clean in noisy)
    clean = list(thresholds._clean(own, files, 4))
    assert len(clean) == 4
    assert all(np.array_equal(shown, target) for shown, target in clean)


def test_guided_experts_cannot_be_measured(world):
    guided = {"mode": "adapter", "settings": {"reduction": 2, "hidden": 4}}
    with pytest.raises(RecipeError, match="thresholds need"):
        tiny_recipe(world / "tiny.safetensors", guided=guided, thresholds={})
    with pytest.raises(RecipeError, match="pictures"):
        tiny_recipe(world / "tiny.safetensors", thresholds={"pictures": 1})
    assert TINY_ALL_IN_ONE.get("thresholds") is None


@pytest.mark.parametrize(("least", "wanted"), [(0.5, {}), (0.499, {"noise": 0.499})])
def test_a_threshold_that_is_no_lower_than_the_common_one_is_none(
    world, tmp_path, monkeypatch, least, wanted
):
    base = Path(shutil.copy(world / "tiny.safetensors", tmp_path))
    members = read_all_in_one(
        write_all_in_one(tmp_path, base, experts=("noise",), facts={"threshold": 0.5})
    )
    own = tiny_recipe(world / "tiny.safetensors", thresholds={"pictures": 3})
    files = tiny_files(own, world, world / "packs")
    monkeypatch.setattr(thresholds, "break_even", lambda _gain, _loss: least)
    assert measure_thresholds(own, files, members, read_model(base)) == wanted
