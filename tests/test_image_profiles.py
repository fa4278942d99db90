"""Profiles of primaries and curves mean what LittleCMS says, and nothing is lost on the way."""

import struct

import numpy as np
import pytest
import pyvips
from test_image_round_trip import (
    gamma_curve,
    load,
    make_profile,
    profile_of,
    samples,
    store,
    xyz_tag,
)

from urushi.image import read_picture, write_picture
from urushi.image.colour.conversion import ProfiledColours
from urushi.image.colour.curves import read_curve
from urushi.image.colour.profiles import matrix_colours


def parametric(kind: int, *values: float) -> bytes:
    numbers = (round(value * 65536) for value in values)
    return struct.pack(f">4sIHH{len(values)}i", b"para", 0, kind, 0, *numbers)


def sampled(values: np.ndarray) -> bytes:
    return (
        struct.pack(">4sII", b"curv", 0, values.size)
        + np.rint(values * 65535).astype(">u2").tobytes()
    )


def space(primaries, *curves: bytes, **more: bytes) -> bytes:
    red, green, blue = curves * (3 // len(curves))
    columns = [xyz_tag(*column) for column in primaries]
    tags = {
        b"desc": b"desc\0\0\0\0\0\0\0\2S\0" + b"\0" * 78,
        b"wtpt": xyz_tag(0.9642, 1.0, 0.8249),
        **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)),
        **dict(zip((b"rTRC", b"gTRC", b"bTRC"), (red, green, blue), strict=True)),
        **{name.encode(): value for name, value in more.items()},
    }
    return make_profile(b"RGB ", tags)


P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
REC2020 = ((0.67346, 0.27904, -0.00194), (0.16566, 0.67535, 0.02998), (0.12505, 0.04561, 0.79686))
GRID = np.linspace(0, 1, 1024)
SRGB_CURVE = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
SPACES = {
    "p3": profile_of("p3"),
    "adobe": profile_of("adobe"),
    "prophoto": space(PROPHOTO, parametric(3, 1.8, 1, 0, 1 / 16, 1 / 32)),
    "prophoto-gamma": space(PROPHOTO, parametric(0, 1.8)),
    "rec2020": space(
        REC2020, parametric(3, 1 / 0.45, 1 / 1.0993, 0.0993 / 1.0993, 1 / 4.5, 0.08145)
    ),
    "kind-1": space(P3, parametric(1, 2.2, 0.9, 0.1)),
    "kind-2": space(P3, parametric(2, 2.2, 0.9, 0.1, 0.0)),
    "kind-4": space(P3, parametric(4, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0, 0)),
    "camera": space(P3, sampled(0.9 * GRID**2.4 + 0.1 * GRID), gamma_curve(2.2), SRGB_CURVE),
    "flat-toe": space(P3, sampled(np.clip(GRID * 1.02 - 0.02, 0, 1) ** 2.2)),
    "linear": space(REC2020, struct.pack(">4sII", b"curv", 0, 0)),
}


@pytest.mark.parametrize("name", SPACES)
def test_it_means_what_littlecms_says(name):
    """Compared on the way out, where LittleCMS computes and does not interpolate from a grid."""
    colours = matrix_colours(SPACES[name])
    assert colours is not None
    pixels = np.random.default_rng(0).random((40, 50, 3), dtype=np.float32) * 0.95 + np.float32(
        0.04
    )
    found = colours.from_working(pixels)
    shared = ((found >= 0) & (found <= 1)).all(axis=-1)
    assert shared.mean() > 0.9
    expected = ProfiledColours("rgb", SPACES[name]).from_working(pixels)
    assert np.abs(found - expected)[shared].max() < 1e-3
    # A curve that does not begin at black leaves the darkest colours out.
    reached = (found > 0).all(axis=-1)
    np.testing.assert_allclose(colours.to_working(found)[reached], pixels[reached], atol=2e-4)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", SPACES)
def test_unchanged_picture_is_equal(tmp_path, name, bits):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    # Dark channels beside bright ones, where rounding weighs most.
    values = samples("rgb", bits, False, size=(60, 60))
    values[::2, :, 0] //= 64
    values[:, ::3, 2] //= 200
    store(source, values, "rgb", SPACES[name])
    write_picture(target, read_picture(source), like=source)
    np.testing.assert_array_equal(load(target), values)


@pytest.mark.parametrize("name", ["p3", "adobe", "prophoto", "rec2020"])
def test_every_corner_of_a_wide_gamut_comes_back(name):
    """With no source at hand: what leaves the profile's own numbers is only rounding."""
    colours = matrix_colours(SPACES[name])
    assert colours is not None
    corners = np.array(np.meshgrid([0, 255], [0, 255], [0, 255]), np.uint8).reshape(3, 1, 8).T
    pixels = colours.to_working(corners)
    assert pixels.max() > 1.01 or pixels.min() < -0.01
    np.testing.assert_allclose(colours.from_working(pixels) * 255, corners, atol=0.4)


def test_floating_point_is_not_clipped(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    values = samples("rgb", 32, False) * 3 - 1
    store(source, values, "rgb", SPACES["p3"])
    pixels = read_picture(source)
    assert pixels.max() > 1.8
    assert pixels.min() < -0.8
    write_picture(target, pixels, like=source)
    np.testing.assert_allclose(load(target), values, atol=1e-5)


@pytest.mark.parametrize(
    "profile",
    [
        space(P3, SRGB_CURVE, A2B0=b"mft2" + bytes(60)),
        space(P3, parametric(9, 2.2)),
        space(P3, b"curv\0\0\0\0\0\0\xff\xff\0\0"),
        space(P3, sampled(1 - GRID)),
        space(P3[:2] + P3[:1], SRGB_CURVE),
        space(P3, SRGB_CURVE)[:300],
        profile_of("cmyk"),
        profile_of("grey"),
        b"",
    ],
    ids=["tables", "kind", "short", "downhill", "flat", "cut", "cmyk", "grey", "empty"],
)
def test_other_profiles_are_left_to_littlecms(profile):
    assert matrix_colours(profile) is None


def test_profile_with_a_wrong_white_still_reads(tmp_path):
    """Whichever way a strange profile takes, an unchanged picture stays as it is."""
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    strange = space(((1.5, 0.2, 0.1), (0.1, 1.9, 0.0), (0.0, 0.1, 0.3)), gamma_curve(3.9))
    values = samples("rgb", 8, False)
    store(source, values, "rgb", strange)
    write_picture(target, read_picture(source), like=source)
    np.testing.assert_array_equal(load(target), values)
    assert pyvips.Image.new_from_file(str(target)).get("icc-profile-data") == strange


@pytest.mark.parametrize("tag", [SRGB_CURVE, gamma_curve(1.8), sampled(GRID**2.2)])
def test_curves_go_on_beyond_full_intensity_and_back(tag):
    curve = read_curve(tag)
    assert curve is not None
    values = np.linspace(0.01, 4, 400)
    linear = curve.linear(values)
    assert (np.diff(linear) > 0).all()
    np.testing.assert_allclose(curve.encoded(linear), values, rtol=1e-3)
