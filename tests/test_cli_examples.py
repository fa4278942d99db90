"""Every example of every help text: it is understood as it is printed, and does what it says.

Those that would train for hours, or fetch from elsewhere, are only read.
"""

import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import typer
from commands import run
from pictures import picture, write_pictures
from PIL import Image
from world import write_all_in_one, write_random, write_tiny_model

from urushi.adapters.peft import write_peft
from urushi.app.cli import app
from urushi.app.output import EXIT_WELL
from urushi.evaluation.score_report import Report
from urushi.files.adapter import read_adapter
from urushi.files.model import read_model
from urushi.image import read_picture
from urushi.inference import members, zoo

COMMANDS = typer.main.get_command(app)


def examples() -> list[str]:
    """All of them, as they are printed."""
    found, waiting = [], [COMMANDS]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        lines = (command.epilog or "").split("\n\n")
        found += [line.replace("\\[", "[") for line in lines if line.startswith("urushi ")]
    return list(dict.fromkeys(found))


READ_ALONE = (
    "serve",  # does not end by itself; see test_serve_page.py
    "adapt ", "compare ", "train ", "profile ", "import ", "fetch lora-ir", "push ", "pull ",
    "evaluate --benchmark", "evaluate --all", "data check gopro", "data check reside",  # want data
    "restore photo.jpg --model nafnet",  # wants what `import` makes
    "restore more/",
    "export mine.safetensors --precision int8",  # see test_int8.py
    "export base --for browser",  # fetches; see test_browser_folder.py
    "export base --for darktable",  # see test_hosts.py
    "export mine.safetensors --static",  # see test_hosts.py
)  # fmt: skip
# What lies in a store is for tests that have one.
RUN = [
    example
    for example in examples()
    if not example.removeprefix("urushi ").startswith(READ_ALONE)
    and not any(of_others in example for of_others in ("s3://", "--cluster"))
]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """What the examples name, in small; and a zoo of tiny networks."""
    root = tmp_path_factory.mktemp("examples")
    (root / "zoo").mkdir()
    base = read_model(write_tiny_model(root / "zoo" / "base.safetensors"))
    write_all_in_one(root / "zoo", base.path)
    here = root / "here"
    for folder in ("photos", "more"):
        write_pictures(here / folder, 2, height=132, width=140)
    for folder in ("mine", "rainy"):
        for part in ("input", "target"):
            write_pictures(here / folder / part, 2, height=132, width=140)
    (here / "benchmark" / "rain").mkdir(parents=True)
    # No two alike, which is what `data check` looks for.
    for seed, name in enumerate(
        ("benchmark/rain/a", "rainy/input/picture0", "rainy/input/picture1")
    ):
        other = np.random.default_rng(seed).integers(0, 256, (132, 140, 3), dtype=np.uint8)
        Image.fromarray(other).save(here / f"{name}.png")
    write_pictures(here / "scans" / "box", 1, ".tif")
    (here / "tars").mkdir()
    with tarfile.open(here / "tars" / "0.tar", "w") as tar:
        tar.add(here / "photos" / "picture0.png", "a.png")
    pixels = np.rint(picture() * 255).astype(np.uint8)
    for name in ("photo.jpg", "photo.png"):
        Image.fromarray(pixels).save(here / name)
    for path in (root / "zoo").glob("*.safetensors"):
        shutil.copy(path, here / path.name)
    shutil.copy(base.path, here / "other.safetensors")
    plain = {"rank": 0, "ranks": {"intro": 2, "ending": 1}}  # what PEFT can hold
    for name in ("adapter", "mine", "rain"):
        write_random(here / f"{name}.safetensors", base, **plain)
    write_peft(read_adapter(here / "adapter.safetensors"), here / "folder")
    (here / "scores").mkdir()
    for name in ("scores.json", "scores/mine.json"):
        (here / name).write_text(Report(results=()).to_json())
    return root


@pytest.fixture
def here(files, tmp_path, monkeypatch) -> Path:
    """A copy of the folder, which is the current one."""
    for module in (zoo, members):
        monkeypatch.setattr(module, "ZOO", files / "zoo")
    folder = tmp_path / "here"
    shutil.copytree(files / "here", folder)
    monkeypatch.chdir(folder)
    return folder


def test_all_commands_have_examples():
    assert {e.split()[1] for e in examples()} >= set(COMMANDS.commands)
    assert len(RUN) > 25


@pytest.mark.parametrize("example", examples())
def test_an_example_is_understood(here, example):
    words, command = shlex.split(example)[1:], COMMANDS
    while getattr(command, "commands", None) and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    if "--help" not in words:
        made = command.make_context("urushi", words)
        assert made.command is command


def _run_with_pipes(words):
    """`... < IN > OUT`, in a process of its own, whose standard streams are files."""
    source, target = Path(words[words.index("<") + 1]), Path(words[words.index(">") + 1])
    command = [sys.executable, "-m", "urushi", *words[: words.index("<")]]
    with source.open("rb") as given, target.open("wb") as taken:
        done = subprocess.run(command, stdin=given, stdout=taken, check=False)
    assert done.returncode == EXIT_WELL
    assert read_picture(target).shape == read_picture(source).shape


@pytest.mark.parametrize("example", RUN)
def test_an_example_does_what_it_says(here, example):
    words = shlex.split(example)[1:]
    if words[:2] == ["export", "mine.safetensors"]:
        shutil.copy("other.safetensors", "mine.safetensors")
    if words[:2] == ["import-peft", "folder/"]:
        Path("mine.safetensors").unlink()
    if words[0] == "evaluate" and "scores.json" in words:
        Path("scores.json").unlink()
    if words[:2] == ["export", "adapter.safetensors"]:
        shutil.rmtree("folder")
    before = set(here.rglob("*"))
    if "<" in words:
        _run_with_pipes(words)
        return
    result = run(*words)
    assert result.exit_code == EXIT_WELL, result.output
    if "-o" in words and "--dry-run" not in words:
        target = Path(words[words.index("-o") + 1])
        assert target.exists()
        assert target.resolve() not in before
