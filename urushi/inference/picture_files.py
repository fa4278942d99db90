"""Restoring one picture file into another, streaming: read, mend and write row by row."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from urushi.errors import UnreadableError
from urushi.image import (
    AS_FOUND,
    DEFAULT_MAX_PIXELS,
    PictureInfo,
    PictureReader,
    PictureWriter,
    Samples,
    inspect_picture,
    open_picture,
)
from urushi.image.opened import Identity, check_unchanged
from urushi.image.page_choice import Pages, TakenPages, parse_pages, taken_pages
from urushi.inference.restorer import Restorer

__all__ = ["Outcome", "restore_picture"]


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        source: the file that was read.
        target: the file that was written.
        width: the source's columns, in pixels, after the orientation was applied; those of its
            first page where it has several.
        height: its rows, in pixels.
        seconds: time from opening the source to the finished target.
        notes: sentences about what did not come through unharmed, or was not as a user would
            expect; each once.
        pages: how many pages were restored.
        all_pixels: of those together; None for one.
    """

    source: Path
    target: Path
    width: int
    height: int
    seconds: float
    notes: tuple[str, ...] = ()
    pages: int = 1
    all_pixels: int | None = None

    @property
    def pixels(self) -> int:
        """How many pixels were restored, on all pages."""
        return self.width * self.height if self.all_pixels is None else self.all_pixels


def restore_picture(
    restorer: Restorer,
    source: Path,
    target: Path,
    *,
    overwrite: bool = False,
    strip_metadata: bool = False,
    quality: int | None = None,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    samples: Samples = AS_FOUND,
    on_progress: Callable[[int, int], None] | None = None,
    expected: Identity | None = None,
    pages: str | Pages | None = None,
    for_page: Callable[[int], Restorer] | None = None,
) -> Outcome:
    """Restore the picture `source` into the file `target`.

    The memory needed depends on the width of the picture, and neither on its height nor on the
    number of pages. The target appears whole or not at all, whatever interrupts the work.

    Args:
        restorer: what restores.
        source: any picture that can be read.
        target: its name decides the format.
        overwrite: replace a target that is there, which may be the source itself.
        strip_metadata: leave out EXIF and XMP.
        quality: of lossy formats, 1 to 100; None takes the writer's choice.
        max_pixels: refuse pictures with more; None for no limit.
        samples: what is known about the samples of the source.
        on_progress: called with finished and total pixels as the work goes on.
        expected: the file that the source has to be; None where nobody has looked at it before.
        pages: `first`, `all`, a number from 1, or a range such as `2-5`. None takes all pages of a
            TIFF into a TIFF, and the first picture of anything else, with a note.
        for_page: what restores a page other than the first one taken, by its number from 0.

    Raises:
        PictureError: the source cannot be read, or was replaced meanwhile; or the target cannot
            be written.
        EngineError: the picture could not be restored.
    """
    start = time.perf_counter()
    seen = samples._replace(in_use=True)
    if isinstance(pages, str):
        pages = parse_pages(pages)
    # A file whose first page is larger than allowed may have others that are not.
    info = inspect_picture(source, max_pixels=max_pixels if pages is None else None)
    check_unchanged(source, expected, info.identity)
    taken = taken_pages(info, target, pages, max_pixels)

    def open_writer(like: PictureInfo, scale: int) -> PictureWriter:
        return PictureWriter(
            target,
            like=like,
            width=scale * like.width,
            height=scale * like.height,
            overwrite=overwrite,
            strip_metadata=strip_metadata,
            quality=quality,
            own=True,
            pages=len(taken.numbers),
        )

    def restorer_of(page: int) -> Restorer:
        return restorer if for_page is None else for_page(page)

    def open_reader(page: int | None) -> PictureReader:
        reader = open_picture(source, max_pixels=max_pixels, page=page, samples=seen, own=True)
        check_unchanged(source, info.identity, reader.info.identity)
        return reader

    first, notes = _restore_pages(
        open_reader, restorer, restorer_of, open_writer, taken, on_progress
    )
    return Outcome(
        source,
        target,
        first.width,
        first.height,
        time.perf_counter() - start,
        tuple(dict.fromkeys([*taken.notes, *notes])),
        len(taken.numbers),
        taken.pixels,
    )


def _restore_pages(
    open_reader: Callable[[int | None], PictureReader],
    restorer: Restorer,
    restorer_of: Callable[[int], Restorer],
    open_writer: Callable[[PictureInfo, int], PictureWriter],
    taken: TakenPages,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[PictureInfo, list[str]]:
    """Restores page after page; gives what the first one is, and all notes."""
    first: PictureInfo | None = None
    writer: PictureWriter | None = None
    notes: list[str] = []
    done = 0

    def progress(finished: int, total: int) -> None:
        if on_progress is not None:
            on_progress(done + finished, taken.pixels)

    with contextlib.ExitStack() as held:
        for number in taken.numbers:
            active = restorer if writer is None else restorer_of(number or 0)
            with _naming_the_page(number, taken), open_reader(number) as reader:
                info = reader.info
                size = {"width": active.scale * info.width, "height": active.scale * info.height}
                if writer is None:
                    first, writer = info, held.enter_context(open_writer(info, active.scale))
                else:
                    writer.next_page(like=info, **size)
                for rows in active.restore_rows(reader.read, info.width, info.height, progress):
                    writer.write(rows)
                notes += [*reader.notes, *active.notes]
                done += info.width * info.height
    assert writer is not None
    assert first is not None
    return first, [*notes, *writer.notes]


@contextlib.contextmanager
def _naming_the_page(number: int | None, taken: TakenPages) -> Iterator[None]:
    """Says on which page it was that something went wrong, where there are several."""
    try:
        yield
    except UnreadableError as error:
        if not number or len(taken.numbers) == 1:
            raise
        raise type(error)(f"{error} That was page {number + 1}.") from error
