"""Pictures from the bytes of their files: whole, or only the parts that are wanted."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from urushi.data.pack import read_8bit
from urushi.data.packed import Pixels
from urushi.errors import UnreadableError
from urushi.image import PictureInfo, inspect_picture
from urushi.image.libvips import reason, vips

__all__ = ["Crop", "cut", "decoded", "is_plain", "seen"]

Crop = tuple[int, int, int]
"""Top, left and side of a square part, in pixels."""

# Of these, libvips decodes the rows that are asked for, and those above them.
_IN_ROWS = ("jpeg", "png")


def is_plain(info: PictureInfo) -> bool:
    """Whether a file's samples are the pixels: 8 bits of sRGB, upright, opaque, one picture."""
    return (
        info.format in _IN_ROWS
        and info.kind in ("rgb", "grey")
        and (info.bits, info.orientation, info.pages) == (8, 1, 1)
        and not (info.has_profile or info.extra or info.stated)
    )


def seen(data: bytes, name: str) -> PictureInfo:
    """What a file holds, from its bytes.

    Raises:
        UnreadableError: it is no picture that can be read.
    """
    return _on_disk(data, name, inspect_picture)


def decoded(data: bytes, name: str, plain: bool) -> Pixels:
    """All pixels of a file, as `urushi.data.pack.read_8bit` gives them.

    Args:
        data: of the file.
        name: of the picture, for messages.
        plain: of `is_plain`.

    Raises:
        UnreadableError: it is damaged.
    """
    if not plain:
        return _on_disk(data, name, read_8bit)
    try:
        image = _opened(data)
        pixels = np.frombuffer(image.write_to_memory(), np.uint8)
    except vips().Error as error:
        raise _damaged(name, error) from error
    return _in_colour(pixels.reshape(image.height, image.width, image.bands))


def cut(data: bytes, name: str, plain: bool, crops: Sequence[Crop]) -> list[Pixels]:
    """Parts of the pixels of a file; see `decoded`.

    Of a plain picture, nothing below the lowest part is decoded.
    """
    if not crops:
        return []
    if not plain:
        whole = decoded(data, name, plain)
        return [whole[top : top + side, left : left + side].copy() for top, left, side in crops]
    try:
        image = _opened(data)
        top = min(crop[0] for crop in crops)
        left = min(crop[1] for crop in crops)
        height = max(crop[0] + crop[2] for crop in crops) - top
        width = max(crop[1] + crop[2] for crop in crops) - left
        rows = vips().Region.new(image).fetch(left, top, width, height)
    except vips().Error as error:
        raise _damaged(name, error) from error
    part = np.frombuffer(rows, np.uint8).reshape(height, width, image.bands)
    return [
        _in_colour(part[t - top : t - top + side, l - left : l - left + side])
        for t, l, side in crops  # noqa: E741
    ]


def _opened(data: bytes):  # noqa: ANN202 - of a module that is imported late
    # As for files: in a JPEG, warnings are all that libjpeg has for damage.
    if data[:2] == b"\xff\xd8":
        return vips().Image.jpegload_buffer(data, access="sequential", fail_on="warning")
    return vips().Image.pngload_buffer(data, access="sequential", fail_on="error")


def _in_colour(pixels: np.ndarray) -> Pixels:
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels)


def _on_disk(data: bytes, name: str, read):  # noqa: ANN001, ANN202
    """Has a file read that is in memory; what it says of it names the picture."""
    handle, text = tempfile.mkstemp(prefix="urushi-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        return read(Path(text))
    except UnreadableError as error:
        raise type(error)(str(error).replace(text, name)) from error
    finally:
        os.unlink(text)


def _damaged(name: str, error: Exception) -> UnreadableError:
    return UnreadableError(f"'{name}' is damaged ({reason(error)}): replace it, or leave it out.")
