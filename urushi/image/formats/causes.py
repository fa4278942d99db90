"""Why a picture cannot be read: a variant that is not supported, or damage."""

import base64
import functools
from pathlib import Path

from urushi.image.formats.decoding import memory_ran_out
from urushi.image.formats.foreign import foreign_name, foreign_title, way_out
from urushi.image.formats.heif_boxes import codec_of
from urushi.image.formats.jpeg_parts import read_jpeg_parts
from urushi.image.formats.known import FORMATS, READ_SUFFIXES
from urushi.image.libvips import own_errors, reason, vips
from urushi.image.tiff.exif_directory import read_tags

__all__ = [
    "decodes_hevc",
    "misleading_variant",
    "unknown_format",
    "unread",
]

# 64 x 64 pixels.
_TRIAL = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAUJtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAAA5waXRtAAAAAAABAAAAImlsb2MAAAAAREAAAQABAAAAAAFmAAEAAAAAAAAAegAAACNpaW5mAAAAAAABAAAA"
    "FWluZmUCAAAAAAEAAGh2YzEAAAAAwmlwcnAAAACkaXBjbwAAAHhodmNDAQNwAAAAAAAAAAAAHvAA/P34+AAADwMgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQCEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqSSmubgQEDAgAAAMACAAA"
    "AwAIQCIAAQAHRAHBcrAiQAAAABRpc3BlAAAAAAAAAEAAAABAAAAAEHBpeGkAAAAAAwgICAAAABZpcG1hAAAAAAAAAAEA"
    "AQOBAoMAAACCbWRhdAAAAHYoAa8LYM/XXqf9XIuDRaky5MTwgj924YsIJYO0EOqSrkk2GaZ5RrU/PeaigxtTPcyoul1S"
    "YBKh33Y7JPCpWefrKDd3w6r+2hcoyLz34Gqn9wZ+LMAuNIJqoaxSuQ1zmKogaNhAgg05uRD+F8EyN3Slvd9oPY82"
)


@functools.cache
def decodes_hevc() -> bool:
    """Whether the installed libvips decodes it."""
    with own_errors():
        try:
            vips().Image.heifload_buffer(base64.b64decode(_TRIAL)).avg()
        except vips().Error:
            return False
        return True


_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339
_FLOATING_POINT = 3
_COMPRESSIONS = {
    6: "old JPEG",
    32766: "NeXT",
    32809: "ThunderScan",
    33003: "JPEG 2000 (Aperio)",
    33005: "JPEG 2000 (Aperio)",
    34661: "JBIG",
    34676: "SGI Log",
    34677: "SGI Log",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL (DNG)",
}
# Kinds of numbers that libvips takes for RGB, or that no conversion here understands.
_PHOTOMETRICS = {
    8: "CIE Lab colours",
    9: "ICC Lab colours",
    10: "ITU Lab colours",
    32803: "the mosaic of a sensor",
    32844: "LogL brightnesses",
    32845: "LogLuv colours",
    34892: "the linear data of a raw file",
}
_LOSSLESS, _JPEG_LS = (0xC3, 0xC7, 0xCB, 0xCF), 0xF7
_FLOATS = "in floating point"
_NO_DECODER = "the installed libvips does not decode"
_UNSUPPORTED = ("not support", "unsupported", "not configured", "not implement", "unknown", "bad ")


def misleading_variant(path: Path, format: str, start: int | None = None) -> str | None:
    """The sentence for a file that can be opened and not decoded, or would be misunderstood.

    None for others. `start` is where the directory of a TIFF's page begins that is to be read.
    """
    if format == "heif" and codec_of(path) == "HEVC" and not decodes_hevc():
        return (
            f"'{path}' is coded in HEVC, which {_NO_DECODER}: convert it to JPEG, PNG or TIFF"
            " first."
        )
    if format != "tiff":
        return None
    values = read_tags(path, only=(_PHOTOMETRIC,), start=start).get(_PHOTOMETRIC)
    number = None if values is None else int.from_bytes(values[1][:2], "little")
    if number not in _PHOTOMETRICS:
        return None
    what = _PHOTOMETRICS[number]
    first = "develop it to RGB" if number in (32803, 34892) else "convert it to RGB"
    return f"'{path}' holds {what}, where grey, RGB or CMYK was expected: {first} first."


