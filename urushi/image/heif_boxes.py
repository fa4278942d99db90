"""What the `meta` box of an AVIF or HEIF file names (ISO 14496-12; ISO 23008-12)."""

import struct
from pathlib import Path

__all__ = ["codec_of", "heif_extras"]

_CODECS = ((b"hvc1", "HEVC"), (b"av01", "AV1"), (b"vvc1", "VVC"), (b"avc1", "AVC"))
_MARKS = (
    (b"tmap", "gain map"),
    (b"aux:hdrgainmap", "gain map"),
    (b"hevc:2015:auxid:2", "depth map"),
    (b"cicp:systems:auxiliary:depth", "depth map"),
    (b"urn:com:apple:photo:2018:aux:portraiteffectsmatte", "portrait matte"),
)
_MOST_BYTES = 2**22


def codec_of(path: Path) -> str | None:
    """The codec of the picture; None where it is unknown or the file is not whole."""
    meta = _meta(path)
    return next((title for mark, title in _CODECS if meta is not None and mark in meta), None)


def heif_extras(path: Path) -> tuple[str, ...]:
    """What belongs to the picture and is neither colour nor transparency."""
    meta = _meta(path) or b""
    return tuple(dict.fromkeys(name for mark, name in _MARKS if mark in meta))


def _meta(path: Path) -> bytes | None:
    """The box; None if any box ends beyond the file."""
    found = None
    try:
        with path.open("rb") as file:
            end, at = file.seek(0, 2), 0
            while at + 8 <= end:
                file.seek(at)
                size, name = struct.unpack(">I4s", file.read(8))
                if size == 1:
                    (size,) = struct.unpack(">Q", file.read(8))
                elif size == 0:
                    size = end - at
                if size < 8 or at + size > end:
                    return None
                if name == b"meta":
                    found = file.read(min(size, _MOST_BYTES))
                at += size
    except (OSError, struct.error):
        return None
    return found
