"""Pairs that do not lie on each other: found, and put right."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from urushi.data import align
from urushi.data.align import Shift, aligned, estimate_shift
from urushi.degradations import create_degradation
from urushi.image import write_picture
from urushi.training import examples
from urushi.training.examples import pair_examples


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


# --- how certain it is ---


def correlation(**heights):
    """A map with a peak 3 rows down and 5 columns to the left, and further values by their place.

    Args:
        heights: `at_ROW_COLUMN`: what stands there.
    """
    made = np.full((64, 80), 0.5)
    made[3, -5] = 5.0
    for place, height in heights.items():
        _, row, column = place.split("_")
        made[int(row), int(column)] = height
    return made


@pytest.mark.parametrize(
    ("heights", "certainty"),
    [
        ({}, 10.0),
        # Beyond the greatest shift that is looked for, a rival is one all the same.
        ({"at_32_40": 4.0}, 1.25),
        ({"at_32_40": 10.0}, 0.5),
        ({"at_32_40": -20.0}, 10.0),
        ({"at_3_9": 2.5}, 2.0),
        # What lies within 4 pixels is the flank of the same peak, across the map's border as well.
        ({"at_7_79": 4.9, "at_3_71": 4.9, "at_63_71": 4.9}, 10.0),
        ({"at_8_75": 4.0}, 1.25),
        ({"at_3_0": 4.0}, 1.25),
    ],
)
def test_certainty_is_the_peak_relative_to_the_greatest_elsewhere(heights, certainty):
    found = align._peak(correlation(**heights), 16)
    assert (found.down, found.right, found.certainty) == (3, -5, certainty)
    assert found.clear == (certainty >= 1.25)


def test_a_shift_of_exactly_the_least_certainty_is_believed():
    assert Shift(0, 3, 1.25).clear
    assert not Shift(0, 3, float(np.nextafter(1.25, 0))).clear


def test_certainty_falls_with_noise():
    whole = scene()
    target = whole[17:137, 25:145]
    found = [
        estimate_shift(
            degraded(whole, "gaussian_noise", sigma_255=[sigma, sigma])[20:140, 20:140], target
        ).certainty
        for sigma in (1, 20, 80)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 2 * found[2] > 4


# --- what pairs to learn from are done with it ---


def pair_of(index, right=0, other=0):
    """Two parts of 120 pixels of a scene, the second's content further right; or of two scenes."""
    first, second = scene(index), scene(index + other)
    return first[20:140, 20:140], second[20:140, 20 - right : 140 - right]


def write_shifted(folder, right=0, other=0):
    for index in (1, 4, 5):
        parts = pair_of(index, right, other)
        for side, part in zip(("input", "target"), parts, strict=True):
            (folder / side).mkdir(parents=True, exist_ok=True)
            write_picture(folder / side / f"{index}.png", part.astype(np.float32) / 255)
    return folder


def sides_of(found):
    return {found.pack.pair(index)[0].shape[:2] for index in range(len(found.pack))}


@pytest.mark.parametrize(("right", "told"), [(0, False), (1, False), (2, True), (-2, True)])
def test_shifts_of_two_pixels_and_more_are_told(tmp_path, right, told):
    found = pair_examples(write_shifted(tmp_path / "pairs", right=right), tmp_path / "run")
    assert any("shifted against" in note for note in found.notes) == told
    assert sides_of(found) == {(120, 120)}


@pytest.mark.parametrize(("right", "width"), [(0, 120), (1, 119), (-4, 116)])
def test_every_shift_is_put_right_where_that_is_asked_for(tmp_path, right, width):
    folder = write_shifted(tmp_path / "pairs", right=right)
    found = pair_examples(folder, tmp_path / "run", align=True)
    assert any("cut to what both show" in note for note in found.notes) == (right != 0)
    assert sides_of(found) == {(120, width)}
    for index in range(len(found.pack)):
        assert np.array_equal(*found.pack.pair(index))


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize(
    ("certainty", "told"), [(1.25, True), (float(np.nextafter(1.25, 0)), False), (0.6, False)]
)
def test_a_shift_that_is_no_more_than_a_guess_is_neither_told_nor_cut(
    tmp_path, monkeypatch, ask, certainty, told
):
    guess = replace(Shift(0, 7, 1.0), certainty=certainty)
    monkeypatch.setattr(examples, "estimate_shift", lambda *_pictures: guess)
    found = pair_examples(write_shifted(tmp_path / "pairs"), tmp_path / "run", align=ask)
    assert bool(found.notes) == told
    assert sides_of(found) == {(120, 113 if ask and told else 120)}


def test_pairs_of_different_scenes_are_not_cut(tmp_path):
    # By chance some place correlates best, far from 0, but no better than others.
    folder = write_shifted(tmp_path / "pairs", other=40)
    shifts = [estimate_shift(*pair_of(index, other=40)) for index in (1, 4, 5)]
    assert all(shift.size > 2 and shift.certainty < 1 for shift in shifts)
    found = pair_examples(folder, tmp_path / "run", align=True)
    assert found.notes == ()
    assert sides_of(found) == {(120, 120)}
