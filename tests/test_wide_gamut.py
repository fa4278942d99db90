"""Files with colours that sRGB has not: what a network leaves alone comes back, noise does not."""

import numpy as np
import pytest
from networks import DarkenEngine
from test_beyond import NarrowEngine
from test_image_profiles import SPACES
from test_image_round_trip import load, profile_of, store

from urushi.image import open_picture, read_picture
from urushi.image.colour.conversion import profile_colours
from urushi.image.colour.profiles import srgb_decode
from urushi.inference.picture_files import restore_picture
from urushi.inference.restorer import Restorer

RED, GREEN, GREY = (255, 16, 8), (10, 240, 24), (200, 200, 200)
MIDDLES = {(30, 30): RED, (30, 90): GREEN, (8, 60): GREY}


def patches(colours=(GREY, RED, GREEN)):
    picture = np.full((60, 120, len(colours[0])), colours[0], np.uint8)
    picture[15:45, 15:45], picture[15:45, 75:105] = colours[1:]
    return picture


def restored(source, target, engine=None):
    restore_picture(Restorer.from_engine(engine or NarrowEngine()), source, target)
    return load(target).astype(int)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", ["p3", "adobe", "prophoto-gamma", "rec2020", "linear"])
def test_clean_colours_of_wide_spaces_come_back(tmp_path, name, bits):
    factor = 257 if bits == 16 else 1
    store(tmp_path / "in.tif", patches() * np.array(factor, f"u{bits // 8}"), "rgb", SPACES[name])
    assert np.abs(read_picture(tmp_path / "in.tif") - 0.5).max() > 0.55
    result = restored(tmp_path / "in.tif", tmp_path / "out.tif")
    for place, colour in MIDDLES.items():
        assert np.abs(result[place] / factor - colour).max() <= 2, place


def test_linear_light_is_mended_as_the_same_numbers_of_srgb_are(tmp_path):
    """Dark channels too, whose light is a small share: what differs there the network has made."""
    numbers = (patches() / 255).astype(np.float32)
    light = np.rint(srgb_decode()(numbers) * 65535).astype(np.uint16)
    store(tmp_path / "in.tif", light, "rgb", SPACES["linear"])
    result = restored(tmp_path / "in.tif", tmp_path / "out.tif", DarkenEngine())
    mended = Restorer.from_engine(DarkenEngine()).restore(numbers)
    assert np.abs(mended - numbers).max() > 0.1
    expected = srgb_decode()(mended) * 65535
    assert (np.abs(result - expected) <= 2 + 0.002 * expected).all()


@pytest.mark.parametrize("name", ["p3", "adobe", "prophoto"])
def test_what_littlecms_reads_comes_back_too(tmp_path, monkeypatch, request, name):
    """As of a profile of tables, which scanners have."""
    monkeypatch.setattr("urushi.image.colour.conversion.matrix_colours", lambda *_, **__: None)
    profile_colours.cache_clear()
    request.addfinalizer(profile_colours.cache_clear)
    store(tmp_path / "in.png", patches(), "rgb", SPACES[name])
    result = restored(tmp_path / "in.png", tmp_path / "out.png")
    for place, colour in MIDDLES.items():
        assert np.abs(result[place] - colour).max() <= 2, place


@pytest.mark.parametrize("profile", [None, "cmyk"])
@pytest.mark.parametrize("ink", range(4))
def test_full_inks_come_back(tmp_path, profile, ink):
    colours = np.zeros((3, 4), np.uint8)
    colours[1, ink], colours[2, ink], colours[2, (ink + 1) % 4] = 255, 255, 255
    source = tmp_path / "in.tif"
    store(source, patches(tuple(map(tuple, colours))), "cmyk", profile and profile_of(profile))
    result = restored(source, tmp_path / "out.tif")
    for place, colour in zip([(8, 60), (30, 30), (30, 90)], colours, strict=True):
        assert np.abs(result[place] - colour.astype(int)).max() <= 2, place


@pytest.mark.parametrize("name", ["p3", "adobe", "prophoto-gamma", "rec2020", "linear"])
def test_noise_is_taken_from_them(tmp_path, name):
    noise = np.random.default_rng(0).normal(0, 10, (60, 120, 3))
    noisy = np.clip(patches() + noise, 0, 255)
    if name == "linear":
        noisy = np.clip(patches() + noise / 4, 0, 255)
    store(tmp_path / "in.png", np.rint(noisy).astype(np.uint8), "rgb", SPACES[name])
    result = restored(tmp_path / "in.png", tmp_path / "out.png")
    for spot in (np.s_[22:38, 22:38], np.s_[22:38, 82:98]):
        before = np.std(np.rint(noisy)[spot], axis=(0, 1))
        assert (result[spot].std(axis=(0, 1)) < 0.7 * before + 0.5).all()


def test_whoever_looks_sees_srgb(tmp_path):
    """What is mended in primaries of its own is judged by its colours."""
    store(tmp_path / "in.png", patches(), "rgb", SPACES["prophoto"])
    with (
        open_picture(tmp_path / "in.png") as reader,
        open_picture(tmp_path / "in.png", own=True) as own,
    ):
        seen, mended = reader.read(60), own.read(60)
    np.testing.assert_array_equal(seen, read_picture(tmp_path / "in.png"))
    assert seen[30, 30].max() > 1.05
    assert (mended.min() >= -1e-5, mended.max() <= 1 + 1e-5) == (True, True)


def test_hidden_colours_are_continued_in_those_primaries(tmp_path):
    """Red that goes on under full transparency is the same red, whichever the primaries."""
    picture = np.zeros((40, 40, 4), np.uint8)
    picture[:, :20] = (*RED, 255)
    store(tmp_path / "in.png", picture, "rgb", SPACES["p3"])
    with open_picture(tmp_path / "in.png", own=True) as reader:
        rows = reader.read(40)
    np.testing.assert_allclose(rows[20, 25] * 255, RED, atol=2)
    result = restored(tmp_path / "in.png", tmp_path / "out.png")
    np.testing.assert_allclose(result[20, 10], (*RED, 255), atol=2)
    np.testing.assert_array_equal(result[..., 3], picture[..., 3])


def test_a_target_without_inks_gets_the_colours_of_srgb(tmp_path):
    store(tmp_path / "in.tif", patches(((0, 0, 0, 0), (60, 20, 30, 5), (20, 60, 20, 9))), "cmyk")
    result = restored(tmp_path / "in.tif", tmp_path / "out.png")
    expected = read_picture(tmp_path / "in.tif") * 255
    for place in MIDDLES:
        np.testing.assert_allclose(result[place], expected[place], atol=2)