def unread(path: Path, format: str, error: Exception) -> str:
    """The sentence for a picture that a library could not read.

    Args:
        path: of the picture.
        format: a name in `FORMATS`.
        error: what the library said.
    """
    title, why = FORMATS[format].title, reason(error)
    if memory_ran_out(error):
        return (
            f"'{path}' needs more memory to be decoded than there is ({why}): close other"
            " programs, or convert it where there is more."
        )
    variant = {"jpeg": _of_jpeg, "tiff": _of_tiff, "heif": _of_heif, "avif": _of_heif}.get(format)
    what = None if variant is None else variant(path)
    if what is not None:
        floats = "a TIFF of 32-bit floating point"
        other = floats if _FLOATS in what else "an 8- or 16-bit PNG or TIFF"
        return f"'{path}' {what}: convert it to {other} first ({why})."
    if any(words in why.lower() for words in _UNSUPPORTED):
        return (
            f"'{path}' cannot be read as {title} ({why}): it is of an unsupported variant or"
            " damaged, so convert it with another program or get a complete copy."
        )
    return (
        f"'{path}' cannot be read as {title} ({why}): it is damaged, cut short or of an"
        " unsupported variant, so get a complete copy."
    )


def unknown_format(path: Path, head: bytes) -> str:
    """The sentence for a file that is not of a format that is read."""
    title = foreign_title(head, path.suffix)
    if title is not None:
        own = _suffix_title(path)
        kind = "a video" if title == "video" else f"of the format {title}"
        if own not in (None, title):
            kind = f"not {own}, as its name says, but {kind}"
        return f"'{path}' is {kind}, which is not read: {way_out(title)}."
    known = ", ".join(entry.title for entry in FORMATS.values())
    return f"'{path}' is not a picture of a known format ({known})."


def _suffix_title(path: Path) -> str | None:
    """What the name says that the file is."""
    name = READ_SUFFIXES.get(path.suffix.lower())
    return FORMATS[name].title if name is not None else foreign_name(path)


def _of_jpeg(path: Path) -> str | None:
    parts = read_jpeg_parts(path)
    if parts.coding == _JPEG_LS:
        return "is a JPEG-LS, which is not read"
    if parts.coding in _LOSSLESS:
        return "is a lossless JPEG, which this libvips does not read"
    if parts.coding is not None and parts.bits != 8:
        return f"is a JPEG of {parts.bits} bits a sample, where 8 were expected"
    return None


def _of_tiff(path: Path) -> str | None:
    tags = read_tags(path, only=(_BITS, _COMPRESSION, _SAMPLE_FORMAT))
    number = _number(tags.get(_COMPRESSION))
    if number in _COMPRESSIONS:
        return f"is compressed with {_COMPRESSIONS[number]}, which this libvips does not read"
    bits = _number(tags.get(_BITS))
    if bits not in (None, 32) and _number(tags.get(_SAMPLE_FORMAT)) == _FLOATING_POINT:
        return f"is a TIFF of {bits} bits a sample {_FLOATS}, where 32 were expected"
    if bits not in (None, 1, 2, 4, 8, 16, 32):
        return f"is a TIFF of {bits} bits a sample, where 8, 16 or 32 were expected"
    return None


def _number(value: tuple[int, bytes] | None) -> int | None:
    return None if value is None else int.from_bytes(value[1][:2], "little")


def _of_heif(path: Path) -> str | None:
    """That no decoder is there, where the file itself is whole."""
    codec = codec_of(path)
    return None if codec is None else f"is coded in {codec}, which {_NO_DECODER}"
