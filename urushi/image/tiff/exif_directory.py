"""EXIF in TIFF files, which libvips neither reads nor writes there.

In JPEG, PNG and WebP, EXIF is a small TIFF of its own: a main directory (who, with what, when) that
points to one of exposure and one of place. In a TIFF the same directories hang on the picture's own
main directory (TIFF 6.0; EXIF 2.32, 4.6; BigTIFF as libtiff defines it).

What is damaged is left out, entry by entry; it never makes a picture fail.
"""

import functools
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from urushi.image.tiff.directories import (
    DAMAGE,
    Directory,
    Form,
    Given,
    TiffFile,
    amend,
    pack_directory,
)

__all__ = [
    "LONGEST_BLOCK", "MARK", "Tag", "append_exif", "is_adobe_rgb", "read_exif", "read_numbers",
    "read_tags",
]  # fmt: skip

MARK = b"Exif\0\0"
"""What stands before a block of EXIF in some formats."""

Tag = tuple[int, bytes]
"""TIFF's type of a value, and the value, little-endian."""

_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_CHILDREN = {_EXIF: (_INTEROPERABILITY,), _GPS: (), _INTEROPERABILITY: ()}
# Of the main directory, what says nothing about how the samples are stored: description, maker,
# model, software, date, artist, host, rating, copyright, and what Windows adds.
_DESCRIPTIVE = frozenset(
    (270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
)
# Bytes of the numbers in a value, by TIFF's type; other types may lead elsewhere in the file.
_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8}
_DESCRIPTION, _ASCII = 270, 2
_MAKER_NOTE = 37500
LONGEST_BLOCK = 65000
"""A JPEG holds hardly more, and libvips reads no more of it in any format."""
_WIDTH, _HEIGHT = 40962, 40963
_COLOUR_SPACE, _UNCALIBRATED = 40961, 65535
_NUMBERS = {1: "u1", 3: "<u2", 4: "<u4", 6: "i1", 8: "<i2", 9: "<i4", 11: "<f4", 12: "<f8"}
_LONG, _LONG8 = 4, 16
# Of all values of a directory, in bytes: many entries may claim the same long stretch of a file.
_MOST_BYTES = 2**22


@dataclass
class _Directory:
    """Tag -> type and value, the latter little-endian; and the directories it points to."""

    entries: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    children: dict[int, "_Directory"] = field(default_factory=dict)


def read_exif(
    path: Path,
    longest: int | None = LONGEST_BLOCK,
    *,
    start: int | None = None,
    description: bytes | None = None,
) -> bytes | None:
    """What a TIFF says about how its picture was taken, as a block for JPEG, PNG and WebP.

    Args:
        path: of the TIFF.
        longest: the most bytes the block may have before the maker's own notes are left out.
        start: where the page's directory begins; None for the first page.
        description: in place of the file's; empty for none.

    Returns:
        `Exif\\0\\0` and a small TIFF, or None if the file says nothing.
    """
    try:
        with TiffFile(path) as tiff:
            main = _read(tiff, tiff.directory(tiff.first if start is None else start))
    except DAMAGE:
        return None
    if description is not None:
        main.entries.pop(_DESCRIPTION, None)
        if description:
            main.entries[_DESCRIPTION] = (_ASCII, description + b"\0")
    main.entries = {t: value for t, value in main.entries.items() if t in _DESCRIPTIVE}
    if not main.entries and not main.children:
        return None
    form = Form("<", False)
    packed = _packed(main, 8, form)
    if longest is not None and len(packed) > longest and _EXIF in main.children:
        main.children[_EXIF].entries.pop(_MAKER_NOTE, None)
        packed = _packed(main, 8, form)
    return MARK + b"II*\0" + form.offset.pack(8) + packed


def read_tags(
    path: Path, only: Collection[int] | None = None, *, start: int | None = None
) -> dict[int, Tag | None]:
    """The values of a TIFF's main directory, or another page's, by tag.

    Args:
        path: of the TIFF.
        only: the tags that are asked for; None for all.
        start: where the page's directory begins; None for the first page.

    Returns:
        None for a value that is too long, or of a type that may lead elsewhere in the file. Empty
        where the file is damaged or no TIFF.
    """
    try:
        with TiffFile(path) as tiff:
            own = tiff.directory(tiff.first if start is None else start)
            known = _read(tiff, own, only).entries
    except DAMAGE:
        return {}
    return {tag: known.get(tag) for tag in own.entries if only is None or tag in only}


