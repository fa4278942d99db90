"""The temporary file in which a writer collects rows: an uncompressed TIFF, header first.

libvips streams a TIFF through a small buffer; raw samples it would map into memory as a whole.
"""

import struct

import numpy as np

from urushi.image.tiff.directories import Form, pack_directory

__all__ = ["spool_header"]

_SHORT, _LONG8 = 3, 16
_STRIP_BYTES = 256 * 1024
_FIRST = 16  # where the directory begins


def spool_header(
    width: int, height: int, channels: int, extra: tuple[int, ...], dtype: np.dtype
) -> bytes:
    """What stands before the rows, which follow one after another without gaps.

    BigTIFF, so that no size is too large (TIFF 6.0, and the BigTIFF design of libtiff).

    Args:
        width, height: in pixels.
        channels: of colour, 1 (grey), 3 (RGB) or 4 (CMYK).
        extra: what ExtraSamples says of each channel beside those.
        dtype: of the samples: uint8, uint16 or float32, in this machine's byte order.
    """
    bands = channels + len(extra)
    stride = width * bands * dtype.itemsize
    rows = max(1, _STRIP_BYTES // stride)
    strips = -(-height // rows)
    order = "<" if np.little_endian else ">"
    sizes = [min(rows, height - i * rows) * stride for i in range(strips)]

    given: dict[int, tuple[int, bytes]] = {}

    def put(tag: int, kind: int, *values: int) -> None:
        code = "H" if kind == _SHORT else "Q"
        given[tag] = kind, struct.pack(f"{order}{len(values)}{code}", *values)

    put(256, _LONG8, width)
    put(257, _LONG8, height)
    put(258, _SHORT, *[8 * dtype.itemsize] * bands)
    put(259, _SHORT, 1)
    put(262, _SHORT, {1: 1, 3: 2, 4: 5}[channels])
    put(277, _SHORT, bands)
    put(278, _LONG8, rows)
    put(279, _LONG8, *sizes)
    put(284, _SHORT, 1)
    put(339, _SHORT, *[3 if dtype.kind == "f" else 1] * bands)
    if extra:
        put(338, _SHORT, *extra)

    def header(start: int) -> bytes:
        put(273, _LONG8, *(start + i * rows * stride for i in range(strips)))
        head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HHHQ", 43, 8, 0, _FIRST)
        return head + pack_directory(Form(order, True), _FIRST, {}, given)

    # The offsets depend on the header's length, which does not depend on their values.
    return header(len(header(0)))
