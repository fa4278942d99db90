"""The file formats, what each can hold, and how one is recognised by its first bytes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from urushi.image.formats.foreign import CAMERA_RAW

__all__ = [
    "FORMATS",
    "READ_SUFFIXES",
    "SUPPORTED_SUFFIXES",
    "Format",
    "is_picture_name",
    "name_of",
    "sniff",
]


@dataclass(frozen=True)
class Format:
    """What a file format can hold, as far as libvips writes it; some are read only, with Pillow.

    Attributes:
        title: the name people know it by.
        suffixes: of file names, lower case, with the dot; the first is the usual one.
        loader: the libvips operation that reads it; empty where Pillow does.
        kinds: of pictures that can be written; none where it is read only.
        depths: bits per sample that can be written. 16 in AVIF and HEIF is stored as 12.
        alpha: whether transparency can be written.
        longest: the longest side in pixels that can be written, or None for no practical limit.
        quality: what a lossy picture is written at unless told; None for lossless formats.
    """

    title: str
    suffixes: tuple[str, ...]
    loader: str
    kinds: tuple[str, ...]
    depths: tuple[int, ...]
    alpha: bool
    longest: int | None
    quality: int | None


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "jpeg": Format(
            "JPEG",
            (".jpg", ".jpeg", ".jpe", ".jfif"),
            "jpegload",
            ("grey", "rgb", "cmyk"),
            (8,),
            False,
            65500,
            95,
        ),
        "png": Format("PNG", (".png",), "pngload", ("grey", "rgb"), (8, 16), True, None, None),
        "tiff": Format(
            "TIFF",
            (".tif", ".tiff"),
            "tiffload",
            ("grey", "rgb", "cmyk"),
            (8, 16, 32),
            True,
            None,
            None,
        ),
        "webp": Format("WebP", (".webp",), "webpload", ("rgb",), (8,), True, 16383, 95),
        "avif": Format("AVIF", (".avif",), "heifload", ("rgb",), (8, 16), True, 16384, 85),
        "heif": Format(
            "HEIF", (".heic", ".heif", ".hif"), "heifload", ("rgb",), (8, 16), True, 16384, 85
        ),
        "bmp": Format("BMP", (".bmp", ".dib"), "", (), (), False, None, None),
        "pnm": Format("PNM", (".pnm", ".ppm", ".pgm", ".pbm"), "", (), (), False, None, None),
    }
)

READ_SUFFIXES: Mapping[str, str] = MappingProxyType(
    {suffix: name for name, entry in FORMATS.items() for suffix in entry.suffixes}
)
"""Suffix, lower case and with its dot -> name of the format in `FORMATS`."""

SUPPORTED_SUFFIXES: Mapping[str, str] = MappingProxyType(
    {suffix: name for suffix, name in READ_SUFFIXES.items() if FORMATS[name].kinds}
)
"""The same for formats that are written too."""

_PNM = re.compile(rb"P[1-6f]\s+[\d#]")
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


def is_picture_name(path: str | Path) -> bool:
    """Whether the name ends like a picture this library knows; the file is not looked at.

    Hidden files (a leading dot) are not pictures: unfinished outputs are named so.
    """
    path = Path(path)
    return path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")


def name_of(target: Path) -> str | None:
    """The format a target's suffix asks for, or None where the suffix is unknown."""
    return SUPPORTED_SUFFIXES.get(target.suffix.lower())


def sniff(head: bytes, suffix: str = "") -> str | None:
    """The format of a file by its first 64 bytes, or None.

    The content decides, never the name; the suffix only tells photographs of cameras, which are
    TIFF containers around raw sensor data and a small preview, from TIFF pictures.
    """
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None if suffix.lower() in CAMERA_RAW or head[8:10] == b"CR" else "tiff"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIF_BRANDS:
            return "heif"
    # A bitmap is told by the size of its second header, too: two letters alone are any text.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    if _PNM.match(head):
        return "pnm"
    return None
