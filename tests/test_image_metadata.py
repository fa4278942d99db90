"""What a picture carries along arrives, or is dropped when asked; colours do not change by that."""

from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from urushi.image import read_picture, write_picture
from urushi.image.libvips import can_write

XMP = b"""<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>
<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description
 xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation="6" tiff:Artist="Ogata"/></rdf:RDF>
</x:xmpmeta><?xpacket end='w'?>"""
FORMATS = [".jpg", ".png", ".webp", ".avif"]


def source_with_everything(path):
    values = (np.arange(40 * 60 * 3) % 256).astype(np.uint8).reshape(40, 60, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Kintsugi"
    exif[0x0110] = "Mark 3"
    exif[0x8298] = "(c) Ogata"
    exif.get_ifd(0x8769)[0x829A] = 0.004
    exif.get_ifd(0x8769)[0x9003] = "2021:03:04 05:06:07"
    exif.get_ifd(0x8825)[1] = "N"
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    if path.suffix == ".webp":
        options = {"lossless": True}
    if path.suffix == ".png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    profile = bytes(pyvips.Operation.call("profile_load", "p3"))
    picture = Image.fromarray(values)
    picture.save(path, exif=exif, xmp=XMP, icc_profile=profile, dpi=(300, 300), **options)


def exif_of(path):
    with Image.open(path) as picture:
        exif = picture.getexif()
        return dict(exif), dict(exif.get_ifd(0x8769)), dict(exif.get_ifd(0x8825))


def blob_of(path, field):
    return bytes(pyvips.Image.new_from_file(str(path)).get(field))  # pyright: ignore[reportArgumentType]


def fields_of(path):
    return set(pyvips.Image.new_from_file(str(path)).get_fields())


@pytest.mark.parametrize("source_suffix", [".jpg", ".webp", ".png"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_metadata_arrives(tmp_path, source_suffix, suffix):
    source, target = tmp_path / f"in{source_suffix}", tmp_path / f"out{suffix}"
    source_with_everything(source)
    write_picture(target, read_picture(source), like=source)
    main, photo, place = exif_of(target)
    assert (main[0x010F], main[0x0110], main[0x8298]) == ("Kintsugi", "Mark 3", "(c) Ogata")
    assert main.get(0x0112, 1) == 1
    assert photo[0x9003] == "2021:03:04 05:06:07"
    assert float(photo[0x829A]) == pytest.approx(1 / 250)
    assert place[1] == "N"
    xmp = blob_of(target, "xmp-data")
    assert b"Ogata" in xmp
    assert b'Orientation="1"' in xmp
    assert "icc-profile-data" in fields_of(target)


@pytest.mark.parametrize("suffix", FORMATS)
def test_stripping_keeps_only_what_colour_needs(tmp_path, suffix):
    source, bare, full = tmp_path / "in.jpg", tmp_path / f"b{suffix}", tmp_path / f"f{suffix}"
    source_with_everything(source)
    pixels = read_picture(source)
    write_picture(bare, pixels, like=source, strip_metadata=True)
    write_picture(full, pixels, like=source)
    main, photo, place = exif_of(bare)
    # At most the resolution and what EXIF requires to be there.
    assert not {0x010F, 0x0110, 0x8298} & set(main)
    assert not {0x829A, 0x9003} & set(photo)
    assert place == {}
    assert "xmp-data" not in fields_of(bare)
    assert "icc-profile-data" in fields_of(bare)
    assert b"Ogata" not in bare.read_bytes()
    np.testing.assert_array_equal(read_picture(bare), read_picture(full))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("strip", [False, True])
def test_resolution_is_kept(tmp_path, suffix, strip):
    source, target = tmp_path / "in.jpg", tmp_path / f"out{suffix}"
    source_with_everything(source)
    write_picture(target, read_picture(source), like=source, strip_metadata=strip)
    with Image.open(target) as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("source_suffix", [".jpg", ".png", ".tif", ".webp", ".avif", ".bmp"])
def test_resolution_goes_between_all_formats(tmp_path, source_suffix, suffix):
    """WebP and AVIF state it in EXIF alone, which libvips does not look at there."""
    if ".avif" in (source_suffix, suffix) and not can_write("avif"):
        pytest.skip("this libvips writes no AVIF")
    source, target = tmp_path / f"in{source_suffix}", tmp_path / f"out{suffix}"
    pixels = np.full((20, 20, 3), 90, np.uint8)
    if source_suffix in (".webp", ".avif"):
        # 1200 for 10 mm is 304.8 for an inch.
        exif = Image.Exif()
        exif.update({282: 120.0, 283: 60.0, 296: 3})
        image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
        blob = pyvips.GValue.blob_type
        image.set_type(blob, "exif-data", b"Exif\0\0" + exif.tobytes())  # pyright: ignore
        image.copy(xres=12, yres=6).write_to_file(str(source))
    else:
        Image.fromarray(pixels).save(source, dpi=(304.8, 152.4))
    write_picture(target, read_picture(source), like=source)
    if suffix in (".webp", ".avif"):
        with Image.open(target) as picture:
            told = picture.getexif()
        per_inch = 25.4 if told[296] == 2 else 10.0
        density = (float(told[282]) / per_inch, float(told[283]) / per_inch)
    else:
        image = pyvips.Image.new_from_file(str(target))
        density = (image.xres, image.yres)
    assert density == pytest.approx((12, 6), abs=0.05)


@pytest.mark.parametrize("suffix", FORMATS)
def test_none_is_made_up(tmp_path, suffix):
    source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(source)
    write_picture(target, read_picture(source), like=source)
    assert exif_of(target) == ({}, {}, {})
    assert "icc-profile-data" not in fields_of(target)


def test_stale_thumbnail_is_dropped(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    image = pyvips.Image.new_from_array(np.full((64, 64, 3), 90, np.uint8))
    thumbnail = image.copy(interpretation="srgb").jpegsave_buffer(Q=50, keep=0)
    value = thumbnail
    kind = pyvips.GValue.blob_type
    image.set_type(kind, "jpeg-thumbnail-data", value)  # pyright: ignore[reportArgumentType]
    image.set_type(pyvips.GValue.gint_type, "orientation", 3)
    image.jpegsave(str(source))
    assert "jpeg-thumbnail-data" in fields_of(source)
    write_picture(target, read_picture(source), like=source)
    assert "jpeg-thumbnail-data" not in fields_of(target)


def test_tiff_keeps_description_xmp_and_iptc(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    image = pyvips.Image.new_from_array(np.full((20, 20, 3), 90, np.uint8))
    image = image.copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gstr_type, "image-description", "a mended bowl")
    for name, value in (("xmp-data", XMP), ("iptc-data", b"\x1c\x02\x50\x00\x05Ogata\0\0")):
        kind = pyvips.GValue.blob_type
        # libvips writes a quarter of an IPTC record.
        value = value.ljust(4 * len(value), b"\0") if name == "iptc-data" else value
        image.set_type(kind, name, value)  # pyright: ignore[reportArgumentType]
    image.tiffsave(str(source))
    write_picture(target, read_picture(source), like=source)
    written = pyvips.Image.new_from_file(str(target))
    assert written.get("image-description") == "a mended bowl"
    assert b"Ogata" in blob_of(target, "xmp-data")
    assert b"\x05Ogata" in target.read_bytes()
