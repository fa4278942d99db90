"""Chunks of a PNG that libvips does not carry as they stand: texts, and the size of a pixel.

Texts are Latin-1 in `tEXt` and `zTXt` and UTF-8 in `iTXt` (PNG, third edition, 11.3.3). libvips
reads all as UTF-8 and writes all as `zTXt`, and gives every file a resolution.
"""

import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["PngParts", "read_png_parts", "rewrite_png", "text_chunk"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_CREDENTIALS = b"caBX"
# What ImageMagick and others hide in texts, and what is carried over by other means.
_PROFILES = ("raw profile type", "xml:com.adobe.xmp")
_MOST_BYTES = 2**24


@dataclass(frozen=True)
class PngParts:
    """What stands beside the picture.

    Attributes:
        texts: chunks of text as they stand in the file: length, name, content, checksum.
        keywords: of those texts.
        states_size: whether the file says how large a pixel is.
        profile: whether there is an ICC profile.
        credentials: whether there is a manifest of content credentials (C2PA).
    """

    texts: tuple[bytes, ...] = ()
    keywords: tuple[str, ...] = ()
    states_size: bool = False
    profile: bool = False
    credentials: bool = False


def read_png_parts(path: Path) -> PngParts:
    """Reads the chunks; what is damaged is left out, and no picture fails for it."""
    texts, keywords = [], []
    states_size = profile = credentials = False
    try:
        with path.open("rb") as file:
            for name, size, start in _chunks(file):
                if name in _TEXTS and size <= _MOST_BYTES:
                    file.seek(start)
                    content = file.read(size)
                    keyword = content.split(b"\0")[0].decode("latin-1")
                    if not keyword.lower().startswith(_PROFILES):
                        texts.append(_chunk(name, content))
                        keywords.append(keyword)
                elif name == b"pHYs" and size == 9:
                    file.seek(start)
                    # The unit may be unknown; then there is but the shape of a pixel.
                    states_size = file.read(9)[8] == 1
                profile |= name == b"iCCP"
                credentials |= name == _CREDENTIALS
    except OSError:
        pass
    return PngParts(tuple(texts), tuple(keywords), states_size, profile, credentials)


def text_chunk(keyword: str, text: str) -> bytes:
    """A text as a chunk: `tEXt` where it is Latin-1, else `iTXt`."""
    name = keyword.encode("latin-1", "replace")[:79]
    try:
        return _chunk(b"tEXt", name + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", name + b"\0\0\0\0\0" + text.encode())


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
