"""The last touches to a finished TIFF: tags that libvips does not write, and pages joined.

libvips writes pages of one size and kind alone, and calls every further channel transparency. So
each page is written as a file of its own, its directory amended, and the files joined.
"""

import shutil
import struct
from fractions import Fraction
from pathlib import Path

from urushi.image.info import PictureInfo
from urushi.image.tiff.directories import (
    DAMAGE,
    SUBDIRECTORIES,
    Directory,
    Entry,
    Form,
    TiffFile,
)
from urushi.image.tiff.picture_directories import tiff_pages
from urushi.image.tiff.stacks import imagej_tags

__all__ = ["first_link", "join", "page_tags"]

_ASCII, _SHORT, _LONG, _RATIONAL = 2, 3, 4, 5
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_SUBFILE_TYPE, _PAGE_NAME, _PAGE_NUMBER, _EXTRA_SAMPLES = 254, 285, 297, 338
_POSITIONS = (286, 287)
_PAGE_OF_SEVERAL = 2
_INCH = 2
# Whose values are places in the file: data, and directories.
_DATA = frozenset((273, 324, 513, 519, 520, 521))
_CHILDREN = frozenset((SUBDIRECTORIES, 34665, 34853, 40965))
_OFFSETS = {4: "I", 13: "I", 16: "Q", 18: "Q"}

Given = dict[int, tuple[int, bytes]]


def page_tags(
    like: PictureInfo | None,
    extra: tuple[int, ...],
    form: Form,
    *,
    scale: int,
    strip: bool,
    complete: bool,
    imagej: bool = False,
) -> tuple[Given, frozenset[int]]:
    """Tags that a page is to have although libvips does not write them, or others.

    Args:
        like: the source, whose page says how large it is, and its name and number.
        extra: what each channel beyond the colours is, in TIFF's numbers.
        form: of the target.
        scale: by which both sides were enlarged.
        strip: leave names behind.
        complete: all pages of the source are written.
        imagej: what ImageJ writes beside its description is true of the target, too.

    Returns:
        Type and value by tag, and the tags that are to go.
    """
    given: Given = {}
    if extra:
        given[_EXTRA_SAMPLES] = (_SHORT, struct.pack(f"{form.order}{len(extra)}H", *extra))
    dropped: frozenset[int] = frozenset()
    if like is None or like.format != "tiff":
        return given, dropped
    pages = tiff_pages(like.path).pages
    if like.page >= len(pages):
        return given, dropped
    try:
        with TiffFile(like.path) as tiff:
            own = tiff.directory(pages[like.page].offset)
            size = _resolution(tiff, own, form, scale)
            given.update(size)
            if not size:
                dropped |= {_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT}
            given.update(_names(tiff, own, form, strip, complete))
            if imagej and not strip:
                given.update(imagej_tags(tiff, own, form))
    except DAMAGE:
        return given, dropped
    return given, dropped


def _resolution(tiff: TiffFile, own: Directory, form: Form, scale: int) -> Given:
    """Pixels per unit of length, in the source's own unit, which may be none."""
    given: Given = {}
    for tag in (_X_RESOLUTION, _Y_RESOLUTION):
        values = tiff.numbers(own, tag)
        if not values or values[0] <= 0:
            return {}
        given[tag] = (_RATIONAL, _rational(Fraction(values[0]) * scale, form))
    unit = tiff.number(own, _RESOLUTION_UNIT, _INCH)
    given[_RESOLUTION_UNIT] = (_SHORT, struct.pack(f"{form.order}H", unit))
    return given


def _names(tiff: TiffFile, own: Directory, form: Form, strip: bool, complete: bool) -> Given:
    """What a page is called, where it lies on its sheet, and which of how many it is."""
    given: Given = {}
    if tiff.number(own, _SUBFILE_TYPE, 0) & _PAGE_OF_SEVERAL and complete:
        given[_SUBFILE_TYPE] = (_LONG, struct.pack(f"{form.order}I", _PAGE_OF_SEVERAL))
    number = tiff.numbers(own, _PAGE_NUMBER)
    if len(number) == 2 and complete:
        given[_PAGE_NUMBER] = (_SHORT, struct.pack(f"{form.order}2H", *map(int, number)))
    for tag in _POSITIONS:
        values = tiff.numbers(own, tag)
        if values and values[0] >= 0:
            given[tag] = (_RATIONAL, _rational(Fraction(values[0]), form))
    name = tiff.text(own, _PAGE_NAME, most=2**16)
    if name and not strip:
        given[_PAGE_NAME] = (_ASCII, name + b"\0")
    return given


def _rational(value: Fraction, form: Form) -> bytes:
    most = 2**32 - 1
    if value > most:
        value = Fraction(most)
    if max(value.numerator, value.denominator) > most:
        value = value.limit_denominator(max(1, int(most / max(value, 1))))
    return struct.pack(f"{form.order}2I", value.numerator, value.denominator)


def first_link(path: Path) -> int:
    """Where a file of one page is to say where its second begins."""
    with TiffFile(path) as tiff:
        return next(tiff.chain()).link


def join(result: Path, page: Path, link: int) -> int:
    """Appends a file of one page to another TIFF of the same form.

    Args:
        result: the file that grows.
        page: the file that is taken in.
        link: where `result` is to say where its next page begins.

    Returns:
        The same for the page after this one.

    Raises:
        ValueError: the file would be too large for its form.
    """
    with TiffFile(page) as added, TiffFile(result, "r+b") as base:
        assert added.form == base.form, "pages of one file have one form"
        own = next(added.chain())
        start = base.file.seek(0, 2)
        base.file.write(b"\0" * (start % 2))
        start += start % 2
        end = start + added.file.seek(0, 2)
        if not base.form.big and end >= 2**32:
            raise ValueError("larger than 4 GB")
        added.file.seek(0)
        shutil.copyfileobj(added.file, base.file, 2**20)
        _relocate(added, base, own, start)
        base.file.seek(link)
        base.file.write(base.form.offset.pack(start + own.offset))
        return start + own.link


def _relocate(added: TiffFile, base: TiffFile, own: Directory, start: int) -> None:
    """Adds `start` to all places that a directory names, and those below it."""
    form = base.form
    entries = b""
    for tag, entry in own.entries.items():
        value, size = entry.value, entry.size
        data: bytes | None = None
        if (tag in _DATA or tag in _CHILDREN) and entry.kind in _OFFSETS:
            code = f"{form.order}{entry.count}{_OFFSETS[entry.kind]}"
            places = struct.unpack(code, added.data(entry))
            data = struct.pack(code, *(start + place for place in places))
            if tag in _CHILDREN:
                for place in places:
                    _relocate(added, base, added.directory(place), start)
        if size <= form.offset.size:
            value = value if data is None else data.ljust(form.offset.size, b"\0")
        else:
            place = start + form.offset.unpack(value)[0]
            value = form.offset.pack(place)
            if data is not None:
                base.file.seek(place)
                base.file.write(data)
        entries += Entry(entry.kind, entry.count, value).packed(form, tag)
    base.file.seek(start + own.offset + form.count.size)
    base.file.write(entries)
