"""Training an all-in-one model: three stages, resumed to the bit; what is wrong is told."""

import json
import shutil
import signal

import numpy as np
import pytest
import yaml
from commands import run
from filelock import FileLock
from world import TINY_ALL_IN_ONE, tiny_files, tiny_recipe

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import RecipeError
from urushi.files.adapter import read_adapter, read_adapter_header, write_adapter
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.model import read_model
from urushi.inference.auto import AutoRestorer
from urushi.training.all_in_one.all_in_one_recipe import load_all_in_one_recipe
from urushi.training.all_in_one.run import AllInOneTraining
from urushi.training.recipe import RECIPES, recipe_kind

GATES = {"reduction": 2, "hidden": 4}
GUIDED = {"steps": 3, "warmup": 0, "settings": GATES}


@pytest.fixture
def files(world):
    return tiny_files(tiny_recipe(world / "tiny.safetensors"), world, world / "packs")


def train(world, files, run, changes=None, **options):
    own = tiny_recipe(world / "tiny.safetensors", **(changes or {}))
    return AllInOneTraining(own, files, run, root=world, device="cpu", **options)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A training of the plain recipe that is finished; its folder is read alone."""
    packs = tiny_files(tiny_recipe(world / "tiny.safetensors"), world, world / "packs")
    return train(world, packs, tmp_path_factory.mktemp("trained") / "run").train()


@pytest.fixture
def run_again(trained, tmp_path):
    """A copy of its folder, to go on in."""
    return shutil.copytree(trained.path.parent, tmp_path / "again")


def experts(**changes):
    return {"experts": {**TINY_ALL_IN_ONE["experts"], **changes}}


def joint(**own):
    return {"classes": {"clean": {}, "a": {"pairs": ["x"], **own}}, **experts(mode="joint")}


def hashes(folder):
    return {
        path.name: read_adapter_header(path).tensors_hash
        for path in sorted(folder.glob("*.safetensors"))
        if path.name not in ("all.safetensors", "tiny.safetensors", "all-base.safetensors")
    }


# --- the stages ---


def test_experts_trained_apart_each_work_alone(world, files, trained, run_again):
    result, folder = trained, trained.path.parent
    assert result.finished
    assert result.trained == ("router", "noise", "dark")
    members = read_all_in_one(result.path)
    assert list(members.experts) == ["noise", "dark"]
    recipe = read_adapter(folder / "dark.safetensors").header.recipe
    assert recipe["classes"]["dark"]["pairs"] == ["pairs"]
    assert recipe["degradations"] == ["dark"]
    # A base that does not ship stands beside.
    assert AutoRestorer(result.path, engine="torch").base.path.parent == folder
    again = train(world, files, run_again, resume=True).train()
    assert again.finished
    assert again.trained == ()


@pytest.mark.parametrize(
    "changes",
    [
        experts(),
        {**experts(mode="joint", k=2), "guided": {**GUIDED, "mode": "full"}},
        {
            **experts(adapter={"method": "adaptir"}),
            "guided": {**GUIDED, "mode": "adapter"},
        },
    ],
    ids=["separate", "joint-guided-full", "adaptir-guided-adapter"],
)
def test_a_resumed_training_ends_where_an_unbroken_one_does(world, files, tmp_path, changes):
    whole = train(world, files, tmp_path / "whole", changes).train()
    assert whole.finished
    part = tmp_path / "parts"

    def interrupt(progress):
        if progress.step == 1:  # of every stage, reported first
            signal.raise_signal(signal.SIGINT)

    results = []
    for _ in range(3):
        results.append(
            train(
                world, files, part, changes,
                resume=bool(results), on_progress=interrupt,
            ).train()
        )  # fmt: skip
    results.append(train(world, files, part, changes, resume=True).train())
    assert not results[0].finished
    assert results[0].stopped_by == signal.SIGINT
    assert results[-1].finished
    assert hashes(part) == hashes(tmp_path / "whole")
    assert results[-1].header.tensors_hash == whole.header.tensors_hash


def test_an_expert_that_another_process_trains_is_left_to_it(world, files, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    elsewhere = FileLock(run / "noise.lock")
    elsewhere.acquire()
    told = []

    def tell(text):
        told.append(text)
        if text == "dark: 4 steps":
            elsewhere.release()  # it ended without having trained it

    result = train(world, files, run, on_stage=tell).train()
    assert told[1:] == [
        "noise is being trained by another process",
        "dark: 4 steps",
        "noise: 4 steps",
    ]
    assert list(result.header.experts) == ["noise", "dark"]


def test_experts_that_are_worse_can_be_left_out(world, files, tmp_path):
    for name, side in (("right", "input"), ("wrong", "target")):
        target = world / "pairs" / ("target" if side == "input" else "input")
        text = f"{{name: {name}, title: t, input: {world}/pairs/{side}, target: {target}}}"
        (tmp_path / f"{name}.yaml").write_text(text)
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["noise"] = {**classes["dark"], "benchmarks": [str(tmp_path / "wrong.yaml")]}
    classes["dark"]["benchmarks"] = [str(tmp_path / "right.yaml")]
    fast = {"optimizer": {"learning_rate": 0.01}, "leave_out_worse": True, "steps": 8}
    changes = {"classes": classes, **experts(adapter={"method": "full"}, **fast)}
    own = tiny_recipe(world / "tiny.safetensors", **changes)
    packs = tiny_files(own, world, tmp_path / "packs")
    header = train(world, packs, tmp_path / "run", changes).train().header
    rows = header.scores["experts"]
    gains = {name: [r["psnr"] - r["psnr_base"] for r in rows[name].values()] for name in rows}
    assert gains["noise"][0] < 0 < gains["dark"][0]
    assert list(header.experts) == ["dark"]


def test_guidance_keeps_the_base_or_makes_one(world, files, tmp_path):
    base = read_model(world / "tiny.safetensors")
    kept = train(world, files, tmp_path / "a", {"guided": {**GUIDED, "mode": "adapter"}}).train()
    assert read_all_in_one(kept.path).base.weights_hash == base.header.weights_hash
    own = train(world, files, tmp_path / "b", {"guided": {**GUIDED, "mode": "full"}}).train()
    members = read_all_in_one(own.path)
    assert members.base.weights_hash != base.header.weights_hash
    assert members.base.name == "all-base"
    assert members.guidance.adapter.header.config["vector"] == 4
    assert AutoRestorer(own.path).base.path == tmp_path / "b" / "all-base.safetensors"


def test_an_expert_may_begin_where_another_ended(world, files, trained, tmp_path):
    before = trained.path.parent / "dark.safetensors"
    classes = {name: dict(plan) for name, plan in TINY_ALL_IN_ONE["classes"].items()}
    classes["dark"] |= {"initial_adapter": str(before), "steps": 1}
    still = {"learning_rate": 1e-12}
    changes = {"classes": classes, **experts(optimizer=still, storage="float32")}
    train(world, files, tmp_path / "b", changes).train()
    after = read_adapter(tmp_path / "b" / "dark.safetensors")
    for name, array in read_adapter(before).tensors.items():
        np.testing.assert_allclose(after.tensors[name], array, atol=1e-6, err_msg=name)
    assert after.header.recipe["initial_adapter"] == str(before)
    changes["experts"]["adapter"] = {"method": "lora", "rank": 2}
    with pytest.raises(RecipeError, match="an adapter of other settings"):
        train(world, files, tmp_path / "c", changes).train()


def test_files_of_an_older_version_count_as_trained(world, files, trained, run_again):
    stored = read_adapter(run_again / "dark.safetensors")
    older = {key: value for key, value in stored.header.recipe.items() if key != "begin"}
    header = stored.header.model_copy(update={"recipe": older})
    write_adapter(stored.path, stored.tensors, header)
    again = train(world, files, run_again, resume=True).train()
    assert trained.trained[-1] == "dark"
    assert "dark" not in again.trained


def test_a_router_that_is_there_already_is_taken(world, files, trained, tmp_path):
    changes = {"router": {"file": str(trained.path)}}
    result = train(world, files, tmp_path / "b", changes).train()
    assert "router" not in result.trained
    assert result.header.tensors_hash == trained.header.tensors_hash


# --- what is wrong ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": {"clean": {}, "noise": {}}}, "noise has neither"),
        ({"classes": {"clean": {"pairs": ["x"]}, "a": {"pairs": ["x"]}}}, "clean needs no"),
        ({"classes": {"all": {"pairs": ["x"]}, "a": {"pairs": ["x"]}}}, "class is named all"),
        (experts(adapter={"method": "experts"}), "mode joint"),
        (experts(k=2), "k has no effect"),
        ({"classes": {"clean": {}, "a": {"degradation": {}, "without": ["x"]}}}, "without has no"),
        (
            {
                "classes": {
                    "clean": {},
                    "a": {"pairs": ["x"], "router_degradation": {"name": "jpeg"}},
                }
            },
            "has router_degradation",
        ),
        ({"classes": {"clean": {}, "a": {"degradation": {}, "rehaze": {}}}}, "rehaze has no"),
        ({"classes": {"clean": {}, "a": {"pairs": ["x"], "rehaze": {}, "rerain": {}}}}, "both"),
        (joint(patch=8), "has patch,"),
        (joint(initial_adapter="haze"), "has initial_adapter,"),
        (
            {
                "classes": {"clean": {}, "a": {"pairs": ["x"], "initial_adapter": "y"}},
                "guided": {"mode": "full"},
            },
            "a has initial_adapter",
        ),
        (joint(loss={"grid": 1}), "has loss,"),
        (joint(patches=[{"from_step": 1, "patch": 24, "batch": 1}]), "has patches,"),
        (
            {"classes": {"a": {"pairs": ["x"], "final_share": 0.2}, "b": {"pairs": ["x"]}}},
            "final_share has no",
        ),
        ({"router": {"file": "x", "steps": 3}}, "steps has no effect"),
        (
            {"evidence": {"pictures": 9, "held": 9}, "guided": {**GUIDED, "mode": "adapter"}},
            "without guidance",
        ),
        ({"nmae": "x"}, "did you mean 'name'"),
        ({"classes": {"a": {"pairs": ["x"], "real": 0.2}, "b": {"pairs": ["x"]}}}, "real has no"),
    ],
)
def test_wrong_recipes_are_told(world, changes, words):
    with pytest.raises(RecipeError, match=words):
        tiny_recipe(world / "tiny.safetensors", **changes)


def test_another_training_is_not_continued(world, files, run_again):
    with pytest.raises(RecipeError, match="holds an all-in-one training"):
        train(world, files, run_again)
    changed = experts(adapter={"method": "lora", "rank": 2})
    with pytest.raises(RecipeError, match="was started with adapter"):
        train(world, files, run_again, changed, resume=True).train()
    guided = {"guided": {**GUIDED, "mode": "adapter", "settings": {"tune": ["bias"]}}}
    with pytest.raises(RecipeError, match=r"guided\.settings has tune"):
        train(world, files, run_again, guided, resume=True).train()


# --- the command and the recipes that ship ---


def test_the_command_trains_all_and_says_so(world, tmp_path):
    path = tmp_path / "tiny.yaml"
    plan = {**TINY_ALL_IN_ONE, "start": str(world / "tiny.safetensors")}
    plan["classes"] = {n: dict(c) for n, c in TINY_ALL_IN_ONE["classes"].items()}
    bench = f"name: dark\ntitle: t\ninput: {world}/pairs/input\ntarget: {world}/pairs/target\n"
    (tmp_path / "dark.yaml").write_text(bench)
    plan["classes"]["dark"]["benchmarks"] = [str(tmp_path / "dark.yaml")]
    path.write_text(yaml.safe_dump(plan, sort_keys=False))
    words = ("train", path, "--data", world, "-o", tmp_path / "run", "--device", "cpu")
    result = run(*words, "--json", "--no-graph")
    assert result.exit_code == EXIT_WELL, result.stderr
    told = json.loads(result.stdout)
    assert told["finished"]
    assert told["trained"] == ["router", "noise", "dark"]
    (score,) = told["scores"]["experts"]["dark"].values()
    assert set(score) == {"psnr_base", "psnr"}
    assert "router: 3 steps" in result.stderr
    assert "dark.safetensors" in result.stderr
    again = run(*words)
    assert again.exit_code == EXIT_FAILED
    assert "--resume" in again.stderr
    assert run(*words, "--pack", path).exit_code == EXIT_USAGE
    shown = run("inspect", tmp_path / "run" / "all.safetensors")
    assert "noise: noise.safetensors (lora" in shown.stdout


@pytest.mark.parametrize(
    "path",
    [p for p in sorted(RECIPES.glob("*.yaml")) if recipe_kind(p) == "all-in-one"],
    ids=lambda p: p.stem,
)
def test_shipped_recipes_are_whole(path):
    from urushi.adapters import METHODS
    from urushi.degradations import create_degradation
    from urushi.evaluation.benchmark import BENCHMARKS

    plan = load_all_in_one_recipe(path.stem)
    assert {"noise", "jpeg", "blur", "rain", "haze", "snow", "raindrop", "low-light"} == set(
        plan.expert_classes
    )
    settings = dict(plan.experts.adapter)
    METHODS[settings.pop("method")].settings.model_validate(settings)
    for name, one in plan.classes.items():
        assert set(one.benchmarks) <= set(BENCHMARKS)
        assert not any("val" in folder for folder in one.pairs)
        options = dict(one.degradation or {})
        if name != "clean":
            create_degradation(options.pop("name"), **options)


def test_a_recipe_with_an_adapter_trains_one_expert(world, tmp_path):
    bench = f"name: noisy\ntitle: t\ninput: {world}/pairs/input\ntarget: {world}/pairs/target\n"
    (tmp_path / "own.yaml").write_text(bench)
    recipe = {
        "name": "noise",
        "start": str(world / "tiny.safetensors"),
        "adapter": {"method": "lora", "rank": 1},
        "data": {"pictures": ["clean"], "patch": 16, "batch": 2},
        "degradation": {"name": "gaussian_noise"},
        "schedule": {"steps": 2},
        "validation": {"benchmarks": [str(tmp_path / "own.yaml")]},
    }
    (tmp_path / "noise.yaml").write_text(yaml.safe_dump(recipe))
    words = ("--data", world, "-o", tmp_path / "run", "--device", "cpu", "--json")
    result = run("train", tmp_path / "noise.yaml", *words)
    assert result.exit_code == EXIT_WELL, result.stderr
    expert = read_adapter(tmp_path / "run" / "noise.safetensors")
    assert json.loads(result.stdout)["adapter"] == str(expert.path)
    assert expert.header.method == "lora"
    (score,) = expert.header.scores.values()
    told = run(
        *("evaluate", "--benchmark", tmp_path / "own.yaml", "--model", world / "tiny.safetensors"),
        *("--adapter", expert.path, "--engine", "torch", "--json", "-"),
    )
    means = json.loads(told.stdout)["results"][0]["means"]
    assert means["psnr"] == pytest.approx(score["psnr"], abs=1e-3)
