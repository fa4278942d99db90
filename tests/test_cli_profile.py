"""`urushi profile`: measured on pairs or degraded pictures, written, drawn."""

import json
import re
import sys
from typing import get_args

import numpy as np
import pytest
from commands import run
from pictures import picture, write_pictures
from world import made_up, moved, tiny_network, write_base

from urushi.adapters import create_adapter
from urushi.adapters.attribution import RULES
from urushi.adapters.colora import CoLoRASettings
from urushi.adapters.contribution_profile import (
    Normalise,
    locate_profile,
    profile_path,
    read_profile,
    write_profile,
)
from urushi.adapters.low_rank import CoLoRA
from urushi.app import profile as command
from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import AdapterError
from urushi.files.adapter import AdapterHeader, base_facts, read_adapter, write_adapter
from urushi.files.model import ModelHeader, read_model, write_model
from urushi.image import write_picture


@pytest.fixture(scope="module")
def network():
    return tiny_network()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    """A base, a tuned one, and pairs of pictures and darker ones."""
    folder = tmp_path_factory.mktemp("profile")
    write_base(folder / "base.safetensors", network)
    write_base(folder / "tuned.safetensors", network, **moved(network, 0.02))
    write_pictures(folder / "pairs" / "target", 3, height=30, width=44)
    for path in (folder / "pairs" / "target").iterdir():
        index = int(path.stem[-1])
        dark = 0.5 * picture(30, 44, shift=float(index))
        (folder / "pairs" / "input").mkdir(exist_ok=True)
        write_picture(folder / "pairs" / "input" / path.name, dark)
    return folder


def measure(folder, output, *more):
    arguments = ("--base", folder / "base.safetensors", "-o", output, "--steps", 2, "--patch", 16)
    return run("profile", *arguments, *more)


