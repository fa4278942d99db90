"""Pairs that do not lie on each other: found, and put right."""

import numpy as np
import pytest
import torch

from urushi.data.align import Shift, aligned, estimate_shift
from urushi.degradations import create_degradation


def scene(seed=0, side=160):
    """Blocks of several sizes, as uint8."""
    rng = np.random.default_rng(seed)
    layers = [
        np.kron(rng.random((side // cell + 1, side // cell + 1, 3)), np.ones((cell, cell, 1)))
        for cell in (40, 16, 6)
    ]
    return (255 * sum(layer[:side, :side] for layer in layers) / 3).astype(np.uint8)


def degraded(picture, name, **options):
    images = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    degradation = create_degradation(name, **options)
    parameters = degradation.sample(tuple(images.shape), torch.Generator().manual_seed(1))
    worse = degradation.apply(images, parameters)[0].permute(1, 2, 0).numpy()
    return np.rint(worse * 255).astype(np.uint8)


KINDS = [
    ("gaussian_noise", {"sigma_255": [50, 50]}),
    ("low_light", {}),
    ("haze", {}),
    ("gaussian_blur", {"sigma": [2, 2]}),
    ("jpeg", {"quality": [10, 10]}),
]


@pytest.mark.parametrize(("name", "options"), KINDS, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -5), (-7, 0)])
def test_shifts_are_found_under_damage(name, options, down, right):
    whole = scene()
    worse = degraded(whole, name, **options)[20:140, 20:140]
    target = whole[20 - down : 140 - down, 20 - right : 140 - right]
    shift = estimate_shift(worse, target)
    assert (shift.down, shift.right) == (down, right)
    assert shift.clear
    assert shift.size == max(abs(down), abs(right))
    one, other = aligned(whole[20:140, 20:140], target, shift)
    assert np.array_equal(one, other)
    assert one.shape == (120 - abs(down), 120 - abs(right), 3)


def test_pictures_of_other_things_do_not_correlate_clearly():
    assert not estimate_shift(scene(1), scene(2)).clear


def test_a_flat_picture_is_no_evidence():
    flat = np.full((64, 64, 3), 90, np.uint8)
    shift = estimate_shift(flat, flat)
    assert isinstance(shift, Shift)
    assert not shift.clear or shift.size == 0
