"""What a picture carries besides its pixels, from a source to a target."""

import re
import struct
from pathlib import Path
from typing import Any

from urushi.image.info import Header
from urushi.image.iptc import converted_iptc
from urushi.image.libvips import vips
from urushi.image.tiff_exif import append_exif, read_exif
from urushi.image.tiff_pages import page_offset

__all__ = ["carry_over", "carry_over_to_tiff"]

# libvips' VipsForeignKeep.
_EXIF, _XMP, _IPTC, _ICC, _OTHER = 1, 2, 4, 8, 16
# Pixels per millimetre; libvips gives it to pictures without any, or 1, by format.
_USUAL_RESOLUTION = 72 / 25.4
_NO_RESOLUTION = 1.0
_EXIF_RESOLUTION = {f"exif-ifd0-{name}Resolution" for name in "XY"}
_BLOBS = {"exif-data": _EXIF, "xmp-data": _XMP, "iptc-data": _IPTC}
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]")
_XMP_SIZES = re.compile(
    rb"((?:tiff:Image(?:Width|Length)|tiff:[XY]Resolution|exif:Pixel[XY]Dimension)"
    rb"(?:=[\"']|>)\s*)(\d{1,12})\b"
)


def carry_over(
    image: Any, header: Header, *, format: str, profile: bool, strip: bool, scale: int = 1
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
        scale: by which both sides were enlarged; the resolution grows with them.

    Returns:
        The image, and the flags of what libvips is to write. Without EXIF in the source, libvips
        would make some up, so that is named only where there is any.
    """
    source = header.image
    fields = set(source.get_fields())
    grown = scale if _states_resolution(source, fields) else 1
    image = image.copy(xres=grown * source.xres, yres=grown * source.yres)
    text, number = vips().GValue.gstr_type, vips().GValue.gint_type
    blob = vips().GValue.blob_type
    if "resolution-unit" in fields:
        image.set_type(text, "resolution-unit", source.get("resolution-unit"))
    keep = _OTHER
    if profile and header.profile is not None:
        image.set_type(blob, "icc-profile-data", header.profile)
        keep |= _ICC
    # Without EXIF, libvips writes no resolution into a JPEG; with it, little besides that.
    if format == "jpeg" and abs(image.xres - _USUAL_RESOLUTION) > 0.01:
        keep |= _EXIF
    if strip:
        return image, keep
    for field in fields & set(_BLOBS):
        data = _carried(source.get(field), field, header, format, scale)
        if data is None:
            continue
        image.set_type(blob, field, data)
        keep |= _BLOBS[field]
    for field in fields:
        if field.startswith(
            ("exif-ifd0-", "exif-ifd2-", "exif-ifd3-", "png-comment-")
        ) or field in ("image-description",):
            image.set_type(text, field, source.get(field))
    if header.info.format == "tiff" and format != "tiff":
        exif = read_exif(header.info.path, start=_page_offset(header))
        if exif is not None:
            image.set_type(blob, "exif-data", exif)
            keep |= _EXIF
    image.set_type(number, "orientation", 1)
    if grown > 1:
        # Taking EXIF over has taken over what it says of the resolution, too.
        image = image.copy(xres=grown * source.xres, yres=grown * source.yres)
        for field in _EXIF_RESOLUTION & set(image.get_fields()):
            image.remove(field)
    return image, keep


def _carried(data: Any, field: str, header: Header, format: str, scale: int) -> Any:
    """A block of metadata as it is to be written; None where the target cannot have it."""
    if field == "exif-data":
        return _without_thumbnail(data)
    if field == "iptc-data":
        return converted_iptc(data, header.info.path, header.info.format, format)
    if field == "xmp-data":
        data = _XMP_ORIENTATION.sub(rb"\g<1>1", data)
        if scale > 1:
            data = _XMP_SIZES.sub(
                lambda found: found[1] + str(scale * int(found[2])).encode(), data
            )
    return data


def _states_resolution(source: Any, fields: set[str]) -> bool:
    """Whether the source says how large it is to be printed."""
    if abs(source.xres - _NO_RESOLUTION) < 1e-6:
        return False
    return "resolution-unit" in fields or abs(source.xres - _USUAL_RESOLUTION) > 0.01


def _page_offset(header: Header) -> int | None:
    return page_offset(header.info.path, header.info.page)


def carry_over_to_tiff(path: Path, header: Header, scale: int = 1) -> None:
    """Gives a finished TIFF its source's EXIF, which libvips does not write there."""
    info = header.info
    if info.format == "tiff":
        exif = read_exif(info.path, longest=None, start=_page_offset(header))
    else:
        exif = header.image.get("exif-data") if "exif-data" in header.image.get_fields() else None
    if exif is not None:
        append_exif(path, exif, scale * info.width, scale * info.height)


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
