"""IPTC records: bare in a TIFF, within Photoshop's image resources in a JPEG (IIM 4.2; APP13)."""

import struct
from pathlib import Path

__all__ = ["converted_iptc"]

_HEAD = b"Photoshop 3.0\0"
_RECORD = 0x0404
# A marker segment of a JPEG holds no more than this.
_LONGEST_SEGMENT = 65500


def converted_iptc(data: bytes, path: Path, source: str, target: str) -> bytes | None:
    """The IPTC of a source as a format wants it.

    Args:
        data: what libvips read.
        path: of the source.
        source, target: names of formats.

    Returns:
        What libvips is to write, or None if there is no record or no room for it.
    """
    if source == "tiff":
        data = _of_tiff(path) or data
    if source in ("jpeg", "png") and target != "jpeg":
        record = _unwrapped(data)
        if record is None:
            return None
        data = record
    if target == "tiff":
        # libvips 8.18 writes the first quarter only; zeros end an IPTC record anyway.
        return data.ljust(-(-len(data) // 4) * 16, b"\0")
    if target == "jpeg" and source != "jpeg":
        data = _wrapped(data)
        return data if len(data) <= _LONGEST_SEGMENT else None
    return data


def _wrapped(record: bytes) -> bytes:
    """A record as the only one of Photoshop's image resources."""
    record = record.rstrip(b"\0") if record[:1] == b"\x1c" else record
    head = _HEAD + b"8BIM" + struct.pack(">HHI", _RECORD, 0, len(record))
    return head + record + b"\0" * (len(record) % 2)


def _unwrapped(data: bytes) -> bytes | None:
    """The record among Photoshop's image resources."""
    if data[:1] == b"\x1c":
        return data
    if not data.startswith(_HEAD):
        return None
    at = len(_HEAD)
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        (number,) = struct.unpack_from(">H", data, at + 4)
        # A name that begins with its length, padded to an even number of bytes, comes between.
        name = 1 + data[at + 6]
        start = at + 6 + name + name % 2 + 4
        if start > len(data):
            return None
        (size,) = struct.unpack_from(">I", data, start - 4)
        if number == _RECORD:
            return data[start : start + size] or None
        at = start + size + size % 2
    return None


def _of_tiff(path: Path) -> bytes | None:
    """The IPTC record of a TIFF, whole; libvips 8.18 reads a part of those stored as longs."""
    from PIL import TiffImagePlugin

    try:
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            size = 16 if head[2:3] == b"+" or head[3:4] == b"+" else 8
            directory = TiffImagePlugin.ImageFileDirectory_v2(head[:size])
            file.seek(directory.next)
            directory.load(file)
            value = directory.get(33723)
    except (OSError, SyntaxError, ValueError, struct.error):
        return None
    if isinstance(value, tuple):
        order = "<" if head[:2] == b"II" else ">"
        return struct.pack(f"{order}{len(value)}I", *value)
    return bytes(value) if isinstance(value, bytes) else None
