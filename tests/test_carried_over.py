"""Comments, texts, paths and private tags come through as they stand; nothing is made up."""

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import jpeg, packet, pixels, segment, segments_of, with_segments
from PIL import Image, ImageCms, TiffImagePlugin
from test_announcements import copied

from urushi.image import PictureWriter, inspect_picture, read_picture, write_picture

GEO = {
    33550: (12, (10.0, 10.0, 0.0)),
    33922: (12, (0.0, 0.0, 0.0, 5e5, 4.6e6, 0.0)),
    34735: (3, (1, 1, 0, 1, 1024, 0, 1, 1)),
    34737: (2, "WGS 84|"),
    42113: (2, "0"),
}


def png_with(*chunks):
    """A PNG with further chunks, each a name and its content."""
    source = pixels(20, 30)
    file = io.BytesIO()
    Image.fromarray(source).save(file, "PNG")
    data = file.getvalue()
    added = b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    return data[:33] + added + data[33:]


def tiff_with(path, tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, (kind, value) in tags.items():
        info.tagtype[tag] = kind
        info[tag] = value
    Image.fromarray(pixels(20, 30)).save(path, tiffinfo=info)


def tags_of(path):
    with Image.open(path) as picture:
        return dict(picture.tag_v2)  # pyright: ignore[reportAttributeAccessIssue]


def resource(number, data):
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + b"\0" * (len(data) % 2)


# --- texts ---


def test_texts_of_a_png_keep_their_bytes(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    chunks = [
        (b"tEXt", b"Comment\0Gr\xfc\xdfe"),
        (b"tEXt", b"Gr\xe4\0x"),
        (b"zTXt", b"Long\0\0" + zlib.compress(b"\xe9" * 3000)),
        (b"iTXt", "Title\0\0\0de\0\0冬の港".encode()),
    ]
    source.write_bytes(png_with(*chunks))
    assert copied(source, target) == []
    for name, content in chunks:
        assert name + content in target.read_bytes()
    assert np.array_equal(read_picture(source), read_picture(target))
    assert copied(source, tmp_path / "bare.png", strip_metadata=True) == []
    assert b"tEXt" not in (tmp_path / "bare.png").read_bytes()


def test_texts_that_have_no_place_are_named(tmp_path):
    source = tmp_path / "in.png"
    source.write_bytes(png_with((b"iTXt", b"parameters\0\0\0\0\0ein Bild")))
    assert copied(source, tmp_path / "out.jpg") == [
        "Not in the result: texts of the PNG (parameters)."
    ]


@pytest.mark.parametrize("comment", [b"Gr\xfc\xdfe", "Grüße 港".encode(), b"plain"])
def test_comments_of_a_jpeg(tmp_path, comment):
    source = tmp_path / "in.jpg"
    source.write_bytes(with_segments(segment(0xFE, comment), segment(0xFE, b"a second")))
    assert copied(source, tmp_path / "out.jpg") == []
    assert segments_of(tmp_path / "out.jpg", 0xFE) == [comment, b"a second"]
    assert copied(source, tmp_path / "out.png") == []
    told = {b"Gr\xfc\xdfe": "Grüße", b"plain": "plain"}.get(comment, "Grüße 港")
    with Image.open(tmp_path / "out.png") as picture:
        texts = (tmp_path / "out.png").read_bytes().count(b"Comment")
        assert texts == 2
        assert picture.info["Comment"] in (told, "a second")
    assert copied(source, tmp_path / "out.tif") == ["Not in the result: the comment of the JPEG."]


def test_a_description_in_latin_1(tmp_path):
    source = tmp_path / "in.tif"
    tiff_with(source, {270: (2, "Grüße".encode("latin-1"))})
    copied(source, tmp_path / "out.tif")
    assert "Gr\xfc\xdfe".encode("latin-1") + b"\0" in (tmp_path / "out.tif").read_bytes()
    copied(source, tmp_path / "out.jpg")
    assert b"Gr\xfc\xdfe" in (tmp_path / "out.jpg").read_bytes()


# --- Photoshop ---


def test_photoshop_keeps_paths_and_loses_its_thumbnail(tmp_path):
    source = tmp_path / "in.jpg"
    path = resource(2000, bytes(range(26)) * 3)
    old = resource(1036, b"old picture") + resource(1033, b"older")
    source.write_bytes(with_segments(segment(0xED, b"Photoshop 3.0\0" + old + path)))
    assert copied(source, tmp_path / "out.jpg") == []
    assert segments_of(tmp_path / "out.jpg", 0xED) == [b"Photoshop 3.0\0" + path]
    assert copied(source, tmp_path / "out.tif") == []
    assert tags_of(tmp_path / "out.tif")[34377] == path
    assert copied(tmp_path / "out.tif", tmp_path / "back.jpg") == []
    assert segments_of(tmp_path / "back.jpg", 0xED) == [b"Photoshop 3.0\0" + path]
    assert copied(source, tmp_path / "out.png") == ["Not in the result: Photoshop's paths."]


def test_long_resources_take_several_segments(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    head, whole = b"Photoshop 3.0\0", resource(2000, b"p" * 70000) + resource(1034, b"\1")
    pieces = [segment(0xED, head + whole[at : at + 60000]) for at in (0, 60000)]
    source.write_bytes(with_segments(*pieces))
    assert copied(source, target) == []
    found = segments_of(target, 0xED)
    assert b"".join(piece.removeprefix(head) for piece in found) == whole


def test_paths_of_a_turned_picture_are_told(tmp_path):
    source = tmp_path / "in.jpg"
    exif = Image.Exif()
    exif[0x0112] = 3
    block = segment(0xED, b"Photoshop 3.0\0" + resource(2000, bytes(26)))
    source.write_bytes(with_segments(block, data=jpeg()))
    with Image.open(source) as picture:
        data = jpeg(np.asarray(picture), exif=exif)
    source.write_bytes(data[:2] + block + data[2:])
    (note,) = copied(source, tmp_path / "out.jpg")
    assert "paths (the picture was turned)" in note


# --- tags of a TIFF ---


def test_the_place_on_earth_and_private_tags(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tiff_with(source, {**GEO, 269: (2, "sheet 7"), 51123: (2, "{}"), 65000: (3, (1, 2, 3))})
    assert copied(source, target) == []
    tags = tags_of(target)
    for tag, (_, value) in GEO.items():
        assert tags[tag] == value
    assert (tags[269], tags[51123], tags[65000]) == ("sheet 7", "{}", (1, 2, 3))
    (note,) = copied(source, tmp_path / "out.png")
    assert "the place on Earth (GeoTIFF), TIFF tags 269, 51123, 65000" in note


def test_what_is_counted_in_pixels_stays_behind_where_they_are_others(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tiff_with(source, {**GEO, 269: (2, "sheet 7")})
    info = inspect_picture(source)
    with PictureWriter(target, like=info, width=60, height=40) as writer:
        writer.write(np.zeros((40, 60, 3), np.float32))
    assert writer.notes == ["Not in the result: the place on Earth (GeoTIFF)."]
    assert 33550 not in tags_of(target)
    assert tags_of(target)[269] == "sheet 7"


def test_layers_and_places_in_the_file_are_not_copied(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    tiff_with(source, {37724: (7, b"Adobe Photoshop Document Data Block\0"), 34412: (1, bytes(40))})
    (note,) = copied(source, target)
    assert "Photoshop's layers" in note
    assert not {37724, 34412} & set(tags_of(target))


def test_colours_that_a_tiff_states_by_tags(tmp_path):
    """White and primaries without a profile: true of a TIFF of the same samples, else named."""
    source = tmp_path / "in.tif"
    said = {318: (5, (0.3127, 0.329)), 319: (5, (0.64, 0.33, 0.21, 0.71, 0.15, 0.06))}
    tiff_with(source, said)
    for strip in (False, True):
        target = tmp_path / f"{strip}.tif"
        assert copied(source, target, strip_metadata=strip) == []
        for tag, (_, values) in said.items():
            assert tuple(map(float, tags_of(target)[tag])) == pytest.approx(values)
    assert copied(source, tmp_path / "out.png") == [
        "Not in the result: the colours that tags of the TIFF state."
    ]


# --- nothing is made up ---


@pytest.mark.parametrize("source_suffix", [".jpg", ".png", ".tif", ".webp", ".bmp"])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_no_resolution_is_made_up(tmp_path, source_suffix, suffix):
    source, target = tmp_path / f"in{source_suffix}", tmp_path / f"out{suffix}"
    exif = Image.Exif()
    exif[315] = "Ogata"
    options = {"dpi": (0, 0)} if source_suffix == ".bmp" else {"exif": exif}
    Image.fromarray(pixels(20, 30)).save(source, **options)
    copied(source, target)
    if suffix == ".tif":
        assert not {282, 283, 296} & set(tags_of(target))
        return
    if suffix == ".jpg":
        # Density without a unit: the shape of a pixel.
        assert {content[7:12] for content in segments_of(target, 0xE0)} <= {b"\0\0\1\0\1"}
    with Image.open(target) as picture:
        if suffix == ".png":
            assert "dpi" not in picture.info
        told = picture.getexif()
        assert not {282, 283, 296} & set(told)
        assert 40961 not in told.get_ifd(0x8769)
        if source_suffix != ".bmp":
            assert told[315] == "Ogata"
        picture.load()


def test_a_resolution_of_72_is_kept_where_it_is_stated(tmp_path):
    for suffix in (".jpg", ".png", ".tif", ".bmp"):
        source = tmp_path / f"in{suffix}"
        Image.fromarray(pixels(20, 30)).save(source, dpi=(72, 72))
        for other in (".jpg", ".png", ".tif"):
            target = tmp_path / f"{suffix[1:]}{other}"
            copied(source, target)
            with Image.open(target) as picture:
                assert float(picture.info["dpi"][0]) == pytest.approx(72, abs=0.1)


# --- profiles ---


def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["padded", "too long a size"])
def test_profiles_whose_size_libpng_would_refuse(tmp_path, kind):
    good = profile()
    odd = good + bytes(12) if kind == "padded" else struct.pack(">I", len(good) + 100) + good[4:]
    source, target = tmp_path / "in.jpg", tmp_path / "out.png"
    source.write_bytes(jpeg(icc_profile=odd))
    assert copied(source, target) == []
    with Image.open(target) as picture:
        assert picture.info["icc_profile"][4:] == good[4:]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("kind", ["grey", "unsigned", "cut", "broken table"])
def test_a_profile_that_cannot_be_used_is_told(tmp_path, suffix, kind):
    source, good = tmp_path / f"in{suffix}", profile()
    odd = {
        "grey": good[:16] + b"GRAY" + good[20:],
        "unsigned": good[:36] + b"none" + good[40:],
        "cut": good[:100],
        "broken table": good[:128] + struct.pack(">I", 90000) + good[132:],
    }[kind]
    Image.fromarray(pixels(20, 30)).save(source, icc_profile=odd)
    (note,) = copied(source, tmp_path / f"out{suffix}")
    assert "colour profile" in note


def test_a_file_of_ones_own_has_no_notes(tmp_path):
    path = tmp_path / "a.png"
    write_picture(path, pixels().astype(np.float32) / 255)
    assert copied(path, tmp_path / "b.png") == []


def hidden(kind, data):
    """EXIF or XMP as ImageMagick puts it into a text: its length, and hexadecimal numbers."""
    text = b"\n%s\n%8d\n%s\n" % (kind, len(data), data.hex().encode())
    return b"zTXt", b"Raw profile type " + kind + b"\0\0" + zlib.compress(text)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_and_xmp_hidden_in_texts_become_what_they_are(tmp_path, suffix):
    source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
    exif = Image.Exif()
    exif[315] = "Ogata"
    source.write_bytes(png_with(hidden(b"exif", exif.tobytes()), hidden(b"xmp", packet(""))))
    assert copied(source, target) == []
    with Image.open(target) as picture:
        assert picture.getexif()[315] == "Ogata"
        assert "archive 17" in str(picture.info)
        assert "Raw profile" not in str(picture.info)


def test_iptc_is_told_where_it_has_no_place(tmp_path):
    source = tmp_path / "in.jpg"
    record = resource(1028, b"\x1c\x02\x50\x00\x05Ogata")
    source.write_bytes(with_segments(segment(0xED, b"Photoshop 3.0\0" + record)))
    assert copied(source, tmp_path / "out.jpg") == []
    assert copied(source, tmp_path / "out.tif") == []
    assert copied(source, tmp_path / "out.png") == ["Not in the result: IPTC."]


def test_other_chunks_of_a_png(tmp_path):
    """Those whose last letter is small may be copied; the others may not, and are named."""
    source = tmp_path / "in.png"
    source.write_bytes(png_with((b"npTc", b"patch"), (b"mkBF", b"layers"), (b"caBX", b"c2pa")))
    (note,) = copied(source, tmp_path / "out.png")
    assert note == "Not in the result: content credentials, chunks of the PNG (mkBF)."
    assert b"npTcpatch" in (tmp_path / "out.png").read_bytes()
    (note,) = copied(source, tmp_path / "out.jpg")
    assert "(mkBF, npTc)" in note


def test_long_notes_of_a_maker_are_named(tmp_path):
    source = tmp_path / "in.png"
    exif = Image.Exif()
    exif[315] = "Ogata"
    exif.get_ifd(0x8769)[37500] = bytes(100_000)
    Image.fromarray(pixels(20, 30)).save(source, exif=exif)
    (note,) = copied(source, tmp_path / "out.jpg")
    assert "notes of the camera's maker" in note
    assert copied(source, tmp_path / "out.tif") == []
