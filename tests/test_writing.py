"""The one rule for what is written: whole, never over what nobody gave, nobody else's removed."""

import os
import subprocess
import sys

import numpy as np
import pytest
from commands import environment, run
from pictures import picture, write_pictures

from urushi.app.output import EXIT_FAILED, EXIT_WELL
from urushi.errors import TakenError, TargetError
from urushi.image import read_picture, write_picture
from urushi.sheet import is_sheet, write_sheet
from urushi.training.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint
from urushi.training.run_folder import RunFolder
from urushi.writing import Part, remove_leftovers, whole_file

KILLED = """
import os, signal, sys
from pathlib import Path
from urushi.writing import Part
kept = [Part(Path(sys.argv[1]) / "a.png", name) for name in ("rows", "part", "part.onnx")]
kept[0].path.write_bytes(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(folder):
    command = [sys.executable, "-c", KILLED, str(folder)]
    subprocess.run(command, env=environment(), check=False)


def fill(path, text, meanwhile):
    with whole_file(path) as part:
        part.write_text(text)
        meanwhile()


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(ZeroDivisionError):
        fill(path, "half", lambda: 1 / 0)
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as part:
        part.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(TakenError, match="appeared while"):
        fill(path, "mine", lambda: path.write_text("theirs"))
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_keeps_names_short_enough(tmp_path):
    for stem in ("a" * 250, "ß" * 125, os.fsdecode(b"\xe9" * 250)):
        with whole_file(tmp_path / f"{stem}.png") as part:
            part.write_text("whole")
    assert len(list(tmp_path.iterdir())) == 3


def test_leftovers_of_killed_processes_are_removed_and_of_living_ones_left(tmp_path):
    others = [".holiday.rows", ".a.png.part", ".x-0123abcd.part", "a-0123abcd.urushi.rows"]
    for name in others:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".link-0123abcd.urushi.part").symlink_to(others[0])
    before = sorted(path.name for path in tmp_path.iterdir())
    kill_while_writing(tmp_path)
    living = Part(tmp_path / "b.png", "rows")
    assert len(list(tmp_path.iterdir())) == len(before) + 4
    assert remove_leftovers(tmp_path) == 3
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([*before, living.path.name])
    living.discard()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_restoring_into_a_folder_removes_leftovers(tmp_path):
    write_pictures(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    kill_while_writing(tmp_path / "out")
    assert [path for path in (tmp_path / "out").iterdir() if path.suffix == ".rows"]
    result = run("restore", tmp_path / "in", "-o", tmp_path / "out", "--task", "none")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["picture0.png"]


# --- sheets, which nobody names ---


def test_a_sheet_replaces_a_sheet_and_nothing_else(tmp_path):
    sheet = np.full((20, 30, 3), 0.5, np.float32)
    path = tmp_path / "a.jpg"
    write_sheet(path, sheet)
    assert is_sheet(path)
    assert read_picture(path).shape == (20, 30, 3)
    with pytest.raises(TakenError, match="--overwrite"):
        write_sheet(path, sheet)
    write_sheet(path, 0 * sheet, overwrite=True)
    assert read_picture(path).max() < 0.1
    write_picture(path, sheet, overwrite=True)
    photograph = path.read_bytes()
    with pytest.raises(TakenError, match="no sheet"):
        write_sheet(path, sheet, overwrite=True)
    assert path.read_bytes() == photograph


def test_compare_leaves_a_photograph_of_that_name(tmp_path):
    write_pictures(tmp_path / "in", 1)
    place = tmp_path / "out/compare/picture0_compare.jpg"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"photograph")
    words = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--task", "none", "--compare")
    for more in ((), ("--overwrite",)):
        result = run(*words, *more)
        assert place.read_bytes() == b"photograph"
    assert result.exit_code == EXIT_FAILED
    assert "no sheet of Urushi" in result.stderr


# --- commands that write files by name ---


@pytest.fixture
def pairs(tmp_path):
    write_pictures(tmp_path / "pairs/input", 2)
    write_pictures(tmp_path / "pairs/target", 2)
    return tmp_path / "pairs"


@pytest.mark.parametrize("option", ["--json", "--sheet"])
def test_evaluate_replaces_only_when_told(pairs, tmp_path, option):
    place = tmp_path / ("s.json" if option == "--json" else "s.png")
    place.write_bytes(b"mine")
    words = ("evaluate", "--pairs", pairs, "--as-is", option, place)
    result = run(*words)
    assert result.exit_code == EXIT_FAILED
    assert "exists already" in result.stderr
    assert place.read_bytes() == b"mine"
    assert run(*words, "--overwrite").exit_code == EXIT_WELL
    assert place.read_bytes() != b"mine"


def test_export_replaces_only_when_told(tmp_path):
    from world import write_tiny_model

    model = write_tiny_model(tmp_path / "tiny.safetensors")
    for place, words in (
        (tmp_path / "tiny.onnx", ()),
        (tmp_path / "whole.onnx", ("-o", tmp_path / "whole.onnx")),
        (tmp_path / "tiny.int8", ("--precision", "int8", "--clean", tmp_path)),
        (tmp_path / "m.safetensors", ("--merged", tmp_path / "m.safetensors")),
    ):
        place.write_bytes(b"mine")
        result = run("export", model, *words)
        assert result.exit_code == EXIT_FAILED
        assert f"'{place}' exists already" in result.stderr
        assert place.read_bytes() == b"mine"


def test_a_comparison_leaves_what_is_of_no_comparison(tmp_path):
    from urushi.app.compare import _check_folder

    (tmp_path / "comparison.md").write_text("mine")
    with pytest.raises(TakenError, match=r"comparison\.md"):
        _check_folder(tmp_path)


def test_a_training_leaves_the_recipe_of_another(tmp_path):
    from pydantic import create_model

    from urushi.settings import Settings
    from urushi.training.checkpoint import write_recipe

    fields = {"name": (str, ...), "seed": (int, 0), "steps": (int, 5)}
    own = create_model("Recipe", __base__=Settings, **fields)(name="own")
    write_recipe(tmp_path, own)
    write_recipe(tmp_path, own)
    stated = (tmp_path / "recipe.yaml").read_text()
    with pytest.raises(TakenError, match="another training"):
        write_recipe(tmp_path, own.model_copy(update={"name": "other"}))
    assert (tmp_path / "recipe.yaml").read_text() == stated
    (tmp_path / "recipe.yaml").write_text("name: own\nsteps: 7\n")
    with pytest.raises(TakenError, match="another training"):
        write_recipe(tmp_path, own)


# --- where an adaptation keeps what it needs ---


def checkpoint(folder, step=3):
    import torch

    state = Checkpoint(step, 1.0, {}, "", {"weights.a": torch.ones(2)}, [])
    return write_checkpoint(folder / "checkpoints", state)


def test_a_run_folder_of_somebody_else_is_left_alone(tmp_path):
    place = tmp_path / "mine.run"
    (place / "holiday").mkdir(parents=True)
    (tmp_path / "real").mkdir()
    (tmp_path / "link.run").symlink_to("real")
    (tmp_path / "file.run").write_text("x")
    for name in ("mine", "link", "file"):
        for asked in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
            with pytest.raises(TakenError, match="does not belong to an adaptation"):
                RunFolder(tmp_path / f"{name}.run", tmp_path / f"{name}.safetensors").take(**asked)
    assert (place / "holiday").is_dir()


def test_an_interrupted_run_is_erased_only_when_told(tmp_path):
    place, target = tmp_path / "mine.run", tmp_path / "mine.safetensors"
    first = RunFolder(place, target)
    assert not first.take(resume=False, overwrite=False)
    checkpoint(place)
    with pytest.raises(TakenError, match="another process"):
        RunFolder(place, target).take(resume=True, overwrite=False)
    first.release()
    with pytest.raises(TakenError, match=r"step 3.*--resume.*--overwrite"):
        RunFolder(place, target).take(resume=False, overwrite=False)
    again = RunFolder(place, target)
    assert again.take(resume=True, overwrite=False)
    again.release()
    (place / "notes.txt").write_text("mine")
    anew = RunFolder(place, target)
    assert not anew.take(resume=False, overwrite=True)
    assert newest_checkpoint(place / "checkpoints") is None
    anew.remove()
    assert [path.name for path in place.iterdir()] == ["notes.txt"]


def test_a_run_folder_of_our_own_is_removed(tmp_path):
    own = RunFolder(tmp_path / "mine.run", tmp_path / "mine.safetensors")
    own.take(resume=False, overwrite=False)
    checkpoint(own.path)
    own.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_a_checkpoint_is_a_sentence(tmp_path, monkeypatch):
    checkpoint(tmp_path, 1)

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("urushi.training.checkpoint.save_file", full)
    with pytest.raises(TargetError, match=r"No space left.*--resume"):
        checkpoint(tmp_path, 2)
    assert newest_checkpoint(tmp_path / "checkpoints").step == 1
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "words", [("--version",), ("evaluate", "--list"), ("inspect", "noise", "--json")]
)
def test_a_full_disk_under_stdout_is_a_sentence(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "urushi", *words],
            env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == EXIT_FAILED
    assert "takes no more text" in done.stderr
    assert "Traceback" not in done.stderr


def test_pictures_of_adapt_beside_a_photograph(tmp_path):
    write_picture(tmp_path / "mine.jpg", picture())
    photograph = (tmp_path / "mine.jpg").read_bytes()
    from urushi.app.adapt import _write_sheet
    from urushi.app.output import Output

    class Adaptation:
        def before_and_after(self, most):
            return [[(picture(), "input")]]

    for number, overwrite in ((2, False), (2, True), (3, False)):
        path = _write_sheet(Output(), Adaptation(), tmp_path / "mine.safetensors", overwrite)
        assert path == tmp_path / f"mine-{number}.jpg"
    assert (tmp_path / "mine.jpg").read_bytes() == photograph
