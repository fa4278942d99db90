"""Whether a file of a format that can be lossy or lossless holds its picture without loss.

WebP says so by the chunk of its picture (RFC 9649). AV1 without loss of RGB is that with the matrix
of identity, which no encoder chooses for lossy pictures of its own accord (AV1 specification,
5.5.1 and 5.5.2; ISO 14496-12 for what is around it). JPEG says it by the frame (ITU T.81, B.1.1.3).
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from urushi.image.formats.heif_boxes import head_of_primary, matrix_of
from urushi.image.formats.jpeg_parts import read_jpeg_parts

__all__ = ["is_lossless"]

_MOST_CHUNKS = 4096
# ITU-T H.273, table 4: RGB as it is, and the two forms of YCgCo that can be undone to the bit.
_EXACT = (0, 16, 17)
_SEQUENCE_HEADER = 1
_LOSSLESS_FRAMES = (0xC3, 0xC7, 0xCB, 0xCF)


def is_lossless(path: Path, format: str, page: int = 0) -> bool:
    """Whether the picture is lossless and its format could be lossy as well.

    Args:
        path: of the file.
        format: its name in `FORMATS`, by its content.
        page: which of its pictures, from 0.

    Returns:
        False also for formats that know one way alone, and where it cannot be told.
    """
    try:
        if format == "webp":
            with path.open("rb") as file:
                return _webp(file, page)
        if format == "jpeg":
            return read_jpeg_parts(path).coding in _LOSSLESS_FRAMES
        if format in ("avif", "heif"):
            stated = matrix_of(path)
            return (_matrix_of_av1(head_of_primary(path)) if stated is None else stated) in _EXACT
    except (OSError, struct.error, EOFError):
        pass  # told by whoever reads the picture
    return False


def _webp(file: BinaryIO, page: int) -> bool:
    """Whether the picture, or a frame of an animation, lies in a chunk VP8L."""
    end = file.seek(0, os.SEEK_END)
    frames = 0
    for name, start, size in _chunks(file, 12, end):
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8L"
        if name == b"ANMF":
            if frames == page:
                inside = _chunks(file, start + 16, start + size)
                return any(name == b"VP8L" for name, _, _ in inside)
            frames += 1
    return False


def _chunks(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and size of the chunks that follow one another."""
    for _ in range(_MOST_CHUNKS):
        if at + 8 > end:
            return
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        yield name, at + 8, size
        at += 8 + size + size % 2


class _Bits:
    """Reads numbers from the first bit on; `EOFError` where there are none left."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise EOFError
        return (self._value >> self._left) & ((1 << count) - 1)


def _matrix_of_av1(data: bytes) -> int | None:
    """The matrix that the sequence header states; None where it states none."""
    at = 0
    while at < len(data):
        kind, has_size = data[at] >> 3 & 15, data[at] & 2
        at += 2 if data[at] & 4 else 1
        size = shift = 0
        while has_size and at < len(data):
            size |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                break
        if kind == _SEQUENCE_HEADER:
            return _matrix_of_sequence(_Bits(data[at : at + size] if has_size else data[at:]))
        if not has_size:
            break
        at += size
    return None


def _matrix_of_sequence(bits: _Bits) -> int | None:
    profile, _, reduced = bits.take(3), bits.take(1), bits.take(1)
    if reduced:
        bits.take(5)
    elif not _skip_operating_points(bits):
        return None
    width, height = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width + height)
    if not reduced and bits.take(1):
        bits.take(7)
    bits.take(3)
    if not reduced:
        _skip_tools(bits)
    bits.take(3)
    if bits.take(1) and profile == 2:
        bits.take(1)
    if profile != 1:
        bits.take(1)
    if not bits.take(1):
        return None
    bits.take(16)
    return bits.take(8)


def _skip_operating_points(bits: _Bits) -> bool:
    """False for a video's timing, which no still picture has."""
    if bits.take(1):
        return False
    delayed, count = bits.take(1), bits.take(5) + 1
    for _ in range(count):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delayed and bits.take(1):
            bits.take(4)
    return True


def _skip_tools(bits: _Bits) -> None:
    bits.take(4)
    ordered = bits.take(1)
    if ordered:
        bits.take(2)
    forced = 2 if bits.take(1) else bits.take(1)
    if forced and not bits.take(1):
        bits.take(1)
    if ordered:
        bits.take(3)
