"""What comparisons are made of: those that ship, and pairs among pairs."""

import pytest

from urushi.training.compare.description import COMPARISONS, load_comparison, variants
from urushi.training.compare.task_files import nested_subset


@pytest.mark.parametrize("path", sorted(COMPARISONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_comparisons_are_whole(path):
    plan = load_comparison(path.stem)
    assert plan.name == path.stem
    methods = [variant.method for variant in variants(plan)]
    assert methods[0] == "frozen"
    assert "full" in methods


def test_fewer_pairs_are_among_more():
    names = [f"{index:03}" for index in range(40)]
    for seed in range(3):
        few, more = (set(nested_subset(names, count, seed)) for count in (16, 32))
        assert len(few) == 16
        assert few < more
    assert nested_subset(names, 16, 0) == nested_subset(names[::-1], 16, 0)
    assert nested_subset(names, 16, 0) != nested_subset(names, 16, 1)
