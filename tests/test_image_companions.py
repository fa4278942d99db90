"""Frames, second pictures and videos: told, and never lost where a file replaces itself."""

import io
import struct

import numpy as np
import pytest
from pictures import Scene, Untouched
from PIL import Image, features

from urushi.errors import TargetError
from urushi.image import inspect_picture
from urushi.inference.picture_files import FileOptions, restore_picture

RGB = Scene(32, 48).rgb
FRAMES = [Image.fromarray(np.roll(RGB, 9 * k, axis=1)) for k in range(3)]
VIDEO = struct.pack(">I", 24) + b"ftypmp42" + bytes(4) + b"mp42isom" + bytes(3000)


def jpeg(pixels=RGB, segment=b"", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()[:2] + segment + buffer.getvalue()[2:]


def with_index(kinds):
    """A picture, an index of further ones (CIPA DC-007), and those: `kinds` are MP types."""
    others = [jpeg(RGB[: 12 + k]) for k in range(len(kinds))]
    size = 4 + 8 + 2 + 12 * 3 + 4 + 16 * (len(kinds) + 1)
    first = jpeg(segment=bytes(size + 4))
    entries, place = struct.pack("<5I", 0x030000, len(first), 0, 0, 0)[:16], len(first)
    for kind, other in zip(kinds, others, strict=True):
        entries += struct.pack("<3IHH", kind, len(other), place - 10, 0, 0)
        place += len(other)
    head = b"MPF\0II*\0" + struct.pack("<I", 8) + struct.pack("<H", 3)
    head += struct.pack("<HHI4s", 0xB000, 7, 4, b"0100")
    head += struct.pack("<HHII", 0xB001, 4, 1, len(kinds) + 1)
    head += struct.pack("<HHII", 0xB002, 7, len(entries), 8 + 2 + 36 + 4) + bytes(4)
    index = b"\xff\xe2" + struct.pack(">H", len(head + entries) + 2) + head + entries
    assert len(index) == size + 4
    return jpeg(segment=index) + b"".join(others)


def box(name, content):
    return struct.pack(">I4s", 8 + len(content), name) + content


def beside(path):
    return inspect_picture(path).beside


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (jpeg(), ()),
        (jpeg(progressive=True), ()),
        (jpeg() + bytes(70000), ()),
        (jpeg() + b"\xff" * 900, ()),
        (jpeg() + b"\0\0\1\x0aImage_UTC_Data1700000000000" + b"SEFHk\0\0\0SEFT", ()),
        (jpeg() + VIDEO, ("a video",)),
        (jpeg(progressive=True) + VIDEO, ("a video",)),
        (jpeg() + b"\0\0\x30\x0a\x10\0\0\0MotionPhoto_Data" + VIDEO + b"SEFT", ("a video",)),
        (jpeg() + bytes(64) + jpeg(), ("1 more picture",)),
        (jpeg() + jpeg() + VIDEO, ("1 more picture", "a video")),
        (jpeg() + b"abcd" * 5000, ("20,000 bytes of unknown data behind the picture",)),
        (with_index([0x020002]), ("1 more picture",)),
        (with_index([0x020003, 0x020003]), ("2 more pictures",)),
        (with_index([0x010001, 0x010002]), ()),
    ],
)  # fmt: skip
def test_what_lies_behind_a_jpeg(tmp_path, content, told):
    source = tmp_path / "in.jpg"
    source.write_bytes(content)
    assert beside(source) == told
    outcome = restore_picture(Untouched(), source, tmp_path / "out.jpg")
    assert any("also holds" in note for note in outcome.notes) == bool(told)
    assert beside(tmp_path / "out.jpg") == ()
    if told:
        with pytest.raises(TargetError, match="would be lost"):
            restore_picture(Untouched(), source, source, overwrite=True)
        assert source.read_bytes() == content
    else:
        restore_picture(Untouched(), source, source, overwrite=True)


