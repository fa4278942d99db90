"""`urushi degrade`, `data`, `inspect`, `export` and `doctor` on files of every kind."""

import json

import numpy as np
import pytest
from commands import run
from pictures import picture, write_pictures
from world import write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.degradations import DEGRADATIONS, create_degradation
from urushi.degradations.files import degrade_pixels, picture_seed
from urushi.evaluation.benchmark import clean_benchmark
from urushi.files.model import write_model
from urushi.image import inspect_picture, read_picture, write_picture

NOISE = ["--name", "gaussian_noise", "--set", "sigma_255=[25, 25]"]


def sentence(result) -> str:
    """The one sentence a command failed with."""
    assert result.exit_code in (EXIT_FAILED, EXIT_USAGE)
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_degrade_keeps_what_the_file_was(tmp_path):
    source, target = tmp_path / "deep.tif", tmp_path / "worse.png"
    write_picture(source, picture(), bits=16)
    result = run("degrade", source, "-o", target, *NOISE, "--seed", 3)
    assert result.exit_code == EXIT_WELL, result.stderr
    assert inspect_picture(target).bits == 16
    worse = read_picture(target)
    change = worse - read_picture(source)
    assert change.std() * 255 == pytest.approx(25, rel=0.1)
    kept = target.read_bytes()
    assert "exists" in run("degrade", source, "-o", target, *NOISE).stderr
    assert target.read_bytes() == kept
    run("degrade", source, "-o", target, *NOISE, "--seed", 3, "--overwrite")
    np.testing.assert_array_equal(read_picture(target), worse)


def test_degraded_folders_are_those_of_a_benchmark(tmp_path):
    write_pictures(tmp_path / "clean", 2)
    (tmp_path / "clean" / "empty.jpg").touch()
    out = tmp_path / "worse"
    result = run("degrade", tmp_path / "clean", "-o", out, *NOISE, "--seed", 5, "--json")
    assert result.exit_code == EXIT_FAILED
    assert "empty.jpg" in result.stderr
    files = json.loads(result.stdout)["files"]
    assert [("error" in file) for file in files] == [True, False, False]
    (tmp_path / "clean" / "empty.jpg").unlink()
    options = {"name": "gaussian_noise", "sigma_255": [25, 25]}
    for sample in clean_benchmark(tmp_path / "clean", options, seed=5).samples():
        expected, _ = sample.load()
        written = read_picture(out / f"{sample.name}.png")
        np.testing.assert_allclose(written, expected, atol=1e-6)


def test_degrade_with_a_size_of_its_own(tmp_path):
    write_picture(tmp_path / "a.png", picture(), bits=16)
    target = tmp_path / "b.png"
    half = ["--name", "downsample", "--set", "scales=[2]"]
    assert run("degrade", tmp_path / "a.png", "-o", target, *half).exit_code == EXIT_WELL
    info = inspect_picture(target)
    assert (info.width, info.height, info.bits) == (32, 24, 16)


def test_the_chain_of_a_recipe_and_of_a_file(tmp_path):
    (source,) = write_pictures(tmp_path, 1)
    chain = tmp_path / "chain.yaml"
    chain.write_text(
        "name: chain\norder: fixed\nsteps:\n  - {name: jpeg, quality: [10, 10]}\n",
        encoding="utf-8",
    )
    for name in ("base-cpu", chain):
        target = tmp_path / f"worse{len(str(name))}.png"
        result = run("degrade", source, "-o", target, "--chain", name)
        assert result.exit_code == EXIT_WELL, result.stderr
    degradation = create_degradation("jpeg", quality=[10, 10])
    np.testing.assert_array_equal(
        degrade_pixels(read_picture(source), degradation, 1).shape, read_picture(target).shape
    )
    assert not np.array_equal(read_picture(target), read_picture(source))


def test_the_sheet_shows_every_degradation(tmp_path):
    (source,) = write_pictures(tmp_path, 1)
    sheet = tmp_path / "sheet.png"
    result = run("degrade", source, "--sheet", sheet, "--seed", 1)
    assert result.exit_code == EXIT_WELL, result.stderr
    rows = -(-(len(DEGRADATIONS) + 1) // 4)
    assert inspect_picture(sheet).height > rows * 288
    alone = run("degrade", source, "--sheet", tmp_path / "one.png", "--name", "haze", "--json")
    assert json.loads(alone.stdout)["sheet"] == str(tmp_path / "one.png")
    assert "exists" in sentence(run("degrade", source, "--sheet", sheet))


def test_degrade_lists_the_table():
    result = run("degrade", "--list")
    assert result.exit_code == EXIT_WELL
    assert all(name in result.stdout for name in DEGRADATIONS)
    assert "quality=[10, 95]" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--name", "gausian_noise"], "did you mean 'gaussian_noise'"),
        (["--name", "jpeg", "--set", "qualty=[1, 2]"], "did you mean 'quality'"),
        (["--name", "jpeg", "--set", "quality"], "KEY=VALUE"),
        (["--name", "jpeg", "--set", "quality=[0, 200]"], "quality"),
        (["--chain", "no-such-recipe"], "no-such-recipe"),
        (["--chain", "{folder}/broken.yaml"], "broken.yaml"),
        (["--name", "jpeg", "--format", "gif"], "gif"),
    ],
)
def test_degrade_says_what_it_cannot_do(arguments, word, tmp_path):
    (source,) = write_pictures(tmp_path, 1)
    (tmp_path / "broken.yaml").write_text("a: [", encoding="utf-8")
    filled = [text.format(folder=tmp_path) for text in arguments]
    assert word in sentence(run("degrade", source, "-o", tmp_path / "out", *filled))
    assert not (tmp_path / "out").exists()


