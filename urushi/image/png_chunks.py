"""Chunks of PNG files that libvips neither reads nor writes."""

import struct
from pathlib import Path

__all__ = ["insert_chunks", "short_chunks"]

# The signature, and IHDR with its length, name and checksum.
_START = 8 + 25
_SHORT = 64
_MOST = 1000
_BLOCK = 2**20


def short_chunks(path: Path) -> dict[bytes, bytes]:
    """Whole chunks that stand before the pixels and are short, the first of each name."""
    found: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        file.seek(8)
        for _ in range(_MOST):
            head = file.read(8)
            if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
                break
            (size,) = struct.unpack(">I", head[:4])
            if size > _SHORT:
                file.seek(size + 4, 1)
                continue
            found.setdefault(head[4:], head + file.read(size + 4))
    return found


def insert_chunks(path: Path, chunks: bytes) -> None:
    """Puts whole chunks behind the header of a finished file, in place."""
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        # From the end on, so that nothing is overwritten before it was moved.
        while end > _START:
            start = max(end - _BLOCK, _START)
            file.seek(start)
            block = file.read(end - start)
            file.seek(start + len(chunks))
            file.write(block)
            end = start
        file.seek(_START)
        file.write(chunks)
