"""The directories of a TIFF: its pictures and what stands beside them, and tags that are changed.

libtiff, and so libvips, gives one directory at a time and hides most tags. What a file holds, and
what a finished file is to say, is read and written here (TIFF 6.0; BigTIFF as libtiff defines it).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

__all__ = ["DAMAGE", "SIZES", "Directory", "Entry", "Form", "TiffFile", "pack_directory"]

SIZES = dict(
    zip((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8), strict=True)
) | {13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of a value by TIFF's type."""

DAMAGE = (OSError, struct.error, ValueError, OverflowError)
"""What reading a damaged TIFF raises."""

_CODES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONALS = {5: "I", 10: "i"}
_MOST_ENTRIES = 4096
_MOST_DIRECTORIES = 2**20
SUBDIRECTORIES = 330


@dataclass(frozen=True)
class Entry:
    """One tag: its type, the number of its values, and its field, which holds them or points."""

    kind: int
    count: int
    value: bytes

    def packed(self, form: "Form", tag: int) -> bytes:
        """As it stands in a directory."""
        return form.entry.pack(tag, self.kind, self.count, self.value)

    @property
    def size(self) -> int:
        """Bytes of all values; 0 for a type that nobody knows."""
        return self.count * SIZES.get(self.kind, 0)


@dataclass(frozen=True)
class Form:
    """How numbers stand in a TIFF: byte order ('<' or '>'), and whether offsets have 64 bits."""

    order: str
    big: bool

    @property
    def count(self) -> struct.Struct:
        """The number of a directory's entries."""
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def entry(self) -> struct.Struct:
        """Tag, type, number of values, field."""
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))

    @property
    def offset(self) -> struct.Struct:
        """A place in the file."""
        return struct.Struct(self.order + ("Q" if self.big else "I"))

    @property
    def link(self) -> int:
        """Where the offset of the first directory stands."""
        return 8 if self.big else 4


@dataclass(frozen=True)
class Directory:
    """A directory as it stands: where it begins, its entries by tag, and the next one's place."""

    offset: int
    entries: dict[int, Entry] = field(default_factory=dict)
    next: int = 0
    link: int = 0
    """Where in the file the place of the next one stands."""


class TiffFile:
    """Reads directories out of an open TIFF; a context manager.

    Raises:
        one of `DAMAGE`: this is no TIFF.
    """

    form: Form

    def __init__(self, path: Path, mode: str = "rb") -> None:
        self.file: BinaryIO = path.open(mode)  # type: ignore[assignment]
        try:
            self.form = self._read_form()
        except BaseException:
            self.file.close()
            raise

    def _read_form(self) -> Form:
        head = self.take(0, 4)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None:
            raise ValueError("no TIFF")
        (version,) = struct.unpack_from(f"{order}H", head, 2)
        if version not in (42, 43):
            raise ValueError("no TIFF")
        return Form(order, version == 43)

    def __enter__(self) -> "TiffFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.file.close()

    def take(self, start: int, size: int) -> bytes:
        """Exactly so many bytes from there."""
        self.file.seek(start)
        data = self.file.read(size)
        if len(data) != size:
            raise ValueError("cut short")
        return data

    def chain(self) -> Iterator[Directory]:
        """The directories that follow one another, from the first.

        Raises:
            one of `DAMAGE`: the chain leads out of the file or back into itself.
        """
        (place,) = self.form.offset.unpack(self.take(self.form.link, self.form.offset.size))
        seen: set[int] = set()
        while place:
            if place in seen or len(seen) > _MOST_DIRECTORIES:
                raise ValueError("the directories lead back to one another")
            seen.add(place)
            directory = self.directory(place)
            yield directory
            place = directory.next

    def directory(self, start: int) -> Directory:
        """The directory that begins there."""
        form = self.form
        (count,) = form.count.unpack(self.take(start, form.count.size))
        if not 0 < count <= _MOST_ENTRIES:
            raise ValueError("no directory")
        data = self.take(start + form.count.size, count * form.entry.size)
        entries: dict[int, Entry] = {}
        for tag, kind, number, value in form.entry.iter_unpack(data):
            entries.setdefault(tag, Entry(kind, number, value))
        link = start + form.count.size + len(data)
        # Some writers leave the last link out.
        self.file.seek(link)
        place = self.file.read(form.offset.size).ljust(form.offset.size, b"\0")
        return Directory(start, entries, form.offset.unpack(place)[0], link)

    def data(self, entry: Entry) -> bytes:
        """The values of an entry as they stand."""
        if entry.size <= len(entry.value):
            return entry.value[: entry.size]
        return self.take(self.form.offset.unpack(entry.value)[0], entry.size)

    def numbers(
        self, directory: Directory, tag: int, most: int = 65536
    ) -> tuple[int | Fraction, ...]:
        """The values of a tag; none where it is missing, damaged or no number."""
        entry = directory.entries.get(tag)
        if entry is None or not 0 < entry.count <= most:
            return ()
        try:
            if entry.kind in _CODES:
                return struct.unpack(
                    f"{self.form.order}{entry.count}{_CODES[entry.kind]}", self.data(entry)
                )
            if entry.kind in _RATIONALS:
                code = f"{self.form.order}{2 * entry.count}{_RATIONALS[entry.kind]}"
                parts = struct.unpack(code, self.data(entry))
                return tuple(Fraction(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True))
        except (*DAMAGE, ZeroDivisionError):
            pass
        return ()

    def number(self, directory: Directory, tag: int, default: int) -> int:
        """The first value of a tag."""
        values = self.numbers(directory, tag)
        return int(values[0]) if values else default

    def text(self, directory: Directory, tag: int, most: int = 2**24) -> bytes:
        """What a tag says, up to its first zero; empty where it is missing or damaged."""
        entry = directory.entries.get(tag)
        if entry is None or SIZES.get(entry.kind) != 1 or entry.count > most:
            return b""
        try:
            return self.data(entry).split(b"\0", 1)[0]
        except DAMAGE:
            return b""


def pack_directory(
    form: Form, start: int, kept: dict[int, Entry], given: dict[int, tuple[int, bytes]]
) -> bytes:
    """A directory as it stands from `start` on, which is even, followed by values of its own.

    Args:
        form: of the file.
        start: where it will begin.
        kept: entries taken as they are.
        given: type and values, in the file's byte order, of entries in place of those.
    """
    tags = sorted({*kept, *given})
    head = form.count.size + form.entry.size * len(tags) + form.offset.size
    entries, rest = [], b""
    for tag in tags:
        if tag not in given:
            entries.append(kept[tag].packed(form, tag))
            continue
        kind, data = given[tag]
        value = data
        if len(data) > form.offset.size:
            value = form.offset.pack(start + head + len(rest))
            rest += data + b"\0" * (len(data) % 2)
        entries.append(form.entry.pack(tag, kind, len(data) // SIZES[kind], value))
    return form.count.pack(len(tags)) + b"".join(entries) + bytes(form.offset.size) + rest
