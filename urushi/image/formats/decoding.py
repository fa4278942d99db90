"""What decoding a picture takes, where the limit of pixels alone would say too little.

Most pictures stream through a few rows. Some are decoded whole, into many bytes a pixel, so that a
file of 38 bytes can ask for gigabytes.
"""

from typing import Any

from urushi.errors import TooLargeError
from urushi.image.libvips import fields_of

__all__ = ["check_memory", "decoding_bytes", "memory_ran_out"]

# What any picture may take, in bytes.
_FREE = 2**30
# A photograph has at least a byte for so many that decoding takes; what has fewer was made to fill
# memory, or is one flat area.
_STUFFED = 2000
# Bytes that libwebp and libheif hold for each pixel with their copies, measured.
_WEBP, _HEIF = 8, 16
_SHORTAGE = ("out of memory", "unable to allocate", "cannot allocate", "insufficient memory",
             "memory allocation", "malloc")  # fmt: skip


def decoding_bytes(info: Any, image: Any) -> int:
    """Bytes that decoding a picture holds at once; 0 where it streams.

    Args:
        info: what the file holds, a `PictureInfo`.
        image: the libvips image of its header.
    """
    fields = fields_of(image)
    pixels = info.width * info.height
    if info.format == "webp":
        return _WEBP * pixels
    if info.format in ("avif", "heif"):
        return _HEIF * pixels
    if info.format in ("bmp", "pnm"):
        return 2 * info.bits // 8 * image.bands * pixels  # by Pillow, and a copy
    if info.format == "jpeg" and "jpeg-multiscan" in fields and image.get("jpeg-multiscan"):
        return 2 * image.bands * pixels  # all coefficients
    if info.format == "png" and "interlaced" in fields and image.get("interlaced"):
        return info.bits // 8 * image.bands * pixels
    return 0


def check_memory(info: Any, image: Any, size: int, max_pixels: int) -> None:
    """Refuses what takes far more memory than its file makes likely.

    Args:
        info: what the file holds, a `PictureInfo`.
        image: the libvips image of its header.
        size: of the file, in bytes.
        max_pixels: the limit of pixels, taken as bytes here, if it is more than a gibibyte.

    Raises:
        TooLargeError: it takes more than that, and more than thousands of times its file; or
            several times as much in any case.
    """
    needed, allowed = decoding_bytes(info, image), max(max_pixels, _FREE)
    if needed <= allowed or needed <= min(_STUFFED * size, 8 * allowed):
        return
    raise TooLargeError(
        f"'{info.path}' has {info.width} x {info.height} pixels, whose decoding takes"
        f" {needed / 1e9:.1f} GB of memory for a file of {size:,} bytes: raise the limit to"
        f" {needed:,} if you trust the file."
    )


def memory_ran_out(error: Exception) -> bool:
    """Whether libvips, or a library below it, says that it was given no memory."""
    text = str(getattr(error, "detail", "") or error).lower()
    return any(words in text for words in _SHORTAGE)
