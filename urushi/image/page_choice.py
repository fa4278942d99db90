"""Which of a file's pictures are taken: the first, all, or a range of them."""

import re
from dataclasses import dataclass
from pathlib import Path

from urushi.errors import TargetError
from urushi.image.formats.known import name_of
from urushi.image.info import PictureInfo, inspect_picture
from urushi.image.tiff.picture_directories import description_of, tiff_pages
from urushi.image.tiff.stacks import stack_title

__all__ = ["ALL", "FIRST", "Pages", "TakenPages", "is_stack", "parse_pages", "taken_pages"]

_RANGE = re.compile(r"([1-9][0-9]{0,8})(?:(-)([1-9][0-9]{0,8})?)?")


@dataclass(frozen=True)
class Pages:
    """A choice of pages.

    Attributes:
        first: the first of them, from 0.
        last: the last one, from 0; None for the file's last.
    """

    first: int = 0
    last: int | None = None


FIRST, ALL = Pages(0, 0), Pages()


@dataclass(frozen=True)
class TakenPages:
    """What a choice means for one file.

    Attributes:
        numbers: of the pages, from 0; None for the only one there is, or for the first where
            nothing was chosen and the rest is lost.
        pixels: of all of them.
        notes: sentences about pages that are not there.
    """

    numbers: tuple[int | None, ...]
    pixels: int
    notes: tuple[str, ...] = ()


def is_stack(path: Path) -> bool:
    """Whether the pages of a TIFF are described as planes of one thing."""
    pages = tiff_pages(path).pages
    return len(pages) > 1 and bool(stack_title(description_of(path, pages[0])))


def parse_pages(text: str) -> Pages:
    """Reads 'first', 'all', '3', '2-5' or '2-'; numbers count from 1.

    Raises:
        TargetError: it is something else.
    """
    word = text.strip().lower()
    if word in ("first", "all"):
        return FIRST if word == "first" else ALL
    found = _RANGE.fullmatch(word)
    if found is not None:
        first = int(found[1])
        last = first if found[2] is None else int(found[3]) if found[3] else None
        if last is None or first <= last:
            return Pages(first - 1, None if last is None else last - 1)
    raise TargetError(
        f"pages are {text!r:.40}: expected first, all, a number such as 3, or a range such as 2-5",
        usage=True,
    )


def taken_pages(
    info: PictureInfo, target: Path, pages: Pages | None, max_pixels: int | None
) -> TakenPages:
    """Which pictures of a file go into a target.

    Args:
        info: of the file's first picture.
        target: its name decides the format.
        pages: the user's choice; None takes all pages of a TIFF into a TIFF, and the first picture
            of anything else.
        max_pixels: the most pixels that each may have; None for no limit.

    Raises:
        UnreadableError: the first of the chosen pages is not there.
        TooLargeError: one has more than `max_pixels`.
    """
    single = info.width * info.height
    if pages is None:
        if info.pages == 1 or info.format != "tiff" or name_of(target) != "tiff":
            return TakenPages((None,), single)
        pages = ALL
    notes = []
    last = info.pages - 1 if pages.last is None else pages.last
    if pages.first < info.pages <= last:
        notes.append(f"Pages up to {last + 1} were asked for, but the file ends at {info.pages}.")
        last = info.pages - 1
    numbers = tuple(range(pages.first, max(last, pages.first) + 1))
    sizes = {}
    if info.format == "tiff":
        sizes = {i: page.pixels for i, page in enumerate(tiff_pages(info.path).pages)}
    for number in numbers:
        # Before anything is begun, what cannot be done is told.
        if number >= info.pages or (max_pixels is not None and sizes.get(number, 0) > max_pixels):
            inspect_picture(info.path, max_pixels=max_pixels, page=number)
    return TakenPages(numbers, sum(sizes.get(i, single) for i in numbers), tuple(notes))
