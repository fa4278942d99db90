"""Whether a picture's ICC profile says anything of its colours."""

import functools
import io
from pathlib import Path

import numpy as np

from urushi.image.colour import ProfiledColours
from urushi.image.info import Header
from urushi.image.jpeg_parts import read_jpeg_parts
from urushi.image.libvips import vips
from urushi.image.png_chunks import read_png_parts
from urushi.image.tiff_exif import read_tags

__all__ = ["profile_note"]

_PROFILE = 34675
_SIGNATURES = {"grey": b"GRAY", "rgb": b"RGB ", "cmyk": b"CMYK"}


def profile_note(header: Header) -> str:
    """A sentence on a profile that cannot be used; empty where it can be, or there is none."""
    info, profile = header.info, header.profile
    if profile is None:
        refused = _has_profile(info.path, info.format)
    else:
        refused = not _usable(info.kind, profile)
    if not refused:
        return ""
    usual = "the usual colours are" if info.stated is None else f"what {info.stated.by} states is"
    return (
        "Its colour profile is broken or made for other channels, so it is left out and"
        f" {usual} taken for granted."
    )


def _has_profile(path: Path, format: str) -> bool:
    """Whether a file has one after all; libvips leaves out what is broken beyond doubt."""
    if format == "jpeg":
        return read_jpeg_parts(path).profile
    if format == "png":
        return read_png_parts(path).profile
    return format == "tiff" and _PROFILE in read_tags(path, only=(_PROFILE,))


@functools.lru_cache(maxsize=8)
def _usable(kind: str, profile: bytes) -> bool:
    if profile[16:20] != _SIGNATURES[kind]:
        return False
    channels = {"grey": 1, "rgb": 3, "cmyk": 4}[kind]
    try:
        # libvips takes sRGB for a profile that LittleCMS cannot open, and says nothing.
        from PIL import ImageCms

        ImageCms.ImageCmsProfile(io.BytesIO(profile))
        ProfiledColours(kind, profile).to_working(np.zeros((1, 1, channels), np.uint16))
    except (vips().Error, OSError):
        return False
    return True
