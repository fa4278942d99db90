"""What was lossless stays lossless where its format does, unless a quality is asked for."""

import struct

import numpy as np
import pytest
from commands import run
from pictures import segment
from PIL import Image, ImageCms
from world import write_tiny_model

from urushi.image import inspect_picture, read_picture, write_picture
from urushi.image.formats.lossless import is_lossless

NOISE = np.random.default_rng(3).integers(0, 256, (24, 32, 4), np.uint8)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def webp(path, *, alpha=False, frames=1, **options):
    """Noise, which no lossy coding leaves as it is."""
    first, *more = [Image.fromarray(np.roll(NOISE, k, 0)[..., : 3 + alpha]) for k in range(frames)]
    first.save(path, **({"save_all": True, "append_images": more} if more else {}), **options)
    return path


def again(source, target, **options):
    """Writes what a picture is into another file, as after a restoration that changes nothing."""
    assert write_picture(target, read_picture(source), like=source, **options) == []
    return target


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": True},
        {"icc_profile": PROFILE},
        {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"},
        {"frames": 2},
    ],
    ids=["plain", "alpha", "profile", "exif", "frames"],
)
def test_a_lossless_webp_stays_what_it_is_to_the_bit(tmp_path, options):
    source = webp(tmp_path / "a.webp", lossless=True, exact=True, **options)
    target = again(source, tmp_path / "b.webp")
    with Image.open(source) as before, Image.open(target) as after:
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))
    assert is_lossless(again(target, tmp_path / "c.webp"), "webp")


def test_other_pictures_are_written_as_before(tmp_path):
    lossless = webp(tmp_path / "a.webp", lossless=True)
    told = again(lossless, tmp_path / "told.webp", quality=90)
    lossy = again(webp(tmp_path / "lossy.webp", quality=90), tmp_path / "again.webp")
    png = write_png(tmp_path / "a.png")
    for path in (told, lossy, again(png, tmp_path / "of_png.webp")):
        assert not is_lossless(path, "webp")
    assert is_lossless(again(png, tmp_path / "best.webp", quality=100), "webp")
    # Of frames, each has its own way; what breaks off, or is none, has none.
    mixed = webp(tmp_path / "mixed.webp", frames=2, allow_mixed=True, quality=50)
    assert not is_lossless(mixed, "webp", 1)
    for cut in (0, 10, 14, 25):
        (tmp_path / "cut.webp").write_bytes(lossless.read_bytes()[:cut])
        assert is_lossless(tmp_path / "cut.webp", "webp") == (cut == 25)
        assert not is_lossless(tmp_path / "cut.webp", "avif")
    assert not is_lossless(tmp_path / "none.webp", "webp")


def write_png(path):
    Image.fromarray(NOISE[..., :3]).save(path)
    return path


@pytest.mark.parametrize("options", [{}, {"icc_profile": PROFILE}], ids=["plain", "profile"])
def test_a_lossless_avif_stays_so(tmp_path, options):
    png = tmp_path / "a.png"
    Image.fromarray(NOISE[..., :3]).save(png, **options)
    first = again(png, tmp_path / "a.avif", quality=100)
    assert is_lossless(first, "avif")
    second = again(first, tmp_path / "b.avif")
    np.testing.assert_array_equal(read_picture(second), read_picture(first))
    lossy = again(png, tmp_path / "lossy.avif")
    assert not is_lossless(lossy, "avif")
    assert not is_lossless(again(lossy, tmp_path / "again.avif"), "avif")
    # 4:4:4 of other matrices has lost something already.
    with Image.open(png) as picture:
        picture.save(tmp_path / "other.avif", quality=100, subsampling="4:4:4")
    assert not is_lossless(tmp_path / "other.avif", "avif")
    for cut in range(0, 200, 7):
        (tmp_path / "cut.avif").write_bytes(first.read_bytes()[:cut])
        assert not is_lossless(tmp_path / "cut.avif", "avif")


def test_where_it_cannot_be_kept_a_note_says_so(tmp_path):
    # Differences of no bits: grey all over.
    frame = segment(0xC3, struct.pack(">BHHB", 8, 16, 16, 1) + bytes([1, 0x11, 0]))
    table = segment(0xC4, bytes([0, 0, 1, *[0] * 14, 0]))
    scan = segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    source = tmp_path / "a.jpg"
    source.write_bytes(b"\xff\xd8" + frame + table + scan + bytes(64) + b"\xff\xd9")
    pixels = read_picture(source)
    (note,) = write_picture(tmp_path / "b.jpg", pixels, like=source)
    assert "lossless JPEG" in note
    assert "quality 95" in note
    assert write_picture(tmp_path / "c.jpg", pixels, like=source, quality=80) == []
    assert write_picture(tmp_path / "d.png", pixels, like=source) == []


def test_the_command_keeps_it(tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    source, target = webp(tmp_path / "a.webp", lossless=True), tmp_path / "b.webp"
    words = ("restore", source, "-o", target, "--model", model)
    assert run(*words, "--strength", 0).exit_code == 0
    np.testing.assert_array_equal(read_picture(target), read_picture(source))
    assert run(*words, "--overwrite", "--quality", 90).exit_code == 0
    assert not is_lossless(target, inspect_picture(target).format)
