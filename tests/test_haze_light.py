"""A picture from which haze is taken keeps some of its light."""

import numpy as np
import pytest
from networks import DarkenEngine

from urushi.inference.changed_light import Finish
from urushi.inference.haze_light import with_kept_light
from urushi.inference.restorer import Restorer


def hazy(seed=0, size=(40, 56)):
    """Values from 0.4 to 0.8, as fog leaves them."""
    noise = np.random.default_rng(seed).random((3, *size)).astype(np.float32)
    return np.float32(0.4) + np.float32(0.4) * noise


def light(picture, share):
    return np.quantile(picture.max(axis=0), share, method="lower")


def test_what_stays_bright_enough_is_taken_as_it_came():
    tile = hazy()
    restored = (tile - np.float32(0.38)) * np.float32(1.9)
    made = with_kept_light(tile, restored)
    assert made is restored


def test_a_road_in_fog_does_not_become_a_road_at_night():
    tile = hazy()
    night = np.float32(0.3) * (tile - np.float32(0.35))
    made = with_kept_light(tile, night)
    assert light(made, 0.99) == pytest.approx(0.85 * light(tile, 0.99), abs=0.02)
    assert light(made, 0.5) > 0.45 * light(tile, 0.5)
    assert made.max() <= 1
    # What was brighter stays brighter.
    order = np.argsort(night.max(axis=0), axis=None)
    assert (np.diff(made.max(axis=0).ravel()[order]) > -1e-6).all()


def test_dark_ground_below_a_bright_sky_keeps_a_rest_of_its_haze():
    tile = hazy()
    tile[:, :8] = 0.95
    restored = tile.copy()
    restored[:, 8:] *= np.float32(0.2)
    made = with_kept_light(tile, restored)
    assert light(made, 0.5) == pytest.approx(0.45 * light(tile, 0.5), abs=0.01)
    np.testing.assert_allclose(made[:, :8], 0.95, atol=1e-6)
    assert (made[:, 8:] < tile[:, 8:]).all()


def test_what_was_black_below_its_haze_becomes_black():
    """A man in black before a bright wall: most of the picture truly is dark."""
    tile = hazy()
    tile[:, :12] = 0.9
    restored = tile.copy()
    restored[:, 12:] = np.float32(0.05) * (tile[:, 12:] - np.float32(0.35))
    assert light(restored, 0.5) < 0.04
    np.testing.assert_array_equal(with_kept_light(tile, restored), restored)


def test_colours_and_lights_beyond_white_stay():
    tile = hazy()
    tile[:, 0, 0] = 3
    night = np.float32([0.1, 0.2, 0.3])[:, None, None] * np.ones_like(tile)
    night[:, 0, 0] = 3
    made = with_kept_light(tile, night)
    np.testing.assert_allclose(made[:, 0, 0], 3, atol=1e-5)
    assert made[2, 5, 5] > night[2, 5, 5]
    black = with_kept_light(tile, np.zeros_like(tile))
    assert np.isfinite(black).all()


@pytest.mark.parametrize("whole", [True, False])
def test_a_restorer_keeps_light_where_a_tile_is_the_picture(whole):
    """Of an engine that halves all values."""
    restorer = Restorer.from_engine(DarkenEngine())
    restorer._tiles.finish = Finish(8, 0, bright=False, whole=whole)
    picture = hazy().transpose(1, 2, 0)
    made = restorer.restore(np.ascontiguousarray(picture))
    darker = restorer.engine.run(picture.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)
    assert (
        light(made.transpose(2, 0, 1), 0.99) > 1.2 * light(darker.transpose(2, 0, 1), 0.99)
    ) == whole