def test_a_gain_map_is_not_lost_where_a_picture_replaces_itself(tmp_path):
    source = tmp_path / "in.jpg"
    content = jpeg() + jpeg(segment=b"\xff\xe1\x00\x20" + b"hdrgm:Version".ljust(30))
    source.write_bytes(content)
    assert beside(source) == ()
    outcome = restore_picture(Untouched(), source, tmp_path / "out.jpg")
    assert outcome.notes == ("Not in the result: gain map.",)
    with pytest.raises(TargetError, match="also holds a gain map, which would be lost"):
        restore_picture(Untouched(), source, source, overwrite=True)
    assert source.read_bytes() == content


def test_animated_png(tmp_path):
    source = tmp_path / "in.png"
    FRAMES[0].save(source, save_all=True, append_images=FRAMES[1:], duration=100)
    before = source.read_bytes()
    assert beside(source) == ("2 more frames",)
    outcome = restore_picture(Untouched(), source, tmp_path / "out.png")
    assert outcome.notes[0].startswith("Only the first of 3 frames was taken: 2 more frames ")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), RGB)
    with pytest.raises(TargetError, match="2 more frames, which would be lost"):
        restore_picture(Untouched(), source, source, overwrite=True)
    assert source.read_bytes() == before


def test_animated_png_that_begins_beside_its_picture(tmp_path):
    """All frames of the animation are lost where the picture that is read is none of them."""
    source = tmp_path / "in.png"
    FRAMES[0].save(source, save_all=True, append_images=FRAMES[1:], default_image=True)
    with Image.open(source) as picture:
        assert getattr(picture, "n_frames", 0) == 3
    assert beside(source) == ("2 more frames",)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (VIDEO + bytes(3000), ("a video",)),
        (bytes(70000), ()),
        (b"abc", ()),
        (b"abcd" * 5000, ("20,000 bytes of unknown data behind the picture",)),
    ],
)
def test_what_lies_behind_a_png(tmp_path, more, told):
    source = tmp_path / "in.png"
    FRAMES[0].save(source)
    source.write_bytes(source.read_bytes() + more)
    assert beside(source) == told


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (b"P6 5 4 255\n" + bytes(60), b"P6\n# words\n3\n2\n65535\n" + bytes(36)),
        (b"P5 5 4 # words\n4095\n" + bytes(40), b"\nP5 2 2 255\n" + bytes(4)),
        (b"P4 9 4\n" + bytes(8), b"P4 9 4\n" + bytes(8)),
    ],
)
def test_pictures_that_follow_one_another_in_a_pnm(tmp_path, one, two):
    source = tmp_path / "in.pnm"
    for content, told in ((one, ()), (one + two, ("1 more picture",)), (one + b"P6 x", ())):
        source.write_bytes(content)
        assert beside(source) == told
    source.write_bytes(one + two + one)
    assert beside(source) == ("2 more pictures",)


def test_animated_webp(tmp_path):
    source = tmp_path / "in.webp"
    FRAMES[0].save(source, save_all=True, append_images=FRAMES[1:], duration=100, lossless=True)
    before = source.read_bytes()
    outcome = restore_picture(Untouched(), source, tmp_path / "out.webp")
    assert ["first of 3 frames" in note for note in outcome.notes] == [True]
    restore_picture(Untouched(), source, tmp_path / "third.png", options=FileOptions(pages="3"))
    third = np.asarray(Image.open(tmp_path / "third.png"))
    np.testing.assert_array_equal(third, np.asarray(FRAMES[2]))
    with pytest.raises(TargetError, match="holds 3 pictures"):
        restore_picture(Untouched(), source, source, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_animated_avif(tmp_path):
    source = tmp_path / "in.avif"
    FRAMES[0].save(source, save_all=True, append_images=FRAMES[1:], duration=100, quality=90)
    before = source.read_bytes()
    outcome = restore_picture(Untouched(), source, tmp_path / "out.png")
    assert ["first of 3 frames was taken: 2 more" in note for note in outcome.notes] == [True]
    with pytest.raises(TargetError, match="would be lost"):
        restore_picture(Untouched(), source, source, overwrite=True)
    assert source.read_bytes() == before


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_video_behind_an_avif(tmp_path):
    source = tmp_path / "in.avif"
    FRAMES[0].save(source, quality=90)
    assert beside(source) == ()
    source.write_bytes(source.read_bytes() + box(b"mpvd", VIDEO))
    assert beside(source) == ("a video",)
