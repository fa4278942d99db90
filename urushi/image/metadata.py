"""What a picture carries besides its pixels, from a source to a target."""

import re
import struct
from pathlib import Path
from typing import Any

from urushi.image.info import Header
from urushi.image.libvips import vips

__all__ = ["carry_over"]

# libvips' VipsForeignKeep.
_EXIF, _XMP, _IPTC, _ICC, _OTHER = 1, 2, 4, 8, 16
# Pixels per millimetre; libvips gives it to pictures without any.
_USUAL_RESOLUTION = 72 / 25.4
_BLOBS = {"exif-data": _EXIF, "xmp-data": _XMP, "iptc-data": _IPTC}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]")


def carry_over(
    image: Any, header: Header, *, format: str, profile: bool, strip: bool
) -> tuple[Any, int]:
    """Gives an image its source's resolution, profile and metadata.

    Orientation is reset, since the pixels are turned already; thumbnails stay behind, since they
    show the picture as it was.

    Args:
        image: to be written.
        header: of the source.
        format: of the target.
        profile: whether the source's ICC profile describes this image.
        strip: leave EXIF, XMP, IPTC and comments behind.

    Returns:
        The image, and the flags of what libvips is to write. Without EXIF in the source, libvips
        would make some up, so that is named only where there is any.
    """
    source = header.image
    fields = set(source.get_fields())
    image = image.copy(xres=source.xres, yres=source.yres)
    text, number = vips().GValue.gstr_type, vips().GValue.gint_type
    blob = vips().GValue.blob_type
    if "resolution-unit" in fields:
        image.set_type(text, "resolution-unit", source.get("resolution-unit"))
    keep = _OTHER
    if profile and header.profile is not None:
        image.set_type(blob, "icc-profile-data", header.profile)
        keep |= _ICC
    # Without EXIF, libvips writes no resolution into a JPEG; with it, little besides that.
    if format == "jpeg" and abs(source.xres - _USUAL_RESOLUTION) > 0.01:
        keep |= _EXIF
    if strip:
        return image, keep
    for field in fields & set(_BLOBS):
        data = source.get(field)
        if field == "exif-data":
            data = _without_thumbnail(data)
        elif field == "iptc-data" and header.info.format == "tiff":
            data = _iptc_of_tiff(header.info.path) or data
        elif field == "xmp-data":
            data = _XMP_ORIENTATION.sub(rb"\g<1>1", data)
        if field == "iptc-data" and format == "tiff":
            # libvips 8.18 writes the first quarter only; zeros end an IPTC record anyway.
            data = data.ljust(-(-len(data) // 4) * 16, b"\0")
        image.set_type(blob, field, data)
        keep |= _BLOBS[field]
    for field in fields:
        if field.startswith(
            ("exif-ifd0-", "exif-ifd2-", "exif-ifd3-", "png-comment-")
        ) or field in ("image-description",):
            image.set_type(text, field, source.get(field))
    image.set_type(number, "orientation", 1)
    return image, keep


def _without_thumbnail(exif: bytes) -> bytes:
    """Cuts the chain to the directory that describes the thumbnail (EXIF 2.32, 4.5.2)."""
    start = 6 if exif[:6] == b"Exif\0\0" else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None or len(exif) < start + 8:
        return exif
    first = start + struct.unpack_from(f"{order}I", exif, start + 4)[0]
    if first + 2 > len(exif):
        return exif
    link = first + 2 + 12 * struct.unpack_from(f"{order}H", exif, first)[0]
    if link + 4 > len(exif):
        return exif
    return exif[:link] + bytes(4) + exif[link + 4 :]


def _iptc_of_tiff(path: Path) -> bytes | None:
    """The IPTC record of a TIFF, whole; libvips 8.18 reads a part of those stored as longs."""
    from PIL import TiffImagePlugin

    try:
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            size = 16 if head[2:3] == b"+" or head[3:4] == b"+" else 8
            directory = TiffImagePlugin.ImageFileDirectory_v2(head[:size])
            file.seek(directory.next)
            directory.load(file)
            value = directory.get(33723)
    except (OSError, SyntaxError, ValueError, struct.error):
        return None
    if isinstance(value, tuple):
        order = "<" if head[:2] == b"II" else ">"
        return struct.pack(f"{order}{len(value)}I", *value)
    return bytes(value) if isinstance(value, bytes) else None
