"""The file formats, what each can hold, and how one is recognised by its first bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

__all__ = ["FORMATS", "SUPPORTED_SUFFIXES", "Format", "is_picture_name", "name_of", "sniff"]


@dataclass(frozen=True)
class Format:
    """What a file format can hold, as far as libvips writes it.

    Attributes:
        title: the name people know it by.
        suffixes: of file names, lower case, with the dot; the first is the usual one.
        loader: the libvips operation that reads it.
        kinds: of pictures that can be written.
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
        "heif": Format("HEIF", (".heic", ".heif"), "heifload", ("rgb",), (8, 16), True, 16384, 85),
    }
)

SUPPORTED_SUFFIXES: Mapping[str, str] = MappingProxyType(
    {suffix: name for name, entry in FORMATS.items() for suffix in entry.suffixes}
)
"""Suffix, lower case and with its dot -> name of the format in `FORMATS`."""

# Containers that are TIFF inside but whose first page is only a preview of the photograph.
_CAMERA_RAW = (
    *(".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef"),
    *(".mos", ".nef", ".nrw", ".orf", ".pef", ".rw2", ".rwl", ".sr2", ".srf", ".srw"),
)

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


def is_picture_name(path: str | Path) -> bool:
    """Whether the name ends like a picture this library knows; the file is not looked at.

    Hidden files (a leading dot) are not pictures: unfinished outputs are named so.
    """
    path = Path(path)
    return path.suffix.lower() in SUPPORTED_SUFFIXES and not path.name.startswith(".")


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
        return None if suffix.lower() in _CAMERA_RAW else "tiff"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, size - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIF_BRANDS:
            return "heif"
    return None
