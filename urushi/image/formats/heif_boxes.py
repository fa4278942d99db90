"""What the `meta` box of an AVIF or HEIF file names (ISO 14496-12; ISO 23008-12)."""

import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["codec_of", "head_of_primary", "heif_extras", "matrix_of", "nclx_of"]

_CODECS = ((b"hvc1", "HEVC"), (b"av01", "AV1"), (b"vvc1", "VVC"), (b"avc1", "AVC"))
_MARKS = (
    (b"tmap", "gain map"),
    (b"aux:hdrgainmap", "gain map"),
    (b"hevc:2015:auxid:2", "depth map"),
    (b"cicp:systems:auxiliary:depth", "depth map"),
    (b"urn:com:apple:photo:2018:aux:portraiteffectsmatte", "portrait matte"),
)
_MOST_BYTES = 2**24
_MOST_BOXES = 4096
_HEAD = 4096


def codec_of(path: Path) -> str | None:
    """The codec of the picture; None where it is unknown or the file is not whole."""
    meta = _meta(path)
    return next((title for mark, title in _CODECS if meta is not None and mark in meta), None)


def heif_extras(path: Path) -> tuple[str, ...]:
    """What belongs to the picture and is neither colour nor transparency."""
    meta = _meta(path) or b""
    return tuple(dict.fromkeys(name for mark, name in _MARKS if mark in meta))


def nclx_of(path: Path) -> tuple[int, int] | None:
    """The primaries and the transfer of the primary picture, numbers of ITU-T H.273.

    Returns:
        Both, or None where the file does not state them, or is damaged there.
    """
    stated = _stated(path)
    return None if stated is None else stated[:2]


def matrix_of(path: Path) -> int | None:
    """The matrix of the primary picture by the same table; None where it is not stated."""
    stated = _stated(path)
    return None if stated is None else stated[2]


def head_of_primary(path: Path) -> bytes:
    """The first bytes of what is coded of the primary picture; none where they are not found."""
    meta = _meta(path)
    try:
        place = None if meta is None else _place_of_primary(meta)
        if place is None:
            return b""
        with path.open("rb") as file:
            file.seek(place[0])
            return file.read(min(place[1] or _HEAD, _HEAD))
    except (OSError, struct.error, IndexError):
        return b""


def _stated(path: Path) -> tuple[int, int, int] | None:
    meta = _meta(path)
    try:
        return None if meta is None else _nclx_of_primary(meta)
    except (struct.error, IndexError):
        return None


def _meta(path: Path) -> bytes | None:
    """What the box holds; None if any box ends beyond the file."""
    found = None
    try:
        with path.open("rb") as file:
            end, at = file.seek(0, 2), 0
            for _ in range(_MOST_BOXES):
                if at + 8 > end:
                    break
                file.seek(at)
                size, name = struct.unpack(">I4s", file.read(8))
                head = 8
                if size == 1:
                    (size,) = struct.unpack(">Q", file.read(8))
                    head = 16
                elif size == 0:
                    size = end - at
                if size < head or at + size > end:
                    return None
                if name == b"meta":
                    # Its own version and flags come first.
                    found = file.read(min(size - head, _MOST_BYTES))[4:]
                at += size
    except (OSError, struct.error):
        return None
    return found


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the boxes that follow one another."""
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            size = struct.unpack_from(">Q", data, start)[0]
            start += 8
        elif size == 0:
            size = len(data) - at
        if size < start - at:
            return
        yield name, data[start : at + size]
        at += size


def _primary(parts: dict[bytes, bytes]) -> int | None:
    primary = parts.get(b"pitm")
    if primary is None:
        return None
    return struct.unpack_from(">H" if primary[0] == 0 else ">I", primary, 4)[0]


def _nclx_of_primary(meta: bytes) -> tuple[int, int, int] | None:
    parts = dict(_boxes(meta))
    properties = dict(_boxes(parts.get(b"iprp", b"")))
    offered = list(_boxes(properties.get(b"ipco", b"")))
    item = _primary(parts)
    if item is None:
        return None
    for index in _associated(properties.get(b"ipma", b""), item):
        if not 1 <= index <= len(offered):
            continue
        name, content = offered[index - 1]
        if name == b"colr" and content[:4] == b"nclx":
            return struct.unpack_from(">HHH", content, 4)
    return None


def _place_of_primary(meta: bytes) -> tuple[int, int] | None:
    """Where in the file it begins, and how long its first piece is; 0 for to the end."""
    parts = dict(_boxes(meta))
    item, places = _primary(parts), parts.get(b"iloc", b"")
    if item is None or not places:
        return None
    version, sizes, at = places[0], places[4:6], 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(places):
            raise IndexError
        return int.from_bytes(places[at - size : at], "big")

    offset, length, base, index = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4, sizes[1] & 15
    for _ in range(min(number(4 if version == 2 else 2), _MOST_BOXES)):
        found = number(4 if version == 2 else 2)
        inside = number(2) & 15 if version else 0
        number(2)
        begin, extents = number(base), []
        for _ in range(number(2)):
            number(index if version else 0)
            extents.append((begin + number(offset), number(length)))
        if found == item:
            return extents[0] if extents and not inside else None
    return None


def _associated(ipma: bytes, wanted: int) -> list[int]:
    """The numbers of an item's properties, from 1."""
    if len(ipma) < 8:
        return []
    version, flags = ipma[0], ipma[3]
    (count,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(min(count, _MOST_BOXES)):
        form = ">H" if version < 1 else ">I"
        (item,) = struct.unpack_from(form, ipma, at)
        at += struct.calcsize(form)
        number = ipma[at]
        at += 1
        if flags & 1:
            found = [v & 0x7FFF for v in struct.unpack_from(f">{number}H", ipma, at)]
            at += 2 * number
        else:
            found = [v & 0x7F for v in ipma[at : at + number]]
            at += number
        if item == wanted:
            return found
    return []
