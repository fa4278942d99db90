"""Restoring one picture file into another, streaming: read, mend and write row by row."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from urushi.errors import TargetError, UnreadableError
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
from urushi.image.target import format_to_write
from urushi.inference.restorer import OnProgress, Restorer

__all__ = [
    "AS_USUAL",
    "SMALL",
    "FileOptions",
    "Held",
    "Outcome",
    "Restored",
    "check_format",
    "hold",
    "mend",
    "restore_picture",
    "write",
]


@dataclass(frozen=True)
class FileOptions:
    """How picture files are read and written.

    Attributes:
        max_pixels: refuse pictures with more; None for no limit.
        pages: `first`, `all`, a number from 1, or a range such as `2-5`. None takes all pages of a
            TIFF into a TIFF, and the first picture of anything else, with a note.
        samples: what is known about the samples of the source.
        strip_metadata: leave out EXIF and XMP.
        quality: of lossy formats, 1 to 100; None takes the writer's choice.

    Raises:
        UnreadableError: `pages` is none of these.
    """

    max_pixels: int | None = DEFAULT_MAX_PIXELS
    pages: str | Pages | None = None
    samples: Samples = AS_FOUND
    strip_metadata: bool = False
    quality: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.pages, str):
            object.__setattr__(self, "pages", parse_pages(self.pages))

    @property
    def taken(self) -> Pages | None:
        """The pages that were asked for."""
        assert not isinstance(self.pages, str)
        return self.pages

    @property
    def first_page(self) -> int | None:
        """The page that is taken first, from 0; None for whichever a file shows first."""
        taken = self.taken
        return taken.first or None if taken is not None else None

    @property
    def checked_limit(self) -> int | None:
        """Of the page that a file shows first: one that is larger may have others that are not."""
        return self.max_pixels if self.pages is None else None

    def open(self, source: Path, page: int | None = None, *, own: bool = False) -> PictureReader:
        """Opens a picture, or one of its pages, to be read as these options say.

        Raises:
            PictureError: it cannot be read.
        """
        samples = self.samples._replace(in_use=True)
        return open_picture(source, max_pixels=self.max_pixels, page=page, samples=samples, own=own)

    def create(
        self, target: Path, like: PictureInfo, scale: int, *, overwrite: bool, pages: int = 1
    ) -> PictureWriter:
        """Opens a file for what a picture became, to be written as these options say.

        Args:
            target: its name decides the format.
            like: what the picture is.
            scale: how many times as long its sides became.
            overwrite: replace a target that is there.
            pages: that are written.

        Raises:
            PictureError: it cannot be written.
        """
        return PictureWriter(
            target,
            like=like,
            width=scale * like.width,
            height=scale * like.height,
            overwrite=overwrite,
            strip_metadata=self.strip_metadata,
            quality=self.quality,
            own=True,
            pages=pages,
        )


AS_USUAL = FileOptions()


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


def check_format(source: Path, target: Path, options: FileOptions) -> None:
    """Refuses, before any work, a target whose format cannot be written here.

    Raises:
        PictureError: it cannot; or the source cannot be read, which comes first, since another
            format would only lead to that.
    """
    try:
        format_to_write(target)
    except TargetError:
        inspect_picture(source, max_pixels=options.checked_limit)
        raise


def restore_picture(
    restorer: Restorer,
    source: Path,
    target: Path,
    *,
    options: FileOptions = AS_USUAL,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    expected: Identity | None = None,
    for_page: Callable[[int], Restorer] | None = None,
) -> Outcome:
    """Restore the picture `source` into the file `target`.

    The memory needed depends on the width of the picture, and neither on its height nor on the
    number of pages. The target appears whole or not at all, whatever interrupts the work.

    Args:
        restorer: what restores.
        source: any picture that can be read.
        target: its name decides the format.
        options: how it is read and written.
        overwrite: replace a target that is there, which may be the source itself.
        on_progress: called with finished and total pixels as the work goes on.
        expected: the file that the source has to be; None where nobody has looked at it before.
        for_page: what restores a page other than the first one taken, by its number from 0.

    Raises:
        PictureError: the source cannot be read, or was replaced meanwhile; or the target cannot
            be written.
        EngineError: the picture could not be restored.
    """
    start = time.perf_counter()
    info = inspect_picture(source, max_pixels=options.checked_limit)
    check_unchanged(source, expected, info.identity)
    taken = taken_pages(info, target, options.taken, options.max_pixels)

    open_writer = partial(options.create, target, overwrite=overwrite, pages=len(taken.numbers))

    def restorer_of(page: int) -> Restorer:
        return restorer if for_page is None else for_page(page)

    def open_reader(page: int | None) -> PictureReader:
        reader = options.open(source, page, own=True)
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
    on_progress: OnProgress | None,
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


SMALL = 1 << 20
"""Pixels of a picture that is held at most, 12 bytes each, before and after it is restored."""


@dataclass(frozen=True)
class Held:
    """A picture as it was read.

    Attributes:
        info: what the file is.
        rows: all of it, `(H, W, 3)` float32.
        notes: what reading it has told.
    """

    info: PictureInfo
    rows: np.ndarray
    notes: tuple[str, ...]

    @property
    def pixels(self) -> int:
        """How many it has."""
        return self.info.width * self.info.height


@dataclass(frozen=True)
class Restored:
    """A picture that is still to be written.

    Attributes:
        info: what its source is.
        rows: what it became, `(n, scale W, 3)` float32 each.
        scale: how many times as long its sides are.
        notes: what reading and restoring it have told.
    """

    info: PictureInfo
    rows: list[np.ndarray]
    scale: int
    notes: tuple[str, ...]


def hold(source: Path, target: Path, options: FileOptions) -> Held | None:
    """Reads a whole picture; None where it is large, or has several pages to restore.

    Raises:
        PictureError: it cannot be read.
    """
    info = inspect_picture(source, max_pixels=options.checked_limit)
    if info.width * info.height > SMALL:
        return None
    taken = taken_pages(info, target, options.taken, options.max_pixels)
    if len(taken.numbers) != 1:
        return None
    with options.open(source, taken.numbers[0], own=True) as reader:
        own = reader.info
        check_unchanged(source, info.identity, own.identity)
        if own.width * own.height > SMALL:
            return None
        rows = np.empty((own.height, own.width, 3), np.float32)
        row = 0
        while len(read := reader.read(own.height - row or 1)):
            rows[row : row + len(read)] = read
            row += len(read)
        return Held(own, rows[:row], (*taken.notes, *reader.notes))


def mend(restorer: Restorer, held: Held, on_progress: OnProgress) -> Restored:
    """Restores what is held.

    Raises:
        UrushiError: see `Restorer.restore_rows`.
    """
    position = 0

    def read(count: int) -> np.ndarray:
        nonlocal position
        position += count
        return held.rows[position - count : position]

    mended: Iterator[np.ndarray] = restorer.restore_rows(
        read, held.info.width, held.info.height, on_progress
    )
    # What is yielded may be changed by what comes after.
    rows = [np.array(part) for part in mended]
    return Restored(held.info, rows, restorer.scale, (*held.notes, *restorer.notes))


def write(
    restored: Restored, target: Path, overwrite: bool, options: FileOptions
) -> tuple[str, ...]:
    """Writes what was restored; gives all notes on it, each once.

    Raises:
        PictureError: the target cannot be written, or the source was changed meanwhile.
    """
    created = options.create(target, restored.info, restored.scale, overwrite=overwrite)
    with created as writer:
        for part in restored.rows:
            writer.write(part)
    return tuple(dict.fromkeys([*restored.notes, *writer.notes]))
