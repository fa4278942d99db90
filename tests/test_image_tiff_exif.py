"""How a picture was taken survives the way into a TIFF and out of one."""

import struct
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image

from urushi.image import read_picture, write_picture
from urushi.image.metadata.exif import tags_of
from urushi.image.tiff.exif_directory import append_exif, read_exif

TAKEN, NORTH = "2021:03:04 05:06:07", (35.0, 40.0, 30.5)


def exif() -> Image.Exif:
    """Something in every directory, the inner ones of EXIF too."""
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x8298] = 6, "Kintsugi", "(c) Ogata"
    photo, place = block.get_ifd(0x8769), block.get_ifd(0x8825)
    photo[0x829A], photo[0x9003], photo[0x9204] = 0.004, TAKEN, -1.5
    photo[0xA434], photo[0x927C] = "Urushi 35 mm", b"maker's own"
    photo[0xA002], photo[0xA003] = 9999, 9999
    photo[0xA005] = {1: "R98"}
    place[1], place[2] = "N", NORTH
    return block


def values(bits: int = 8, size=(40, 60)) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(0, 2**bits, (*size, 3)).astype(np.uint8 if bits == 8 else np.uint16)


def store(path, block: bytes | None = None) -> None:
    """An 8-bit picture that carries it, upright."""
    given = exif()
    given[0x0112] = 1
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(values()).save(
        path, exif=given.tobytes() if block is None else block, **options
    )


def check(path, size=(60, 40)) -> None:
    with Image.open(path) as picture:
        read = picture.getexif()
        photo, place = read.get_ifd(0x8769), read.get_ifd(0x8825)
    assert (read[0x010F], read[0x8298], read.get(0x0112, 1)) == ("Kintsugi", "(c) Ogata", 1)
    assert (photo[0x9003], photo[0xA434], photo[0x927C]) == (TAKEN, "Urushi 35 mm", b"maker's own")
    assert (float(photo[0x829A]), float(photo[0x9204])) == pytest.approx((0.004, -1.5))
    assert (photo[0xA002], photo[0xA003]) == size
    assert place[1] == "N"
    assert tuple(map(float, place[2])) == pytest.approx(NORTH)


def pixels_of(path) -> np.ndarray:
    return pyvips.Image.new_from_file(str(path)).numpy()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_goes_into_tiff_and_out_again(tmp_path, suffix):
    source, middle, target = (
        tmp_path / f"in{suffix}",
        tmp_path / "mid.tif",
        tmp_path / f"out{suffix}",
    )
    store(source)
    write_picture(middle, read_picture(source), like=source)
    check(middle)
    np.testing.assert_array_equal(pixels_of(middle), pixels_of(source))
    write_picture(target, read_picture(middle), like=middle)
    check(target)
    if suffix in (".png", ".tif"):
        np.testing.assert_array_equal(pixels_of(target), pixels_of(source))


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_orientation_and_size_agree_with_the_pixels(tmp_path, suffix):
    source, middle, target = tmp_path / "in.jpg", tmp_path / "mid.tif", tmp_path / f"out{suffix}"
    store(source, exif().tobytes())
    write_picture(middle, read_picture(source), like=source)
    write_picture(target, read_picture(middle), like=middle)
    for path in (middle, target):
        check(path, (40, 60))
        assert read_picture(path).shape == (60, 40, 3)


def test_stripping_leaves_exif_behind(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.tif"
    store(source)
    write_picture(target, read_picture(source), like=source, strip_metadata=True)
    assert read_exif(target) is None
    assert b"Kintsugi" not in target.read_bytes()
    again = tmp_path / "again.jpg"
    write_picture(tmp_path / "full.tif", read_picture(source), like=source)
    write_picture(again, read_picture(source), like=tmp_path / "full.tif", strip_metadata=True)
    assert b"Kintsugi" not in again.read_bytes()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "layout", [{"compression": "lzw"}, {"tile": True, "tile_width": 16, "tile_height": 16}]
)
def test_pixels_stay_where_they_are(tmp_path, bits, big, layout):
    """Any TIFF that libvips writes: strips, tiles, 64-bit offsets."""
    path = tmp_path / "out.tif"
    image = pyvips.Image.new_from_array(values(bits, (300, 500)))
    image.copy(interpretation="srgb" if bits == 8 else "rgb16").tiffsave(
        str(path), bigtiff=big, predictor="none", **layout
    )
    assert append_exif(path, exif().tobytes(), 500, 300)
    np.testing.assert_array_equal(pixels_of(path), values(bits, (300, 500)))
    check(path, (500, 300))
    with Image.open(path) as picture:
        assert picture.size == (500, 300)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(tmp_path, order):
    """A picture of one pixel, made by hand, as machines of either kind write it."""
    path = tmp_path / "out.tif"
    shorts = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    data = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 10) + b"\x5a\0"
    data += struct.pack(f"{order}H", len(shorts))
    for tag, value in shorts.items():
        data += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    path.write_bytes(data + bytes(4))
    assert append_exif(path, exif().tobytes(), 1, 1)
    check(path, (1, 1))
    assert pixels_of(path) == 90
    block = read_exif(path)
    assert block is not None
    read = Image.Exif()
    read.load(block)
    assert read[0x010F] == "Kintsugi"


