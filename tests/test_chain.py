"""Chains of degradations: orders, PROD, and settings from outside."""

import inspect

import pytest
import torch
from networks import generator

from urushi.degradations import DEGRADATIONS, Chain, create_degradation
from urushi.errors import DegradationError

SHAPE = (64, 3, 24, 32)
STEPS = [
    {"name": "gaussian_noise", "sigma_255": [25, 25]},
    {"name": "gaussian_blur"},
    {"name": "jpeg", "quality": [30, 60]},
    {"name": "rain_streaks"},
]


def drawn(**options):
    chain = create_degradation("chain", steps=STEPS, **options)
    return chain, chain.sample(SHAPE, generator())


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_every_entry_keeps_the_contract(name):
    degradation = create_degradation(name)
    assert degradation.name == name
    assert degradation.reference
    images = torch.rand(3, 3, 24, 32, generator=generator(1))
    parameters = degradation.sample((3, 3, 24, 32), generator())
    result = degradation.apply(images, parameters)
    assert result.min() >= 0
    assert result.max() <= 1
    if result.shape == images.shape:
        assert not torch.equal(result, images)
    else:
        assert name.startswith("downsample")
    again = degradation.apply(images, degradation.sample((3, 3, 24, 32), generator()))
    assert torch.equal(result, again)
    for row in range(3):
        own = {key: value[row : row + 1] for key, value in parameters.items()}
        alone = degradation.apply(images[row : row + 1], own)
        torch.testing.assert_close(alone, result[row : row + 1], atol=1e-5, rtol=0)


def test_random_order_draws_distinct_steps_in_every_order():
    chain, parameters = drawn(order="random", count=[2, 3], clean=0.25)
    order = chain.sample((4000, 3, 8, 8), generator())["order"]
    lengths = (order >= 0).sum(1)
    assert set(lengths.tolist()) == {0, 2, 3}
    assert 0.2 < (lengths == 0).float().mean() < 0.3
    for row in order:
        steps = [int(i) for i in row if i >= 0]
        assert len(set(steps)) == len(steps)
    pairs = {(int(a), int(b)) for a, b in order[:, :2] if a >= 0}
    assert len(pairs) == 12
    assert set(parameters) >= {"order", "0.sigma_255", "2.quality"}


def test_weights_decide_how_often_a_step_is_drawn_and_not_where_it_comes():
    steps = [{"name": "jpeg", "weight": 6}, {"name": "gaussian_blur"}, {"name": "gaussian_noise"}]
    chain = create_degradation("chain", steps=steps, order="random", count=[1, 2])
    order = chain.sample((6000, 3, 8, 8), generator())["order"]
    single = order[(order >= 0).sum(1) == 1][:, 0]
    assert 0.70 < (single == 0).float().mean() < 0.80
    double = order[((order >= 0).sum(1) == 2) & (order == 0).any(1)]
    assert 0.45 < (double[:, 0] == 0).float().mean() < 0.55


def test_fixed_and_single_order():
    _, parameters = drawn(order="fixed")
    assert torch.equal(parameters["order"], torch.arange(4).expand(64, 4))
    _, parameters = drawn(order="single")
    assert ((parameters["order"] >= 0).sum(1) == 1).all()
    halves = [{**step, "weight": 0.5} for step in STEPS]
    chain = create_degradation("chain", steps=halves, order="fixed")
    order = chain.sample((3000, 3, 8, 8), generator())["order"]
    kept = order >= 0
    assert 1.9 < kept.sum(1).float().mean() < 2.1
    for row in order[:200]:
        steps = [int(i) for i in row if i >= 0]
        assert steps == sorted(steps)


def test_steps_are_applied_in_the_drawn_order():
    chain, parameters = drawn(order="fixed")
    images = torch.rand(SHAPE, generator=generator(2))
    expected = images
    for index, step in enumerate(chain.steps):
        own = {k[2:]: v for k, v in parameters.items() if k.startswith(f"{index}.")}
        expected = step.apply(expected, own)
    torch.testing.assert_close(chain.apply(images, parameters), expected, atol=1e-5, rtol=0)


def test_one_row_makes_its_picture_again_and_clean_ones_stay():
    chain, parameters = drawn(order="random", clean=0.3)
    images = torch.rand(SHAPE, generator=generator(2))
    before = images.clone()
    result = chain.apply(images, parameters)
    assert torch.equal(images, before)
    untouched = (parameters["order"] < 0).all(1)
    assert 0 < untouched.sum() < 64
    assert torch.equal(result[untouched], images[untouched])
    row = {key: value[5:6] for key, value in parameters.items()}
    torch.testing.assert_close(chain.apply(images[5:6], row), result[5:6], atol=1e-5, rtol=0)


def test_chains_nest():
    inner = {"name": "chain", "order": "single", "steps": STEPS[:2]}
    chain = create_degradation("chain", steps=[inner, STEPS[2]], order="random")
    assert isinstance(chain, Chain)
    images = torch.rand(8, 3, 24, 32, generator=generator(2))
    result = chain.apply(images, chain.sample((8, 3, 24, 32), generator()))
    assert result.shape == images.shape


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gausian_noise", {}, "did you mean 'gaussian_noise'"),
        ("nothing like it", {}, "known are gaussian_noise"),
        ("gaussian_noise", {"sigma": 3}, r"no option 'sigma' \(did you mean 'sigma_255'"),
        ("gaussian_noise", {"sigma_255": [30, 20]}, "sigma_255"),
        ("chain", {"steps": []}, "no steps"),
        ("chain", {"steps": ["jpeg"]}, "expected a mapping"),
        ("chain", {"steps": STEPS, "order": "rnadom"}, "fixed, single or random"),
        ("chain", {"steps": STEPS, "count": [0, 2]}, "from 1 to 4"),
        ("chain", {"steps": STEPS, "order": "single", "count": [1, 2]}, "no effect"),
        ("chain", {"steps": STEPS, "clean": 1.5}, "share"),
        ("chain", {"steps": [{"name": "jpeg", "weight": -1}]}, "not negative"),
        ("chain", {"steps": [{"name": "jpeg", "weight": "x"}]}, "a number"),
        ("chain", {"steps": [{"name": "jpeg", "weight": 2}], "order": "fixed"}, "probabilities"),
        ("chain", {"steps": STEPS, "weights": [1, 1, 1, 1]}, "no option 'weights'"),
    ],
)
def test_wrong_settings_are_told(name, options, words):
    with pytest.raises(DegradationError, match=words):
        create_degradation(name, **options)


@pytest.mark.parametrize("name", [*DEGRADATIONS, "chain"])
def test_values_of_any_type_are_told(name):
    """Options come from files and command lines: none may end in a traceback."""
    odd = [5, "a", ["a", "b"], None, True, [1, 2, 3], [float("nan"), 1], {"x": 1}, [], -1e9]
    built = Chain if name == "chain" else DEGRADATIONS[name]
    told = []
    for option in inspect.signature(built).parameters:
        for value in odd:
            try:
                create_degradation(name, **{option: value})
            except DegradationError as error:
                told.append(str(error))
    assert len(told) > 5
    assert all("\n" not in sentence for sentence in told)
