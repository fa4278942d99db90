"""`urushi adapt`: a few pairs in, an adapter file out; what is wrong with pairs is told."""

import json
import signal

import numpy as np
import pytest
from commands import run, start
from pictures import picture, write_pictures
from world import write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.files.adapter import read_adapter
from urushi.image import read_picture, write_picture
from urushi.training.examples import set_aside

# A dark copy: any adapter learns to brighten it in a few steps.
DARK = 0.5


def write_pairs(root, count=5, **size):
    for index in range(count):
        pixels = picture(shift=float(index), **size)
        for side, factor in (("input", DARK), ("target", 1.0)):
            path = root / side / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, pixels * np.float32(factor))
    return root


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapt")
    write_pairs(root / "pairs")
    write_tiny_model(root / "tiny.safetensors")
    return root


def adapt(world, *arguments, method="full"):
    return run(
        *("adapt", "--model", world / "tiny.safetensors", "--method", method),
        *("--device", "cpu", "--seed", 1, *arguments),
    )


def test_an_adapter_is_learned_told_and_used(world, tmp_path):
    target = tmp_path / "mine.safetensors"
    result = adapt(
        world, "--pairs", world / "pairs", "-o", target, "--steps", 50, "--json", method="lora"
    )
    assert result.exit_code == EXIT_WELL, result.stderr
    told = json.loads(result.stdout)
    assert told["psnr"] > told["psnr_base"] + 1
    assert told["pictures"] == 1
    assert told["adapter"] == str(target)
    assert "4 to learn from, 1 to measure by" in result.stderr
    header = read_adapter(target).header
    assert header.method == "lora"
    assert header.scores["validation"]["psnr"] == pytest.approx(told["psnr"])
    assert header.recipe["adapter"]["method"] == "lora"
    # A picture for each of input, base, adapter and target.
    assert read_picture(tmp_path / "mine.jpg").shape[1] > 4 * 300
    assert not (tmp_path / "mine.run").exists()
    # What users get from the file is what the validation saw.
    measured = run(
        *("evaluate", "--pairs", world / "pairs", "--model", world / "tiny.safetensors"),
        *("--adapter", target, "--engine", "torch", "--json", "-"),
    )
    assert measured.exit_code == EXIT_WELL, measured.stderr
    scores = {p["name"]: p["psnr"] for p in json.loads(measured.stdout)["results"][0]["pictures"]}
    _, (held,) = set_aside([str(i) for i in range(5)])
    assert scores[held] == pytest.approx(told["psnr"], abs=0.05)


def test_clean_pictures_and_a_degradation_will_do(world, tmp_path):
    write_pictures(tmp_path / "clean", 4, height=80, width=80)
    target = tmp_path / "noise.safetensors"
    result = adapt(
        world,
        *("--clean", tmp_path / "clean", "--degrade", "gaussian_noise"),
        *("--set", "sigma_255=[50, 50]", "-o", target, "--steps", 30),
    )
    assert result.exit_code == EXIT_WELL, result.stderr
    recipe = read_adapter(target).header.recipe
    assert recipe["degradation"] == {"name": "gaussian_noise", "sigma_255": [50, 50]}


def test_an_interrupted_adaptation_goes_on(world, tmp_path):
    target = tmp_path / "mine.safetensors"
    words = (
        *("adapt", "--model", world / "tiny.safetensors", "--method", "full", "--device", "cpu"),
        *("--pairs", world / "pairs", "-o", target, "--steps", 1_000_000),
    )
    process = start(*words)
    for line in process.stdout:
        if "validation" in line and line.startswith("step"):
            process.send_signal(signal.SIGTERM)
            break
    rest, errors = process.communicate()
    assert process.returncode == 143, errors
    assert "--resume" in rest
    assert target.exists()  # the best so far is of use already
    again = run(*words[:-1], 60, "--resume")
    assert again.exit_code == EXIT_WELL, again.stderr
    assert "step 60 of 60" in again.stdout
    assert not (tmp_path / "mine.run").exists()


# --- pairs that are not right ---


def test_too_few_pairs(world, tmp_path):
    write_pairs(tmp_path / "one", 1)
    result = adapt(world, "--pairs", tmp_path / "one", "-o", tmp_path / "a.safetensors")
    assert result.exit_code == EXIT_FAILED
    assert "holds 1 pair: at least 2 are needed" in result.stderr


