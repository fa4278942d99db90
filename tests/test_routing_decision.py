"""From logits to a decision: calibration, top-k weights, and when the base works alone."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from urushi.errors import AdapterError, DataError
from urushi.files.router_file import CompactFacts, RouterHeader, ViewGeometry
from urushi.routing import (
    decide,
    expected_calibration_error,
    expert_weights,
    fit_temperature,
    probabilities,
)
from urushi.routing import decision as deciding
from urushi.routing.calibration import negative_log_likelihood
from urushi.routing.wording import unsure, what_is_seen
from urushi.training.photographs.photographs_recipe import PhotographicRecipe
from urushi.training.router.router_recipe import RouterRecipe
from urushi.training.router.router_scores import judged_photographs, scores_of


def header(*classes, **changes):
    encoder = CompactFacts(widths=[2], width=4)
    views = ViewGeometry(layout="native", size=16)
    return RouterHeader(classes=classes, views=views, encoder=encoder, **changes)


def drawn(count, scale, mode, seed=0):
    """Logits `scale` times those that the labels were drawn from."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (count, 4))
    chances = probabilities(true, mode)
    if mode == "multi":
        labels = (rng.random(chances.shape) < chances).astype(np.float64)
    else:
        labels = (chances.cumsum(1) < rng.random((count, 1))).sum(1)
    return scale * true, labels


@pytest.mark.parametrize("mode", ["single", "multi"])
@pytest.mark.parametrize("scale", [0.4, 1.0, 5.0])
def test_the_temperature_undoes_too_much_or_too_little_confidence(mode, scale):
    logits, labels = drawn(4000, scale, mode)
    temperature = fit_temperature(logits, labels, mode)
    assert temperature == pytest.approx(scale, rel=0.1)
    calibrated = probabilities(logits, mode, temperature)
    error = expected_calibration_error(calibrated, labels, mode)
    assert error < 0.03
    if scale != 1:
        raw = probabilities(logits, mode)
        assert error < expected_calibration_error(raw, labels, mode) / 2
        likelihoods = [negative_log_likelihood(logits, labels, mode, t) for t in (1, temperature)]
        assert likelihoods[1] < likelihoods[0]


def test_a_flawless_validation_does_not_make_certain():
    labels = np.arange(40) % 4
    logits = 30 * np.eye(4)[labels]
    chances = probabilities(logits, "single", fit_temperature(logits, labels))
    assert 0.9 < chances.max() < 0.98  # 40 of 40 right: at most 41 of 44


def test_nor_does_a_flawless_validation_of_several_classes_at_once():
    labels = np.eye(4)[np.arange(40) % 4]
    logits = 30 * (2 * labels - 1)
    chances = probabilities(logits, "multi", fit_temperature(logits, labels, "multi"))
    assert 0.9 < chances.max() < 0.98  # 40 of 40 right: at most 41 of 42


def test_likelihoods_are_those_of_torch():
    logits, labels = drawn(50, 3, "single")
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits) / 2, torch.from_numpy(labels)
    )
    assert negative_log_likelihood(logits, labels, "single", 2.0) == pytest.approx(expected.item())
    logits, labels = drawn(50, 3, "multi")
    expected = 4 * torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits) / 2, torch.from_numpy(labels)
    )
    assert negative_log_likelihood(logits, labels, "multi", 2.0) == pytest.approx(expected.item())


def test_calibration_error_by_hand():
    chances = np.array([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55]])
    labels = np.array([0, 1, 1])
    # Two at 0.9, of which half are right, and one at 0.55 that is right.
    expected = (2 * 0.4 + 0.45) / 3
    assert expected_calibration_error(chances, labels) == pytest.approx(expected)
    assert expected_calibration_error(np.eye(2), np.array([0, 1])) == 0


def test_large_logits_do_not_overflow():
    logits = np.array([[2000.0, -2000.0, 0.0]])
    np.testing.assert_array_equal(probabilities(logits), [[1, 0, 0]])
    np.testing.assert_array_equal(probabilities(logits, "multi"), [[1, 0, 0.5]])


