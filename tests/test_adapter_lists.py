"""Lists of adapters: each of them once, within its strengths, and told in words where it is not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run
from pictures import picture, write_pictures
from world import write_all_in_one, write_random, write_tiny_model

import urushi
from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import AdapterError, FileFormatError
from urushi.files.model import read_model
from urushi.files.router_facts import Member
from urushi.inference import members, zoo
from urushi.inference.adapted_weights import check_strength, listed, split_adapter
from urushi.inference.in_turn import classes_of, split_task
from urushi.inference.restorer import Restorer
from urushi.remote import local_path

SMALL = picture(24, 32)
EXPERTS = ("noise", "haze")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A zoo of tiny networks."""
    root = tmp_path_factory.mktemp("zoo")
    base = read_model(write_tiny_model(root / "base.safetensors"))
    write_all_in_one(root, base.path)
    write_random(root / "film.safetensors", base)
    return root


@pytest.fixture(autouse=True)
def shipped(folder, monkeypatch):
    for module in (zoo, members):
        monkeypatch.setattr(module, "ZOO", folder)
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    (path,) = write_pictures(tmp_path_factory.mktemp("photos"), 1)
    return path


@pytest.mark.parametrize("strength", [-1, -0.001, 2.001, float("nan"), float("inf")])
def test_strengths_beyond_their_range_are_refused(strength):
    with pytest.raises(AdapterError, match=r"^film: its strength is .* a number from 0, .* to 2"):
        Restorer(adapters=[("film", strength)], engine="torch")
    with pytest.raises(AdapterError, match="its strength is"):
        urushi.restore(SMALL, adapters=[("film", strength)], engine="torch")


@pytest.mark.parametrize("strength", ["1", True, None, [1]], ids=repr)
def test_strengths_are_numbers(strength):
    with pytest.raises(AdapterError, match="film: its strength is"):
        check_strength(strength, "film")
    assert check_strength(np.float32(0.5), "film") == 0.5


@pytest.mark.parametrize("strength", [0, 0.5, 2])
def test_those_within_it_are_taken(strength):
    restorer = Restorer(adapters=[("film", strength)], engine="torch")
    assert restorer.adapters[0].strength == strength
    restorer.restore(SMALL)
    told = [note for note in restorer.notes if "as strong as it was trained for" in note]
    assert len(told) == (strength > 1)


@pytest.mark.parametrize("strength", [-0.5, 3, float("nan")])
def test_members_of_files_have_the_same_range(strength):
    with pytest.raises(ValueError, match="strength"):
        Member(file="a.safetensors", tensors_hash="0" * 64, strength=strength)


def test_an_adapter_acts_once_whatever_it_is_called(folder, tmp_path):
    copy = Path(shutil.copy(folder / "film.safetensors", tmp_path / "copy.safetensors"))
    loaded = urushi.Adapter.load(copy)
    for others in (["film"], [folder / "film.safetensors"], [("film", 0)]):
        with pytest.raises(AdapterError, match=r"^film\.safetensors is given twice"):
            Restorer(adapters=["film", *others], engine="torch")
    for other in (copy, loaded, (copy, 0.5)):
        with pytest.raises(AdapterError, match=r"film.* and copy\.safetensors hold the same"):
            urushi.restore(SMALL, adapters=["film", other], engine="torch")
    Restorer(adapters=["film", "haze"], engine="torch")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-a", "film", "-a", "film:0.5"), "film.safetensors is given twice"),
        (("-a", "film:-1"), "film: its strength is -1.0"),
        (("-a", "film:nan"), "film: its strength is nan"),
        (("-a", "film:"), "'' is no strength, expected film or, for half of its effect, film:0.5"),
        (("-a", "film:half"), "'half' is no strength"),
        (("-a", "Film"), "(did you mean 'film'?): those that ship are film, haze, noise"),
        (("-a", "mine.safetensors"), "mine.safetensors: there is no such file"),
        (("--task", "auto+haze"), "names 'auto', which stands alone"),
        (("--task", "none+haze"), "names 'none', which stands alone"),
        (("--task", "Haze"), "(did you mean 'haze'?): all-in-one.safetensors has auto, none,"),
        (("--task", "haze+mist"), "names 'mist': all-in-one.safetensors has noise, haze\n"),
        (("--task", "film"), "give film as an adapter, and no task"),
        (("--task", ""), "task is '': expected auto, none, or"),
    ],
    ids=str,
)
def test_the_command_and_its_dry_run_say_what_is_wrong(photo, tmp_path, words, said):
    for more in ((), ("--dry-run",)):
        result = run(
            "restore", photo, "-o", tmp_path / "out.png", "--engine", "torch", *words, *more
        )
        assert result.exit_code in (EXIT_FAILED, EXIT_USAGE)
        assert said in result.stderr, more
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "named", "left"),
    [
        (("--task", "haze"), "so does --task", "--router"),
        (("--router", "x.safetensors"), "so does --router", "--task"),
        (("--router", "x.safetensors", "--task", "haze"), "so do --router and --task", "----"),
    ],
    ids=str,
)
def test_only_options_that_were_given_are_named(photo, tmp_path, words, named, left):
    for more in ((), ("--dry-run",)):
        result = run("restore", photo, "-o", tmp_path / "a.png", "-a", "film", *words, *more)
        assert result.exit_code == EXIT_USAGE
        said = " ".join(result.stderr.replace("│", " ").split())
        assert named in said
        assert left not in said


