"""The marker segments of a JPEG before its first scan (ITU T.81, B.1; EXIF 2.32, 4.5.5).

libvips gives the EXIF, the first XMP packet, the profile and one block of Photoshop's. What else a
file has is found here: comments, the rest of long packets, and parts that only their makers know.
"""

import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "APP1",
    "APP13",
    "COMMENT",
    "PHOTOSHOP",
    "JpegParts",
    "insert_segments",
    "read_jpeg_parts",
    "segment",
]

COMMENT, APP0, APP1, APP13 = 0xFE, 0xE0, 0xE1, 0xED
LONGEST = 65533
"""Bytes of a segment's content at most."""

_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MORE_XMP = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
"""What stands before image resources."""
_ISO_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
_GAIN_MAP_WORDS = (b"hdrgm:", b"HDRGainMap", b"hdrgainmap", _ISO_GAIN_MAP)
_HEAD = 2**16
# Either carried over by other means, or of no use in a file that is encoded anew.
_KNOWN = (b"JFIF", b"JFXX", b"Exif", b"http://ns.adobe.com/", b"ICC_PROFILE", b"MPF", b"Adobe")
_KNOWN += (b"Photoshop 3.0", b"Ducky", _ISO_GAIN_MAP)
# From `SOF0` on: kinds of coding. `DHT`, `JPG` and `DAC` lie between.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_LS = 0xF7
_MOST_BYTES = 2**28


@dataclass(frozen=True)
class JpegParts:
    """What stands before the picture.

    Attributes:
        xmp: the main packet, or None.
        more_xmp: the extended packet that belongs to it, put together; None unless whole.
        photoshop: Photoshop's image resources, put together; empty if there are none.
        comments: as they stand.
        gain_map: whether there are facts on a gain map after ISO 21496-1, or a second picture
            that calls itself one.
        profile: whether there is an ICC profile.
        credentials: whether there is a manifest of content credentials (C2PA).
        private: names of segments that only their maker knows, each once.
        coding: the number of the frame marker: 0xC0 baseline, 0xC2 progressive; None if missing.
        bits: per sample, as the frame says.
        components: as the frame says.
    """

    xmp: bytes | None = None
    more_xmp: bytes | None = None
    photoshop: bytes = b""
    comments: tuple[bytes, ...] = ()
    gain_map: bool = False
    profile: bool = False
    credentials: bool = False
    private: tuple[str, ...] = ()
    coding: int | None = None
    bits: int = 8
    components: int = 3


def read_jpeg_parts(path: Path) -> JpegParts:
    """Reads the segments; what is damaged is left out, and no picture fails for it."""
    placed = list(_segments(path))
    found = [(marker, content) for marker, content, _ in placed]
    contents = [content for marker, content in found if marker == APP1]
    xmp = next((c[len(_XMP) :] for c in contents if c.startswith(_XMP)), None)
    more = [c[len(_MORE_XMP) :] for c in contents if c.startswith(_MORE_XMP)]
    resources = [c[len(PHOTOSHOP) :] for m, c in found if m == APP13 and c.startswith(PHOTOSHOP)]
    frame = next(((m, c) for m, c in found if m in _FRAMES or m == _JPEG_LS), None)
    private = [_name(m, c) for m, c in found if APP0 <= m <= 0xEF and not c.startswith(_KNOWN)]
    known = [name for name in dict.fromkeys(private) if name != "JUMBF"]
    return JpegParts(
        xmp=xmp,
        more_xmp=None if xmp is None else _put_together(more, xmp),
        photoshop=b"".join(resources),
        comments=tuple(content for marker, content in found if marker == COMMENT),
        gain_map=any(content.startswith(_ISO_GAIN_MAP) for _, content in found)
        or _second_is_gain_map(path, placed),
        profile=any(content.startswith(b"ICC_PROFILE\0") for _, content in found),
        credentials="JUMBF" in private,
        private=tuple(known),
        coding=None if frame is None else frame[0],
        bits=frame[1][0] if frame is not None and frame[1] else 8,
        components=frame[1][5] if frame is not None and len(frame[1]) > 5 else 3,
    )


