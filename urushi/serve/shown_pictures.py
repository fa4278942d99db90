"""Pictures as they are shown: 8 bits of sRGB at every scale, any part there at once.

Browsers read neither HEIF nor TIFF, nor 16 bits, nor pictures of a hundred megapixels. So a
picture is read once, as restoring reads it, and laid into a file: its pixels row by row, then
those of half the size, and so on. This is for showing alone: no result is made of it.
"""

import io
import itertools
import json
import struct
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from urushi.errors import UnreadableError
from urushi.image import open_picture
from urushi.image.preview import read_rows
from urushi.inference.strength import Strength, blended
from urushi.writing import whole_file

__all__ = ["Levels", "encoded", "shown_blend", "write_levels"]

TILE = 512
"""Side of the tiles that a picture is shown in, in pixels."""

_LENGTH = struct.Struct("<Q")
_SMALLEST = 256
_MARGIN = 32


def write_levels(source: Path, target: Path) -> None:
    """Lays the small versions of a picture into a file.

    Raises:
        UrushiError: the picture cannot be read.
    """
    with open_picture(source, max_pixels=None) as reader:
        width, height = reader.info.width, reader.info.height
        sizes = [(height, width)]
        while max(sizes[-1]) > _SMALLEST:
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))  # pyright: ignore[reportArgumentType]
        head = json.dumps({"sizes": sizes}).encode()
        head += b" " * (-len(head) % 64)
        with whole_file(target, overwrite=True) as path:
            with path.open("wb") as file:
                file.write(_LENGTH.pack(len(head)) + head)
                for rows in read_rows(reader):
                    eight = np.rint(np.clip(np.nan_to_num(rows), 0, 1) * 255).astype(np.uint8)
                    file.write(eight.tobytes())
            _halve(path, len(head) + _LENGTH.size, sizes)


def _halve(path: Path, offset: int, sizes: list[tuple[int, int]]) -> None:
    """Adds all levels but the first."""
    with path.open("r+b") as file:
        for above, below in itertools.pairwise(sizes):
            file.seek(0, io.SEEK_END)
            whole = np.memmap(path, np.uint8, "r", offset, (*above, 3))
            step = max(1, (1 << 22) // (above[1] * 6))
            for top in range(0, below[0], step):
                rows = np.asarray(whole[2 * top : 2 * (top + step)])
                file.write(_half(rows).tobytes())
            file.flush()
            offset += above[0] * above[1] * 3


def _half(rows: np.ndarray) -> np.ndarray:
    """Means over squares of two; a last row or column that is alone counts twice."""
    odd = [(0, side % 2) for side in rows.shape[:2]]
    even = np.pad(rows, (*odd, (0, 0)), mode="edge").astype(np.uint16)
    sums = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((sums + 2) // 4).astype(np.uint8)


class Levels:
    """The small versions of a picture; a context manager.

    Args:
        path: of the file.

    Attributes:
        sizes: rows and columns of each level, the full size first.

    Raises:
        UnreadableError: the file is not there, or not whole.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
                head: dict[str, Any] = json.loads(file.read(length))
        except (OSError, ValueError, struct.error) as error:
            raise UnreadableError("the picture's small versions are gone: send it again") from error
        self._path = path
        self.sizes = [(int(height), int(width)) for height, width in head["sizes"]]
        self._begin = _LENGTH.size + length

    def __enter__(self) -> "Levels":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def part(self, level: int, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A part of a level, `(h, w, 3)` uint8, cut off where the picture ends."""
        before = sum(rows * columns * 3 for rows, columns in self.sizes[:level])
        shape = (*self.sizes[level], 3)
        whole = np.memmap(self._path, np.uint8, "r", self._begin + before, shape)
        return np.array(whole[top : top + height, left : left + width])

    def part_with_margin(
        self, level: int, top: int, left: int, height: int, width: int
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """The same with what is around it, and how much of that is above and to the left."""
        above, beside = min(top, _MARGIN), min(left, _MARGIN)
        part = self.part(
            level, top - above, left - beside, above + height + _MARGIN, beside + width + _MARGIN
        )
        return part, (above, beside)


def shown_blend(before: np.ndarray, after: np.ndarray, strength: Strength) -> np.ndarray:
    """What a strength gives, of parts as they are shown; `(h, w, 3)` uint8 all of them."""
    mixed = blended(before.astype(np.float32) / 255, after.astype(np.float32) / 255, strength)
    return np.rint(np.clip(mixed, 0, 1) * 255).astype(np.uint8)


def encoded(pixels: np.ndarray, format: str) -> bytes:
    """Pixels as a file: `png`, exactly, or `jpeg`, for parts that are shown smaller anyway."""
    made = io.BytesIO()
    options: dict[str, Any] = {"compress_level": 1}
    if format == "jpeg":
        options = {"quality": 92, "subsampling": 0}
    Image.fromarray(pixels).save(made, format, **options)
    return made.getvalue()
