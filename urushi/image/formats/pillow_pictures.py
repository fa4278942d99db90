"""BMP and PNM, which libvips' usual builds do not read and Pillow does.

Pillow decodes a picture whole, so these formats need memory for all of its samples; binary PNM is
read from its file row by row.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np

from urushi.image.libvips import interpretation, vips, vips_format

__all__ = ["PillowRows", "pillow_header"]

_DAMAGE = (SyntaxError, ValueError, EOFError, IndexError, OverflowError, struct.error)
_KINDS = {1: "grey", 3: "rgb", 4: "rgb"}


def pillow_header(path: Path, format: str) -> Any:
    """A libvips image that says what the file holds, without its pixels.

    Raises:
        OSError: the file is damaged, or of a variant that Pillow does not read.
    """
    picture = _open(path, format)
    with picture:
        bands, dtype = _samples(picture)
        kind = _KINDS[bands]
        image = vips().Image.black(*picture.size, bands=bands).cast(vips_format(dtype))
        density = picture.info.get("dpi")
        image = image.copy(interpretation=interpretation(kind, dtype))
    if density is not None and min(density) > 0:
        image = image.copy(xres=density[0] / 25.4, yres=density[1] / 25.4)
        image.set_type(vips().GValue.gstr_type, "resolution-unit", "in")
    profile = _profile(path) if format == "bmp" else None
    if profile is not None:
        image.set_type(vips().GValue.blob_type, "icc-profile-data", profile)
    return image


class PillowRows:
    """Rows of such a file.

    Args:
        path, format: of the picture.

    Raises:
        OSError: the file is damaged.
    """

    def __init__(self, path: Path, format: str) -> None:
        with _open(path, format) as picture:
            bands, dtype = _samples(picture)
            self._shape = (picture.height, picture.width, bands)
            self._white: int | None = None
            binary = _binary(picture)
            if binary is not None:
                offset, self._white = binary
                stored = np.dtype(np.uint8 if self._white < 256 else ">u2")
                if path.stat().st_size < offset + int(np.prod(self._shape)) * stored.itemsize:
                    raise OSError("image file is truncated")
                self._pixels = np.memmap(path, stored, "r", offset, self._shape)
                return
            try:
                picture.load()
                pixels = np.asarray(_plain(picture))
            except _DAMAGE as error:
                raise OSError(str(error)) from error
        self._pixels = pixels.reshape(self._shape).astype(dtype, copy=False)

    def read(self, row: int, count: int) -> np.ndarray:
        """Rows from there on, `(count, W, bands)`: uint8, uint16 or float32."""
        rows = self._pixels[row : row + count]
        if self._white is None:
            return rows
        white = 255 if self._white < 256 else 65535
        dtype = np.uint8 if white == 255 else np.uint16
        if self._white == white:
            return rows.astype(dtype)
        return np.rint(np.minimum(rows / self._white, 1.0) * white).astype(dtype)


def _open(path: Path, format: str) -> Any:
    """The file as Pillow sees it; its limit of pixels does not count here, there is another."""
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.PpmImagePlugin import PpmImageFile

    try:
        return (BmpImageFile if format == "bmp" else PpmImageFile)(path)
    except _DAMAGE as error:
        raise OSError(str(error) or "its header makes no sense") from error


def _binary(picture: Any) -> tuple[int, int] | None:
    """Where the samples of a binary PGM or PPM begin, and their white; None for other files."""
    tile = picture.tile[0]
    if picture.format != "PPM" or picture.mode not in ("L", "RGB", "I"):
        return None
    if tile.codec_name == "ppm":
        return tile.offset, int(tile.args[-1])
    if tile.codec_name != "raw":
        return None
    return tile.offset, 65535 if picture.mode == "I" else 255


def _samples(picture: Any) -> tuple[int, np.dtype]:
    """Number of channels and type of the samples."""
    binary = _binary(picture)
    wide = picture.mode == "I" or (binary is not None and binary[1] > 255)
    if picture.mode == "F":
        return 1, np.dtype(np.float32)
    bands = {"1": 1, "L": 1, "I": 1, "RGBA": 4}.get(picture.mode, 3)
    return bands, np.dtype(np.uint16 if wide else np.uint8)


def _plain(picture: Any) -> Any:
    """Black and white as grey, palettes as colours."""
    if picture.mode == "1":
        return picture.convert("L")
    return picture.convert("RGB") if picture.mode == "P" else picture


def _profile(path: Path) -> bytes | None:
    """The ICC profile in a bitmap of version 5 (BITMAPV5HEADER: offsets 56, 112, 116)."""
    with path.open("rb") as file:
        head = file.read(138)
        if len(head) < 138 or head[14:18] != struct.pack("<I", 124) or head[70:74] != b"DEBM":
            return None
        at, size = struct.unpack_from("<II", head, 126)
        file.seek(14 + at)
        profile = file.read(min(size, 2**24))
    return profile if len(profile) == size and profile[36:40] == b"acsp" else None
