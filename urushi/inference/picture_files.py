"""Restoring one picture file into another, streaming: read, mend and write row by row."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from urushi.image import DEFAULT_MAX_PIXELS, PictureWriter, open_picture
from urushi.image.opened import Identity, check_unchanged
from urushi.inference.restorer import Restorer

__all__ = ["Outcome", "restore_picture"]


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        source: the file that was read.
        target: the file that was written.
        width: the source's columns, in pixels, after the orientation was applied.
        height: its rows, in pixels.
        seconds: time from opening the source to the finished target.
        notes: sentences about what did not come through unharmed, or was not as a user would
            expect; each once.
    """

    source: Path
    target: Path
    width: int
    height: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def pixels(self) -> int:
        """How many pixels were restored."""
        return self.width * self.height


def restore_picture(
    restorer: Restorer,
    source: Path,
    target: Path,
    *,
    overwrite: bool = False,
    strip_metadata: bool = False,
    quality: int | None = None,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    on_progress: Callable[[int, int], None] | None = None,
    expected: Identity | None = None,
) -> Outcome:
    """Restore the picture `source` into the file `target`.

    The memory needed depends on the width of the picture and not on its height. The target
    appears whole or not at all, whatever interrupts the work.

    Args:
        restorer: what restores.
        source: any picture that can be read.
        target: its name decides the format.
        overwrite: replace a target that is there, which may be the source itself.
        strip_metadata: leave out EXIF and XMP.
        quality: of lossy formats, 1 to 100; None takes the writer's choice.
        max_pixels: refuse pictures with more; None for no limit.
        on_progress: called with finished and total pixels as the work goes on.
        expected: the file that the source has to be; None where nobody has looked at it before.

    Raises:
        PictureError: the source cannot be read, or was replaced meanwhile; or the target cannot
            be written.
        EngineError: the picture could not be restored.
    """
    start = time.perf_counter()
    with open_picture(source, max_pixels=max_pixels) as reader:
        check_unchanged(source, expected, reader.info.identity)
        width, height = reader.info.width, reader.info.height
        with PictureWriter(
            target,
            like=reader.info,
            width=restorer.scale * width,
            height=restorer.scale * height,
            overwrite=overwrite,
            strip_metadata=strip_metadata,
            quality=quality,
        ) as writer:
            for rows in restorer.restore_rows(reader.read, width, height, on_progress):
                writer.write(rows)
        notes = dict.fromkeys([*reader.notes, *restorer.notes, *writer.notes])
    return Outcome(source, target, width, height, time.perf_counter() - start, tuple(notes))
