"""What experts change, as numbers: what they say, of which views, and how logits come of them."""

import numpy as np
import pytest
from pictures import picture
from world import EXPERTS

from urushi.files.router_file import EvidenceFacts
from urushi.routing.head import Reading
from urushi.routing.probe import (
    Changes,
    Evidence,
    describe_change,
    evidence_looks,
    judged,
    pool_scales,
    trial_views,
)
from urushi.routing.views import views_of

SCALES = ("whole", "reduced", "native")
MEAN, SLOW, DETAIL, COLOUR, SKEW, TAILS, ACROSS, DOWN = 0, 3, 4, 5, 6, 7, 8, 9


def flat(size=64):
    return np.full((3, size, size), 0.5, np.float32)


def test_nothing_changed_says_nothing():
    rng = np.random.default_rng(0)
    found = describe_change(np.zeros((3, 64, 64), np.float32), rng.random((3, 64, 64), np.float32))
    assert np.isfinite(found).all()
    assert len(found) == EvidenceFacts.numbers
    assert np.allclose(found[[SLOW, DETAIL, COLOUR]], np.log(1e-6))
    assert not found[[MEAN, SKEW, -1, -2]].any()


def test_a_tint_streaks_and_flakes_are_told_apart():
    tint = flat() * 0
    tint[0] += 0.2
    found = describe_change(tint, flat())
    assert found[:3] == pytest.approx([0.2, 0, 0], abs=1e-6)
    assert found[COLOUR] > found[DETAIL] + 5
    streaks = np.zeros((3, 64, 64), np.float32)
    streaks[:, :, ::8] = 0.5
    found = describe_change(streaks, flat())
    assert found[ACROSS] > found[DOWN] + 5  # upright ones change across
    turned = describe_change(streaks.transpose(0, 2, 1), flat())
    assert turned[DOWN] == pytest.approx(found[ACROSS], abs=1e-4)
    flakes = np.zeros((3, 64, 64), np.float32)
    flakes[:, 5::20, 7::20] = 0.6
    found = describe_change(flakes, flat())
    assert found[SKEW] > 1
    assert describe_change(-flakes, flat())[SKEW] == pytest.approx(-found[SKEW], abs=1e-3)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 64, 64)).astype(np.float32)
    other = describe_change(np.repeat(noise, 3, 0), flat())
    assert abs(other[SKEW]) < 0.3 < found[TAILS] - other[TAILS]
    # A change of what the picture shows correlates with it.
    pixels = picture(64, 64).transpose(2, 0, 1)
    detail, slow = describe_change(0.3 * pixels, pixels)[[-5, -4]]
    assert detail > 0.99
    assert slow > 0.99


@pytest.mark.parametrize("sides", [(48, 64), (33, 200), (20, 12), (300, 31)])
def test_views_of_any_picture(sides):
    facts = EvidenceFacts(experts=EXPERTS, scales=SCALES, size=32, windows=3)
    trial = trial_views(facts, views_of(picture(*sides), evidence_looks(facts)))
    assert trial.views.shape[1:] == (3, 32, 32)
    assert set(trial.scales) == {0, 1, 2}
    counts = [trial.scales.count(scale) for scale in range(3)]
    assert counts[0] == 1
    assert max(counts) <= 3
    rows = np.random.default_rng(0).random((len(trial.scales), 3, EvidenceFacts.numbers))
    pooled = pool_scales(facts, rows, trial.scales)
    assert pooled.size == facts.width
    native = rows[[scale == 2 for scale in trial.scales]]
    np.testing.assert_allclose(pooled[-2:], np.stack([native.mean(0), native.max(0)]), rtol=1e-6)


def test_logits_add_up_and_those_of_added_classes_stay():
    facts = EvidenceFacts(experts=("a",), scales=("whole",), share=0.5)
    tensors = {
        "centre": np.full(facts.width, 1.0), "spread": np.full(facts.width, 2.0),
        "weight": np.zeros((2, facts.width)), "bias": np.array([0.25, 0.0]),
    }  # fmt: skip
    tensors["weight"][1, 3] = 1.0
    found = Changes(np.ones(facts.width), np.zeros((0, facts.each)))
    found.together[3] = 5.0
    before = Reading(np.array([1.0, 2.0, 7.0], np.float32), np.zeros(4, np.float32))

    class Never:
        def restore(self, view):
            raise AssertionError("nothing is tried here")

    known = Evidence(facts, Never(), tensors)
    assert judged(known, found, before).logits.tolist() == [0.75, 3.0, 7.0]
    found.together[3] = 1e9  # unlike all that was seen: counts as five deviations
    assert judged(known, found, before).logits.tolist() == [0.75, 6.0, 7.0]
    # What the expert of an added class changes counts for that alone.
    facts = facts.model_copy(update={"own": ("new",)})
    tensors |= {
        "own_centre": np.zeros((1, facts.each)), "own_spread": np.ones((1, facts.each)),
        "own_weight": np.full((1, facts.each), 0.5),
    }  # fmt: skip
    known = Evidence(facts, Never(), tensors, (2,))
    found = Changes(np.ones(facts.width), np.zeros((1, facts.each)))
    found.own[0, :2] = 1.0, 3.0
    assert judged(known, found, before).logits.tolist() == [0.75, 1.0, 9.0]