def segment(marker: int, content: bytes) -> bytes:
    """A segment as it stands in a file."""
    assert len(content) <= LONGEST, len(content)
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def insert_segments(path: Path, segments: Sequence[bytes]) -> None:
    """Puts segments behind the last application segment of a sound JPEG.

    Raises:
        OSError: there is no room for a second copy.
    """
    if not segments:
        return
    with path.open("rb") as file:
        at = 2
        while True:
            file.seek(at)
            marker, size = struct.unpack(">xBH", file.read(4))
            if not APP0 <= marker <= 0xEF:
                break
            at += 2 + size
        file.seek(0)
        # The hidden name of an unfinished result stays one, so that whoever removes those finds it.
        other = path.with_name(f"{path.stem}-2{path.suffix}")
        try:
            with other.open("xb") as result:
                result.write(file.read(at))
                result.write(b"".join(segments))
                shutil.copyfileobj(file, result, 2**20)
            shutil.copymode(path, other)
            other.replace(path)
        finally:
            other.unlink(missing_ok=True)


def _second_is_gain_map(path: Path, found: Sequence[tuple[int, bytes, int]]) -> bool:
    """Whether one of the pictures that an index lists (CIPA DC-007, 5.2) is a gain map."""
    for marker, content, place in found:
        if marker != 0xE2 or content[:4] != b"MPF\0":
            continue
        try:
            order = {b"II": "<", b"MM": ">"}[content[4:6]]
            (first,) = struct.unpack_from(f"{order}I", content, 8)
            (count,) = struct.unpack_from(f"{order}H", content, 4 + first)
            with path.open("rb") as file:
                for i in range(count):
                    tag, _, size, start = struct.unpack_from(
                        f"{order}HHII", content, 4 + first + 2 + 12 * i
                    )
                    for at in range(start, start + size, 16) if tag == 0xB002 else ():
                        (offset,) = struct.unpack_from(f"{order}I", content, 4 + at + 8)
                        file.seek(place + 4 + offset)
                        head = file.read(_HEAD) if offset else b""
                        if any(word in head for word in _GAIN_MAP_WORDS):
                            return True
        except (KeyError, struct.error, OSError):
            continue
    return False


def _segments(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Marker, content and its place of each segment up to the first scan, as far as sound."""
    try:
        with path.open("rb") as file:
            if file.read(2) != b"\xff\xd8":
                return
            while file.tell() < _MOST_BYTES:
                head = file.read(2)
                # A marker may be filled up with any number of 0xFF.
                while head[1:] == b"\xff":
                    head = head[1:] + file.read(1)
                if len(head) < 2 or head[0] != 0xFF or head[1] in (0xD9, 0xDA):
                    return
                size = int.from_bytes(file.read(2), "big") - 2
                content = file.read(size) if size >= 0 else b""
                if len(content) != size:
                    return
                yield head[1], content, file.tell() - size
    except OSError:
        return


def _put_together(pieces: Sequence[bytes], xmp: bytes) -> bytes | None:
    """The extended packet whose digest the main one names; each piece has digest, size, place."""
    packet, filled = bytearray(), 0
    for piece in pieces:
        if len(piece) < 40 or piece[:32] not in xmp:
            continue
        size, start = struct.unpack_from(">II", piece, 32)
        if not packet and size <= _MOST_BYTES:
            packet = bytearray(size)
        data = piece[40:]
        if len(packet) != size or start + len(data) > size:
            return None
        packet[start : start + len(data)] = data
        filled += len(data)
    return bytes(packet) if packet and filled == len(packet) else None


def _name(marker: int, content: bytes) -> str:
    """What a segment calls itself, or its number."""
    # ISO 19566-5: `JP`, two numbers of four bytes, then boxes.
    if marker == 0xEB and content[:2] == b"JP":
        return "JUMBF"
    word = content[:24].split(b"\0")[0].split(b" ")[0]
    plain = 2 <= len(word) <= 20 and word.isascii() and word.decode("ascii").isprintable()
    return word.decode("ascii") if plain else f"APP{marker - APP0}"
