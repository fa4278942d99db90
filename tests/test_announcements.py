"""Metadata that announces something in the file goes where the thing goes, and that is told."""

import hashlib
import struct
import xml.etree.ElementTree as ET

import pytest
from pictures import (
    MORE,
    more_xmp,
    packet,
    pixels,
    segment,
    segments_of,
    with_segments,
    with_xmp,
    xmp_of,
)
from PIL import Image, PngImagePlugin

from urushi.image import PictureWriter, inspect_picture, open_picture
from urushi.image.formats.heif_boxes import codec_of, heif_extras

GOOGLE = "http://ns.google.com/photos"
NAMES = (
    f'xmlns:Container="{GOOGLE}/1.0/container/" xmlns:Item="{GOOGLE}/1.0/container/item/"'
    f' xmlns:GCamera="{GOOGLE}/1.0/camera/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
)


def copied(source, target, **options):
    """A picture written like its source; gives all notes."""
    info = inspect_picture(source)
    with open_picture(source) as reader:
        rows = reader.read(info.height)
        with PictureWriter(
            target, like=info, width=info.width, height=info.height, **options
        ) as writer:
            writer.write(rows)
        return [*reader.notes, *writer.notes]


def directory(kind):
    item = '<rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="{}"/></rdf:li>'
    return (
        f"<Container:Directory><rdf:Seq>{item.format('Primary')}{item.format(kind)}</rdf:Seq>"
        "</Container:Directory>"
    )


