"""EXIF in TIFF files, which libvips neither reads nor writes there.

In JPEG, PNG and WebP, EXIF is a small TIFF of its own: a main directory (who, with what, when) that
points to one of exposure and one of place. In a TIFF the same directories hang on the picture's own
main directory (TIFF 6.0; EXIF 2.32, 4.6; BigTIFF as libtiff defines it).

What is damaged is left out, entry by entry; it never makes a picture fail.
"""

import io
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from urushi.image.tiff.directories import Form

__all__ = [
    "LONGEST_BLOCK", "Tag", "append_exif", "is_adobe_rgb", "read_exif", "read_numbers", "read_tags",
]  # fmt: skip

Tag = tuple[int, bytes]
"""TIFF's type of a value, and the value, little-endian."""

_EXIF, _GPS, _INTEROPERABILITY = 34665, 34853, 40965
_CHILDREN = {_EXIF: (_INTEROPERABILITY,), _GPS: (), _INTEROPERABILITY: ()}
# Of the main directory, what says nothing about how the samples are stored: description, maker,
# model, software, date, artist, host, rating, copyright, and what Windows adds.
_DESCRIPTIVE = frozenset(
    (270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
)
# Bytes of a value, and of the numbers in it, by TIFF's type.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_UNITS = {**_SIZES, 5: 4, 10: 4}
_POINTERS = {4: "I", 13: "I", 16: "Q", 18: "Q"}
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
_MOST_ENTRIES = 1000
_DAMAGE = (OSError, struct.error, ValueError, OverflowError)


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
        with path.open("rb") as file:
            form, first = _open(file)
            main = _read(file, first if start is None else start, form, (_EXIF, _GPS))
    except _DAMAGE:
        return None
    if description is not None:
        main.entries.pop(_DESCRIPTION, None)
        if description:
            main.entries[_DESCRIPTION] = (_ASCII, description + b"\0")
    main.entries = {t: value for t, value in main.entries.items() if t in _DESCRIPTIVE}
    if not main.entries and not main.children:
        return None
    form = Form("<", False)
    packed = _pack(main, 8, form)
    if longest is not None and len(packed) > longest and _EXIF in main.children:
        main.children[_EXIF].entries.pop(_MAKER_NOTE, None)
        packed = _pack(main, 8, form)
    return b"Exif\0\0II*\0" + form.offset.pack(8) + packed


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
        with path.open("rb") as file:
            form, first = _open(file)
            start = first if start is None else start
            known = _read(file, start, form, (_EXIF, _GPS), only).entries
            tags = _raw_entries(file, start, form)[0]
            return {tag: known.get(tag) for tag in tags if only is None or tag in only}
    except _DAMAGE:
        return {}


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
    given = _Directory() if exif is None else _of_block(exif)
    photo = given.children.get(_EXIF)
    for tag, size in ((_WIDTH, width), (_HEIGHT, height)):
        if photo is not None and tag in photo.entries:
            photo.entries[tag] = (_LONG, struct.pack("<I", size))
    given.entries.update(more or {})
    with path.open("r+b") as file:
        form, start = _open(file)
        own, link = _raw_entries(file, start, form)
        dropped = [own.pop(tag) for tag in drop if tag in own]
        if not (given.entries or given.children or dropped):
            return False
        end = file.seek(0, io.SEEK_END)
        end += end % 2
        for tag in own:
            given.entries.pop(tag, None)
            given.children.pop(tag, None)
        added = _pack(given, end, form, own, link)
        if not form.big and end + len(added) >= 2**32:
            return False
        file.seek(end)
        file.write(added)
        file.flush()
        file.seek(8 if form.big else 4)
        file.write(form.offset.pack(end))
    return True


def _of_block(exif: bytes) -> _Directory:
    """What an EXIF block says of the picture; nothing if it is damaged."""
    try:
        block = io.BytesIO(exif[6:] if exif[:6] == b"Exif\0\0" else exif)
        form, start = _open(block)
        given = _read(block, start, form, (_EXIF, _GPS))
    except _DAMAGE:
        return _Directory()
    given.entries = {t: value for t, value in given.entries.items() if t in _DESCRIPTIVE}
    return given


def _open(file: io.BufferedIOBase) -> tuple[Form, int]:
    """Reads the first bytes of a TIFF: its form, and where its main directory is."""
    head = _bytes(file, 0, 8)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        raise ValueError("no TIFF")
    (version,) = struct.unpack_from(f"{order}H", head, 2)
    if version not in (42, 43):
        raise ValueError("no TIFF")
    form = Form(order, version == 43)
    return form, form.offset.unpack(_bytes(file, 8 if form.big else 4, form.offset.size))[0]


def _bytes(file: io.BufferedIOBase, start: int, size: int) -> bytes:
    """Exactly so many bytes from there."""
    file.seek(start)
    data = file.read(size)
    if len(data) != size:
        raise ValueError("cut short")
    return data


def _raw_entries(file: io.BufferedIOBase, start: int, form: Form) -> tuple[dict[int, bytes], bytes]:
    """The entries of a directory as they stand, and the link to the next directory."""
    (count,) = form.count.unpack(_bytes(file, start, form.count.size))
    if count > _MOST_ENTRIES:
        raise ValueError("too many entries")
    start += form.count.size
    data = _bytes(file, start, count * form.entry.size)
    entries = [data[i : i + form.entry.size] for i in range(0, len(data), form.entry.size)]
    # Some writers leave the last link out.
    file.seek(start + len(data))
    link = file.read(form.offset.size).ljust(form.offset.size, b"\0")
    return {struct.unpack_from(f"{form.order}H", entry)[0]: entry for entry in entries}, link


def _read(
    file: io.BufferedIOBase,
    start: int,
    form: Form,
    pointers: tuple[int, ...],
    only: Collection[int] | None = None,
) -> _Directory:
    """A directory with those it points to; damaged parts are left out.

    `only` names the tags that are asked for; None asks for all.
    """
    directory, room = _Directory(), _MOST_BYTES
    for tag, raw in _raw_entries(file, start, form)[0].items():
        _, kind, count, value = form.entry.unpack(raw)
        if only is not None and tag not in only:
            continue
        try:
            if tag in pointers:
                code = form.order + _POINTERS.get(kind, "I")
                child = _read(file, struct.unpack_from(code, value)[0], form, _CHILDREN[tag])
                directory.children[tag] = child
                continue
            size = count * _SIZES.get(kind, 0)
            if not 0 < size <= room:
                continue
            room -= size
            if size > len(value):
                value = _bytes(file, form.offset.unpack(value)[0], size)
        except _DAMAGE:
            continue
        directory.entries[tag] = (kind, _turned(kind, value[:size], form.order))
    return directory


def _turned(kind: int, value: bytes, order: str) -> bytes:
    """From this byte order to little-endian, or back."""
    unit = _UNITS[kind]
    if order == "<" or unit == 1:
        return value
    return np.frombuffer(value, f">u{unit}").astype(f"<u{unit}").tobytes()


def _pack(
    directory: _Directory,
    start: int,
    form: Form,
    own: dict[int, bytes] | None = None,
    link: bytes | None = None,
) -> bytes:
    """A directory, its values and its children, as they stand from `start` on.

    Args:
        directory: to write.
        start: an even offset in the file.
        form: of the file.
        own: entries that are taken as they stand, by tag.
        link: to the next directory; none unless given.
    """
    known: set[int] = {*directory.entries, *directory.children, *(own or {})}
    tags = sorted(known)
    head = form.count.size + form.entry.size * len(tags) + form.offset.size
    entries, rest = [], b""
    for tag in tags:
        if own is not None and tag in own:
            entries.append(own[tag])
            continue
        # Whatever is appended to `rest` begins here.
        position = form.offset.pack(start + head + len(rest))
        if tag in directory.children:
            child = _pack(directory.children[tag], start + head + len(rest), form)
            kind, count, value = _LONG8 if form.big else _LONG, 1, position
            rest += child
        else:
            kind, value = directory.entries[tag]
            count = len(value) // _SIZES[kind]
            value = _turned(kind, value, form.order)
            if len(value) > form.offset.size:
                rest += value + b"\0" * (len(value) % 2)
                value = position
        entries.append(form.entry.pack(tag, kind, count, value))
    assert head % 2 == 0, head
    last = link if link is not None else bytes(form.offset.size)
    return form.count.pack(len(tags)) + b"".join(entries) + last + rest


def is_adobe_rgb(exif: bytes) -> bool:
    """Whether an EXIF block says that the colours are those of Adobe RGB.

    By DCF (2.0, 3.2.3) that is the interoperability index R03 with a colour space that is not sRGB;
    some cameras write a colour space of 2 instead.
    """
    try:
        block = io.BytesIO(exif[6:] if exif[:6] == b"Exif\0\0" else exif)
        form, start = _open(block)
        photo = _read(block, start, form, (_EXIF,)).children.get(_EXIF)
    except _DAMAGE:
        return False
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
