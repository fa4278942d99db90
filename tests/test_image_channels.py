"""Channels beyond colour: only transparency is transparency, the others come through."""

import numpy as np
import pytest
import pyvips
from pictures import Page, Scene, Untouched, write_tiff
from PIL import Image

from urushi.errors import UnreadableError
from urushi.image import PictureWriter, inspect_picture, read_picture, write_picture
from urushi.image.tiff.directories import TiffFile
from urushi.inference.picture_files import restore_picture

SCENE = Scene()
RGB, GREY, OTHER = SCENE.rgb, SCENE.grey, SCENE.other
CMYK = np.dstack([255 - RGB, GREY // 4])
DARKER = np.minimum(RGB, GREY[..., None])
CASES = {
    "infrared": (np.dstack([RGB, OTHER]), 2, (0,)),
    "no tag": (np.dstack([RGB, OTHER]), 2, ()),
    "two selections": (np.dstack([RGB, OTHER, 255 - OTHER]), 2, (0, 0)),
    "transparency and infrared": (np.dstack([RGB, GREY, OTHER]), 2, (2, 0)),
    "infrared and transparency": (np.dstack([RGB, OTHER, GREY]), 2, (0, 2)),
    "CorelDRAW": (np.dstack([RGB, OTHER]), 2, (999,)),
    "grey bands": (np.dstack([GREY, OTHER, 255 - OTHER]), 1, (0, 0)),
    "spot inks": (np.dstack([CMYK, OTHER, OTHER]), 5, (0, 0)),
    "spot ink, transparency": (np.dstack([CMYK, GREY, OTHER]), 5, (2, 0)),
    "premultiplied": (np.dstack([DARKER, GREY]), 2, (1,)),
    "premultiplied and more": (np.dstack([DARKER, GREY, OTHER]), 2, (1, 0)),
}


def store(path, samples, photometric, extra, **options):
    tags = {338: extra} if extra else {}
    return write_tiff(path, Page(samples, photometric, tags), **options)


def kinds_and_samples(path):
    """ExtraSamples and the samples, without libvips' arithmetic on transparency."""
    data = bytearray(path.read_bytes())
    with TiffFile(path) as tiff:
        own = next(tiff.chain())
        extra = tuple(map(int, tiff.numbers(own, 338)))
    at = own.offset + 2 + 12 * list(own.entries).index(338) + 8
    if len(extra) > 2:
        at = int.from_bytes(data[at : at + 4], "little")
    data[at : at + 2 * len(extra)] = bytes(2 * len(extra))
    return extra, pyvips.Image.new_from_buffer(bytes(data), "").numpy()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("deep", [False, True])
def test_all_channels_come_back_with_their_kinds(tmp_path, name, deep):
    samples, photometric, extra = CASES[name]
    if deep:
        samples = samples.astype(np.uint16) * 257
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    store(source, samples, photometric, extra)
    outcome = restore_picture(Untouched(), source, target)
    kinds, written = kinds_and_samples(target)
    assert kinds == (extra or (0,))
    np.testing.assert_array_equal(written, samples)
    others = sum(kind == 0 for kind in kinds)
    assert bool(others) == any("further channel" in note for note in outcome.notes)


def test_a_channel_of_big_endian_floats_keeps_values_beyond_1(tmp_path):
    samples = np.dstack([RGB / np.float32(255), 40 * GREY.astype(np.float32)]).astype(np.float32)
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    store(source, samples, 2, (0,), order=">")
    restore_picture(Untouched(), source, target)
    np.testing.assert_array_equal(pyvips.Image.new_from_file(str(target)).numpy(), samples)
    target = tmp_path / "enlarged.tif"
    restore_picture(Untouched(2), source, target)
    # A channel of depths or counts may hold more than 1, enlarged or not.
    assert pyvips.Image.new_from_file(str(target))[3].max() > 5000


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("name", ["infrared", "no tag", "two selections", "grey bands"])
def test_other_formats_are_opaque_and_say_what_they_lack(tmp_path, name, suffix):
    samples, photometric, extra = CASES[name]
    source, target = tmp_path / "in.tif", tmp_path / f"out{suffix}"
    store(source, samples, photometric, extra)
    outcome = restore_picture(Untouched(), source, target)
    assert not inspect_picture(target).has_alpha
    assert any("left out" in n and "TIFF" in n for n in outcome.notes)
    # Colours under a channel that is nearly black are not repainted.
    close = np.abs(read_picture(target) - read_picture(source)).mean()
    assert close < (0.02 if suffix != ".png" else 1e-6)


def test_transparency_behind_another_channel_is_found(tmp_path):
    samples, photometric, extra = CASES["infrared and transparency"]
    source, target = tmp_path / "in.tif", tmp_path / "out.png"
    store(source, samples, photometric, extra)
    info = inspect_picture(source)
    assert (info.has_alpha, info.alpha_band, info.extra) == (True, 4, (0, 2))
    notes = write_picture(target, read_picture(source), like=source)
    np.testing.assert_array_equal(np.asarray(Image.open(target)), samples[..., [0, 1, 2, 4]])
    assert len(notes) == 1


def test_transparency_that_libvips_would_spread_is_refused(tmp_path):
    store(tmp_path / "in.tif", np.dstack([RGB, OTHER, GREY]), 2, (0, 1))
    with pytest.raises(UnreadableError, match="multiplied in"):
        inspect_picture(tmp_path / "in.tif")


def test_inks_that_are_not_cmyk_are_refused(tmp_path):
    page = Page(np.dstack([CMYK, OTHER, OTHER]), 5, {332: 2, 334: 6})
    with pytest.raises(UnreadableError, match="6 inks"):
        inspect_picture(write_tiff(tmp_path / "in.tif", page))


def test_writer_asserts_what_it_is_given(tmp_path, monkeypatch):
    source = store(tmp_path / "in.tif", *CASES["infrared"])
    info = inspect_picture(source)
    short = np.zeros((24, 36, 3), np.uint8)
    monkeypatch.setattr(PictureWriter, "_samples", lambda writer, pixels: short)
    with (
        pytest.raises(AssertionError),
        PictureWriter(tmp_path / "out.tif", like=info, width=36, height=24) as writer,
    ):
        writer.write(read_picture(source))
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_a_changed_separation_stays_the_sources(tmp_path):
    """Noise taken out of CMYK leaves the black plate empty where it was empty."""
    noise = np.random.default_rng(1).normal(0, 12, RGB.shape)
    inks = 255 - np.clip(0.6 * RGB + 50 + noise, 0, 255)
    samples = np.dstack([inks, np.zeros_like(GREY)]).astype(np.uint8)
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    store(source, samples, 5, ())
    pixels = read_picture(source)
    rows = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    smooth = sum(rows[i : i + 24, j : j + 36] for i in range(3) for j in range(3)) / 9
    write_picture(target, smooth, like=source)
    written = pyvips.Image.new_from_file(str(target)).numpy()
    assert np.abs(read_picture(target) - np.clip(smooth, 0, 1)).mean() < 0.02
    assert np.abs(written.astype(int) - samples).mean(axis=(0, 1)).max() < 15
    assert np.percentile(written[..., 3], 90) < 40
