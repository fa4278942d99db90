"""What a file holds beyond its first picture, whatever its format; and where libvips finds it."""

from dataclasses import dataclass
from pathlib import Path

from urushi.errors import UnreadableError
from urushi.image.metadata.companions import Companions, companions
from urushi.image.tiff.picture_directories import TiffPage, TiffPages, tiff_pages
from urushi.names import counted

__all__ = ["ALPHA", "PREMULTIPLIED", "STRAIGHT", "Contents", "contents_of"]

# TIFF 6.0, section 18: associated and unassociated; CorelDRAW writes 999 for the latter.
PREMULTIPLIED, STRAIGHT = 1, 2
ALPHA = frozenset((PREMULTIPLIED, STRAIGHT, 999))
"""Values of TIFF's ExtraSamples that mean transparency."""

# TIFF's photometric number -> kind of picture. Palettes, Lab and the rest are libvips' to say.
_KINDS = {0: "grey", 1: "grey", 2: "rgb", 5: "cmyk", 6: "rgb"}


@dataclass(frozen=True)
class Contents:
    """What stands in a file.

    Attributes:
        format: a name in `FORMATS`.
        tiff: its directories; None for other formats.
        companions: frames, pictures and videos that libvips does not tell of.
    """

    format: str
    tiff: TiffPages | None
    companions: Companions

    @property
    def pages(self) -> int | None:
        """How many pictures can be read; None where only libvips knows."""
        if self.tiff is not None and self.tiff.pages:
            return len(self.tiff.pages)
        return 1 if self.format in ("jpeg", "png") else None

    def page(self, number: int) -> TiffPage | None:
        """The directory of a page; None where this is no TIFF."""
        if self.tiff is None or number >= len(self.tiff.pages):
            return None
        return self.tiff.pages[number]

    def place(self, number: int) -> dict[str, int]:
        """What to tell libvips' loader so that it reads this page."""
        page = self.page(number)
        if page is None:
            return {"page": number} if number else {}
        place = {"page": page.directory} if page.directory else {}
        return place if page.subdirectory is None else {**place, "subifd": page.subdirectory}

    def start(self, number: int) -> int | None:
        """Where the directory of a page begins; None where this is no TIFF."""
        page = self.page(number)
        return None if page is None else page.offset

    def kind(self, number: int) -> str | None:
        """'grey', 'rgb' or 'cmyk' by the file's own word; None where libvips is to say."""
        page = self.page(number)
        return None if page is None else _KINDS.get(page.photometric)

    def has_own_inks(self, number: int) -> bool:
        """Whether the page is separated into other inks than cyan, magenta, yellow and black."""
        page = self.page(number)
        return page is not None and self.kind(number) == "cmyk" and page.inks == 2

    def extra(self, number: int, count: int) -> tuple[int, ...] | None:
        """What the channels beyond the colour ones are, in TIFF's numbers.

        Args:
            number: of the page.
            count: of those channels, as libvips gives them.

        Returns:
            `count` values of TIFF's ExtraSamples; where the file has fewer, its last channels are
            meant and the others unspecified. None where libvips would change a channel: it divides
            all that stand before premultiplied transparency by it.
        """
        page = self.page(number)
        if page is None:
            # All other formats know transparency alone.
            return (STRAIGHT,) * count
        told = page.extra[-count:] if count else ()
        values = (0,) * (count - len(told)) + told
        if PREMULTIPLIED in values[1:]:
            return None
        return values

    @property
    def larger_page(self) -> int | None:
        """A page so much larger than the first that the first may be its preview."""
        pages = self.tiff.pages if self.tiff is not None else ()
        if len(pages) < 2:
            return None
        largest = max(range(len(pages)), key=lambda number: pages[number].pixels)
        return largest if pages[largest].pixels >= 4 * pages[0].pixels else None

    @property
    def beside(self) -> tuple[str, ...]:
        """What the file holds that cannot be read, each as a few words."""
        found = []
        near = self.companions
        for count, what in ((near.frames, "frame"), (near.pictures, "picture")):
            if count > 1:
                found.append(counted(count - 1, f"more {what}"))
        if near.video:
            found.append("a video")
        if near.unknown:
            found.append(f"{near.unknown:,} bytes of unknown data behind the picture")
        if self.tiff is not None:
            if self.tiff.planes > 1:
                found.append(
                    f"{counted(self.tiff.planes - 1, 'more plane')} without a page of their own"
                )
            if self.tiff.masks:
                found.append(counted(self.tiff.masks, "mask"))
            if self.tiff.layers:
                found.append("an editor's layers")
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out that can be made again, and what is wrong with the list of pages."""
        notes = []
        if self.tiff is not None and self.tiff.smaller:
            notes.append(
                f"{counted(self.tiff.smaller, 'smaller copy', 'smaller copies')} of the picture"
                " inside the file left out, since not mended."
            )
        if self.tiff is not None and self.tiff.pages and self.tiff.broken:
            notes.append(
                f"The list of pages breaks off after {counted(len(self.tiff.pages), 'page')}:"
                " the file may be cut short."
            )
        return tuple(notes)


def contents_of(path: Path, format: str) -> Contents:
    """Looks through a file.

    Raises:
        UnreadableError: it is a camera's raw file in a TIFF's clothes.
    """
    if format != "tiff":
        return Contents(format, None, companions(path, format))
    found = tiff_pages(path)
    if found.raw:
        raise UnreadableError(
            f"'{path}' is a camera's raw file ({found.raw}), not a finished picture: develop it"
            " first and save it as TIFF."
        )
    return Contents(format, found, Companions())
