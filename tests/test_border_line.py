"""A brightened picture has no light line along its border."""

import numpy as np
import pytest

from urushi.inference.border_line import without_border_line


def sky(size=(40, 64), level=1 / 255):
    noise = np.random.default_rng(0).random((3, *size)).astype(np.float32)
    return np.float32(level) * (np.float32(0.8) + np.float32(0.4) * noise)


def framed(brightened, by=0.06):
    """With a lighter line around, as zeros around a network's input lay it."""
    made = brightened.copy()
    for depth, share in enumerate((1, 0.5, 0.2)):
        for line in (
            made[:, depth],
            made[:, -1 - depth],
            made[:, :, depth],
            made[:, :, -1 - depth],
        ):
            line += np.float32(share * by)
    return made


def test_the_line_around_a_black_sky_goes():
    tile = sky()
    made = without_border_line(tile, framed(6 * tile))
    within = made[:, 8:-8, 8:-8].mean()
    for line in (made[:, 0, 8:-8], made[:, -1, 8:-8], made[:, 8:-8, 0], made[:, 8:-8, -1]):
        assert line.mean() == pytest.approx(within, abs=1 / 255)
    np.testing.assert_array_equal(made[:, 5:-5, 5:-5], (6 * tile)[:, 5:-5, 5:-5])


def test_what_stands_at_the_border_stays():
    """A lamp and the edge of a roof are no line of a network."""
    tile = sky()
    tile[:, :3, 20:40] = 0.2
    brightened = np.minimum(4 * tile, 1)
    made = without_border_line(tile, brightened)
    np.testing.assert_array_equal(made[:, :3, 24:36], brightened[:, :3, 24:36])


@pytest.mark.parametrize("size", [(1, 1), (19, 64), (64, 7)])
def test_small_pictures_stay(size):
    tile = sky(size)
    made = 6 * tile
    assert without_border_line(tile, made) is made


def test_a_border_without_a_line_stays_but_for_its_means():
    tile = sky(level=0.02)
    made = without_border_line(tile, 2 * tile)
    assert np.abs(made - 2 * tile).max() < 1.5 / 255
