"""White and stated colours of each page, and beside what else a file carries."""

import struct
import zlib

import numpy as np
import pytest
from pictures import Page, Scene, Untouched, write_tiff
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from urushi.image import Samples, inspect_picture, open_picture, read_picture
from urushi.image.formats.png_chunks import rewrite_png, short_chunks
from urushi.image.tiff.directories import TiffFile
from urushi.inference.picture_files import FileOptions, restore_picture

GREY, RGB = Scene().grey, Scene().rgb
TWELVE = np.rint(GREY / 255 * 4095).astype(np.uint16)
SIXTEEN = GREY.astype(np.uint16) * 257
SMAX = 341


def whites(path):
    """What the tag says of each page."""
    with TiffFile(path) as tiff:
        return [tiff.numbers(page, SMAX) for page in tiff.chain()]


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_each_page_has_a_white_of_its_own_and_keeps_it(tmp_path, order, strip):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    write_tiff(source, Page(SIXTEEN), Page(TWELVE, tags={SMAX: 4095}), order=order)
    np.testing.assert_allclose(read_picture(source, page=1)[..., 0], TWELVE / 4095, atol=1e-6)
    np.testing.assert_allclose(read_picture(source)[..., 0], SIXTEEN / 65535, atol=1e-6)
    outcome = restore_picture(
        Untouched(), source, target, options=FileOptions(strip_metadata=strip)
    )
    assert outcome.notes == ("Its white is 4095, as its tags say.",)
    assert whites(target) == [(), (4095,)]
    np.testing.assert_allclose(read_picture(target, page=1)[..., 0], TWELVE / 4095, atol=1e-6)


def test_a_greatest_sample_that_need_not_stay_so_is_not_said_again(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    most = int(SIXTEEN.max())
    assert most < 65535
    write_tiff(source, Page(SIXTEEN, tags={SMAX: most}))
    restore_picture(Untouched(), source, target)
    assert whites(target) == [()]
    # Nor what the user knows better.
    write_tiff(source, Page(TWELVE, tags={SMAX: 4095}))
    restore_picture(
        Untouched(),
        source,
        target,
        overwrite=True,
        options=FileOptions(samples=Samples(white=8190)),
    )
    assert whites(target) == [()]


def test_colours_are_those_that_the_page_states(tmp_path):
    source = tmp_path / "in.tif"
    # The number that some cameras write for Adobe RGB.
    write_tiff(source, Page(RGB, 2), Page(RGB, 2, exif={40961: 2}))
    first, second = (inspect_picture(source, page=page).stated for page in (0, 1))
    assert first is None
    assert second is not None
    assert second.by == "EXIF"
    assert np.abs(read_picture(source, page=1) - RGB / 255).max() > 0.02
    np.testing.assert_allclose(read_picture(source), RGB / 255, atol=1e-6)


@pytest.mark.parametrize("strip", [False, True])
def test_texts_and_stated_colours_stand_side_by_side(tmp_path, strip):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    info = PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100000))
    info.add_itxt("Title", "Überfahrt")
    Image.fromarray(RGB).save(source, pnginfo=info)
    restore_picture(Untouched(), source, target, options=FileOptions(strip_metadata=strip))
    with Image.open(target) as written:
        np.testing.assert_array_equal(np.asarray(written), RGB)
        assert (written.info.get("Title") == "Überfahrt") != strip
    assert short_chunks(target)[b"gAMA"] == short_chunks(source)[b"gAMA"]
    assert b"pHYs" not in short_chunks(target)


def test_a_broken_profile_leaves_what_is_stated(tmp_path):
    source = tmp_path / "in.png"
    info = PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100000))
    Image.fromarray(RGB).save(source, pnginfo=info)
    content = b"iCCPx\0\0" + bytes(range(40))
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    rewrite_png(source, add=[chunk], drop=())
    with open_picture(source) as reader:
        assert any("what gAMA states is taken for granted" in note for note in reader.notes)
        assert reader.read(99).mean() > RGB.mean() / 255 + 0.1
