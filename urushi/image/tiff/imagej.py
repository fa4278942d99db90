"""What ImageJ writes beside a description: labels of planes, colour tables, ranges, overlays.

Two private tags hold it, in the byte order of their file, text and numbers included (ImageJ's
`TiffEncoder`; the names of the parts are those of its `TiffDecoder`).
"""

import struct
from collections.abc import Mapping

from urushi.image.tiff.directories import DAMAGE, Directory, Form, TiffFile

__all__ = ["BLOCK", "imagej_tags"]

COUNTS, BLOCK = 50838, 50839
_BYTE, _LONG = 1, 4
_MAGIC = 0x494A494A
_MOST_BYTES = 2**26
# Bytes of the units that change places with the byte order: UTF-16 in texts, doubles in ranges.
_UNITS: Mapping[bytes, int] = {b"info": 2, b"labl": 2, b"prop": 2, b"rang": 8}


def imagej_tags(tiff: TiffFile, own: Directory, form: Form) -> dict[int, tuple[int, bytes]]:
    """Both tags as they stand in a file of another form; empty where there are none.

    Damaged ones are left out.
    """
    counts = [int(size) for size in tiff.numbers(own, COUNTS)]
    entry = own.entries.get(BLOCK)
    if not counts or entry is None or entry.size > _MOST_BYTES:
        return {}
    try:
        data = tiff.data(entry)
        if form.order != tiff.form.order:
            data = _turned(data, counts, tiff.form.order, form.order)
    except DAMAGE:
        return {}
    return {
        COUNTS: (_LONG, struct.pack(f"{form.order}{len(counts)}I", *counts)),
        BLOCK: (_BYTE, data),
    }


def _turned(data: bytes, counts: list[int], order: str, other: str) -> bytes:
    """The block in the other byte order.

    Raises:
        ValueError, struct.error: it is damaged.
    """
    words = struct.unpack(f"{order}{counts[0] // 4}I", data[: counts[0]])
    if words[0] != _MAGIC or sum(counts) > len(data):
        raise ValueError("no metadata of ImageJ")
    parts = [struct.pack(f"{other}{len(words)}I", *words)]
    place, sizes = counts[0], iter(counts[1:])
    for kind, number in zip(words[1::2], words[2::2], strict=True):
        unit = _UNITS.get(struct.pack(">I", kind), 1)
        for _ in range(number):
            size = next(sizes, 0)
            part = data[place : place + size]
            place += size
            parts.append(_swapped(part, unit))
    return b"".join(parts)


def _swapped(part: bytes, unit: int) -> bytes:
    """Each unit backwards; a rest that makes none stays."""
    whole = len(part) // unit * unit
    turned = b"".join(part[at : at + unit][::-1] for at in range(0, whole, unit))
    return turned + part[whole:]
