"""The boxes of AVIF and HEIF (ISO/IEC 14496-12 and 23008-12), as far as they tell of colours."""

import struct
from collections.abc import Iterator
from pathlib import Path

__all__ = ["nclx_of"]

# A box of what describes the pictures is much shorter than their data.
_LONGEST = 2**24
_MOST = 4096


def nclx_of(path: Path) -> tuple[int, int] | None:
    """The primaries and the transfer of the primary picture, numbers of ITU-T H.273.

    Returns:
        Both, or None where the file does not state them, or is damaged there.
    """
    try:
        meta = _meta(path)
        return None if meta is None else _nclx_of_primary(meta)
    except (struct.error, OSError, IndexError):
        return None


def _meta(path: Path) -> bytes | None:
    """What the file's 'meta' box holds."""
    with path.open("rb") as file:
        for _ in range(_MOST):
            head = file.read(8)
            if len(head) < 8:
                return None
            size, name = struct.unpack(">I4s", head)
            rest = size - 8
            if size == 1:
                rest = struct.unpack(">Q", file.read(8))[0] - 16
            if name == b"meta":
                return file.read(rest if 0 < rest <= _LONGEST else _LONGEST)[4:]
            if size == 0 or rest < 0:
                return None
            file.seek(rest, 1)
    return None


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


def _nclx_of_primary(meta: bytes) -> tuple[int, int] | None:
    parts = dict(_boxes(meta))
    properties = dict(_boxes(parts.get(b"iprp", b"")))
    offered = list(_boxes(properties.get(b"ipco", b"")))
    primary = parts.get(b"pitm")
    if primary is None:
        return None
    (item,) = struct.unpack_from(">H" if primary[0] == 0 else ">I", primary, 4)
    for index in _associated(properties.get(b"ipma", b""), item):
        if not 1 <= index <= len(offered):
            continue
        name, content = offered[index - 1]
        if name == b"colr" and content[:4] == b"nclx":
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            return primaries, transfer
    return None


def _associated(ipma: bytes, wanted: int) -> list[int]:
    """The numbers of an item's properties, from 1."""
    if len(ipma) < 8:
        return []
    version, flags = ipma[0], ipma[3]
    (count,) = struct.unpack_from(">I", ipma, 4)
    at = 8
    for _ in range(min(count, _MOST)):
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
