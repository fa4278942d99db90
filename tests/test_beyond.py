"""Colours that sRGB has not, and lights brighter than white, through the restorer."""

import numpy as np
import pytest
from test_restorer import LocalEngine

from urushi.inference import beyond
from urushi.inference.beyond import mend_beyond
from urushi.inference.restorer import Restorer

FIELDS = {
    "p3-red": (1.09, -0.23, -0.15),
    "bt2020-green": (-0.5, 0.95, -0.3),
    "bright": (1.6, 1.6, 1.6),
    "lamp": (4.0, 4.0, 4.0),
    "below-black": (-0.05, -0.05, -0.05),
    "all-at-once": (4.0, 1.6, -0.05),
}


class NarrowEngine(LocalEngine):
    """Averages over squares of 9 pixels, and knows nothing outside [0, 1]."""

    def __init__(self, scale=1):
        super().__init__()
        self.scale = scale

    def run(self, batch):
        batch = np.pad(np.clip(batch, 0, 1), ((0, 0), (0, 0), (4, 4), (4, 4)), mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(batch, (9, 9), axis=(2, 3))
        result = windows.mean(axis=(4, 5)).astype(np.float32)
        return result.repeat(self.scale, axis=2).repeat(self.scale, axis=3)


def field(colour, noise=0.0):
    picture = np.full((96, 128, 3), 0.5, np.float32)
    picture[24:72, 32:96] = colour
    spread = np.random.default_rng(0).normal(0, noise, picture.shape)
    return picture + spread.astype(np.float32)


@pytest.mark.parametrize("name", FIELDS)
def test_a_clean_field_comes_back(name):
    picture = field(FIELDS[name])
    result = Restorer.from_engine(NarrowEngine(), tile=64, overlap=16).restore(picture)
    np.testing.assert_allclose(result[36:60, 44:84], picture[36:60, 44:84], atol=2 / 255)
    np.testing.assert_allclose(result[:16], picture[:16], atol=1e-3)


@pytest.mark.parametrize("name", ["p3-red", "bright", "lamp"])
def test_noise_out_there_is_taken_away(name):
    picture, noisy = field(FIELDS[name]), field(FIELDS[name], 0.05)
    result = Restorer.from_engine(NarrowEngine()).restore(noisy)
    inside = np.s_[36:60, 44:84]
    before, after = ((p - picture)[inside].std() for p in (noisy, result))
    assert after < before / 2
    assert np.abs((result - picture)[inside].mean(axis=(0, 1))).max() < 0.03


def test_noise_on_black_and_white_is_no_field_of_its_own():
    """A tile that leaves [0, 1] by noise alone is seen once."""
    engine = LocalEngine()
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 64, 64)).astype(np.float32)
    for level in (0.0, 1.0):
        mend_beyond(noise + np.float32(level), lambda tile: engine.run(tile[None])[0])
    assert len(engine.shapes) == 2


def test_what_is_enlarged_may_lie_beyond_as_well():
    picture = field(FIELDS["p3-red"])
    picture[:8, :8] = 7.5
    result = Restorer.from_engine(NarrowEngine(2)).restore(picture)
    expected = picture.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(result[80:110, 100:150], expected[80:110, 100:150], atol=2 / 255)


@pytest.mark.parametrize(
    ("engine", "precision"), [("openvino", "float32"), ("openvino", "int8"), ("torch", "float32")]
)
def test_the_base_brings_them_back_on_every_engine(engine, precision):
    pytest.importorskip(engine)
    restorer = Restorer(engine=engine, precision=precision)
    for name in ("p3-red", "lamp", "below-black"):
        picture = field(FIELDS[name])
        result = restorer.restore(picture)
        error = np.abs(result - picture)[40:56, 48:80].max()
        assert error < 0.02 * max(1.0, *FIELDS[name]), name


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (6.0, 1.0),
        (8.0, 1.0),
        (12.0, 1.5),  # the widest window ends at 8
        (30.0, 2.0),  # and shows as much again beyond it
    ],
)
def test_the_window_of_bright_fields_is_no_wider_than_eight(level, shown):
    tile = np.full((3, 40, 50), 0.5, np.float32)
    tile[:, 10:30, 10:40] = level
    greatest = []

    def run(values):
        greatest.append(float(values.max()))
        return values

    np.testing.assert_allclose(mend_beyond(tile, run), tile, rtol=1e-4, atol=1e-4)
    assert greatest[-1] == pytest.approx(shown, rel=1e-5)


def test_the_window_of_dark_fields_is_no_wider_than_one_below_black():
    assert beyond._window(np.array([-3.0, 0.5])) == (-1.0, 1.0)
    assert beyond._window(np.array([-0.5, 9.0])) == (-0.5, 8.0)


@pytest.mark.parametrize("shape", [(40, 33), (9, 20), (16, 15)])
def test_means_are_of_the_square_around_each_pixel(shape):
    """Near an edge, of the square of the same size that ends there."""
    tile = np.random.default_rng(0).random((3, *shape), dtype=np.float32)
    height, width = shape
    found = beyond._means(tile)
    for row, column in ((0, 0), (height // 2, width // 2), (height - 1, width - 1), (3, width - 5)):
        sides = [(row, height), (column, width)]
        first = [min(max(at - min(15, side) // 2, 0), side - min(15, side)) for at, side in sides]
        square = tile[:, first[0] : first[0] + 15, first[1] : first[1] + 15]
        np.testing.assert_allclose(found[:, row, column], square.mean((1, 2)), atol=1e-5)
