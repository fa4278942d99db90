"""Colours in a profile's own primaries: two curves as one, and tables for integers."""

import numpy as np
import pytest

from urushi.image.colour.curves import SRGB, read_curve
from urushi.image.colour.profiles import MatrixColours, srgb_decode, srgb_encode

GAMMA = read_curve(b"curv" + bytes(4) + (1).to_bytes(4, "big") + (563).to_bytes(2, "big"))
MATRIX = np.array([[1.2, -0.2, 0.0], [-0.05, 1.05, 0.0], [0.0, -0.1, 1.1]])


def colours(curves):
    assert GAMMA is not None
    known = {"srgb": SRGB, "gamma": GAMMA}
    red, green, blue = (known[name] for name in curves)
    return MatrixColours(MATRIX, (red, green, blue), own=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("curves", [["srgb"] * 3, ["gamma"] * 3, ["srgb", "gamma", "srgb"]])
def test_both_ways_are_what_the_curves_say(curves, dtype):
    own = colours(curves)
    rng = np.random.default_rng(0)
    if dtype == np.float32:
        samples = rng.uniform(-0.2, 1.3, (5, 7, 3)).astype(np.float32)
        values = samples.astype(np.float64)
    else:
        full = np.iinfo(dtype).max
        samples = rng.integers(0, full, (5, 7, 3), dtype=dtype, endpoint=True)
        values = samples / full
    pixels = own.to_working(samples)
    assert pixels.dtype == np.float32
    known = {"srgb": SRGB, "gamma": GAMMA}
    for channel, name in enumerate(curves):
        light = np.sign(values[..., channel]) * known[name].linear(np.abs(values[..., channel]))
        expected = srgb_encode()(light.astype(np.float32))
        np.testing.assert_allclose(pixels[..., channel], expected, atol=3e-6)
    np.testing.assert_allclose(own.from_working(pixels), values, atol=5e-6)
    np.testing.assert_array_equal(own.returned(samples), own.from_working(pixels))


def test_colours_beyond_full_intensity_go_through_the_one_curve():
    own = colours(["gamma"] * 3)
    pixels = np.linspace(-1, 4, 300, dtype=np.float32).reshape(1, -1, 3)
    light = srgb_decode()(pixels).astype(np.float64)
    assert GAMMA is not None
    expected = np.sign(light) * GAMMA.encoded(np.abs(light))
    np.testing.assert_allclose(own.from_working(pixels), expected, rtol=5e-6, atol=1e-6)