def test_seeds_depend_on_seed_and_name_alone():
    seeds = {picture_seed(seed, name) for seed in (0, 1) for name in ("a", "b", "b/a")}
    assert len(seeds) == 6
    assert picture_seed(0, "a") == picture_seed(0, "a") < 2**63
    assert picture_seed(0, "\udcff") >= 0


def test_data_pack_and_inspect(tmp_path):
    write_pictures(tmp_path / "one", 2)
    write_pictures(tmp_path / "two", 1, height=20)
    (tmp_path / "two" / "empty.png").touch()
    target = tmp_path / "pack.safetensors"
    sources = (tmp_path / "one", tmp_path / "two")
    result = run("data", "pack", *sources, target, "--min-side", 40, "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    summary = json.loads(result.stdout)
    assert summary["count"] == 2
    assert len(summary["skipped"]) == 2
    assert result.stderr.count("left out") == 2
    assert "exists" in sentence(run("data", "pack", *sources, target))
    told = json.loads(run("inspect", target, "--json").stdout)
    assert (told["kind"], told["count"], told["sha256"]) == ("pack", 2, summary["sha256"])
    assert "one/picture0.png" in run("inspect", target).stdout


def test_data_pack_of_pairs(tmp_path):
    write_pictures(tmp_path / "set" / "input", 2)
    write_pictures(tmp_path / "set" / "target", 3)
    target = tmp_path / "pairs.safetensors"
    result = run("data", "pack", "--pairs", tmp_path / "set", target)
    assert result.exit_code == EXIT_WELL, result.stderr
    assert "2 pairs packed" in result.stdout
    assert "picture2.png has no input" in result.stdout
    told = json.loads(run("inspect", target, "--json").stdout)
    assert (told["holds"], told["count"]) == ("pairs", 2)


def test_data_check(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    write_pictures(good, 2)
    write_pictures(bad, 1)
    (bad / "empty.png").touch()
    result = run("data", "check", good, "--min-side", 32)
    assert result.exit_code == EXIT_WELL, result.stdout
    assert "nothing found" in result.stdout
    result = run("data", "check", bad, "--min-side", 32, "--against", good)
    assert result.exit_code == EXIT_FAILED
    assert "empty.png" in result.stdout
    assert "in both folders" in result.stdout
    report = json.loads(run("data", "check", bad, "--json").stdout)
    assert not report["ok"]
    assert len(report["unreadable"]) == 1


@pytest.mark.parametrize(
    "arguments", [["check", "{}/none"], ["check", "{}"], ["pack", "{}/none", "{}/o.safetensors"]]
)
def test_data_says_what_is_not_there(arguments, tmp_path):
    assert str(tmp_path) in sentence(run("data", *(text.format(tmp_path) for text in arguments)))


def test_inspect_a_model(tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    told = json.loads(run("inspect", model, "--json").stdout)
    assert (told["kind"], told["header"]["backbone"]) == ("model", "nafnet")
    text = run("inspect", model).stdout
    assert "A tiny test network." in text
    assert "only the engine torch can run it" in text


def test_inspect_a_picture(tmp_path):
    write_picture(tmp_path / "p.data.png", picture(), bits=16)
    (tmp_path / "p.data.png").rename(tmp_path / "odd name.safe")
    told = json.loads(run("inspect", tmp_path / "odd name.safe", "--json").stdout)
    assert (told["kind"], told["format"], told["bits"]) == ("picture", "png", 16)
    assert "64 x 48" in run("inspect", tmp_path / "odd name.safe").stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.safetensors", b""),
        ("text.safetensors", b"{}"),
        ("cut.safetensors", (99).to_bytes(8, "little") + b'{"x":'),
        ("list.safetensors", (2).to_bytes(8, "little") + b"[]"),
        (
            "strange.safetensors",
            (40).to_bytes(8, "little") + b'{"__metadata__": ["urushi"]}'.ljust(40),
        ),
        ("pickle.safetensors", b"\x80\x04" + bytes(60)),
        (
            "pack.safetensors",
            (48).to_bytes(8, "little") + b'{"__metadata__": {"urushi": "pictures"}}'.ljust(48),
        ),
        ("notes.txt", b"some words"),
        ("empty.png", b""),
    ],
)
def test_inspect_of_what_is_nothing(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert name in sentence(run("inspect", tmp_path / name))


def test_inspect_of_a_folder_and_of_nothing(tmp_path):
    assert str(tmp_path) in sentence(run("inspect", tmp_path))
    assert "none.safetensors" in sentence(run("inspect", tmp_path / "none.safetensors"))


def test_export_says_what_it_cannot_do(tmp_path):
    assert "none.safetensors" in sentence(run("export", tmp_path / "none.safetensors"))
    (photo,) = write_pictures(tmp_path, 1)
    assert "picture0.png" in sentence(run("export", photo))


def test_doctor_names_a_broken_model(tmp_path):
    result = run("doctor", "--model", tmp_path / "none.safetensors", "--json")
    assert "none.safetensors" in sentence(result)
    report = json.loads(result.stdout)
    assert not report["ok"]
    assert report["dependencies"]["numpy"]
    assert "broken" in run("doctor", "--model", tmp_path / "none.safetensors").stderr


def test_doctor_notices_a_network_gone_wrong(tmp_path):
    from urushi.files.model import read_model

    model = read_model(write_tiny_model(tmp_path / "tiny.safetensors"))
    wrong = {name: tensor * 1e4 for name, tensor in model.tensors.items()}
    write_model(tmp_path / "wrong.safetensors", wrong, model.header)
    result = run("doctor", "--model", tmp_path / "wrong.safetensors")
    assert result.exit_code == EXIT_FAILED
    assert "broken" in result.stderr
