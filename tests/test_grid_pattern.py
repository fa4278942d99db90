"""The grid that a network's upsampling leaves is taken out, and nothing else."""

import numpy as np
import pytest

from urushi.inference.grid_pattern import without_grid

CELL = 8


def smooth(height=96, width=136):
    """A sky: brighter towards the horizon, a little noise."""
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    sky = 0.2 + 0.2 * rows / height + 0.05 * np.sin(columns / 40)
    noise = np.random.default_rng(1).normal(0, 0.5 / 255, (3, height, width))
    return np.float32(sky + noise)


def grid(height=96, width=136, size=3 / 255):
    cell = np.random.default_rng(2).uniform(-1, 1, (3, CELL, CELL))
    return np.float32(size * np.tile(cell, (1, height // CELL + 1, width // CELL + 1)))[
        :, :height, :width
    ]


def off_by(one, other):
    return float(np.sqrt(np.mean(np.square(one - other))))


@pytest.mark.parametrize("sides", [(96, 136), (97, 143), (24, 24)])
def test_a_grid_over_smooth_ground_goes(sides):
    height, width = (side // CELL * CELL for side in sides)
    before = smooth(*sides)
    wanted = 1.5 * before
    mended = without_grid(before, wanted + grid(*sides), CELL)
    inside = (slice(None), slice(0, height), slice(0, width))
    assert off_by(mended[inside], wanted[inside]) < 0.3 * off_by(grid(*sides), 0)
    # The mean of a neighbourhood is none of its business.
    np.testing.assert_allclose(mended.mean((1, 2)), (wanted + grid(*sides)).mean((1, 2)), atol=1e-3)


def grain(height=160, width=240):
    """Of a dark sky made bright: strong, and little of it from one pixel to the next."""
    noise = np.random.default_rng(4).normal(0, 1, (3, height + 4, width + 4))
    smoothed = sum(noise[:, y : y + height, x : x + width] for y in range(5) for x in range(5))
    return np.float32(smoothed * 0.7 / 255)


@pytest.mark.parametrize("period", [2, 4])
def test_a_weave_goes_that_is_fainter_than_the_grain(period):
    weave = np.float32(0.6 / 255) * np.cos(2 * np.pi * np.arange(240) / period, dtype=np.float32)
    before = np.full((3, 160, 240), 0.01, np.float32)
    wanted = before + 0.15 + grain()
    mended = without_grid(before, wanted + weave, CELL)
    left = (mended - wanted).mean((0, 1)) @ weave / (weave @ weave)
    assert abs(left) < 0.3
    # Of the grain itself nearly all stays.
    assert off_by(mended, wanted) < 0.15 * off_by(grain(), 0)


@pytest.mark.parametrize("size", [5, 9])
def test_on_a_bright_thing_in_the_dark_its_own_grid_goes(size):
    before = smooth(160, 240)
    wanted = np.float32(0.8) * before
    wanted[:, 64:120, 80:144] += np.float32(0.65)
    made = wanted + grid(160, 240, size=0.5 / 255)
    cell = np.random.default_rng(3).uniform(-1, 1, (3, CELL, CELL)).astype(np.float32)
    other = np.float32(size / 255) * np.tile(cell, (1, 7, 8))
    made[:, 64:120, 80:144] = wanted[:, 64:120, 80:144] + other
    mended = without_grid(before, made, CELL)
    inside = np.s_[:, 72:112, 88:136]
    assert off_by(mended[inside], wanted[inside]) < 0.4 * off_by(other, 0)
    # And none of it is taken from what is around.
    assert off_by(mended[:, :, :60], wanted[:, :, :60]) < 0.2 / 255


def test_a_single_bright_cell_has_no_pattern():
    before = smooth()
    wanted = np.float32(1.2) * before
    lamp = 0.9 + 0.04 * np.random.default_rng(6).uniform(-1, 1, (3, CELL, CELL))
    wanted[:, 40:48, 40:48] = lamp
    mended = without_grid(before, wanted, CELL)
    np.testing.assert_allclose(mended[:, 40:48, 40:48], wanted[:, 40:48, 40:48], atol=1 / 255)


def test_edges_around_a_wall_do_not_hide_it():
    before = smooth()
    before[:, :, ::34] += np.float32(0.4)
    before[:, :, 1::34] += np.float32(0.4)
    wanted = 1.5 * before
    mended = without_grid(before, wanted + grid(size=1.5 / 255), CELL)
    assert off_by(mended[:, :, 8:24], wanted[:, :, 8:24]) < 0.5 * off_by(grid(size=1.5 / 255), 0)


def test_edges_do_not_hide_it_and_stay():
    before = smooth()
    before[:, 40:] += np.float32(0.4)
    wanted = 1.5 * before
    mended = without_grid(before, wanted + grid(), CELL)
    assert off_by(mended, wanted) < 0.4 * off_by(grid(), 0)
    step = mended[:, 41].mean() - mended[:, 38].mean()
    np.testing.assert_allclose(step, wanted[:, 41].mean() - wanted[:, 38].mean(), atol=3 / 255)


def test_a_change_without_a_grid_stays_as_it_is():
    scene = np.random.default_rng(5).random((3, 96, 136)).astype(np.float32)
    mended = without_grid(scene, np.float32(0.8) * scene + np.float32(0.1), CELL)
    assert off_by(mended, np.float32(0.8) * scene + np.float32(0.1)) < 0.3 / 255


@pytest.mark.parametrize("strength", [0.0, 1.7])
def test_what_the_picture_itself_repeats_is_not_the_networks(strength):
    # Blinds, and a sensor that reads its columns unevenly: made stronger, or taken away.
    before = smooth() + grid(size=5 / 255)
    wanted = smooth() * np.float32(1.5) + np.float32(strength) * grid(size=5 / 255)
    mended = without_grid(before, wanted, CELL)
    assert off_by(mended, wanted) < 0.3 / 255


@pytest.mark.parametrize(
    ("sides", "cell"), [((96, 136), 1), ((96, 136), 2), ((23, 136), 8), ((7, 5), 8), ((96, 96), 64)]
)
def test_where_nothing_can_be_told_nothing_is_done(sides, cell):
    before = smooth(*sides)
    made = before + np.float32(0.1)
    assert without_grid(before, made, cell) is made