def test_a_stronger_one_is_told_with_each_picture(photo, tmp_path):
    words = ("restore", photo, "-o", tmp_path / "a.png", "-a", "film:1.5", "--engine", "torch")
    result = run(*words, "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    (file,) = json.loads(result.stdout)["files"]
    assert "film.safetensors acts 1.5 times as strong" in file["notes"][0]


@pytest.mark.parametrize(
    "words",
    [
        ("export", "base", "-o", "out.onnx", "-a", "film", "-a", "film"),
        ("export", "base", "--for", "browser", "-o", "site", "-a", "film", "-a", "film:0.5"),
        ("export", "base", "--for", "vs-mlrt", "-o", "out", "-a", "film:-1"),
        ("export", "film:-1", "--model", "base", "--merged", "out.safetensors"),
        ("export", "film:nan", "--model", "base", "--merged", "out.safetensors"),
    ],
    ids=" ".join,
)
def test_exports_refuse_them_as_well(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == EXIT_USAGE
    assert "given twice" in result.stderr or "its strength is" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "adapters", ["film", ("film", 0.5), {"film": 0.5}, None, 0.5, Path("film")], ids=repr
)
def test_python_is_told_what_a_list_is(adapters):
    with pytest.raises(AdapterError, match="expected a list of adapters, such as"):
        listed(adapters)
    assert listed(("film", "haze")) == ["film", "haze"]
    assert listed((("film", 1), ("haze", 0.5))) == [("film", 1), ("haze", 0.5)]


@pytest.mark.parametrize("adapter", [None, ("film", 0.5, 1), ["film", 0.5], 0.5], ids=repr)
def test_python_is_told_what_an_adapter_is(adapter):
    with pytest.raises(AdapterError, match="expected a name, a file, an `Adapter`, or a pair"):
        split_adapter(adapter)


def test_python_is_told_that_a_strength_stands_beside_the_name():
    for asked in (Restorer, lambda **words: urushi.restore(SMALL, **words)):
        with pytest.raises(AdapterError, match=r"give the pair \('film', 0\.5\)"):
            asked(adapters=["film:0.5"], engine="torch")


def test_names_that_do_not_ship_are_told_with_those_that_do():
    with pytest.raises(FileFormatError, match=r"Fylm: there is no such file \(did you mean 'film'"):
        Restorer(adapters=["Fylm"], engine="torch")


@pytest.mark.parametrize("task", [None, "", "  ", 3, ["haze"]], ids=repr)
def test_a_task_is_a_text(task):
    with pytest.raises(AdapterError, match=r"task is .*: expected auto, none, or"):
        split_task(task)
    if isinstance(task, str):
        with pytest.raises(AdapterError, match="expected auto, none, or"):
            urushi.restore(SMALL, task=task)
        with pytest.raises(AdapterError, match="expected auto, none, or"):
            urushi.AutoRestorer(task=task)


def test_several_tasks_are_undone_in_their_order(folder):
    file = folder / "all-in-one.safetensors"
    assert classes_of("haze + noise", file, EXPERTS) == ("noise", "haze")
    assert classes_of("auto", file, EXPERTS) == classes_of("none", file, EXPERTS) == ()


@pytest.mark.skipif("os.name == 'nt'", reason="Windows takes files from servers")
def test_a_file_of_a_server_is_told_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = rf"'file://rgb\.png' names the server 'rgb\.png': .*file://{tmp_path}/rgb\.png"
    with pytest.raises(urushi.UrushiError, match=said):
        urushi.restore("file://rgb.png")
    result = run("restore", "file://rgb.png", "-o", "out.png")
    assert "names the server 'rgb.png'" in result.stderr
    assert local_path("file://localhost/a%20b.png") == "/a b.png"
