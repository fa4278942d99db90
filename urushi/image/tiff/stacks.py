"""Descriptions of stacks: what ImageJ, OME and tifffile write about planes of a microscope's file.

They count the planes of their file, and readers trust them more than the file itself.
"""

import json
import math
import re
import struct
from collections.abc import Mapping

from urushi.image.tiff.directories import DAMAGE, Directory, Form, TiffFile

__all__ = [
    "BLOCK",
    "fitting_description",
    "imagej_tags",
    "planes_of",
    "stack_title",
]

_COUNTS = re.compile(rb"^(images|channels|slices|frames)=(\d{1,9})\s*$", re.MULTILINE)
_STACK_LINES = re.compile(
    rb"^(?:images|channels|slices|frames|hyperstack|loop)=[^\n]*\n?", re.MULTILINE
)
_OME_SIZE = re.compile(rb"<(?:\w+:)?Pixels\b[^>]*>")
_ATTRIBUTE = re.compile(rb"\bSize([CZT])\s*=\s*[\"'](\d{1,9})[\"']")
_OME_FILE = re.compile(rb"\bFileName\s*=\s*[\"']([^\"']*)[\"']")
_OME_ROOT = re.compile(rb"<(?:\w+:)?OME\b")


def stack_title(description: bytes) -> str:
    """Whose description this is: 'ImageJ', 'OME', 'tifffile'; empty for all others."""
    start = description.lstrip()[:4096]
    if start.startswith(b"ImageJ="):
        return "ImageJ"
    if start.startswith(b"<") and _OME_ROOT.search(start):
        return "OME"
    return "tifffile" if start.startswith(b'{"shape":') else ""


def planes_of(description: bytes) -> int:
    """How many planes of its file a description tells of; 0 where it tells of none."""
    title = stack_title(description)
    if title == "ImageJ":
        counts = dict(_COUNTS.findall(description))
        if b"images" in counts:
            return int(counts[b"images"])
        return math.prod(int(count) for count in counts.values()) if counts else 0
    if title == "OME":
        if len(set(_OME_FILE.findall(description))) > 1:
            return 0  # the planes lie in several files
        total = 0
        for pixels in _OME_SIZE.findall(description):
            total += math.prod(int(size) for _, size in _ATTRIBUTE.findall(pixels))
        return total
    return _planes_of_shape(description) if title else 0


def _planes_of_shape(description: bytes) -> int:
    """Planes by tifffile's shape, whose last axes are rows, columns and perhaps samples."""
    try:
        shape = json.loads(description)["shape"]
        sizes = [int(side) for side in shape]
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
    rest = sizes[:-3] if sizes and sizes[-1] in (3, 4) else sizes[:-2]
    return math.prod(rest)


def fitting_description(description: bytes, complete: bool, same: bool) -> bytes | None:
    """What a result may say of what its source says.

    Args:
        description: of the source.
        complete: all planes are written, in order, into a TIFF.
        same: they have the source's size, channels and sample type.

    Returns:
        The description; without its claims where they would be wrong; None where nothing is left.
        Equal to `description` where it tells of no stack.
    """
    title = stack_title(description)
    if not title or (complete and same) or (complete and title == "ImageJ"):
        return description
    if title != "ImageJ":
        return None
    return _STACK_LINES.sub(b"", description)


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
