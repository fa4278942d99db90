"""Every file of `examples/` runs, on tiny networks."""

import runpy
import sys

import pytest
from commands import ROOT
from world import write_all_in_one, write_tiny_model

from urushi import api
from urushi.files.model import read_model
from urushi.inference import members, zoo

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
WORDS = {"adapt_to_pairs": ["4"], "train_in_torch": ["2"]}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    folder = tmp_path / "zoo"
    folder.mkdir()
    base = read_model(write_tiny_model(folder / "base.safetensors"))
    write_all_in_one(folder, base.path, rank=1)
    for module in (zoo, members):
        monkeypatch.setattr(module, "ZOO", folder)
    api._kept.cache_clear()
    yield
    api._kept.cache_clear()


def test_there_are_examples():
    assert len(EXAMPLES) >= 4


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, shipped, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), *WORDS.get(path.stem, [])])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
    assert f"python examples/{path.name}" in path.read_text("utf-8")
