"""Strength: exact at both ends, lightness and colour apart, whatever way a picture takes."""

import numpy as np
import pytest
from commands import run
from hypothesis import given
from hypothesis import strategies as st
from pictures import picture
from PIL import Image
from world import write_tiny_model

import urushi
from urushi.errors import EngineError
from urushi.image import read_picture, write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.restorer import Restorer
from urushi.inference.strength import FULL, Strength, as_strength, blended, weakened

LUMA = np.array([0.2126, 0.7152, 0.0722])
SHARE = st.floats(0, 1, width=16)


@pytest.fixture(scope="module")
def restorer(tmp_path_factory):
    model = write_tiny_model(tmp_path_factory.mktemp("strength") / "tiny.safetensors")
    return Restorer(model, engine="torch", threads=1)


@pytest.fixture
def before():
    return picture()


def test_at_1_it_is_the_restorer_itself(restorer):
    assert weakened(restorer, FULL) is restorer


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.uint8])
def test_at_0_samples_are_those_of_the_picture(restorer, before, dtype):
    whole = before if dtype == np.float32 else np.rint(before * np.iinfo(dtype).max).astype(dtype)
    assert np.array_equal(weakened(restorer, Strength(0)).restore(whole), whole)
    assert np.array_equal(weakened(restorer, Strength(1, 0, 0)).restore(whole), whole)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_between_it_is_a_blend(restorer, before, share):
    after = restorer.restore(before)
    assert abs(after - before).max() > 1e-3
    made = weakened(restorer, Strength(share)).restore(before)
    assert np.allclose(made, before + share * (after - before), atol=1e-6)


def test_lightness_and_colour_are_apart(restorer, before):
    after = restorer.restore(before)
    grey = weakened(restorer, Strength(chroma=0)).restore(before)
    change = grey - before
    assert np.ptp(change, axis=2).max() < 1e-5
    inside = (grey > 0.02) & (grey < 0.98)
    assert np.allclose((change @ LUMA)[inside.all(2)], ((after - before) @ LUMA)[inside.all(2)],
                       atol=1e-5)  # fmt: skip
    colour = weakened(restorer, Strength(luma=0)).restore(before)
    kept = ((colour > 0.02) & (colour < 0.98)).all(2)
    assert abs((colour - before) @ LUMA)[kept].max() < 1e-5


@given(overall=SHARE, luma=SHARE, chroma=SHARE, seed=st.integers(0, 2**16))
def test_no_blend_leaves_the_values_there_are(overall, luma, chroma, seed):
    random = np.random.default_rng(seed)
    one, other = (random.random((3, 4, 3), np.float32) for _ in range(2))
    made = blended(one, other, Strength(overall, luma, chroma))
    assert made.min() >= 0
    assert made.max() <= 1


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan")])
@pytest.mark.parametrize("name", ["overall", "luma", "chroma"])
def test_other_numbers_are_refused(name, value):
    with pytest.raises(EngineError, match="expected a number from 0"):
        Strength(**{name: value})


def test_progress_and_notes_come_through(restorer, before):
    seen = []
    weakened(restorer, Strength(0.5)).restore(before, lambda done, total: seen.append(done / total))
    assert seen[-1] == 1
    none = weakened(restorer, Strength(0))
    seen.clear()
    none.restore(before, lambda done, total: seen.append(done / total))
    assert seen[-1] == 1
    assert none.notes == []
    assert weakened(restorer, Strength(0.5)).describe()["strength"]["strength"] == 0.5


def test_what_chooses_has_a_strength_too(before):
    auto = AutoRestorer(task="noise", threads=1)
    after = auto.restore(before)
    auto.strength = Strength(0.5)
    assert np.allclose(auto.restore(before), (before + after) / 2, atol=1e-6)
    auto.strength = Strength(0)
    assert np.array_equal(auto.restore(before), before)
    auto.strength = FULL
    assert np.array_equal(auto.restore(before), after)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_the_command_gives_back_what_it_was_given_at_0(tmp_path, suffix):
    source = tmp_path / f"a{suffix}"
    write_picture(source, picture())
    made = tmp_path / f"b{suffix}"
    result = run("restore", source, "-o", made, "--task", "noise", "--strength", "0")
    assert result.exit_code == 0, result.output
    one, other = (np.asarray(Image.open(path)) for path in (source, made))
    assert np.array_equal(one, other)


def test_the_command_blends(tmp_path):
    source = tmp_path / "a.png"
    write_picture(source, picture())
    made = {}
    for share in ("0.5", "1"):
        path = tmp_path / f"{share}.png"
        options = ("--task", "noise", "--strength", share)
        assert run("restore", source, "-o", path, *options).exit_code == 0
        made[share] = read_picture(path)
    plain = tmp_path / "plain.png"
    assert run("restore", source, "-o", plain, "--task", "noise").exit_code == 0
    assert plain.read_bytes() == (tmp_path / "1.png").read_bytes()
    middle = (read_picture(source) + made["1"]) / 2
    assert abs(made["0.5"] - middle).max() <= 1.01 / 255
    assert run("restore", source, "-o", plain, "--strength", "2").exit_code == 2


def test_a_plain_number_is_a_strength():
    assert as_strength(0.25) == Strength(0.25)
    assert as_strength(Strength(0.5, 1, 0)) == Strength(0.5, 1, 0)
    pixels = picture(24, 32).astype(np.float32)
    np.testing.assert_array_equal(urushi.restore(pixels, strength=0), pixels)
    for wrong in (-1, 2.0, float("nan"), True):
        with pytest.raises(EngineError, match=r"strength is .*: expected a number from 0"):
            urushi.restore(pixels, strength=wrong)