def append_exif(
    path: Path,
    exif: bytes | None,
    width: int,
    height: int,
    more: Mapping[int, Tag] | None = None,
    drop: Collection[int] = (),
) -> bool:
    """Gives a finished TIFF what an EXIF block says; its pixels stay where they are.

    Args:
        path: of the TIFF, changed in place: new directories at its end, then one offset at its
            beginning that leads there.
        exif: the block, with or without `Exif\\0\\0` before it; None for none.
        width, height: of the picture, which the block may state.
        more: further tags of the main directory; what the file has itself wins.
        drop: tags that the main directory is to lose.

    Returns:
        Whether there was anything to change. Damaged blocks add nothing.
    """
    added = _Directory() if exif is None else _of_block(exif)
    photo = added.children.get(_EXIF)
    for tag, size in ((_WIDTH, width), (_HEIGHT, height)):
        if photo is not None and tag in photo.entries:
            photo.entries[tag] = (_LONG, struct.pack("<I", size))
    added.entries.update(more or {})
    with TiffFile(path) as tiff:
        form, own = tiff.form, tiff.directory(tiff.first).entries
    stays = {tag for tag in own if tag not in drop}
    given = {tag: value for tag, value in _given(added, form).items() if tag not in stays}
    if not (added.entries or added.children or len(stays) < len(own)):
        return False
    try:
        amend(path, given, drop)
    except ValueError:
        return False
    return True


def _of_block(exif: bytes) -> _Directory:
    """What an EXIF block says of the picture; nothing if it is damaged."""
    try:
        with TiffFile(exif.removeprefix(MARK)) as block:
            given = _read(block, block.directory(block.first))
    except DAMAGE:
        return _Directory()
    given.entries = {t: value for t, value in given.entries.items() if t in _DESCRIPTIVE}
    return given


def _read(
    tiff: TiffFile,
    own: Directory,
    only: Collection[int] | None = None,
    pointers: tuple[int, ...] = (_EXIF, _GPS),
) -> _Directory:
    """A directory with those it points to; damaged parts are left out.

    `only` names the tags that are asked for; None asks for all.
    """
    directory, room = _Directory(), _MOST_BYTES
    for tag, entry in own.entries.items():
        if only is not None and tag not in only:
            continue
        try:
            if tag in pointers:
                child = tiff.directory(tiff.place(entry))
                directory.children[tag] = _read(tiff, child, pointers=_CHILDREN[tag])
                continue
            if entry.kind not in _UNITS or not 0 < entry.size <= room:
                continue
            room -= entry.size
            value = tiff.data(entry)
        except DAMAGE:
            continue
        directory.entries[tag] = (entry.kind, _turned(entry.kind, value, tiff.form.order))
    return directory


def _turned(kind: int, value: bytes, order: str) -> bytes:
    """From this byte order to little-endian, or back."""
    unit = _UNITS[kind]
    if order == "<" or unit == 1:
        return value
    return np.frombuffer(value, f">u{unit}").astype(f"<u{unit}").tobytes()


def _given(directory: _Directory, form: Form) -> Given:
    """What a file of this form is to hold of a directory."""
    values = {
        tag: (kind, _turned(kind, value, form.order))
        for tag, (kind, value) in directory.entries.items()
    }
    pointers = {
        tag: (_LONG8 if form.big else _LONG, functools.partial(_packed, child, form=form))
        for tag, child in directory.children.items()
    }
    return {**values, **pointers}


def _packed(directory: _Directory, start: int, form: Form) -> bytes:
    """A directory, its values and its children, as they stand from `start` on."""
    return pack_directory(form, start, {}, _given(directory, form))


def is_adobe_rgb(exif: bytes) -> bool:
    """Whether an EXIF block says that the colours are those of Adobe RGB.

    By DCF (2.0, 3.2.3) that is the interoperability index R03 with a colour space that is not sRGB;
    some cameras write a colour space of 2 instead.
    """
    photo = _of_block(exif).children.get(_EXIF)
    if photo is None:
        return False
    space = int.from_bytes(photo.entries.get(_COLOUR_SPACE, (0, b""))[1], "little")
    index = photo.children.get(_INTEROPERABILITY, _Directory()).entries.get(1, (0, b""))[1]
    return space == 2 or (space == _UNCALIBRATED and index[:3] == b"R03")


def read_numbers(path: Path, *tags: int, start: int | None = None) -> dict[int, tuple[float, ...]]:
    """Numbers in a TIFF's directory, by tag; what is missing or damaged is left out.

    Args:
        path: of the TIFF.
        tags: that are asked for.
        start: where the page's directory begins; None for the first page.
    """
    entries = read_tags(path, tags, start=start)
    found = {}
    for tag in tags:
        kind, value = entries.get(tag) or (0, b"")
        if kind in _NUMBERS:
            numbers = np.frombuffer(value, _NUMBERS[kind])
            found[tag] = tuple(float(number) for number in numbers)
    return found
