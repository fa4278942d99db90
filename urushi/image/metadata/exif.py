"""EXIF blocks: the resolution that one states, and what a written one says without its source.

libvips and libexif put a resolution of 72 dpi and an uncalibrated colour space into every EXIF
block. The entries are taken out where they stand, so that no offset changes in the block or in the
file.
"""

import contextlib
import mmap
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from urushi.image.libvips import fields_of, open_image, vips
from urushi.image.tiff.directories import DAMAGE, Directory, Form, TiffFile
from urushi.image.tiff.exif_directory import MARK

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
    """The tags of a block's main directory and of that on exposure; none of what is damaged."""
    try:
        return {tag for directory in _directories(exif)[1] for tag in directory.entries}
    except DAMAGE:
        return set()


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
    block = bytearray(exif.removeprefix(MARK))
    try:
        form, directories = _directories(exif)
    except DAMAGE:
        return exif
    for own in directories:
        kept = [e.packed(form, tag) for tag, e in own.entries.items() if tag not in tags]
        whole = form.count.pack(len(kept)) + b"".join(kept) + form.offset.pack(own.next)
        end = min(own.link + form.offset.size, len(block))
        block[own.offset : end] = whole.ljust(end - own.offset, b"\0")[: end - own.offset]
    return exif[: len(exif) - len(block)] + bytes(block)


def _directories(exif: bytes) -> tuple[Form, list[Directory]]:
    """The main directory of a block, and that on exposure where it can be read."""
    with TiffFile(exif.removeprefix(MARK)) as block:
        main = block.directory(block.first)
        found = [main]
        with contextlib.suppress(KeyError, *DAMAGE):
            found.append(block.directory(block.place(main.entries[_EXIF])))
        return block.form, found


def without_thumbnail(exif: bytes) -> bytes:
    """Cuts the chain to the directory that describes the thumbnail (EXIF 2.32, 4.5.2)."""
    start = len(MARK) if exif.startswith(MARK) else 0
    try:
        form, (main, *_) = _directories(exif)
    except DAMAGE:
        return exif
    link, end = start + main.link, start + main.link + form.offset.size
    return exif[:link] + bytes(end - link) + exif[end:] if end <= len(exif) else exif


_X, _Y, _UNIT = 282, 283, 296
# ResolutionUnit -> millimetres; without one, EXIF means inches.
_MILLIMETRES = {None: 25.4, 2: 25.4, 3: 10.0}


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
    try:
        with TiffFile(exif.removeprefix(MARK)) as block:
            main = block.directory(block.first)
            across = block.numbers(main, _X)
            down = block.numbers(main, _Y) or across
            unit = block.number(main, _UNIT, 0) or None
    except DAMAGE:
        return None
    millimetres = _MILLIMETRES.get(unit)
    if millimetres is None or not across:
        return None
    found = float(across[0]) / millimetres, float(down[0]) / millimetres
    return (*found, unit) if all(0 < size < 1e6 for size in found) else None
