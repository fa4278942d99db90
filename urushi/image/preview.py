"""Small versions of pictures of any size, and parts of them, in bounded memory."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from urushi.image.info import DEFAULT_MAX_PIXELS
from urushi.image.reader import PictureReader
from urushi.image.samples import AS_FOUND, Samples

__all__ = ["preview_factor", "read_part", "read_preview", "read_rows"]

Picture = Float32[np.ndarray, "_ _ 3"]

_ROW_BYTES = 2**23


def preview_factor(width: int, height: int, most: tuple[int, int]) -> int:
    """The whole number by which both sides are divided so that a picture fits into `most`."""
    return max(1, math.ceil(width / most[0]), math.ceil(height / most[1]))


def read_rows(reader: PictureReader, multiple: int = 1) -> Iterator[Picture]:
    """All rows of an opened picture, in bands of a few megabytes.

    Args:
        reader: just opened.
        multiple: every band but the last has a multiple of so many rows.
    """
    step = max(1, _ROW_BYTES // (reader.info.width * 12 * multiple)) * multiple
    while len(rows := reader.read(step)):
        yield rows


def shrink(rows: Picture, factor: int) -> Picture:
    """Means over squares of `factor` pixels; what is left over at the edges is cut off."""
    if factor == 1:
        return rows
    height, width = rows.shape[0] // factor, rows.shape[1] // factor
    cut = rows[: height * factor, : width * factor]
    return cut.reshape(height, factor, width, factor, 3).mean(axis=(1, 3), dtype=np.float32)


def read_preview(
    path: str | Path,
    most: tuple[int, int],
    *,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    samples: Samples = AS_FOUND,
) -> Picture:
    """Reads a picture, reduced by a whole factor where it is larger than wanted.

    Args:
        path: of the picture.
        most: greatest width and height of the result, in pixels.
        max_pixels: the most pixels the file may have; None for no limit.
        samples: what is known about its samples.

    Returns:
        `(h, w, 3)` in the working space, at least one pixel.

    Raises:
        UnreadableError, TooLargeError: as `PictureReader`.
    """
    with PictureReader(path, max_pixels=max_pixels, samples=samples) as reader:
        width, height = reader.info.width, reader.info.height
        # A strip thinner than the factor would vanish.
        factor = min(preview_factor(width, height, most), width, height)
        bands = [shrink(rows, factor) for rows in read_rows(reader, factor)]
    return np.concatenate(bands)


def read_part(
    path: str | Path,
    top: int,
    left: int,
    height: int,
    width: int,
    *,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    page: int | None = None,
    samples: Samples = AS_FOUND,
) -> Picture:
    """Reads a rectangle at full resolution; the rows above it are decoded, but not kept.

    Raises:
        UnreadableError, TooLargeError: as `PictureReader`.
    """
    kept = []
    row = 0
    with PictureReader(path, max_pixels=max_pixels, page=page, samples=samples) as reader:
        assert 0 <= top <= reader.info.height - height, (top, height)
        assert 0 <= left <= reader.info.width - width, (left, width)
        for rows in read_rows(reader):
            begin, end = max(top - row, 0), min(top + height - row, len(rows))
            if begin < end:
                kept.append(rows[begin:end, left : left + width].copy())
            row += len(rows)
            if row >= top + height:
                break
    return np.concatenate(kept)
