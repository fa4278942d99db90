"""Small pictures held in memory: read before their turn, and written while the next is restored."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from urushi.image import (
    AS_FOUND,
    PictureInfo,
    PictureWriter,
    Samples,
    inspect_picture,
    open_picture,
)
from urushi.image.opened import check_unchanged
from urushi.image.page_choice import Pages, taken_pages
from urushi.inference.restorer import OnProgress, Restorer

__all__ = ["SMALL", "Held", "Options", "Restored", "hold", "mend", "write"]

SMALL = 1 << 20
"""Pixels of a picture that is held at most, 12 bytes each, before and after it is restored."""


@dataclass(frozen=True)
class Options:
    """How all pictures of a batch are read and written; see `restore_picture`."""

    strip_metadata: bool = False
    quality: int | None = None
    max_pixels: int | None = None
    samples: Samples = AS_FOUND
    pages: Pages | None = None


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


def hold(source: Path, target: Path, options: Options) -> Held | None:
    """Reads a whole picture; None where it is large, or has several pages to restore.

    Raises:
        PictureError: it cannot be read.
    """
    most = options.max_pixels
    info = inspect_picture(source, max_pixels=most if options.pages is None else None)
    if info.width * info.height > SMALL:
        return None
    taken = taken_pages(info, target, options.pages, most)
    if len(taken.numbers) != 1:
        return None
    seen = options.samples._replace(in_use=True)
    (page,) = taken.numbers
    with open_picture(source, max_pixels=most, page=page, samples=seen, own=True) as reader:
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


def write(restored: Restored, target: Path, overwrite: bool, options: Options) -> tuple[str, ...]:
    """Writes what was restored; gives all notes on it, each once.

    Raises:
        PictureError: the target cannot be written, or the source was changed meanwhile.
    """
    info, scale = restored.info, restored.scale
    with PictureWriter(
        target,
        like=info,
        width=scale * info.width,
        height=scale * info.height,
        overwrite=overwrite,
        strip_metadata=options.strip_metadata,
        quality=options.quality,
        own=True,
    ) as writer:
        for part in restored.rows:
            writer.write(part)
    return tuple(dict.fromkeys([*restored.notes, *writer.notes]))
