"""Photoshop's image resources (`8BIM`), in APP13 of a JPEG and in tag 34377 of a TIFF.

After Adobe's Photoshop file formats specification: each has a number, a name and data. Paths count
in fractions of the picture's sides and so hold for a larger one, but not for one that was turned.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["IPTC", "Resources", "true_resources"]

IPTC = 0x0404
# The picture as it was, made small.
_THUMBNAILS = frozenset((1033, 1036))
# What stands elsewhere in the file too, and is brought up to date there: profile, EXIF, XMP.
_REPEATED = frozenset((1039, 1058, 1059, 1060))
_RESOLUTION = 1005
# Counted in pixels: guides, slices.
_PLACES = frozenset((1032, 1050))
_PATHS = frozenset((1025, *range(2000, 3000)))


@dataclass(frozen=True)
class Resources:
    """What holds for a picture that was made anew, and the names of what had to go."""

    block: bytes
    lost: tuple[str, ...]
    has_paths: bool


def true_resources(block: bytes, *, turned: bool, grown: bool, iptc: bool) -> Resources:
    """Resources without thumbnails and whatever else no longer holds.

    Args:
        block: one resource after another; a damaged rest is left out.
        turned: whether the pixels were turned.
        grown: whether the picture was enlarged.
        iptc: whether the IPTC record among them is wanted.
    """
    kept, lost, paths = [], {}, False
    for number, whole in _each(block):
        if number in _THUMBNAILS | _REPEATED or (number == IPTC and not iptc):
            continue
        if grown and number == _RESOLUTION:
            continue
        if number in _PLACES and (turned or grown):
            lost["Photoshop's guides and slices"] = None
            continue
        if number in _PATHS:
            if turned:
                lost["Photoshop's paths (the picture was turned)"] = None
                continue
            paths = True
        kept.append(whole)
    return Resources(b"".join(kept), tuple(lost), paths)


def _each(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Number of each resource, and its bytes, padding included."""
    at = 0
    while block[at : at + 4] in (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR") and at + 7 <= len(
        block
    ):
        (number,) = struct.unpack_from(">H", block, at + 4)
        # A name that begins with its length, padded to an even number of bytes, comes between.
        name = 1 + block[at + 6]
        start = at + 6 + name + name % 2 + 4
        if start > len(block):
            return
        (size,) = struct.unpack_from(">I", block, start - 4)
        if start + size > len(block):
            return
        yield number, block[at : start + size].ljust(start - at + size + size % 2, b"\0")
        at = start + size + size % 2
