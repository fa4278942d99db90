"""Which sample value is white, and whether samples are linear light."""

import json
import struct

import numpy as np
import pytest
from commands import run
from networks import DarkenEngine
from pictures import light_of
from test_image_round_trip import load, profile_of, store

from urushi.data.check import check_folder
from urushi.errors import PictureError, UnreadableError
from urushi.image import Samples, open_picture, read_picture
from urushi.inference.picture_files import FileOptions, restore_picture
from urushi.inference.restorer import Restorer


class SameEngine(DarkenEngine):
    def run(self, batch):
        return batch.copy()


def restorer():
    return Restorer.from_engine(SameEngine())


def scene(bands=3, size=(40, 60)):
    """Smooth and coloured, from a little above 0 to 1."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    planes = [0.02 + 0.9 * x / size[1], 0.05 + 0.9 * y / size[0], 0.1 + 0.4 * (x + y) / sum(size)]
    return np.stack(planes[:bands], axis=-1).astype(np.float32)


def tagged(path, values, *tags):
    """A grey TIFF of 16 bits, written by hand: (number, type, packed value) are added to it."""
    height, width = values.shape
    data = values.astype("<u2").tobytes()
    short, long = (lambda v: struct.pack("<HH", v, 0)), (lambda v: struct.pack("<I", v))
    entries = [
        (256, 4, long(width)), (257, 4, long(height)), (258, 3, short(16)), (259, 3, short(1)),
        (262, 3, short(1)), (273, 4, long(8)), (277, 3, short(1)), (278, 4, long(height)),
        (279, 4, long(len(data))), *tags,
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHI", number, kind, 1) + value for number, kind, value in sorted(entries)
    )
    path.write_bytes(b"II*\0" + long(8 + len(data)) + data + directory + bytes(4))


# Floating point.


def test_floating_point_without_a_profile_is_light_and_says_so(tmp_path):
    values = scene()
    store(tmp_path / "in.tif", light_of(values).astype(np.float32), "rgb")
    with open_picture(tmp_path / "in.tif") as reader:
        np.testing.assert_allclose(reader.read(99), values, atol=1e-5)
        assert "linear light" in reader.notes[0]
    assert np.allclose(read_picture(tmp_path / "in.tif", linear=False), light_of(values), atol=1e-6)
    store(tmp_path / "in.tif", values, "rgb", profile_of("srgb"))
    np.testing.assert_allclose(read_picture(tmp_path / "in.tif"), values, atol=1e-5)


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_linear_light_gets_its_curve_and_loses_it(tmp_path, kind):
    values = scene(1 if kind == "grey" else 3)
    light = light_of(values).astype(np.float32)
    # Lamps, and what a filter leaves below black.
    light[:5, :5], light[-5:, -5:] = 4.0, -0.05
    source = tmp_path / "in.tif"
    store(source, light, kind)
    outcome = restore_picture(restorer(), source, tmp_path / "out.tif")
    np.testing.assert_allclose(load(tmp_path / "out.tif"), light, rtol=1e-4, atol=1e-6)
    assert "--no-linear" in outcome.notes[0]
    restore_picture(restorer(), source, tmp_path / "out.png")
    inside = np.s_[6:-6, 6:-6]
    written = load(tmp_path / "out.png")[inside] / 65535
    np.testing.assert_allclose(written, values[inside], atol=1e-4)


def test_a_network_sees_light_as_it_learnt_to(tmp_path):
    """Halved are the encoded values, not the light."""
    light = light_of(scene()).astype(np.float32)
    store(tmp_path / "in.tif", light, "rgb")
    restore_picture(Restorer.from_engine(DarkenEngine()), tmp_path / "in.tif", tmp_path / "out.tif")
    written = load(tmp_path / "out.tif")
    np.testing.assert_allclose(written, light_of(scene() / 2), atol=1e-4)


@pytest.mark.parametrize(
    ("factor", "shift", "hint"),
    [(255, 0, "--white 255"), (65535, 0, "65535"), (700, 400, "1049.25")],
)
@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_floating_point_of_another_range_is_refused(tmp_path, factor, shift, hint, kind):
    values = scene(1 if kind == "grey" else 3) * factor + shift
    store(tmp_path / "in.tif", values.astype(np.float32), kind)
    with pytest.raises(UnreadableError, match="floating-point samples from") as caught:
        read_picture(tmp_path / "in.tif")
    assert hint in str(caught.value) or kind == "grey"
    with pytest.raises(UnreadableError, match="--white"):
        restore_picture(restorer(), tmp_path / "in.tif", tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_counted(tmp_path, value):
    samples = scene().astype(np.float32)
    samples[3, 4:7, 1] = value
    store(tmp_path / "in.tif", samples, "rgb")
    with pytest.raises(UnreadableError, match=f"has 3 samples that are NaN .* of {samples.size},"):
        restore_picture(restorer(), tmp_path / "in.tif", tmp_path / "out.tif")
    # Where white is given, nobody looks through the samples before.
    options = FileOptions(samples=Samples(1.0, None))
    with pytest.raises(PictureError, match="NaN or infinite"):
        restore_picture(restorer(), tmp_path / "in.tif", tmp_path / "out.tif", options=options)


def test_every_command_asks_for_the_white(tmp_path):
    (tmp_path / "set").mkdir()
    path = tmp_path / "set/in.tif"
    store(path, scene() * 255, "rgb")
    report = check_folder(tmp_path / "set")
    assert "--white 255" in report.unreadable[0][1]
    degrade = ["degrade", path, "-o", tmp_path / "worse.tif", "--name", "jpeg"]
    assert "--white 255" in run(*degrade).output
    assert run(*degrade, "--white", 255).exit_code == 0
    assert 100 < load(tmp_path / "worse.tif").max() <= 256


def test_a_white_that_is_told_is_that_of_the_result(tmp_path):
    values = scene() * 255
    store(tmp_path / "in.tif", values, "rgb")
    told = Samples(white=255)
    restore_picture(
        restorer(), tmp_path / "in.tif", tmp_path / "out.tif", options=FileOptions(samples=told)
    )
    np.testing.assert_allclose(load(tmp_path / "out.tif"), values, rtol=1e-5)
    restore_picture(
        restorer(), tmp_path / "in.tif", tmp_path / "out.png", options=FileOptions(samples=told)
    )
    np.testing.assert_allclose(load(tmp_path / "out.png") / 257, values, atol=0.01)
    np.testing.assert_allclose(read_picture(tmp_path / "in.tif", white=255), scene(), atol=1e-6)


def test_a_few_lamps_are_no_other_range(tmp_path):
    light = light_of(scene(size=(100, 100))).astype(np.float32)
    light[:5, :5] = 60.0
    store(tmp_path / "in.tif", light, "rgb")
    restore_picture(restorer(), tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_allclose(load(tmp_path / "out.tif"), light, rtol=1e-4)


@pytest.mark.parametrize("white", ["0", "-1", "nan", "inf"])
def test_no_picture_has_such_a_white(tmp_path, white):
    store(tmp_path / "in.tif", scene(), "rgb")
    result = run("restore", tmp_path / "in.tif", "--white", white)
    assert result.exit_code != 0
    assert "greater than 0" in result.output


# Fewer bits in 16.


def twelve(size=(40, 60)):
    return np.rint(scene(1, size)[..., 0] * 4095).astype(np.uint16)


def test_twelve_bits_are_mended_in_their_range_and_stay_as_dark(tmp_path):
    tagged(tmp_path / "in.tif", twelve())
    seen = []

    class Watching(SameEngine):
        def run(self, batch):
            seen.append(batch.max())
            return batch.copy()

    watching = Restorer.from_engine(Watching())
    outcome = restore_picture(watching, tmp_path / "in.tif", tmp_path / "out.tif")
    np.testing.assert_array_equal(load(tmp_path / "out.tif")[..., 0], twelve())
    assert seen[0] > 0.8
    assert "--white 4095" in outcome.notes[0]
    restore_picture(watching, tmp_path / "in.tif", tmp_path / "out.jpg")
    assert load(tmp_path / "out.jpg").max() < 20
    # Whoever does not mend them is not told another brightness.
    assert read_picture(tmp_path / "in.tif").max() < 0.07


def test_dark_pictures_with_a_profile_are_not_taken_for_fewer_bits(tmp_path):
    """darktable and GIMP export dark photographs so: a profile says that they are developed."""
    dark = np.rint(scene() * 4095).astype(np.uint16)
    for values in (dark, 4 * dark):
        store(tmp_path / "in.tif", values, "rgb", profile_of("srgb"))
        seen = []

        class Watching(SameEngine):
            def run(self, batch):
                seen.append(batch.max())  # noqa: B023
                return batch.copy()

        watching = Restorer.from_engine(Watching())
        outcome = restore_picture(
            watching, tmp_path / "in.tif", tmp_path / "out.tif", overwrite=True
        )
        assert max(seen) == pytest.approx(values.max() / 65535, abs=0.01)
        assert "taken for a dark picture" in outcome.notes[0]
        assert "--white" in outcome.notes[0]


@pytest.mark.parametrize("by", ["option", "tag"])
def test_a_white_of_twelve_bits_may_be_told(tmp_path, by):
    tags = [(341, 3, struct.pack("<HH", 4095, 0))] if by == "tag" else []
    tagged(tmp_path / "in.tif", twelve(), *tags)
    told = Samples(white=4095) if by == "option" else Samples()
    for name in ("out.tif", "out.jpg"):
        outcome = restore_picture(
            restorer(), tmp_path / "in.tif", tmp_path / name, options=FileOptions(samples=told)
        )
    assert bool(outcome.notes) == (by == "tag")
    np.testing.assert_array_equal(load(tmp_path / "out.tif")[..., 0], twelve())
    np.testing.assert_allclose(
        load(tmp_path / "out.jpg")[..., 0] / 255, twelve() / 4095, atol=0.015
    )


@pytest.mark.parametrize("most", [16000, 5000, 40000])
def test_dark_photographs_of_sixteen_bits_are_what_they_are(tmp_path, most):
    """Only 14 bits that are nearly used up are told from them."""
    values = np.rint(scene(1)[..., 0] / scene(1).max() * most).astype(np.uint16)
    tagged(tmp_path / "in.tif", values)
    outcome = restore_picture(restorer(), tmp_path / "in.tif", tmp_path / "out.tif")
    assert bool(outcome.notes) == (most == 16000)
    np.testing.assert_array_equal(load(tmp_path / "out.tif")[..., 0], values)


def test_eight_bits_made_sixteen_are_no_fewer_bits(tmp_path):
    values = (scene(1)[..., 0] * 15).round().astype(np.uint16) * 257
    tagged(tmp_path / "in.tif", values)
    assert restore_picture(restorer(), tmp_path / "in.tif", tmp_path / "out.tif").notes == ()


def test_the_options_are_those_of_the_command_line(tmp_path):
    tagged(tmp_path / "in.tif", twelve())
    arguments = ["restore", tmp_path / "in.tif", "-o", tmp_path / "out.tif", "--task", "none"]
    result = run(*arguments, "--white", 4095, "--linear", "--compare", "--json")
    assert result.exit_code == 0, result.output
    (done,) = json.loads(result.stdout)["files"]
    assert done["notes"] == []
    np.testing.assert_allclose(
        load(tmp_path / "out.tif")[8:-8, 8:-8, 0], twelve()[8:-8, 8:-8], atol=150
    )


@pytest.mark.parametrize("linear", [None, True])
@pytest.mark.parametrize("by", ["option", "tag"])
def test_other_formats_have_the_usual_white(tmp_path, by, linear):
    """A PNG of 16 bits could not say that its white is 4095, nor that it is light: it is dark."""
    tags = [(341, 3, struct.pack("<HH", 4095, 0))] if by == "tag" else []
    tagged(tmp_path / "in.tif", twelve(), *tags)
    told = Samples(4095 if by == "option" else None, linear)
    restore_picture(
        restorer(), tmp_path / "in.tif", tmp_path / "out.png", options=FileOptions(samples=told)
    )
    light = twelve() / 4095
    if linear:
        light = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    np.testing.assert_allclose(load(tmp_path / "out.png")[..., 0] / 65535, light, atol=0.002)


def test_a_white_that_is_only_found_makes_no_other_format_brighter(tmp_path):
    tagged(tmp_path / "in.tif", twelve())
    restore_picture(restorer(), tmp_path / "in.tif", tmp_path / "out.png")
    np.testing.assert_allclose(load(tmp_path / "out.png")[..., 0], twelve(), atol=1)
