"""`urushi compare`: methods on equal terms, finished cells kept, tables and plots written."""

import json
import os
import signal

import numpy as np
import pytest
import yaml
from commands import run, start
from filelock import FileLock
from pictures import picture, write_pictures
from test_adapt import write_pairs
from world import write_tiny_model

from urushi.adapters import METHODS
from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import DataError, RecipeError
from urushi.image import read_picture, write_picture
from urushi.training.checkpoint import newest_checkpoint
from urushi.training.compare.cell import CellStopped, run_cell
from urushi.training.compare.cell_plan import _hash, _stated, make_plan
from urushi.training.compare.cell_runs import run_grid, run_in_child
from urushi.training.compare.description import load_comparison
from urushi.training.compare.summary import MEAN, Spread, markdown
from urushi.training.recipe import LossSettings

COUNTS, SEEDS = (2, 4), (0, 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny base, six pairs to learn from and two to measure by, and a comparison of them."""
    root = tmp_path_factory.mktemp("compare")
    write_tiny_model(root / "tiny.safetensors")
    write_pairs(root / "dark" / "train", 6)
    for index in (7, 8):
        for side, factor in (("input", 0.5), ("target", 1.0)):
            path = root / "dark" / "val" / side / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, picture(shift=float(index)) * np.float32(factor))
    return root


def plan_of(world, **changes):
    return {
        "name": "tiny",
        "base": str(world / "tiny.safetensors"),
        "tasks": [{"name": "dark", "pairs": "dark/train", "validation": "dark/val"}],
        "methods": [{"method": "lora", "rank": 1}],
        "pairs": list(COUNTS),
        "seeds": list(SEEDS),
        "steps": 4,
        "patch": 16,
        "batch": 2,
        "warmup": 1,
        **changes,
    }


def write_plan(world, folder, **changes):
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan_of(world, **changes)))
    return path


def load(world, folder, **changes):
    return load_comparison(write_plan(world, folder, **changes))


def compare(world, plan, output, *arguments):
    words = ("--data", world, "-o", output, "--device", "cpu", "--no-isolate", "--json")
    return run("compare", plan, *words, *arguments)


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """A comparison that was run: where, its plan, and what it told."""
    folder = tmp_path_factory.mktemp("finished")
    plan = write_plan(world, folder)
    result = compare(world, plan, folder / "out")
    assert result.exit_code == EXIT_WELL, result.stderr
    return folder / "out", plan, json.loads(result.stdout)


def test_every_combination_is_trained_and_measured(finished):
    folder, _, told = finished
    # The frozen base once, and two methods at two numbers of pairs and two seeds.
    assert (told["finished"], told["planned"], told["failed"]) == (9, 9, [])
    assert len(list((folder / "cells").glob("*.json"))) == 9
    assert not list((folder / "running").iterdir())
    rows = {(row["label"], row["pairs"]): row for row in told["rows"]}
    assert list(rows) == [("frozen", None), *((m, n) for n in COUNTS for m in ("lora", "full"))]
    frozen, full = rows["frozen", None], rows["full", 4]
    assert frozen["parameters"] == frozen["adapter_bytes"] == 0
    assert frozen["gain"]["mean"] == 0
    assert full["share"] == 1
    assert full["seeds"] == list(SEEDS)
    assert full["protocol"] == "rgb-8bit"
    assert full["pictures"] == full["total"] == frozen["pictures"] > 0
    assert full["psnr"]["deviation"] > 0
    assert full["gain"]["mean"] == pytest.approx(full["psnr"]["mean"] - frozen["psnr"]["mean"])
    assert full["seconds_per_step"] > 0
    assert full["adapter_bytes"] > rows["lora", 4]["adapter_bytes"] > 0
    assert full["learning_rate"] != rows["lora", 4]["learning_rate"]


def test_the_table_and_the_plots_are_there(finished):
    folder, _, _ = finished
    text = (folder / "comparison.md").read_text()
    assert "| frozen | - | - |" in text
    assert "| full | 4 | 2 |" in text
    assert "9 of 9 cells are finished" in text
    assert "4 steps of 2 patches of 16 pixels" in text
    for name in ("psnr-by-pairs.png", "psnr-by-parameters.png"):
        assert f"![{name}]({name})" in text
        assert np.ptp(read_picture(folder / name)) > 0.5
    assert json.loads((folder / "comparison.json").read_text())["kind"] == "urushi-comparison"


def test_finished_cells_are_not_run_again(finished, world, monkeypatch):
    folder, plan, told = finished

    def never(*_arguments, **_options):
        raise AssertionError("a finished cell was run")

    monkeypatch.setattr("urushi.training.compare.cell_runs.run_cell", never)
    again = compare(world, plan, folder)
    assert "9 cells, 9 finished before" in again.stderr
    assert json.loads(again.stdout)["rows"] == told["rows"]


def test_the_same_comparison_gives_the_same(finished, world, tmp_path):
    _, plan, told = finished
    again = json.loads(compare(world, plan, tmp_path / "out", "--only", "dark/lora").stdout)
    rows = {(row["label"], row["pairs"]): row for row in told["rows"]}
    assert again["finished"] == 5  # with the frozen base
    for row in again["rows"]:
        assert row["psnr"] == rows[row["label"], row["pairs"]]["psnr"]
        assert row["gain"] == rows[row["label"], row["pairs"]]["gain"]


def test_a_changed_recipe_runs_only_what_changed(finished, world, tmp_path):
    folder, plan, _ = finished
    listed = compare(world, plan, folder, "--plan")
    assert {row["state"] for row in json.loads(listed.stdout)} == {"finished"}

    def left(**changes):
        changed = write_plan(world, tmp_path, **changes)
        rows = json.loads(compare(world, changed, folder, "--plan").stdout)
        return sorted({row["method"] for row in rows if row["state"] == "to run"})

    renamed = [{"method": "lora", "rank": 1, "label": "low rank"}]
    assert left(name="other", methods=renamed) == []
    assert left(methods=[{"method": "lora", "rank": 2}]) == ["lora"]
    assert left(methods=[{"method": "lora", "rank": 1, "learning_rate": 0.5}]) == ["lora"]
    assert left(steps=5) == ["full", "lora"]
    assert left(seeds=[1]) == []
    write_tiny_model(tmp_path / "same.safetensors")
    assert left(base=str(tmp_path / "same.safetensors")) == []


# --- equal terms ---
def test_all_methods_see_the_same_batches(world, tmp_path, monkeypatch):
    import urushi.training.batches as batches

    plan = make_plan(load(world, tmp_path, pairs=[4], steps=2), world)
    seen, made = {}, batches.PairBatches._make

    def spy(self, *arguments):
        batch = made(self, *arguments)
        seen.setdefault((cell.label, cell.seed), []).append(batch.degraded.numpy().tobytes())
        return batch

    monkeypatch.setattr(batches.PairBatches, "_make", spy)
    for cell in plan.cells:
        if cell.pairs is not None:
            run_cell(cell, tmp_path / "out", device="cpu", alone=False)
    for seed in SEEDS:
        assert seen["lora", seed] == seen["full", seed]
        assert len(seen["lora", seed]) == 2
    assert seen["lora", 0] != seen["lora", 1]
    by_seed = {c.seed: c.examples for c in plan.cells if c.label == "full"}
    assert all(c.examples == by_seed[c.seed] for c in plan.cells if c.pairs is not None)


def test_the_picture_measured_by_is_never_learned_from(world, tmp_path):
    settings = load(
        world, tmp_path, tasks=[{"name": "a", "pairs": "dark/train", "validation": "dark/train"}]
    )
    with pytest.raises(DataError, match="used both for training and for measuring"):
        make_plan(settings, world)


# --- processes ---


def test_a_cell_of_its_own_process_knows_its_memory(world, tmp_path):
    cell = make_plan(load(world, tmp_path), world).only(["dark/lora"])[1]
    shares = []
    run_in_child(cell, tmp_path / "out", "cpu", shares.append)
    (outcome,) = run_grid([cell], tmp_path / "out")
    assert outcome.result is not None
    assert not outcome.fresh
    assert shares[-1] == 1
    assert 0 < outcome.result.memory_before <= outcome.result.peak_memory


def stated(cell, folder):
    path = folder / "cell.json"
    path.write_text(cell.model_dump_json())
    return path


def one_cell(path, output):
    return run("compare", path, "--cell", "-o", output, "--device", "cpu", "--json")


def test_the_command_runs_one_cell_and_says_how_far_it_is(world, tmp_path):
    cell = make_plan(load(world, tmp_path), world).only(["dark/lora"])[1]
    told = one_cell(stated(cell, tmp_path), tmp_path / "out")
    assert told.exit_code == EXIT_WELL
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    shares = [line["share"] for line in lines[:-1]]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    (outcome,) = run_grid([cell], tmp_path / "out")
    assert outcome.result is not None
    assert not outcome.fresh
    assert (lines[-1]["hash"], lines[-1]["psnr"]) == (cell.hash, outcome.result.psnr)
    # Nothing of the whole comparison is written by a process that runs a part of it.
    assert not (tmp_path / "out" / "comparison.json").exists()


def test_a_cell_that_cannot_be_run_says_why(world, tmp_path):
    wild = [{"method": "lora", "rank": 1, "learning_rate": 1e30}]
    plan = load(world, tmp_path, methods=wild, clip=None)
    cell = make_plan(plan, world).only(["dark/lora"])[1]
    told = one_cell(stated(cell, tmp_path), tmp_path / "out")
    assert told.exit_code == EXIT_FAILED
    (why,) = (json.loads(line)["error"] for line in told.stdout.splitlines()[-1:])
    assert why.startswith("the loss is")
    assert why in told.stderr
    for path in (tmp_path / "plan.yaml", tmp_path / "none.json"):
        refused = one_cell(path, tmp_path / "out")
        assert refused.exit_code == EXIT_FAILED
        assert f"'{path}' states no cell" in refused.stderr


def test_a_cell_of_its_own_process_is_stopped_with_a_checkpoint(world, tmp_path):
    plan = load(world, tmp_path, pairs=[2], seeds=[0], steps=1_000_000, methods=[])
    cell = make_plan(plan, world).only(["*/full"])[1]
    words = ("--cell", "-o", tmp_path / "out", "--device", "cpu", "--json")
    process = start("compare", stated(cell, tmp_path), *words)
    assert process.stdout is not None
    assert "share" in json.loads(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 143, errors
    running = (tmp_path / "out").resolve() / "running" / cell.hash
    assert newest_checkpoint(running / "checkpoints") is not None


def test_an_interrupted_comparison_says_how_to_go_on(world, tmp_path):
    plan = write_plan(world, tmp_path, pairs=[2], seeds=[0], steps=1_000_000, methods=[])
    process = start("compare", plan, "--data", world, "-o", tmp_path / "out", "--device", "cpu")
    assert process.stdout is not None
    for line in process.stdout:
        if "frozen" in line:
            process.send_signal(signal.SIGTERM)
            break
    rest, errors = process.communicate()
    assert process.returncode == 143, errors
    assert "the same command goes on" in rest
    assert "1 of 2 cells are finished" in (tmp_path / "out" / "comparison.md").read_text()


def test_an_interrupted_cell_goes_on_from_its_checkpoint(world, tmp_path, monkeypatch):
    import urushi.training.batches as batches

    out, steps = tmp_path / "out", 200
    settings = load(world, tmp_path, pairs=[2], seeds=[0], steps=steps, methods=[])
    cell = make_plan(settings, world).only(["*/full"])[1]

    def interrupt(_progress):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(CellStopped):
        run_cell(cell, out, device="cpu", alone=False, on_progress=interrupt)
    checkpoint = newest_checkpoint(out.resolve() / "running" / cell.hash / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step > 0
    made, count = batches.PairBatches._make, []
    monkeypatch.setattr(
        batches.PairBatches, "_make", lambda *words: (count.append(1), made(*words))[1]
    )
    (outcome,) = run_grid([cell], out, device="cpu", isolate=False)
    assert outcome.result is not None
    assert outcome.result.steps == steps == checkpoint.step + len(count)


def test_a_cell_that_another_process_runs_is_left_to_it(world, tmp_path):
    cells = make_plan(load(world, tmp_path, pairs=[2], seeds=[0]), world).only(
        ["*/frozen", "*/full"]
    )
    assert len(cells) == 2
    (tmp_path / "out" / "locks").mkdir(parents=True)
    lock = FileLock(tmp_path / "out" / "locks" / cells[0].hash)
    lock.acquire()
    told = []

    def on_cell(outcome):
        told.append(outcome.cell)
        lock.release()  # the other process was stopped before it finished

    outcomes = run_grid(cells, tmp_path / "out", device="cpu", isolate=False, on_cell=on_cell)
    assert told == [cells[1], cells[0]]
    assert all(outcome.result is not None for outcome in outcomes)


def test_a_failed_cell_does_not_stop_the_others(world, tmp_path):
    methods = [
        {"method": "lora", "rank": 1, "learning_rate": 1e30, "label": "wild"},
        {"method": "vpt"},
    ]
    plan = write_plan(world, tmp_path, methods=methods, pairs=[2], seeds=[0], clip=None)
    result = compare(world, plan, tmp_path / "out")
    assert result.exit_code == EXIT_FAILED
    assert "wild, 2 pairs, seed 0: failed: the loss is" in result.stderr
    assert "vpt, 2 pairs, seed 0: failed: method vpt needs" in result.stderr
    told = json.loads(result.stdout)
    assert [row["label"] for row in told["rows"]] == ["frozen", "full"]
    assert len(told["failed"]) == 2
    assert "## Failed" in (tmp_path / "out" / "comparison.md").read_text()
    assert not list((tmp_path / "out" / "running").iterdir())


# --- other kinds of comparison ---


def test_clean_pictures_budgets_and_random_bases(world, tmp_path):
    write_pictures(tmp_path / "clean", 3, height=40, width=40)
    write_pictures(tmp_path / "held", 1, height=36, width=40)
    noise = {"name": "gaussian_noise", "sigma_255": [50, 50]}
    clean = {"clean": str(tmp_path / "clean"), "validation": str(tmp_path / "held")}
    model = str(world / "tiny.safetensors")
    plan = write_plan(
        world,
        tmp_path,
        base=[
            {"name": "prod", "model": model},
            {"name": "random", "model": model, "random": True},
        ],
        tasks=[
            {"name": "noise", **clean, "degradation": noise},
            {"name": "dark", "pairs": "dark/train", "validation": "dark/val"},
        ],
        methods=[{"method": "colora"}],
        budgets=["60%", 0.8],
        pairs=[2, 4],
        seeds=[0],
        steps=2,
    )
    result = compare(world, plan, tmp_path / "out")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert "noise has 3 pairs: left out at 4" in result.stderr
    told = json.loads(result.stdout)
    mean = {(r["base"], r["label"], r["pairs"]): r for r in told["rows"] if r["task"] == MEAN}
    labels = ("colora 60%", "colora 80%", "full")
    bases = ("prod", "random")
    # All tasks have two pairs, one has four.
    assert set(mean) == {(b, "frozen", None) for b in bases} | {
        (b, label, 2) for b in bases for label in labels
    }
    assert mean["prod", "colora 60%", 2]["share"] == pytest.approx(0.6, abs=0.03)
    assert mean["prod", "frozen", None]["psnr"] != mean["random", "frozen", None]["psnr"]
    assert "| prod: frozen |" in (tmp_path / "out" / "comparison.md").read_text()


# --- recipes ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": 3}, r"step is not a known key \(did you mean 'steps'"),
        ({"methods": [{"method": "lor"}]}, "did you mean 'lora'"),
        (
            {"methods": [{"method": "lora", "rnk": 2}]},
            r"rnk is not a known key \(did you mean 'rank'",
        ),
        ({"methods": [{"method": "lora"}, {"method": "lora", "rank": 2}]}, "a label of its own"),
        ({"budgets": ["7%"]}, "budgets has no effect"),
        ({"seeds": [1, 1]}, "seeds has 1 twice"),
        (
            {"tasks": [{"name": "a", "pairs": "a", "clean": "b", "validation": "c"}]},
            "one of the two",
        ),
        ({"tasks": [{"name": "a", "clean": "b", "validation": "c"}]}, "degradation with clean"),
    ],
)
def test_wrong_comparisons_are_told(world, tmp_path, changes, words):
    with pytest.raises(RecipeError, match=words):
        load(world, tmp_path, **changes)


def test_patterns_and_names_that_are_not_there_are_told(world, tmp_path):
    plan = make_plan(load(world, tmp_path), world)
    with pytest.raises(RecipeError, match="names no cell: expected TASK/METHOD, of the tasks dark"):
        plan.only(["light/*"])
    with pytest.raises(RecipeError, match="did you mean 'adapters'"):
        load_comparison("adapter")


def test_help_and_wrong_usage(world, tmp_path):
    told = run("compare", "--help").stdout
    assert "urushi compare adapters-cpu" in told
    assert "Exit codes: 0 all is well" in told
    wrong = run("compare", "adapters-cpu", "-o", tmp_path / "out", "--device", "abacus")
    assert wrong.exit_code == EXIT_USAGE
    missing = compare(world, "adapters-cpu", tmp_path / "out")
    assert missing.exit_code == EXIT_FAILED
    assert "pairs" in missing.stderr
    assert not (tmp_path / "out").exists()


def test_spread_and_an_empty_summary(world, tmp_path):
    from urushi.training.compare.cell_runs import stored
    from urushi.training.compare.summary import summarise

    assert Spread.of([1.0]).deviation is None
    assert Spread.of([1.0, 3.0]).deviation == pytest.approx(2**0.5)
    plan = make_plan(load(world, tmp_path), world)
    summary = summarise(plan.comparison, stored(tmp_path, plan.cells), plan.notes)
    assert summary.rows == ()
    assert "0 of 9 cells are finished" in markdown(summary)


class LaterLoss(LossSettings):
    later: float = 0.0


def test_a_setting_that_comes_later_renames_no_cell():
    assert _hash(_stated(LaterLoss())) == _hash(_stated(LossSettings()))
    assert _hash(_stated(LaterLoss(later=1.0))) != _hash(_stated(LossSettings()))
    assert _stated(LaterLoss(later=1.0))["later"] == 1.0


def test_what_was_finished_before_is_found_by_its_name():
    """The names that cells had when all settings were part of them."""
    own = set(METHODS) - set(METHODS.plugins())
    stated = {name: _stated(METHODS[name].settings()) for name in own}
    assert _hash({**stated, "loss": _stated(LossSettings())}) == "30852137f5cce5fb9fc9"
