"""What small trainings share: the loop in memory, the learning rate, and parts of recipes."""

import math

import pytest
import torch
from torch import nn

from urushi.degradations import create_degradation, degradation_of
from urushi.errors import DegradationError, UrushiError
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe, RouterPlan
from urushi.training.all_in_one.datasets import AllInOneFiles, router_recipe_of
from urushi.training.fitting import fit
from urushi.training.losses import class_loss
from urushi.training.recipe import OptimizerSettings, Origin, Recipe, ScheduleSettings
from urushi.training.router.router_recipe import PictureOptions, RouterOptions


def settings(steps=200, **changes):
    own = {"learning_rate": 0.1, "betas": (0.9, 0.999), "clip": None, **changes}
    return OptimizerSettings(**own), ScheduleSettings(steps=steps, final_learning_rate=0)


def test_fitting_finds_the_smallest_loss_and_tells_every_step():
    wanted, found = torch.tensor([1.0, -2.0]), nn.Parameter(torch.zeros(2))
    told = []
    last = fit(
        [found],
        lambda _step: (found - wanted).square().sum(),
        *settings(),
        on_step=lambda *words: told.append(words),
    )
    torch.testing.assert_close(found.detach(), wanted, atol=1e-2, rtol=0)
    assert [step for step, _ in told] == list(range(1, 201))
    assert told[-1][1] == last < told[0][1] == pytest.approx(5)


def test_fitting_clips_gradients_and_decays_weights():
    found = nn.Parameter(torch.ones(1))
    steps = []
    fit([found], lambda _step: 1e6 * found.sum(), *settings(3, clip=0.5),
        on_step=lambda *_: steps.append(float(found.grad)))  # fmt: skip
    assert steps == pytest.approx([0.5] * 3, rel=1e-4)
    idle = nn.Parameter(torch.ones(1))
    fit([idle], lambda _step: 0 * idle.sum(), *settings(10, weight_decay=0.1))
    assert 0.9 < float(idle.detach()) < 0.99


def test_a_loss_that_is_not_finite_ends_a_fit_with_a_way_out():
    found = nn.Parameter(torch.ones(1))
    with pytest.raises(UrushiError, match="the loss is nan at step 3: draw again"):
        fit(
            [found],
            lambda step: found.sum() * (math.nan if step == 2 else 1),
            *settings(5),
            way_out="draw again",
        )


def test_a_picture_of_several_classes_counts_by_shares_and_one_of_none_not():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    truths = torch.tensor([[1, 0], [1, 1], [0, 0]])
    one, both, none = (class_loss(logits[i : i + 1], truths[i : i + 1], "single") for i in range(3))
    assert float(none) == 0
    assert float(both) == pytest.approx(float(one) + 1)
    assert float(class_loss(logits[:1], truths[1:2], "multi")) == pytest.approx(
        (math.log1p(math.exp(-2)) + math.log(2)) / 2
    )


def test_a_degradation_is_made_of_a_mapping_that_stays_as_it_is():
    stated = {"name": "gaussian_noise", "sigma_255": [10, 20]}
    assert degradation_of(stated) == create_degradation("gaussian_noise", sigma_255=[10, 20])
    assert stated == {"name": "gaussian_noise", "sigma_255": [10, 20]}
    for wrong in ({}, {"name": "nose"}, {"sigma_255": [1, 2]}):
        with pytest.raises(DegradationError, match=r"^degradation .* is unknown"):
            degradation_of(wrong)


def test_all_that_a_plan_says_of_its_router_arrives_there():
    changed = {
        "views": {"layout": "native", "size": 32, "most": 3},
        "steps": 7,
        "optimizer": {"learning_rate": 0.5},
        "validation": {"per_class": 3},
        "threshold": 0.25,
        "precision": "bf16",
        "encoder": {"kind": "clip", "name": "some"},
        "mixed": 0.5,
        "unknown": {"name": "holes"},
        "sides": [48],
        "per_class": 2,
        "real": 0.125,
        "augment": False,
        "reduce": 2.0,
        "before": {"name": "develop"},
        "after": {"name": "jpeg"},
    }
    plan = RouterPlan.model_validate(changed)
    shared = RouterOptions.model_fields.keys() | PictureOptions.model_fields.keys()
    assert shared == changed.keys()  # whatever is added must arrive as well
    recipe = AllInOneRecipe.model_validate(
        {
            "kind": "all-in-one", "name": "x", "seed": 9, "licence": "MIT",
            "classes": {"clean": {}, "noise": {"degradation": {"name": "gaussian_noise"}}},
            "data": {"clean": ["here"], "validation": ["there"]},
            "router": changed, "checkpoint_minutes": 3.0,
        }
    )  # fmt: skip
    files = object.__new__(AllInOneFiles)  # of which the folders alone are asked
    object.__setattr__(files, "folders", {})
    made = router_recipe_of(recipe, files)
    assert made.values_of(RouterOptions) == plan.values_of(RouterOptions)
    assert made.pictures.values_of(PictureOptions) == plan.values_of(PictureOptions)
    assert made.values_of(Origin) == recipe.values_of(Origin)
    assert (made.pictures.clean, made.checkpoint_minutes) == (["here"], 3.0)


def test_settings_give_the_part_that_another_model_has():
    own = Recipe.model_validate(
        {
            "name": "mine",
            "seed": 3,
            "start": "base",
            "data": {"pairs": ["p"]},
            "schedule": {"steps": 2},
        }
    )
    assert own.values_of(Origin) == {
        "name": "mine", "description": "", "licence": "Apache-2.0", "data_statement": "", "seed": 3,
    }  # fmt: skip
