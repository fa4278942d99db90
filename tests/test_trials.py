"""The runner of grids of trials that benchmarks use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPT = """
import os
from trials import Trials, flat, table

def measure(plan, group, name, options):
    changes = [*flat(plan.get("all")), *flat(plan["variants"].get(name))]
    if "fail" in changes:
        raise SystemExit(7)
    print("a library says something")
    psnr = {"one": len(changes) + 0.5, "threads": float(os.environ["OMP_NUM_THREADS"])}
    return {"group": group, "variant": name, "steps": 3, "psnr": psnr}

trials = Trials(__file__, "A grid.", first=["nothing"])
trials.parser.add_argument("--print", action="store_true")
print(table(trials.run(measure, keep=lambda options: not options.print)))
"""
GRID = """
.part: &part [c, d]
small: {all: [a, *part], variants: {none: [], more: [e]}}
broken: {variants: {bad: [fail]}}
"""


@pytest.fixture
def grid(tmp_path):
    (tmp_path / "grid.py").write_text(SCRIPT)
    (tmp_path / "grid.yaml").write_text(GRID)
    (tmp_path / "results").mkdir()
    env = {**os.environ, "PYTHONPATH": str(BENCHMARKS)}

    def run(*words):
        command = [sys.executable, tmp_path / "grid.py", "--data", tmp_path, *words]
        return subprocess.run(command, capture_output=True, text=True, env=env, check=False)

    return run


def test_a_row_is_measured_once_and_kept(grid, tmp_path):
    done = grid("--only", "small", "--threads", "2")
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "results/grid.json").read_text())
    assert [(row["variant"], row["psnr"]["one"]) for row in kept] == [
        ("nothing", 3.5), ("none", 3.5), ("more", 4.5),
    ]  # fmt: skip
    assert {row["psnr"]["threads"] for row in kept} == {2.0}
    assert "| more | 0 | 3 | 4.50 | 2.00 |" in done.stdout
    again = grid("--only", "small")
    assert (again.stderr, again.stdout) == ("", done.stdout)


def test_what_is_not_to_be_kept_is_printed(grid, tmp_path):
    done = grid("--only", "small", "--print")
    assert done.returncode == 0, done.stderr
    assert "small/more: {'group': 'small'" in done.stdout
    assert not (tmp_path / "results/grid.json").exists()


def test_a_trial_that_fails_ends_the_grid_and_keeps_no_row(grid, tmp_path):
    assert grid("--only", "broken").returncode == 7
    kept = json.loads((tmp_path / "results/grid.json").read_text())
    assert [row["variant"] for row in kept] == ["nothing"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--only", "smal"), "--only is 'smal': expected some of small, broken"),
        (("--data", "nowhere"), "--data nowhere does not exist"),
    ],
)
def test_wrong_options_are_refused(grid, words, told):
    done = grid(*words)
    assert done.returncode == 2
    assert told in done.stderr
