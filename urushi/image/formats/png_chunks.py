"""Chunks of a PNG that libvips does not carry as they stand: texts, and the size of a pixel.

Texts are Latin-1 in `tEXt` and `zTXt` and UTF-8 in `iTXt` (PNG, third edition, 11.3.3). libvips
reads all as UTF-8 and writes all as `zTXt`, and gives every file a resolution.
"""

import itertools
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "PngParts", "read_png_parts", "rewrite_png", "short_chunks", "text_chunk", "xmp_chunk",
]  # fmt: skip

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_CREDENTIALS = b"caBX"
# What ImageMagick and others hide in texts as hexadecimal numbers: EXIF, XMP, IPTC.
_HIDDEN = "raw profile type "
_XMP = "xml:com.adobe.xmp"
# What is carried over by other means, or says how samples are stored, or when.
_KNOWN = frozenset(
    b"IHDR PLTE IDAT IEND tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI mDCv cLLi bKGD hIST pHYs"
    b" sPLT eXIf tEXt zTXt iTXt tIME acTL fcTL fdAT caBX vpAg".split()
)
_MOST_BYTES = 2**24
# What states colours is shorter.
_SHORT = 64
_MOST_CHUNKS = 1000


@dataclass(frozen=True)
class PngParts:
    """What stands beside the picture.

    Attributes:
        texts: chunks of text as they stand in the file: length, name, content, checksum.
        keywords: of those texts.
        hidden: what programs put into texts although it is none, by kind: 'exif', 'xmp', 'iptc'.
        others: chunks that may be copied although the pixels change, as they stand.
        lost: names of chunks that may not.
        states_size: whether the file says how large a pixel is.
        profile: whether there is an ICC profile.
        credentials: whether there is a manifest of content credentials (C2PA).
    """

    texts: tuple[bytes, ...] = ()
    keywords: tuple[str, ...] = ()
    hidden: Mapping[str, bytes] = field(default_factory=dict)
    others: tuple[bytes, ...] = ()
    lost: tuple[str, ...] = ()
    states_size: bool = False
    profile: bool = False
    credentials: bool = False


def read_png_parts(path: Path) -> PngParts:
    """Reads the chunks; what is damaged is left out, and no picture fails for it."""
    texts: list[bytes] = []
    keywords: list[str] = []
    hidden: dict[str, bytes] = {}
    others: list[bytes] = []
    lost: dict[str, None] = {}
    states_size = profile = credentials = False
    try:
        with path.open("rb") as file:
            for name, size, start in _chunks(file):
                content = b""
                if name != b"IDAT" and size <= _MOST_BYTES:
                    file.seek(start)
                    content = file.read(size)
                if name in _TEXTS:
                    keyword = content.split(b"\0")[0].decode("latin-1")
                    if keyword.lower().startswith(_HIDDEN):
                        hidden.update(_unhidden(name, keyword, content))
                    elif keyword.lower() != _XMP:
                        texts.append(_chunk(name, content))
                        keywords.append(keyword)
                elif name == b"pHYs" and size == 9:
                    # The unit may be unknown; then there is but the shape of a pixel.
                    states_size = content[8] == 1
                elif name not in _KNOWN:
                    # A small last letter: safe to copy (PNG, third edition, 5.4).
                    if name[3:].islower() and content:
                        others.append(_chunk(name, content))
                    else:
                        lost[name.decode("latin-1")] = None
                profile |= name == b"iCCP"
                credentials |= name == _CREDENTIALS
    except OSError:
        pass
    return PngParts(
        tuple(texts),
        tuple(keywords),
        hidden,
        tuple(others),
        tuple(lost),
        states_size,
        profile,
        credentials,
    )


def _unhidden(name: bytes, keyword: str, content: bytes) -> dict[str, bytes]:
    """What a text hides: its kind, its length and hexadecimal numbers, each on a line."""
    rest = content[len(keyword) + 1 :]
    try:
        if name == b"zTXt":
            rest = zlib.decompressobj().decompress(rest[1:], _MOST_BYTES)
        elif name == b"iTXt":
            return {}
        _, _, _, numbers = rest.split(b"\n", 3)
        data = bytes.fromhex(b"".join(numbers.split()).decode("ascii"))
    except (ValueError, zlib.error):
        return {}
    kind = keyword.lower().removeprefix(_HIDDEN)
    if data.startswith(b"Exif\0\0"):
        return {"exif": data}
    if kind in ("xmp", "app1") and b"<x:xmpmeta" in data:
        return {"xmp": data[data.index(b"\0") + 1 :] if data.startswith(b"http") else data}
    return {"iptc": data} if kind in ("iptc", "8bim") else {}


def text_chunk(keyword: str, text: str) -> bytes:
    """A text as a chunk: `tEXt` where it is Latin-1, else `iTXt`."""
    name = keyword.encode("latin-1", "replace")[:79]
    try:
        return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode())


def xmp_chunk(packet: bytes) -> bytes:
    """An XMP packet as a chunk (XMP part 3, 1.1.5)."""
    return _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)


def short_chunks(path: Path) -> dict[bytes, bytes]:
    """Whole chunks that stand before the pixels and are short, the first of each name."""
    found: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        for name, size, start in itertools.islice(_chunks(file), _MOST_CHUNKS):
            if name in (b"IDAT", b"IEND"):
                break
            if size <= _SHORT and name not in found:
                file.seek(start - 8)
                found[name] = file.read(size + 12)
    return found


def rewrite_png(path: Path, *, add: Sequence[bytes], drop: Sequence[bytes]) -> None:
    """Changes chunks of a sound PNG that stand before its pixels.

    Args:
        path: of the file, replaced by a copy.
        add: whole chunks to stand right behind the header.
        drop: names of chunks to leave out.

    Raises:
        OSError: there is no room for a second copy.
    """
    # The hidden name of an unfinished result stays one, so that whoever removes those finds it.
    other = path.with_name(f"{path.stem}-2{path.suffix}")
    try:
        with path.open("rb") as file, other.open("xb") as result:
            result.write(_SIGNATURE)
            for name, size, start in _chunks(file):
                file.seek(start - 8)
                if name == b"IDAT":
                    # From here on everything is pixels.
                    shutil.copyfileobj(file, result, 2**20)
                    break
                if name not in drop:
                    result.write(file.read(size + 12))
                if name == b"IHDR":
                    result.write(b"".join(add))
        shutil.copymode(path, other)
        other.replace(path)
    finally:
        other.unlink(missing_ok=True)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, size and place of the content of each chunk."""
    file.seek(0, 2)
    end = file.tell()
    file.seek(0)
    if file.read(8) != _SIGNATURE:
        return
    at = 8
    while at + 12 <= end:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        if at + 12 + size > end:
            return
        yield name, size, at + 8
        at += size + 12


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I4s", len(content), name) + content + struct.pack(">I", check)
