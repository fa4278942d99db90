"""Photoshop's image resources (`8BIM`) and the IPTC records in them (IIM 4.2).

They lie in APP13 of a JPEG and in tag 34377 of a TIFF; IPTC also stands bare in a TIFF.

After Adobe's Photoshop file formats specification: each has a number, a name and data. Paths count
in fractions of the picture's sides and so hold for a larger one, but not for one that was turned.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from urushi.image.tiff.directories import DAMAGE, TiffFile

__all__ = [
    "IPTC",
    "Resources",
    "converted_iptc",
    "pack_resource",
    "true_resources",
]

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
    for number, whole, _ in _each(block):
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


def pack_resource(number: int, data: bytes) -> bytes:
    """A resource without a name."""
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + b"\0" * (len(data) % 2)


def _each(block: bytes, *, cut: bool = False) -> Iterator[tuple[int, bytes, bytes]]:
    """Number of each resource, its bytes with padding, and what it holds.

    With `cut`, the last one may be cut short.
    """
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
        if start + size > len(block) and not cut:
            return
        whole = block[at : start + size]
        yield number, whole.ljust(start - at + size + size % 2, b"\0"), whole[start - at :]
        at = start + size + size % 2


_HEAD = b"Photoshop 3.0\0"
_IPTC_TAG = 33723
_MOST_BYTES = 2**24
# A marker segment of a JPEG holds no more than this.
_LONGEST_SEGMENT = 65500


def converted_iptc(data: bytes, path: Path, source: str, target: str) -> bytes | None:
    """The IPTC of a source as a format wants it.

    Args:
        data: what libvips read.
        path: of the source.
        source, target: names of formats.

    Returns:
        What libvips is to write, or None if there is no record or no room for it.
    """
    if source == "tiff":
        data = _of_tiff(path) or data
    if source in ("jpeg", "png") and target != "jpeg":
        record = _unwrapped(data)
        if record is None:
            return None
        data = record
    if target == "tiff":
        # libvips 8.18 writes the first quarter only; zeros end an IPTC record anyway.
        return data.ljust(-(-len(data) // 4) * 16, b"\0")
    if target == "jpeg" and source != "jpeg":
        data = _wrapped(data)
        return data if len(data) <= _LONGEST_SEGMENT else None
    return data


def _wrapped(record: bytes) -> bytes:
    """A record as the only one of Photoshop's image resources."""
    record = record.rstrip(b"\0") if record[:1] == b"\x1c" else record
    return _HEAD + pack_resource(IPTC, record)


def _unwrapped(data: bytes) -> bytes | None:
    """The record among Photoshop's image resources."""
    if data[:1] == b"\x1c":
        return data
    if not data.startswith(_HEAD):
        return None
    for number, _, record in _each(data[len(_HEAD) :], cut=True):
        if number == IPTC:
            return record or None
    return None


def _of_tiff(path: Path) -> bytes | None:
    """The IPTC record of a TIFF, whole; libvips 8.18 reads a part of those stored as longs."""
    try:
        with TiffFile(path) as tiff:
            entry = tiff.directory(tiff.first).entries[_IPTC_TAG]
            return tiff.data(entry) if entry.size <= _MOST_BYTES else None
    except (*DAMAGE, KeyError):
        return None
