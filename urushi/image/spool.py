"""The temporary file in which a writer collects rows: an uncompressed TIFF, header first.

libvips streams a TIFF through a small buffer; raw samples it would map into memory as a whole.
"""

import struct

import numpy as np

__all__ = ["spool_header"]

_SHORT, _LONG8 = 3, 16
_STRIP_BYTES = 256 * 1024


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

    def packed(kind: int, values: list[int]) -> tuple[int, int, bytes]:
        code = "H" if kind == _SHORT else "Q"
        return kind, len(values), struct.pack(f"{order}{len(values)}{code}", *values)

    def tags(start: int) -> dict[int, tuple[int, int, bytes]]:
        offsets = [start + i * rows * stride for i in range(strips)]
        entries = {
            256: packed(_LONG8, [width]),
            257: packed(_LONG8, [height]),
            258: packed(_SHORT, [8 * dtype.itemsize] * bands),
            259: packed(_SHORT, [1]),
            262: packed(_SHORT, [{1: 1, 3: 2, 4: 5}[channels]]),
            273: packed(_LONG8, offsets),
            277: packed(_SHORT, [bands]),
            278: packed(_LONG8, [rows]),
            279: packed(_LONG8, sizes),
            284: packed(_SHORT, [1]),
            339: packed(_SHORT, [3 if dtype.kind == "f" else 1] * bands),
        }
        if extra:
            entries[338] = packed(_SHORT, list(extra))
        return dict(sorted(entries.items()))

    # The offsets depend on the header's length, which does not depend on their values.
    length = len(_assemble(order, tags(0)))
    return _assemble(order, tags(length))


def _assemble(order: str, tags: dict[int, tuple[int, int, bytes]]) -> bytes:
    """File header, directory, and the values too long to stand in the directory."""
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, 16)
    after = 16 + 8 + 20 * len(tags) + 8
    directory, values = struct.pack(f"{order}Q", len(tags)), b""
    for tag, (kind, count, data) in tags.items():
        directory += struct.pack(f"{order}HHQ", tag, kind, count)
        if len(data) <= 8:
            directory += data.ljust(8, b"\0")
        else:
            directory += struct.pack(f"{order}Q", after + len(values))
            values += data.ljust(-(-len(data) // 8) * 8, b"\0")
    return head + directory + struct.pack(f"{order}Q", 0) + values