def test_damaged_exif_never_makes_a_picture_fail(tmp_path):
    """Bytes of the block are wrong in turn, and the block is cut at many lengths."""
    whole = exif().tobytes()
    rng = np.random.default_rng(0)
    plain, target = tmp_path / "plain.tif", tmp_path / "out.tif"
    image = pyvips.Image.new_from_array(values(size=(3, 4))).copy(interpretation="srgb")
    image.tiffsave(str(plain))
    wrong = [whole[:n] for n in range(0, len(whole), 17)]
    for at in range(6, len(whole), 2):
        wrong.append(whole[:at] + bytes([rng.integers(256)]) + whole[at + 1 :])
    for block in wrong:
        target.write_bytes(plain.read_bytes())
        append_exif(target, block, 4, 3)
        read_exif(target)
        np.testing.assert_array_equal(pixels_of(target), values(size=(3, 4)))


def test_damaged_directories_of_a_tiff_are_left_out(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.jpg"
    image = pyvips.Image.new_from_array(values()).copy(interpretation="srgb")
    image.tiffsave(str(source))
    assert append_exif(source, exif().tobytes(), 60, 40)
    data = bytearray(source.read_bytes())
    for pointer in (34665, 34853):
        at = data.index(struct.pack("<HHI", pointer, 4, 1)) + 8
        data[at : at + 4] = struct.pack("<I", 2**31)
    source.write_bytes(data)
    write_picture(target, read_picture(source), like=source)
    with Image.open(target) as picture:
        assert picture.getexif()[0x010F] == "Kintsugi"
        assert 0x9003 not in picture.getexif().get_ifd(0x8769)


def test_long_maker_note_does_not_crowd_out_the_rest(tmp_path):
    source, middle, target = tmp_path / "in.tif", tmp_path / "mid.tif", tmp_path / "out.jpg"
    block = exif()
    block.get_ifd(0x8769)[0x927C] = b"M" * 100_000
    store(source, block.tobytes())
    write_picture(middle, read_picture(source), like=source)
    with Image.open(middle) as picture:
        assert len(picture.getexif().get_ifd(0x8769)[0x927C]) == 100_000
    write_picture(target, read_picture(middle), like=middle)
    with Image.open(target) as picture:
        assert picture.getexif().get_ifd(0x8825)[1] == "N"
        assert picture.getexif().get_ifd(0x8769)[0x9003] == TAKEN


def test_iptc_changes_its_wrapping(tmp_path):
    """Bare in TIFF, within Photoshop's resources in JPEG, and both ways."""
    record = b"\x1c\x02\x50\x00\x05Ogata\x1c\x02\x78\x00\x06a bowl"
    resources = b"8BIM\x03\xed\x00\0\0\0\0\x02\1\2" + b"8BIM\x04\x04\0\0"
    wrapped = b"Photoshop 3.0\0" + resources + struct.pack(">I", len(record)) + record + b"\0"
    source, middle, target = tmp_path / "in.jpg", tmp_path / "mid.tif", tmp_path / "out.jpg"
    image = pyvips.Image.new_from_array(values()).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.blob_type, "iptc-data", wrapped)  # pyright: ignore[reportArgumentType]
    image.jpegsave(str(source))
    write_picture(middle, read_picture(source), like=source)
    with Image.open(middle) as picture:
        stored = picture.tag_v2[33723]  # pyright: ignore[reportAttributeAccessIssue]
    held = struct.pack(f"<{len(stored)}I", *stored) if isinstance(stored, tuple) else stored
    assert held.rstrip(b"\0") == record
    write_picture(target, read_picture(middle), like=middle)
    with Image.open(target) as picture:
        assert picture.info["photoshop"][0x0404] == record


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_damaged_directory_of_exposure_hides_nothing_but_itself(order):
    block = exif()
    block.endian = order
    whole = block.tobytes()
    assert {0x010F, 0x8769, 0x9003, 0xA434} <= tags_of(whole) == tags_of(whole[6:])
    (place,) = struct.unpack_from(f"{order}I", whole, 10)
    (count,) = struct.unpack_from(f"{order}H", whole, 6 + place)
    main = {struct.unpack_from(f"{order}H", whole, 8 + place + 12 * i)[0] for i in range(count)}
    # What the main directory points to lies behind it.
    assert tags_of(whole[: 6 + place + 2 + 12 * count + 4]) == main
    assert tags_of(whole[:20]) == set()
