"""Pictures in and out, through libvips.

Inside the library a picture is RGB, `float32`, `(H, W, 3)`, nominally in [0, 1], encoded as sRGB
is: the *working space*. This package is the only place where files, bit depths, colour profiles,
transparency, orientation and metadata exist.

- `inspect_picture` reads a header, `open_picture` streams rows, `read_picture` reads all of them.
- `PictureWriter` takes rows and commits a whole file or nothing; `write_picture` takes all at once.

What is kept: bit depth, greyness, CMYK, the colour profile and what else states colours,
transparency (bit for bit), resolution, EXIF, XMP and IPTC. Floating point without a profile is
linear light. What changes: orientation is applied to the pixels and the tag
reset, a thumbnail inside the metadata is dropped, a palette becomes full colour, and of several
pages the first is taken.
"""

from urushi.image.formats import FORMATS, SUPPORTED_SUFFIXES, is_picture_name
from urushi.image.info import DEFAULT_MAX_PIXELS, PictureInfo, inspect_picture
from urushi.image.reader import PictureReader, open_picture, read_picture
from urushi.image.samples import AS_FOUND, Samples
from urushi.image.writer import PictureWriter, write_picture

__all__ = [
    "AS_FOUND",
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "SUPPORTED_SUFFIXES",
    "PictureInfo",
    "PictureReader",
    "PictureWriter",
    "Samples",
    "inspect_picture",
    "is_picture_name",
    "open_picture",
    "read_picture",
    "write_picture",
]
