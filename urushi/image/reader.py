"""Reading pictures into the working space, a few rows at a time."""

from pathlib import Path
from types import TracebackType

import numpy as np

from urushi.errors import UnreadableError
from urushi.image.alpha import survey
from urushi.image.colour.conversion import colours_of, profile_note
from urushi.image.colour.levels import levels_of
from urushi.image.info import DEFAULT_MAX_PIXELS, PictureInfo, read_header
from urushi.image.samples import AS_FOUND, Samples
from urushi.image.source import NativeRows

__all__ = ["PictureReader", "open_picture", "read_picture"]


class PictureReader:
    """Streams a picture from its first row to its last; a context manager.

    Memory does not grow with the height of the picture for JPEG (but progressive ones), PNG (but
    interlaced ones) and TIFF; WebP, AVIF and HEIF are decoded whole by their libraries.

    Args:
        path: of the picture.
        max_pixels: the most pixels it may have; None for no limit.
        page: which of the file's pictures, from 0; None for the first, with a note if there are
            others.
        samples: what is known about its samples.
        own: give rows in primaries of the picture's own, for restoring, in place of the working
            space; see `urushi.image.colour.conversion`.

    Attributes:
        info: what the file holds.
        notes: sentences about what is not as a user would expect although the file can be read;
            complete when the last row was read.
        damage: those of the notes that tell of pixels that are missing or wrong, as in a JPEG that
            breaks off.

    Raises:
        UnreadableError: missing, a folder, empty, forbidden, damaged or not a known picture.
        TooLargeError: more than `max_pixels`.
    """

    info: PictureInfo
    notes: list[str]
    damage: list[str]

    def __init__(
        self,
        path: str | Path,
        *,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        page: int | None = None,
        samples: Samples = AS_FOUND,
        own: bool = False,
    ) -> None:
        header = read_header(Path(path), max_pixels, page, samples)
        self.info = header.info
        self.notes, self.damage = header.notes, header.damage
        self._colours = colours_of(header, own=own)
        for note in (profile_note(header), levels_of(header).note):
            if note:
                self.notes.append(note)
        self._transparency = survey(header.info).in_primaries(self._colours.to_srgb)
        self._source = NativeRows(header)
        self._row = 0

    def read(self, rows: int) -> np.ndarray:
        """The next rows.

        Args:
            rows: how many, at least 1.

        Returns:
            `(n, W, 3)` float32 with `n = min(rows, what remains)`; `n` is 0 at the end. Values are
            nominally in [0, 1]; colours outside sRGB, and floating-point files, leave that range.

        Raises:
            UnreadableError: the file is damaged or cut short further down.
        """
        assert rows >= 1, rows
        native = self._source.read(rows)
        if native.shape[0] == 0:
            return np.empty((0, self.info.width, 3), np.float32)
        channels = self.info.channels
        pixels = self._colours.to_working(native[..., :channels])
        band = self.info.alpha_band
        if band is not None:
            pixels = self._transparency.fill(pixels, native[..., band], self._row)
        self._row += native.shape[0]
        return np.require(pixels, np.float32, ["C", "W", "O"])

    def close(self) -> None:
        """Lets go of the file."""
        self._source.close()

    def __enter__(self) -> "PictureReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_picture(
    path: str | Path,
    *,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    page: int | None = None,
    samples: Samples = AS_FOUND,
    own: bool = False,
) -> PictureReader:
    """Opens a picture for reading in rows; see `PictureReader`."""
    return PictureReader(path, max_pixels=max_pixels, page=page, samples=samples, own=own)


def read_picture(
    path: str | Path,
    *,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    page: int | None = None,
    white: float | int | None = None,
    linear: bool | None = None,
) -> np.ndarray:
    """Reads a whole picture; one of which a part is missing or garbled is refused.

    Args:
        path: the file.
        max_pixels: refuse pictures with more; None for no limit.
        page: of a file with several, from 0; None for the first.
        white: the sample value that means white in pictures of 16 bits and floating point, such as
            4095 or 255; None leaves it to the file.
        linear: whether samples of such pictures are linear light where there is no profile; None
            takes floating point so, and integers not.

    Returns:
        `(H, W, 3)` float32 in the working space; see `PictureReader.read`.

    Raises:
        UnreadableError, TooLargeError: as `PictureReader`.
    """
    samples = Samples(white, linear)
    with PictureReader(path, max_pixels=max_pixels, page=page, samples=samples) as reader:
        pixels = np.empty((reader.info.height, reader.info.width, 3), np.float32)
        step = max(1, 2**22 // reader.info.width)
        for top in range(0, reader.info.height, step):
            pixels[top : top + step] = reader.read(step)
        if reader.damage:
            raise UnreadableError(f"'{path}' is damaged. {reader.damage[0]}")
        return pixels
