"""Pictures in and out, through libvips.

Inside the library a picture is RGB, `float32`, `(H, W, 3)`, nominally in [0, 1], encoded as sRGB
is: the *working space*. This package is the only place where files, bit depths, colour profiles,
transparency, orientation and metadata exist.

- `inspect_picture` reads a header, `open_picture` streams rows, `read_picture` reads all of them.
- `PictureWriter` takes rows and commits a whole file or nothing; `write_picture` takes all at once.

What is kept: bit depth, greyness, CMYK, the colour profile and what else states colours,
transparency (bit for bit), resolution, EXIF, XMP, IPTC, Photoshop's paths, comments, texts of a
PNG, and private tags of a TIFF with its place on Earth. Floating point without a profile is linear
light. What changes: orientation is applied to the pixels and the tag reset,
thumbnails inside the metadata are dropped, and a palette becomes full colour. What the target has
no place for, and what announces a thing that is not carried over (gain map, video, depth map),
goes, and `PictureWriter.notes` names it.

A file may hold several pictures. `page` says which is read, the first unless told, and
`PictureReader.notes` names what is left; `PictureWriter.next_page` writes the pages of a TIFF.
Channels that are neither colour nor transparency pass into a TIFF bit for bit.
"""

from urushi.image.formats.foreign import foreign_name, left_out_sentence
from urushi.image.formats.known import FORMATS, READ_SUFFIXES, SUPPORTED_SUFFIXES, is_picture_name
from urushi.image.info import DEFAULT_MAX_PIXELS, PictureInfo, inspect_picture
from urushi.image.reader import PictureReader, open_picture, read_picture
from urushi.image.samples import AS_FOUND, Samples
from urushi.image.writer import PictureWriter, write_picture

__all__ = [
    "AS_FOUND",
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "READ_SUFFIXES",
    "SUPPORTED_SUFFIXES",
    "PictureInfo",
    "PictureReader",
    "PictureWriter",
    "Samples",
    "foreign_name",
    "inspect_picture",
    "is_picture_name",
    "left_out_sentence",
    "open_picture",
    "read_picture",
    "write_picture",
]
