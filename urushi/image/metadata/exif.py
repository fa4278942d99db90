"""EXIF blocks: the resolution that one states, and what a written one says without its source.

libvips and libexif put a resolution of 72 dpi and an uncalibrated colour space into every EXIF
block. The entries are taken out where they stand, so that no offset changes in the block or in the
file.
"""

import mmap
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from urushi.image.libvips import fields_of, open_image, vips

__all__ = [
    "COLOUR_SPACE",
    "tags_of",
    "take_out",
    "with_exif_resolution",
    "without_thumbnail",
]

COLOUR_SPACE = 40961
_EXIF = 34665


def tags_of(exif: bytes) -> set[int]:
    """The tags of a block's main directory and of that on exposure; empty if it is damaged."""
    tags = set()
    try:
        for order, at in _directories(exif):
            (count,) = struct.unpack_from(f"{order}H", exif, at)
            tags |= {
                struct.unpack_from(f"{order}H", exif, at + 2 + 12 * i)[0] for i in range(count)
            }
    except struct.error:
        return set()
    return tags


def take_out(path: Path, format: str, tags: Collection[int]) -> None:
    """Takes entries out of the EXIF block of a sound JPEG, PNG, WebP, AVIF or HEIF file.

    Raises:
        OSError: the file cannot be changed.
    """
    image = open_image(path, format)
    if not tags or "exif-data" not in fields_of(image):
        return
    block = bytes(image.get("exif-data"))
    del image
    changed = _without(block, tags)
    if changed == block:
        return
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = content.find(block)
        if at < 0:
            return
        content[at : at + len(block)] = changed
        if format == "png":
            check = zlib.crc32(content[at - 4 : at + len(block)])
            content[at + len(block) : at + len(block) + 4] = struct.pack(">I", check)


def _without(exif: bytes, tags: Collection[int]) -> bytes:
    """The block, as long as before, with fewer entries."""
    result = bytearray(exif)
    try:
        for order, at in _directories(exif):
            (count,) = struct.unpack_from(f"{order}H", exif, at)
            entries = [exif[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
            end = at + 2 + 12 * count
            link = exif[end : end + 4]
            kept = [e for e in entries if struct.unpack_from(f"{order}H", e)[0] not in tags]
            whole = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + link
            result[at : at + len(whole)] = whole
            result[at + len(whole) : end + 4] = bytes(12 * (count - len(kept)))
    except struct.error:
        return exif
    return bytes(result)


def _directories(exif: bytes) -> list[tuple[str, int]]:
    """Byte order and place of the main directory and of that on exposure."""
    start = 6 if exif[:6] == b"Exif\0\0" else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return []
    at = start + struct.unpack_from(f"{order}I", exif, start + 4)[0]
    found = [(order, at)]
    (count,) = struct.unpack_from(f"{order}H", exif, at)
    for i in range(count):
        tag, _, _, value = struct.unpack_from(f"{order}HHII", exif, at + 2 + 12 * i)
        if tag == _EXIF:
            found.append((order, start + value))
    return found


def without_thumbnail(exif: bytes) -> bytes:
    """Cuts the chain to the directory that describes the thumbnail (EXIF 2.32, 4.5.2)."""
    start = 6 if exif[:6] == b"Exif\0\0" else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None or len(exif) < start + 8:
        return exif
    first = start + struct.unpack_from(f"{order}I", exif, start + 4)[0]
    if first + 2 > len(exif):
        return exif
    link = first + 2 + 12 * struct.unpack_from(f"{order}H", exif, first)[0]
    if link + 4 > len(exif):
        return exif
    return exif[:link] + bytes(4) + exif[link + 4 :]


_X, _Y, _UNIT = 282, 283, 296
# ResolutionUnit -> millimetres; without one, EXIF means inches.
_MILLIMETRES = {None: 25.4, 2: 25.4, 3: 10.0}
_DAMAGE = (SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error)


def with_exif_resolution(image: Any) -> Any:
    """Gives an image of WebP, AVIF or HEIF the resolution of its EXIF, which libvips reads only
    in JPEG and PNG.

    Args:
        image: from libvips' loader.

    Returns:
        The image, or a copy with `xres` and `yres` in pixels per millimetre.
    """
    if "exif-data" not in fields_of(image):
        return image
    found = _resolution(bytes(image.get("exif-data")))
    if found is None:
        return image
    image = image.copy(xres=found[0], yres=found[1])
    image.set_type(vips().GValue.gstr_type, "resolution-unit", "cm" if found[2] == 3 else "in")
    return image


def _resolution(exif: bytes) -> tuple[float, float, int | None] | None:
    """Pixels per millimetre, across and down, and EXIF's unit; None where nothing is stated."""
    from PIL import Image

    tags = Image.Exif()
    try:
        tags.load(exif)
        unit = tags.get(_UNIT)
        millimetres = _MILLIMETRES.get(unit)
        if millimetres is None or _X not in tags:
            return None
        across = float(tags[_X]) / millimetres
        down = float(tags.get(_Y, tags[_X])) / millimetres
    except (*_DAMAGE, ZeroDivisionError):
        return None
    if not (0 < across < 1e6 and 0 < down < 1e6):
        return None
    return across, down, unit
