"""Recipes: those that ship are whole, and broken ones are told."""

import contextlib
import runpy
from pathlib import Path

import pytest
import torch

from urushi.errors import RecipeError
from urushi.settings import parse_settings
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe, load_all_in_one_recipe
from urushi.training.photographs.photographs_recipe import load_photographic_recipe
from urushi.training.recipe import RECIPES, Recipe, load_recipe, recipe_kind
from urushi.training.router.router_recipe import RouterRecipe

ROUTERS = [path for path in sorted(RECIPES.glob("*.yaml")) if recipe_kind(path) == "router"]
PLAIN = [path for path in sorted(RECIPES.glob("*.yaml")) if recipe_kind(path) is None]


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.stem)
def test_shipped_recipes_are_whole(path):
    from urushi.adapters import Adapted
    from urushi.backbones import create_backbone
    from urushi.degradations import create_degradation
    from urushi.evaluation.benchmark import BENCHMARKS
    from urushi.training.build import backbone_of, build_network

    plan = load_recipe(path.stem)
    assert plan.name == path.stem
    if plan.adapter is None:
        with torch.device("meta"):
            create_backbone(backbone_of(plan).name, backbone_of(plan).config)
    else:
        assert isinstance(build_network(plan), Adapted)  # with what its adapter begins with
    for options in filter(None, (plan.degradation, plan.scene)):
        degradation = create_degradation(**options)
        parameters = degradation.sample((2, 3, 16, 16), torch.Generator().manual_seed(0))
        assert degradation.apply(torch.rand(2, 3, 16, 16), parameters).shape == (2, 3, 16, 16)
    assert set(plan.validation.benchmarks) <= set(BENCHMARKS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid YAML"),
        ("[1]", "mapping"),
        ("name: x", "data is missing"),
        ("{name: x, sed: 1, backbone: {name: a, config: {}}}", "did you mean 'seed'|missing"),
    ],
)
def test_broken_recipes_are_told(tmp_path, text, words):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match=words):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("optimiser.lr=1", r"optimiser is not a known key \(did you mean 'optimizer'"),
        ("optimizer.learning_rat=1", "did you mean 'learning_rate'"),
        ("schedule.steps=0", "schedule.steps is 0"),
        ("optimizer.betas=[0.9, 1.0]", "less than 1"),
        ("loss.name=lpips", "loss.name"),
        ("loss.name=l1", "floor has no effect"),
        ("name=../x", "name is '../x'"),
        ("schedule.steps", "KEY=VALUE"),
        ("name.first=1", "name is a value"),
        ("seed=.nan", "seed"),
    ],
)
def test_wrong_values_name_their_key(change, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("base-cpu", [change])


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(RecipeError, match="base-cpu"):
        load_recipe("bas")


def test_a_recipe_states_only_what_differs_from_the_one_it_extends(tmp_path):
    parent = load_recipe("base-cpu")
    path = tmp_path / "own.yaml"
    path.write_text("{extends: base-cpu, name: own, data: {patch: 96}, loss: {floor: null}}")
    own = load_recipe(path, ["data.batch=7"])
    changed = parent.data.model_copy(update={"patch": 96, "batch": 7})
    loss = parent.loss.model_copy(update={"floor": None})
    assert own == parent.model_copy(update={"name": "own", "data": changed, "loss": loss})


def test_a_recipe_that_extends_itself_or_nothing_is_told(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(f"extends: {two}")
    two.write_text(f"extends: {one}")
    with pytest.raises(RecipeError, match="extends itself"):
        load_recipe(one)
    one.write_text("extends: base-cup")
    with pytest.raises(RecipeError, match="no recipe 'base-cup'"):
        load_recipe(one)


def test_variants_of_the_search_for_experts_are_valid():
    """They say what differs from a recipe, and so break when the recipe changes."""
    folder = Path(__file__).parents[1] / "benchmarks"
    trials = runpy.run_path(str(folder / "trials.py"))
    variants = 0
    for plan in trials["Trials"](str(folder / "experts_search.py"), "").plans().values():
        for changes in plan["variants"].values():
            own = [*trials["flat"](plan.get("all", [])), *trials["flat"](changes)]
            recipe = load_all_in_one_recipe(plan.get("recipe", "all-in-one-cpu"), own)
            assert plan["class"] in recipe.expert_classes
            variants += 1
    assert variants > 20


@pytest.mark.parametrize("path", ROUTERS, ids=lambda path: path.stem)
def test_shipped_recipes_of_routers_are_whole(path):
    from urushi.degradations import create_degradation
    from urushi.files.all_in_one_file import read_all_in_one
    from urushi.inference.zoo import find_all_in_one

    plan = load_photographic_recipe(path.stem)
    assert set(read_all_in_one(find_all_in_one(plan.members)).experts) < set(plan.classes)
    for own in plan.classes.values():
        if own.degradation is not None:
            options = dict(own.degradation)
            degradation = create_degradation(options.pop("name"), **options)
            parameters = degradation.sample((2, 3, 64, 64), torch.Generator().manual_seed(0))
            assert degradation.apply(torch.rand(2, 3, 64, 64), parameters).shape == (2, 3, 64, 64)


@pytest.mark.parametrize(
    ("model", "error", "content", "said"),
    [
        (Recipe, RecipeError, {"begin": "x"}, "begin is called initial_adapter now"),
        (
            AllInOneRecipe,
            RecipeError,
            {"classes": {"haze": {"pairs": ["x"], "shown": {"name": "haze"}}}},
            "classes.haze.shown is called router_degradation now",
        ),
        (
            AllInOneRecipe,
            RecipeError,
            {"classes": {"haze": {"pairs": ["x"], "last": 0.5}}},
            "classes.haze.last is called final_share now",
        ),
        (
            RouterRecipe,
            RecipeError,
            {"classes": {"clean": {"times": 3}}},
            "classes.clean.times is called oversample now",
        ),
        (RouterRecipe, RecipeError, {"most": 3}, "most is called max_degradations now"),
        (RouterRecipe, RecipeError, {"classes": {"a": {"oversampl": 3}}}, "did you mean"),
    ],
)
def test_former_names_of_keys_are_refused_with_the_present_one(model, error, content, said):
    with pytest.raises(error) as raised:
        parse_settings(content, model, error, "mine.yaml")
    assert said in str(raised.value)
    # Of what the program wrote itself, they are read.
    with contextlib.suppress(error):
        parse_settings(content, model, error, "run", former=True)
        assert "did you mean" not in said
    with pytest.raises(error) as again:
        parse_settings({**content, "nothing": 1}, model, error, "run", former=True)
    assert "is called" not in str(again.value)
