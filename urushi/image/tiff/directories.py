"""The directories of a TIFF: its pictures and what stands beside them, and tags that are changed.

libtiff, and so libvips, gives one directory at a time and hides most tags. What a file holds, and
what a finished file is to say, is read and written here (TIFF 6.0; BigTIFF as libtiff defines it).
"""

import io
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

__all__ = [
    "DAMAGE", "SIZES", "Directory", "Entry", "Form", "Given", "TiffFile", "amend", "pack_directory",
]  # fmt: skip

Given = Mapping[int, tuple[int, bytes | Callable[[int], bytes]]]
"""Type and value, in the file's byte order, by tag; or what gives the bytes of a directory that
lies at a place, which the tag points to."""

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

    Args:
        source: a file, or a whole TIFF in memory, such as a block of EXIF is.
        mode: of opening a file.

    Raises:
        one of `DAMAGE`: this is no TIFF.
    """

    form: Form

    def __init__(self, source: Path | bytes, mode: str = "rb") -> None:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source.open(mode)
        self.file: BinaryIO = opened  # type: ignore[assignment]
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

    @property
    def first(self) -> int:
        """Where the first directory begins."""
        return self.form.offset.unpack(self.take(self.form.link, self.form.offset.size))[0]

    def chain(self) -> Iterator[Directory]:
        """The directories that follow one another, from the first.

        Raises:
            one of `DAMAGE`: the chain leads out of the file or back into itself.
        """
        place = self.first
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

    def place(self, entry: Entry) -> int:
        """Where an entry points to, whatever type it is of."""
        wide = self.form.big and entry.kind in (16, 18)
        return struct.unpack_from(self.form.order + ("Q" if wide else "I"), entry.value)[0]

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
    form: Form, start: int, kept: Mapping[int, Entry], given: Given, following: int = 0
) -> bytes:
    """A directory as it stands from `start` on, which is even, followed by values of its own.

    Args:
        form: of the file.
        start: where it will begin.
        kept: entries taken as they are.
        given: entries in place of those.
        following: where the next directory begins; 0 for none.
    """
    tags = sorted({*kept, *given})
    head = form.count.size + form.entry.size * len(tags) + form.offset.size
    entries, rest = [], b""
    for tag in tags:
        if tag not in given:
            entries.append(kept[tag].packed(form, tag))
            continue
        kind, value = given[tag]
        place = start + head + len(rest)
        data = value if isinstance(value, bytes) else value(place)
        count = len(data) // SIZES[kind] if isinstance(value, bytes) else 1
        if not isinstance(value, bytes) or len(data) > form.offset.size:
            rest += data + b"\0" * (len(data) % 2)
            data = form.offset.pack(place)
        entries.append(form.entry.pack(tag, kind, count, data))
    return form.count.pack(len(tags)) + b"".join(entries) + form.offset.pack(following) + rest


def amend(path: Path, given: Given, dropped: Collection[int]) -> None:
    """Changes tags of a file's first page; its pixels stay where they are.

    Raises:
        ValueError: the file would be too large for its form.
    """
    with TiffFile(path, "r+b") as tiff:
        form, own = tiff.form, tiff.directory(tiff.first)
        start = tiff.file.seek(0, 2)
        start += start % 2
        kept = {tag: entry for tag, entry in own.entries.items() if tag not in dropped}
        packed = pack_directory(form, start, kept, given, own.next)
        if not form.big and start + len(packed) >= 2**32:
            raise ValueError("larger than 4 GB")
        tiff.file.seek(start)
        tiff.file.write(packed)
        tiff.file.flush()
        tiff.file.seek(form.link)
        tiff.file.write(form.offset.pack(start))