@pytest.mark.parametrize(
    ("said", "inside", "lost"),
    [
        (f'{NAMES} hdrgm:Version="1.0"', directory("GainMap"), "gain map"),
        (f'{NAMES} GCamera:MotionPhoto="1"', directory("MotionPhoto"), "video"),
        (f'{NAMES} GCamera:MicroVideo="1" GCamera:MicroVideoOffset="9"', "", "video"),
        (NAMES, "<GCamera:MotionPhoto>1</GCamera:MotionPhoto>", "video"),
        (
            'xmlns:O="http://ns.oplus.com/photos/1.0/camera/" O:MotionPhotoOwner="oplus"'
            ' O:OLivePhotoVersion="2" O:VideoLength="90"',
            "",
            "video",
        ),
        ('xmlns:v="http://ns.vivo.com/photos/1.0/camera/" v:VMotionPhotoVersion="1"', "", "video"),
        (
            'xmlns:M="http://ns.xiaomi.com/photos/1.0/camera/"'
            ' M:XMPMeta="&lt;subimage offset=&quot;90&quot;/&gt;"',
            "",
            "second picture",
        ),
        (f'xmlns:GDepth="{GOOGLE}/1.0/depthmap/" GDepth:Format="RangeInverse"', "", "depth map"),
        (f'xmlns:GImage="{GOOGLE}/1.0/image/" GImage:Data="AAAA"', "", "second picture"),
        (f'xmlns:D="{GOOGLE}/dd/1.0/device/" D:Revision="1"', "", "depth map"),
        ('xmlns:h="http://ns.apple.com/HDRGainMap/1.0/" h:HDRGainMapVersion="1"', "", "gain map"),
        (
            'xmlns:n="http://ns.adobe.com/xmp/note/"',
            f"<n:HasExtendedXMP>{'A' * 32}</n:HasExtendedXMP>",
            "extended XMP",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_what_is_gone_is_not_announced(tmp_path, said, inside, lost, suffix):
    source, target = tmp_path / "in.jpg", tmp_path / f"out{suffix}"
    source.write_bytes(with_xmp(said, inside))
    notes = copied(source, target)
    assert notes == [f"Not in the result: {lost}."]
    with Image.open(target) as picture:
        told = picture.info.get("xmp") or picture.info["XML:com.adobe.xmp"].encode()
    assert b'dc:source="archive 17"' in told
    for word in (b"hdrgm", b"HDRGainMap", b"Container", b"MotionPhoto", b"MicroVideo", b"Extended"):
        assert word not in told
    assert not any(word in told for word in (b"LivePhoto", b"VideoLength", b"subimage"))
    assert not any(word in told for word in (b"GDepth", b"GImage", b"Revision"))


def test_other_xmp_stays_byte_for_byte(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    told = packet('xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"', "<!-- kept -->")
    source.write_bytes(with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + told)))
    assert copied(source, target) == []
    assert xmp_of(target) == told


def test_thumbnails_in_xmp_go_without_a_word(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    inside = "<xmp:Thumbnails><rdf:Alt><rdf:li>old</rdf:li></rdf:Alt></xmp:Thumbnails>"
    source.write_bytes(with_xmp('xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5"', inside))
    assert copied(source, target) == []
    told = xmp_of(target)
    assert b"Thumbnails" not in told
    assert b'xmp:Rating="5"' in told


def test_an_extended_packet_is_carried_over(tmp_path):
    """What the main packet had no room for stands in the result, a depth map apart."""
    source = tmp_path / "in.jpg"
    told = f'xmlns:a="http://a/" xmlns:GDepth="{GOOGLE}/1.0/depthmap/" GDepth:Data="{"q" * 70000}"'
    digest, pieces = more_xmp(packet(told, f"<a:history>{'long ' * 20000}</a:history>"))
    assert len(pieces) == 3
    said = f'xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="{digest}"'
    main = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet(said))
    source.write_bytes(with_segments(main, *pieces))

    assert copied(source, tmp_path / "out.png") == ["Not in the result: depth map."]
    with Image.open(tmp_path / "out.png") as picture:
        assert "long " * 20000 in picture.info["XML:com.adobe.xmp"]

    assert copied(source, tmp_path / "out.jpg") == ["Not in the result: depth map."]
    found = [s for s in segments_of(tmp_path / "out.jpg", 0xE1) if s.startswith(MORE)]
    whole = b"".join(s[len(MORE) + 40 :] for s in found)
    digest = hashlib.md5(whole).hexdigest().upper().encode()
    assert [s[len(MORE) : len(MORE) + 32] for s in found] == [digest] * 2
    assert struct.unpack_from(">II", found[1], len(MORE) + 32) == (len(whole), 65000)
    assert b'HasExtendedXMP="' + digest in xmp_of(tmp_path / "out.jpg")
    assert "long " * 20000 in "".join(ET.fromstring(whole).itertext())


def test_a_broken_extended_packet_is_told(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    digest, pieces = more_xmp(b"<x>" + b"m" * 70000)
    said = f'xmlns:n="http://ns.adobe.com/xmp/note/" n:HasExtendedXMP="{digest}"'
    main = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet(said))
    source.write_bytes(with_segments(main, *pieces))
    assert copied(source, target) == ["Not in the result: extended XMP (it is damaged)."]
    assert b"Extended" not in xmp_of(target)
    assert b"archive 17" in xmp_of(target)


def test_xmp_with_a_document_type_is_not_taken_apart(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + packet(f'{NAMES} hdrgm:Version="&a;"')
    source.write_bytes(with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bomb)))
    assert copied(source, target) == ["Not in the result: XMP (it is damaged)."]
    assert segments_of(target, 0xE1) == []


def test_long_xmp_of_a_png_is_split_for_a_jpeg(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.jpg"
    chunk = PngImagePlugin.PngInfo()
    chunk.add_itxt(
        "XML:com.adobe.xmp", packet('xmlns:a="http://a/" a:long="' + "é" * 90000 + '"').decode()
    )
    Image.fromarray(pixels()).save(source, pnginfo=chunk)
    assert copied(source, target) == []
    found = [s for s in segments_of(target, 0xE1) if s.startswith(MORE)]
    whole = b"".join(s[len(MORE) + 40 :] for s in found)
    assert "é" * 90000 in whole.decode()
    assert b"archive 17" in xmp_of(target)
    # And back: nothing is lost on the way.
    assert copied(target, tmp_path / "back.png") == []
    with Image.open(tmp_path / "back.png") as picture:
        assert "é" * 90000 in picture.info["XML:com.adobe.xmp"]


def test_sizes_and_orientation_are_those_of_the_result(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    said = (
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
        ' tiff:Orientation="6" tiff:ImageWidth="128" tiff:ImageLength="96"'
    )
    source.write_bytes(with_xmp(said, "<exif:PixelXDimension>128</exif:PixelXDimension>"))
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(source) as picture:
        picture.save(source, exif=exif, xmp=picture.info["xmp"])
    copied(source, target)
    told = xmp_of(target)
    assert b'tiff:Orientation="1" tiff:ImageWidth="96" tiff:ImageLength="128"' in told
    assert b"<exif:PixelXDimension>96<" in told


def test_what_only_its_maker_reads_is_named(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    source.write_bytes(
        with_segments(
            segment(0xE1, b"FLIR\0\1\0\0" + bytes(20)),
            segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)),
            segment(0xEB, b"JP\0\1\0\0\0\1" + bytes(8) + b"jumb"),
        )
    )
    (note,) = copied(source, target)
    assert "gain map" in note
    assert "content credentials" in note
    assert "(FLIR)" in note


def test_nothing_is_told_of_what_was_to_be_stripped(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    source.write_bytes(with_xmp(f'{NAMES} GCamera:MotionPhoto="1"'))
    assert copied(source, target, strip_metadata=True) == []
    assert segments_of(target, 0xE1) == []


def test_a_gain_map_that_the_second_picture_alone_tells_of(tmp_path):
    """As telephones write it: an index of pictures (MPF), and not a word in the first one's XMP."""
    second = with_xmp('xmlns:h="http://ns.apple.com/HDRGainMap/1.0/" h:HDRGainMapVersion="65536"')
    first = with_segments()

    def index(size, start):
        entries = struct.pack(">HHI4sHHII", 0xB000, 7, 4, b"0100", 0xB001, 4, 1, 2)
        entries += struct.pack(">HHII", 0xB002, 7, 32, 50) + bytes(4)
        pictures = struct.pack(">IIIHH", 0x20030000, size, 0, 0, 0)
        pictures += struct.pack(">IIIHH", 0, len(second), start, 0, 0)
        return segment(0xE2, b"MPF\0MM\0*" + struct.pack(">IH", 8, 3) + entries + pictures)

    at = 4 + struct.unpack(">H", first[4:6])[0]
    size = len(first) + len(index(0, 0))
    source = tmp_path / "in.jpg"
    source.write_bytes(first[:at] + index(size, size - at - 8) + first[at:] + second)
    assert copied(source, tmp_path / "out.jpg") == ["Not in the result: gain map."]


@pytest.mark.parametrize(
    ("mark", "lost"), [(b"tmap", "gain map"), (b"hevc:2015:auxid:2", "depth map")]
)
def test_what_an_avif_holds_besides(tmp_path, mark, lost):
    source = tmp_path / "in.avif"
    Image.fromarray(pixels()).save(source)
    data = source.read_bytes()
    box = struct.pack(">I4s", 8 + len(mark), b"free") + mark
    assert heif_extras(source) == ()
    assert codec_of(source) == "AV1"
    source.write_bytes(data + struct.pack(">I4s", 8 + len(box), b"meta") + box)
    assert heif_extras(source) == (lost,)
