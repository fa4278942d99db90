"""The page's table of networks and methods is what the tables say now."""

import importlib.util
from pathlib import Path

import pytest

from urushi.adapters import METHODS
from urushi.backbones import BACKBONES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def methods():
    spec = importlib.util.spec_from_file_location("methods", ROOT / "benchmarks" / "methods.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_says_what_the_tables_say(methods):
    text = methods.PAGE.read_text("utf-8")
    assert methods.replaced(text, methods.table()) == text, (
        "the table of docs/measured.md is not that of now: python benchmarks/methods.py --write"
    )
    shown = [line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")]
    assert [name for name in shown if name in METHODS] == list(METHODS)
    assert list(methods.PUBLISHED) == list(BACKBONES)


def test_it_is_put_between_the_markers_and_nowhere_else(methods):
    text = f"a\n{methods.BEGIN}\nold\n{methods.END}\nz\n"
    assert methods.replaced(text, "new") == text.replace("old", "new")
    for wrong in ("a\n", f"{methods.END}\n{methods.BEGIN}", text + text):
        with pytest.raises(ValueError, match="once each"):
            methods.replaced(wrong, "new")


def test_the_command_writes_it(methods, tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "PAGE", tmp_path / "measured.md")
    monkeypatch.setattr(methods, "table", lambda: "new")
    methods.PAGE.write_text(f"{methods.BEGIN}\n{methods.END}", "utf-8")
    methods.main(write=True)
    assert methods.PAGE.read_text("utf-8") == f"{methods.BEGIN}\nnew\n{methods.END}"
