"""Looking at pictures without restoring them: what is seen, and what would be done.

Each picture is read once, a few rows at a time: what chooses and the small version that is shown
both come from these rows.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from urushi.errors import UrushiError
from urushi.image import inspect_picture
from urushi.image.page_choice import is_stack, taken_pages
from urushi.image.preview import preview_factor, shrink
from urushi.inference.auto import AutoRestorer
from urushi.inference.choice import Choice
from urushi.inference.naming import Found, with_suffix
from urushi.inference.picture_files import AS_USUAL, FileOptions
from urushi.inference.tiling import ReadRows

__all__ = ["Looked", "Looking", "look_at"]

logger = logging.getLogger(__name__)

_ROWS = 256


@dataclass(frozen=True)
class Looking:
    """How files are looked at.

    Attributes:
        options: how they are read.
        suffix: of what they would become; None for their own.
        most: greatest width and height of small versions, in pixels.
    """

    options: FileOptions = AS_USUAL
    suffix: str | None = None
    most: tuple[int, int] = (576, 432)


@dataclass(frozen=True)
class Looked:
    """What a look at one picture, or one page of it, gave.

    Attributes:
        source: the file.
        name: what it is called below the folder that it was found in.
        page: which of its pages, from 0; None where it is the only one that would be restored.
        width, height: in pixels; 0 where it cannot be read.
        small: the picture, reduced; None where it cannot be read.
        choice: what would be done; None where it cannot be read.
        message: why it cannot be read; else empty.
        notes: sentences about what is not as a user would expect.
    """

    source: Path
    name: str
    page: int | None = None
    width: int = 0
    height: int = 0
    small: UInt8[np.ndarray, "h w 3"] | None = None
    choice: Choice | None = None
    message: str = ""
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Plain JSON values, as far as it is data; pages count from 1."""
        return {
            "source": str(self.source),
            "page": None if self.page is None else self.page + 1,
            "status": "failed" if self.choice is None else "looked at",
            "message": self.message,
            "width": self.width,
            "height": self.height,
            "notes": list(self.notes),
            **({} if self.choice is None else {"router": self.choice.describe()}),
        }


def look_at(restorer: AutoRestorer, item: Found, reading: Looking) -> Iterator[Looked]:
    """Looks at one file, at each page that would be restored; what fails is told, not raised.

    Args:
        restorer: that chooses.
        item: the file.
        reading: how it is read.
    """
    name = str(item.inside)
    if item.problem:
        yield Looked(item.source, name, message=item.problem)
        return
    found: Looked | str
    try:
        pages, notes = _pages(item.source, reading)
    except (UrushiError, OSError) as error:
        yield Looked(item.source, name, message=str(error))
        return
    for page in pages:
        shown = None if len(pages) == 1 else page
        try:
            found = _look(restorer, item.source, name, page, reading)
        except (UrushiError, OSError) as error:
            found = str(error)
        except MemoryError:
            found = f"{item.source}: there is too little memory to read it: close other programs"
        except Exception as error:
            # A fault of ours in one picture: the others are still worth looking at.
            logger.exception("looking at %s failed unexpectedly", item.source)
            found = f"{item.source}: unexpected {type(error).__name__}: {error}"
        if isinstance(found, str):
            found = Looked(item.source, name, page, message=found)
        yield replace(found, page=shown, notes=(*notes, *found.notes))
        notes = ()


def _pages(source: Path, reading: Looking) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """The pages for which something would be chosen, and what is to be said of them."""
    options = reading.options
    info = inspect_picture(source, max_pixels=options.checked_limit)
    target = with_suffix(source, reading.suffix)
    taken = taken_pages(info, target, options.taken, options.max_pixels)
    # Planes of one thing are mended alike.
    return (taken.numbers[:1] if is_stack(source) else taken.numbers), taken.notes


def _look(
    restorer: AutoRestorer, source: Path, name: str, page: int | None, reading: Looking
) -> Looked:
    with reading.options.open(source, page) as reader:
        width, height = reader.info.width, reader.info.height
        small = _Small(reader.read, width, height, reading.most)
        choice = restorer.choose_rows(small.read, width, height)
        pixels = small.finish()
        notes = tuple(dict.fromkeys(reader.notes))
    return Looked(source, name, page, width, height, pixels, choice, notes=notes)


class _Small:
    """Makes a small version of a picture from the rows that somebody else reads.

    Args:
        read: gives the next rows, as `PictureReader.read`.
        width, height: of the picture, in pixels.
        most: greatest width and height of the small version.
    """

    def __init__(self, read: ReadRows, width: int, height: int, most: tuple[int, int]) -> None:
        self._read, self._left = read, height
        # A strip thinner than the factor would vanish.
        self._factor = min(preview_factor(width, height, most), width, height)
        self._over: list[np.ndarray] = []
        self._made: list[np.ndarray] = []

    def read(self, count: int) -> np.ndarray:
        """The next rows, as they come."""
        rows = self._read(count)
        self._left -= len(rows)
        whole = np.concatenate([*self._over, rows]) if self._over else rows
        ready = len(whole) // self._factor * self._factor
        if ready:
            means = np.clip(np.nan_to_num(shrink(whole[:ready], self._factor)), 0, 1)
            self._made.append((means * 255).round().astype(np.uint8))
        self._over = [whole[ready:].copy()] if ready < len(whole) else []
        return rows

    def finish(self) -> UInt8[np.ndarray, "h w 3"]:
        """The small version; what nobody has read is read now."""
        while self._left > 0 and len(self.read(min(_ROWS, self._left))):
            pass
        return np.concatenate(self._made)
