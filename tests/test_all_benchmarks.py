"""The table of all benchmarks: made from reports, beside those that are committed."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def everything(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("all")


def report(folder, name, cpu):
    machine = {"processor": "A processor", "cores": 2, "instructions": "all"}
    row = {"way": "warm", "cpu_seconds": cpu, "seconds": 2 * cpu, "cpu_to_import": 3.0}
    text = json.dumps({"machine": machine, "rows": [row]})
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def test_a_column_for_each_set_of_instructions(everything, tmp_path):
    report(tmp_path, "startup", 1.25)
    report(tmp_path, "startup-avx2", 1.75)
    lines = everything.page_table(tmp_path).splitlines()
    assert lines[0] == "| | A processor, 2 cores | A processor, 2 cores, AVX2 alone |"
    assert len(lines) == 3
    assert "1.25 s of the processor, 2.50 s (3.0 times" in lines[2]
    assert "1.75 s of the processor" in lines[2]


def test_today_stands_beside_what_is_committed(everything, tmp_path):
    (tmp_path / "today").mkdir()
    report(tmp_path, "startup", 1.25)
    report(tmp_path / "today", "startup", 0.75)
    today = everything.figures(tmp_path / "today")
    said = everything.table(everything.figures(tmp_path), today)
    assert "today 0.75 s of the processor" in said
    assert "committed 1.25 s of the processor" in said
    assert "committed nothing" in everything.table({}, today)


def test_committed_reports_can_be_told(everything):
    assert everything.page_table().count("\n") > 10


def test_the_page_is_changed_between_its_markers_alone(everything):
    text = f"before\n{everything.BEGIN}\nold\n{everything.END}\nafter"
    found = everything.replaced(text, "new")
    assert found == f"before\n{everything.BEGIN}\nnew\n{everything.END}\nafter"
    with pytest.raises(ValueError, match="once each"):
        everything.replaced("no markers", "new")


def test_the_page_says_what_the_committed_rows_say(everything):
    text = everything.PAGE.read_text("utf-8")
    assert everything.page_of_rows(text) == text, (
        "docs/measured.md is not of the committed rows: python benchmarks/all.py --write"
    )