def test_pairs_of_other_sizes(world, tmp_path):
    write_pairs(tmp_path, 3)
    write_picture(tmp_path / "target" / "1.png", picture(height=50), overwrite=True)
    result = adapt(world, "--pairs", tmp_path, "-o", tmp_path / "a.safetensors")
    assert result.exit_code == EXIT_FAILED
    assert "input of 1 is 64x48 pixels and its target 64x50" in result.stderr


def test_pictures_without_a_partner_are_told_and_left_out(world, tmp_path):
    write_pairs(tmp_path, 4)
    (tmp_path / "target" / "2.png").unlink()
    target = tmp_path / "a.safetensors"
    result = adapt(world, "--pairs", tmp_path, "-o", target, "--steps", 2)
    assert "2.png has no target" in result.stdout
    assert "2 to learn from, 1 to measure by" in result.stdout


def test_shifted_pairs_are_told_and_put_right(world, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(4):
        cells = rng.random((30, 30, 3), dtype=np.float32)
        pixels = np.kron(cells, np.ones((4, 4, 1), np.float32))
        for side, part in (("input", pixels[:100, :100] * DARK), ("target", pixels[3:103, :100])):
            (tmp_path / side).mkdir(exist_ok=True)
            write_picture(tmp_path / side / f"{index}.png", part)
    target = tmp_path / "a.safetensors"
    words = ("--pairs", tmp_path, "-o", target, "--steps", 8, "--overwrite", "--json")
    plain, right = adapt(world, *words), adapt(world, *words, "--align")
    assert "4 targets are shifted against the inputs" in plain.stderr
    assert "--align" in plain.stderr
    assert "cut to what both show" in right.stderr
    before, after = (json.loads(r.stdout)["psnr_input"] for r in (plain, right))
    assert after > before + 1


def test_what_exists_is_not_overwritten_unasked(world, tmp_path):
    target = tmp_path / "a.safetensors"
    target.write_bytes(b"mine")
    result = adapt(world, "--pairs", world / "pairs", "-o", target)
    assert result.exit_code == EXIT_FAILED
    assert "--overwrite" in result.stderr
    assert target.read_bytes() == b"mine"


def test_an_adapter_that_does_not_help_is_not_written(world, tmp_path):
    # Already right: nothing to learn but harm.
    for index in range(3):
        for side in ("input", "target"):
            (tmp_path / side).mkdir(exist_ok=True)
            write_picture(tmp_path / side / f"{index}.png", picture(shift=float(index)))
    target = tmp_path / "a.safetensors"
    result = adapt(world, "--pairs", tmp_path, "-o", target, "--steps", 1)
    if result.exit_code == EXIT_FAILED:
        assert "no adapter was better" in result.stderr
        assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--pairs FOLDER, or --clean FOLDER"),
        (("--clean", "x"), "need each other"),
        (("--pairs", "x", "--set", "a=1"), "--set is an option of --degrade"),
        (("--clean", "x", "--degrade", "jpeg", "--align"), "--align is for --pairs"),
        (("--pairs", "x", "--minutes", 1, "--steps", 2), "--minutes above 0, or --steps"),
    ],
)
def test_wrong_usage(world, tmp_path, arguments, words):
    result = adapt(world, "-o", tmp_path / "a.safetensors", *arguments)
    assert result.exit_code == EXIT_USAGE
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_unknown_methods_and_budgets_are_told(world, tmp_path):
    words = ("--pairs", world / "pairs", "-o", tmp_path / "a.safetensors")
    result = adapt(world, *words, method="lor")
    assert result.exit_code == EXIT_USAGE
    assert "did you mean 'lora'" in result.stderr
    result = adapt(world, *words, "--budget", "7%")
    assert "takes no budget" in result.stderr


def test_some_of_the_examples_are_set_aside():
    for count in (2, 5, 16, 100, 500):
        names = [f"{i:03}" for i in range(count)]
        train, held = set_aside(names)
        assert sorted(train + held) == names
        assert 1 <= len(held) <= 8
        assert len(train) >= 1


@pytest.mark.parametrize(("count", "held"), [(2, [1]), (8, [4]), (16, [4, 12])])
def test_those_set_aside_lie_in_the_middle_of_equal_parts(count, held):
    names = [f"{index:02}" for index in range(count)]
    assert set_aside(names[::-1])[1] == [names[index] for index in held]