@pytest.mark.parametrize(
    ("logits", "labels", "mode", "words"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "single", "at least one"),
        (np.full((2, 3), np.nan), np.zeros(2, int), "single", "finite"),
        (np.zeros((2, 3)), np.array([0, 3]), "single", "there are 3 classes"),
        (np.zeros((2, 3)), np.zeros(2), "single", "whole number"),
        (np.zeros((2, 3)), np.zeros(2, int), "multi", "a truth from 0 to 1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(logits, labels, mode, words):
    with pytest.raises(DataError, match=words):
        fit_temperature(logits, labels, mode)


def test_weights_are_the_softmax_over_the_chosen():
    logits = np.array([[2.0, 1.0, -1.0], [0.0, 3.0, 2.5]])
    chances = probabilities(logits)
    np.testing.assert_array_equal(expert_weights(chances, 1), [[1, 0, 0], [0, 1, 0]])
    two = expert_weights(chances, 2)
    np.testing.assert_allclose(two[0, :2], probabilities(logits[0, :2]))
    np.testing.assert_allclose(two[1, 1:], probabilities(logits[1, 1:]))
    np.testing.assert_allclose(expert_weights(chances, 3), chances)
    with pytest.raises(AdapterError, match="k is 4: expected a number of experts from 1 to 3"):
        expert_weights(chances, 4)


def test_of_equals_the_first_is_chosen():
    np.testing.assert_array_equal(expert_weights(np.full(3, 1 / 3), 1), [1, 0, 0])


def test_a_sure_router_chooses_one_expert():
    found = decide(np.array([0.0, 6.0, 1.0]), header("clean", "rain", "snow"))
    assert found.weights == {"rain": 1.0, "snow": 0.0}
    assert (found.abstained, found.seen) == (False, "rain")
    assert found.reason == "rain (99 %)"
    assert sum(found.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize("mode", ["single", "multi"])
def test_the_base_works_alone_where_the_picture_is_clean(mode):
    found = decide(np.array([6.0, 0.0, -1.0]), header("clean", "rain", "snow", mode=mode), k=2)
    assert found.abstained
    assert set(found.weights.values()) == {0.0}
    assert found.reason == "looks clean (99 %), so the base works alone"


def test_the_base_works_alone_where_the_router_is_unsure():
    logits = np.array([0.1, 0.0, 0.0])
    found = decide(logits, header("rain", "snow", "haze", threshold=0.6))
    assert found.abstained
    assert set(found.weights.values()) == {0.0}
    assert found.reason == "unsure: rain (35 %) or snow (32 %), so the base works alone"
    assert not decide(logits, header("rain", "snow", "haze"), threshold=0.3).abstained


def at(**chances):
    """Logits of these probabilities."""
    return np.log(np.array(list(chances.values())))


@pytest.mark.parametrize(
    ("chances", "acts"),
    [
        ({"clean": 0.55, "rain": 0.1, "noise": 0.35}, "noise"),
        ({"clean": 0.3, "rain": 0.3, "noise": 0.4}, "noise"),
        ({"clean": 0.65, "rain": 0.1, "noise": 0.25}, None),
        # Likelier is another kind of damage, which asks for as much as ever.
        ({"clean": 0.25, "rain": 0.4, "noise": 0.35}, None),
        ({"clean": 0.1, "rain": 0.6, "noise": 0.3}, "rain"),
    ],
)
@pytest.mark.parametrize("k", [1, 2])
def test_an_expert_that_harms_little_acts_at_less_certainty(chances, acts, k):
    own = header("clean", "rain", "noise", thresholds={"noise": 0.3})
    found = decide(at(**chances), own, k=k)
    assert found.abstained == (acts is None)
    assert {name for name, weight in found.weights.items() if weight} <= {acts, "noise"}
    assert found.probabilities == pytest.approx(chances)
    assert found.seen == max(chances, key=lambda name: chances[name])
    if acts == "noise":
        # The less, the likelier it is that nothing is wrong.
        share = chances["noise"] / (chances["noise"] + chances["clean"])
        assert found.weights == {"rain": 0, "noise": pytest.approx(share)}
        assert found.reason.startswith("perhaps noise (")
    # Whoever gives a threshold means all classes.
    assert decide(at(**chances), own, threshold=0.7).abstained


@pytest.mark.parametrize(
    "wrong",
    [
        {"thresholds": {"snow": 0.3}},
        {"thresholds": {"clean": 0.3}},
        {"thresholds": {"rain": 0.6}},
        {"thresholds": {"rain": 0.3}, "mode": "multi"},
    ],
)
def test_thresholds_belong_to_kinds_of_damage_and_are_lower(wrong):
    with pytest.raises(ValidationError, match="thresholds"):
        header("clean", "rain", **wrong)


def test_a_high_temperature_makes_a_router_unsure():
    logits = np.array([0.0, 3.0])
    assert not decide(logits, header("rain", "snow", threshold=0.8)).abstained
    assert decide(logits, header("rain", "snow", threshold=0.8, temperature=4.0)).abstained


def test_what_is_clean_by_half_keeps_half_of_the_base():
    found = decide(np.array([2.0, 2.1, -5.0]), header("clean", "rain", "snow"), k=2)
    assert not found.abstained
    assert found.weights["rain"] == pytest.approx(1 / (1 + np.exp(-0.1)))
    assert found.weights["snow"] == 0


def test_several_degradations_at_once():
    several = header("clean", "rain", "noise", "haze", mode="multi")
    found = decide(np.array([-5.0, 4.0, 3.0, -4.0]), several, k=3)
    assert found.weights["haze"] == 0
    assert found.weights["rain"] + found.weights["noise"] == pytest.approx(1)
    assert found.weights["rain"] == pytest.approx(0.5, abs=0.02)
    assert found.reason == "rain (98 %) and noise (95 %)"
    assert decide(np.array([-3.0, -1.0, -2.0, -4.0]), several, k=2).abstained


@pytest.mark.parametrize(
    ("logits", "highest"),
    # In the second the new one is even the likeliest, but not sure enough.
    [([0.2, 2.0, 1.0], 1.9), ([0.5, 0.6, 0.4], 1.0), ([3.0, 0.0, 0.0], 2.9)],
)
def test_a_class_that_was_added_and_does_not_win_changes_nothing(logits, highest):
    old = header("clean", "rain", "snow")
    new = header("clean", "rain", "snow", "holes", "glare", added=("holes", "glare"))
    before = decide(np.array(logits), old)
    for holes in (-3.0, 0.0, highest):
        found = decide(np.array([*logits, holes, -1.0]), new)
        assert found.probabilities == {**before.probabilities, "holes": 0.0, "glare": 0.0}
        assert found.weights == {**before.weights, "holes": 0.0, "glare": 0.0}
        assert (found.reason, found.abstained) == (before.reason, before.abstained)


def test_a_class_that_was_added_wins_where_it_is_sure():
    new = header("clean", "rain", "holes", "glare", added=("holes", "glare"))
    assert decide(np.array([0.0, 1.0, 6.0, 2.0]), new).weights["holes"] == 1
    assert decide(np.array([0.0, 1.0, 2.0, 6.0]), new).weights["glare"] == 1
    # Of two that were added, too, the second must win to count.
    both = decide(np.array([0.0, 0.0, 3.0, 2.9]), new)
    assert both.weights["holes"] == 1
    assert both.probabilities["glare"] == 0
    several = header("clean", "rain", "holes", added=("holes",), mode="multi")
    assert decide(np.array([-3.0, 3.0, 2.0]), several, k=2).weights["holes"] > 0.4


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(AdapterError, match="not finite"):
        decide(np.array([np.nan, 0.0]), header("rain", "snow"))


# --- exactly at a threshold, and a hair beside it ---


def above(value):
    """The next greater number."""
    return float(np.nextafter(value, 2))


@pytest.mark.parametrize("mode", ["single", "multi"])
def test_what_reaches_the_threshold_exactly_acts(mode):
    logits = np.array([0.3, 1.1, 0.2])
    names = ("clean", "rain", "snow")
    chance = decide(logits, header(*names, mode=mode)).probabilities["rain"]
    assert not decide(logits, header(*names, mode=mode, threshold=chance)).abstained
    assert decide(logits, header(*names, mode=mode, threshold=above(chance))).abstained
    assert not decide(logits, header(*names, mode=mode), threshold=chance).abstained
    assert decide(logits, header(*names, mode=mode), threshold=above(chance)).abstained


def test_what_reaches_a_threshold_of_its_own_exactly_acts():
    logits = np.array([1.0, -1.0, 0.5])
    names = ("clean", "rain", "noise")
    chance = decide(logits, header(*names, threshold=0.9)).probabilities["noise"]
    for least, acts in ((chance, True), (above(chance), False)):
        found = decide(logits, header(*names, threshold=0.9, thresholds={"noise": least}))
        assert found.abstained == (not acts)
        assert (found.weights["noise"] > 0) == acts


def test_a_class_that_was_added_wins_where_it_reaches_the_threshold_exactly():
    logits = np.array([0.0, 0.2, 0.9])
    new = header("clean", "rain", "holes", added=("holes",))
    chance = decide(logits, new, threshold=0).probabilities["holes"]
    assert decide(logits, new, threshold=chance).weights["holes"] == 1
    assert decide(logits, new, threshold=above(chance)).probabilities["holes"] == 0


def test_an_expert_that_reaches_the_floor_exactly_is_chosen():
    chances = np.array([0.75, 0.5, 0.25])
    np.testing.assert_array_equal(expert_weights(chances, 3, 0.5), [0.6, 0.4, 0])
    np.testing.assert_array_equal(expert_weights(chances, 3, above(0.5)), [1, 0, 0])
    several = header("rain", "snow", "haze", mode="multi")
    logits = np.array([2.0, 1.0, -3.0])
    least = decide(logits, several).probabilities["snow"]
    assert decide(logits, several, k=2, threshold=least).weights["snow"] > 0
    assert decide(logits, several, k=2, threshold=above(least)).weights["snow"] == 0


@pytest.mark.parametrize(("chance", "close"), [(0.25, True), (float(np.nextafter(0.25, 0)), False)])
def test_a_second_class_of_exactly_a_quarter_is_close(monkeypatch, chance, close):
    seen = what_is_seen({"rain": 0.6, "snow": chance, "haze": 0.1}, "single")
    assert seen == ("rain (60 %) rather than snow (25 %)" if close else "rain (60 %)")
    facts = header("clean", "noise").model_copy(update={"experts": {"noise": None}})
    suggested = deciding._suggested({"clean": 1 - chance, "noise": chance}, facts)
    assert suggested == ("noise" if close else None)


@pytest.mark.parametrize(
    ("chance", "said"),
    [(0.1, " or snow (10 %)"), (float(np.nextafter(0.1, 0)), ", less than 50 %")],
)
def test_a_second_class_of_exactly_a_tenth_is_worth_naming(chance, said):
    found = unsure({"rain": 0.4, "snow": chance}, 0.5)
    assert found == f"unsure: rain (40 %){said}, so the base works alone"


def test_calibration_bins_hold_their_lower_edge():
    # Of two bins, one half lies in the upper: with 0.9 there, gaps of -0.5 and +0.9 are one.
    chances = np.array([[0.5, 0.5], [0.1, 0.9]])
    labels = np.array([0, 0])
    assert expected_calibration_error(chances, labels, bins=2) == pytest.approx(0.4 / 2)


def _several(threshold):
    known = {"classes": {"rain": None, "snow": None}, "mode": "multi", "threshold": threshold}
    return RouterRecipe.model_construct(**known)


def test_scores_count_what_reaches_the_threshold_exactly():
    logits, truths = np.array([[2.0, -1.0], [0.5, 1.5], [-2.0, 3.0]]), np.ones((3, 2))
    truths[0, 1] = truths[2, 0] = 0
    facts, temperature = scores_of(_several(0.5), logits, truths)
    least = float(probabilities(logits, "multi", temperature)[1, 0])
    for threshold, right in ((least, 1.0), (above(least), 2 / 3)):
        facts, _ = scores_of(_several(threshold), logits, truths)
        assert facts["validation"]["all_right"] == pytest.approx(right)


def test_photographs_are_judged_by_what_reaches_the_threshold_exactly():
    logits = np.array([[0.2, 1.3], [3.0, 0.1]])
    chance = float(probabilities(logits, "single", 1.5)[0].max())
    kinds = [("noise",), ()]
    for threshold, result in ((chance, "right"), (above(chance), "none")):
        recipe = PhotographicRecipe.model_construct(
            classes={"clean": None, "noise": None}, threshold=threshold
        )
        found = judged_photographs(recipe, logits, kinds, 1.5)
        assert found["noise"] == {"right": 0, "another": 0, "none": 0, result: 1}


def test_of_what_is_clean_exactly_at_the_threshold_nothing_is_suggested():
    several = header("clean", "noise", mode="multi")
    several = several.model_copy(update={"experts": {"noise": None}})
    logits = np.array([0.5, -0.4])
    least = decide(logits, several).probabilities["clean"]
    found = decide(logits, several, threshold=least)
    assert (found.abstained, found.suggested) == (True, None)
    assert decide(logits, several, threshold=above(least)).suggested == "noise"