def test_pairs_and_a_target_make_a_profile_and_a_drawing(folder, tmp_path):
    result = measure(
        folder, tmp_path / "p.json",
        "--pairs", folder / "pairs", "--target", folder / "tuned.safetensors",
        "--limit", 2, "--plot", tmp_path / "p.png", "--json",
    )  # fmt: skip
    assert result.exit_code == EXIT_WELL, result.stderr
    document = json.loads(result.stdout)
    profile = read_profile(tmp_path / "p.json")
    assert document["units"] == profile.of_units()
    assert list(document["kinds"]) == ["weight", "bias", "norm", "scale"]
    task = profile.tasks[0]
    assert (task.name, task.pictures, task.target) == ("pairs", 2, "tuned.safetensors")
    assert (profile.base.name, profile.steps, profile.rule) == ("base", 2, "midpoint")
    assert "account for" in result.stderr
    drawn = (tmp_path / "p.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    # And the profile is good for what it is made for.
    settings = CoLoRASettings(profile=str(tmp_path / "p.json"), budget=0.7)
    assert CoLoRA(tiny_network(), settings).config.ranks
    again = run("profile", "--read", tmp_path / "p.json", "--plot", tmp_path / "again.svg", "--log")
    assert again.exit_code == EXIT_WELL
    assert "middle_blks" in again.stdout
    assert "<svg" in (tmp_path / "again.svg").read_text(encoding="utf-8")


def test_an_adapter_of_all_parameters_is_a_target(folder, network, tmp_path):
    adapter = create_adapter(network, {"method": "full"})
    own, target = dict(network.named_parameters()), moved(network, 0.02)
    tensors = {
        key: (target[name] - own[name]).detach().numpy()
        for key in adapter.state_dict()
        for name in [key.removeprefix("value.").replace("/", ".")]
    }
    base = base_facts(read_model(folder / "base.safetensors"))
    header = AdapterHeader(method="full", config={}, base=base)
    write_adapter(tmp_path / "full.safetensors", tensors, header, "float32")
    found = []
    for name, file in (("a", tmp_path / "full.safetensors"), ("b", folder / "tuned.safetensors")):
        output = tmp_path / f"{name}.json"
        result = measure(folder, output, "--pairs", folder / "pairs", "--target", file)
        assert result.exit_code == EXIT_WELL, result.stderr
        found.append(read_profile(output))
    for name, score in found[0].parameters.items():
        assert score.mean == pytest.approx(found[1].parameters[name].mean, rel=1e-3)


def test_copies_are_tuned_where_there_is_no_target(folder, tmp_path):
    result = measure(
        folder, tmp_path / "p.json",
        "--pairs", folder / "pairs", "--clean", folder / "pairs" / "target",
        "--degrade", "gaussian_noise", "--set", "sigma_255=[50,50]",
        "--tune-steps", 12, "--patch", 16,
    )  # fmt: skip
    assert result.exit_code == EXIT_WELL, result.stderr
    profile = read_profile(tmp_path / "p.json")
    assert [task.name for task in profile.tasks] == ["pairs", "gaussian_noise"]
    assert "sigma_255 [50, 50]" in profile.tasks[1].data
    assert all(task.psnr_target > task.psnr_baseline for task in profile.tasks)
    assert result.stdout.count("a copy tuned by 12 steps") == 2
    assert result.stderr == ""


def test_a_target_that_is_no_better_is_told(folder, network, tmp_path):
    write_base(tmp_path / "worse.safetensors", network, **moved(network, 0.5))
    result = measure(
        folder, tmp_path / "p.json",
        "--pairs", folder / "pairs", "--target", tmp_path / "worse.safetensors",
    )  # fmt: skip
    assert result.exit_code == EXIT_WELL
    assert "no better than the base" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--log"], "--log goes with"),
        (["--read", "p.json", "--target", "t"], "measures nothing"),
        (["-o", "p.json", "--tune-steps", "5"], "name what to measure on"),
        (["-o", "p.json", "--clean", "x", "--tune-steps", "5"], "need each other"),
        (["-o", "p.json", "--pairs", "x"], "give --target FILE"),
        (["-o", "p.json", "--pairs", "x", "--target", "t", "--tune-steps", "5"], "give --target"),
        (["-o", "p.json", "--pairs", "x", *["--target", "t"] * 3], "3 --target for 1 task:"),
        (["-o", "p.json", "--pairs", "x", "--target", "t", "--set", "a=1"], "single --degrade"),
        (["-o", "p.json", "--pairs", "x", "--target", "t", "--rule", "left"], "not one of"),
        (["--pairs", "x", "--target", "t"], "--output FILE is missing"),
    ],
)
def test_wrong_usage(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("profile", *arguments)
    assert result.exit_code == EXIT_USAGE
    assert words in " ".join(result.stderr.replace("│", "").split())


def test_what_is_wrong_is_told_before_anything_is_measured(folder, tmp_path, monkeypatch):
    pairs = ("--pairs", folder / "pairs", "--target", folder / "tuned.safetensors")
    (tmp_path / "there.json").write_text("")
    smaller = tmp_path / "smaller.safetensors"
    array = np.ones(3, np.float32)
    write_model(smaller, {"intro.bias": array}, ModelHeader(backbone="nafnet", config={}))
    cases = [
        (measure(folder, tmp_path / "there.json", *pairs), "exists already"),
        (measure(folder, tmp_path / "no" / "p.json", *pairs), "does not exist"),
        (measure(folder, tmp_path / "p.json", *pairs, "--plot", tmp_path / "p.gif"), "end in .png"),
        (measure(folder, tmp_path / "p.json", *pairs[:3], smaller), "smaller.safetensors does not"),
        (
            measure(folder, tmp_path / "p.json", "--pairs", tmp_path, *pairs[2:]),
            "holds no recognisable pairs",
        ),
        (
            measure(folder, tmp_path / "p.json", *pairs[:3], folder / "base.safetensors"),
            "very weights of the base",
        ),
        (run("profile", "--read", tmp_path / "there.json"), "exists|no valid JSON"),
    ]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    missing = measure(folder, tmp_path / "p.json", *pairs, "--plot", tmp_path / "p.png")
    for result, words in [*cases, (missing, r"pip install 'urushi\[plots\]'")]:
        # The ending of a file is wrong by itself; the rest is what there is.
        assert result.exit_code == (EXIT_USAGE if words == "end in .png" else EXIT_FAILED)
        assert result.stderr.count("\n") == 1
        assert re.search(words, result.stderr), result.stderr
    assert not (tmp_path / "p.json").exists()


def test_help_has_examples_and_exit_codes():
    result = run("profile", "--help")
    assert result.exit_code == EXIT_WELL
    assert "Examples" in result.stdout
    assert "urushi profile --pairs rainy/" in result.stdout
    assert "Exit codes: 0 all is well" in result.stdout


def test_lists_are_those_of_the_tables():
    assert command.RULES == RULES
    assert get_args(Normalise) == command.NORMALISE


def test_a_drawing_of_any_profile(folder, network, tmp_path):
    """Zero contributions, logarithmic heights, several tasks with long names."""
    profile = made_up(network, folder / "base.safetensors", lambda n: float("ending" in n))
    task = profile.tasks[0].model_copy(update={"name": "a long name " * 9})
    write_profile(tmp_path / "p.json", profile.model_copy(update={"tasks": [task, task]}))
    result = run("profile", "--read", tmp_path / "p.json", "--log", "--plot", tmp_path / "p.pdf")
    assert result.exit_code == EXIT_WELL
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF")


def test_a_profile_beside_the_base_is_taken_by_adapt_and_shown_by_inspect(
    network, folder, tmp_path
):
    base = write_base(tmp_path / "base.safetensors", network)
    profile = made_up(network, base, lambda name: float("ending" in name))
    write_profile(profile_path(base), profile)
    words = ("adapt", "--model", base, "--pairs", folder / "pairs", "--device", "cpu")
    words = (*words, "--steps", 30, "--budget", "70%")
    ranks = {}
    for name, more in {"beside": (), "flat": ("--method-set", "profile=null")}.items():
        result = run(*words, "-o", tmp_path / f"{name}.safetensors", *more)
        assert result.exit_code == EXIT_WELL, result.stderr
        header = read_adapter(tmp_path / f"{name}.safetensors").header
        assert header.recipe["adapter"].get("profile") == ("base" if name == "beside" else None)
        ranks[name] = header.config["ranks"]
    assert ranks["beside"] != ranks["flat"]
    told = json.loads(run("inspect", profile_path(base), "--json").stdout)
    assert told["kind"] == "profile"
    assert told["tasks"][0]["name"] == "made up"
    assert told["parameters"] == sum(p.numel() for p in network.parameters())
    assert "stage" in run("inspect", profile_path(base)).stdout


def test_without_a_profile_beside_the_base_a_recipe_cannot_ask_for_it(network, tmp_path):
    base = write_base(tmp_path / "base.safetensors", network)
    with pytest.raises(AdapterError, match=r"no base\.profile\.json stands beside"):
        locate_profile({"method": "colora", "profile": "base"}, base)
    assert locate_profile({"method": "colora"}, base) == {"method": "colora"}
