"""What large works cost: the tables of docs/scaling.md, made from rows and recipes."""

import copy
import functools
import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from urushi import yaml_text

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def costs():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("costs")


def test_the_page_says_what_rows_and_recipes_say(costs, monkeypatch):
    # A table of recipes is one file, and is read once for all of its rows.
    read = functools.cache(yaml_text.read_yaml)
    monkeypatch.setattr(yaml_text, "read_yaml", lambda path: copy.deepcopy(read(path)))
    text = costs.PAGE.read_text("utf-8")
    assert costs.with_tables(text) == text, "run  python docs/costs.py"


def test_a_million_scans_cost_what_a_row_says(costs, tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "RESULTS", tmp_path)
    rows = [{"row": "none", "cpu": 36.0}, {"row": "engine", "cpu": 1.0}]
    (tmp_path / "large.json").write_text(json.dumps({"rows": rows}))
    (tmp_path / "large-avx2.json").write_text(json.dumps({"rows": []}))
    first, *others = [line for line in costs.scans_table().splitlines() if "JPEG" in line]
    assert first == "| JPEG, the network alone | 36.0 | 10,000 | 6.5 | 400 |"
    assert not others


def test_steps_see_the_patches_of_their_stages(costs):
    patch = SimpleNamespace(batch=2, patch=10)
    stages = [SimpleNamespace(from_step=5, batch=1, patch=20)]
    assert costs.seen(patch, 10, []) == (10, 10 * 200)
    assert costs.seen(patch, 10, stages) == (10, 4 * 200 + 6 * 400)
    assert costs.seen(patch, 3, stages) == (3, 3 * 200)


def test_networks_are_compared_by_the_pixel_and_with_the_base_of_their_hour(
    costs, tmp_path, monkeypatch
):
    def report(name, **networks):
        rows = [
            {"network": network, "engine": "torch", "size": 256, "size_multiple": multiple,
             "milliseconds": milliseconds}
            for network, (milliseconds, multiple) in networks.items()
        ]  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows}))

    monkeypatch.setattr(costs, "RESULTS", tmp_path)
    report("networks", base=(100, 8), slow=(300, 8))
    report("networks-ipt", squares=(100 * (288 / 256) ** 2, 48))
    report("networks-lora-ir", base=(200, 8), wide=(1000, 8))
    found = costs.forward_seconds()
    ratios = {name: round(one / found["base"], 6) for name, one in found.items()}
    assert ratios == {"base": 1, "slow": 3, "squares": 1, "wide": 5}


def test_what_has_no_row_is_not_counted(costs):
    known = costs.Steps()
    assert known.seconds("vpt", "bf16", 1e6) is None
    once, twice = (known.seconds("full", "bf16", pixels) for pixels in (1e6, 2e6))
    assert twice == pytest.approx(2 * once)
    assert known.seconds("full", "float32", 1e6) > once
