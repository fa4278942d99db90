"""What a picture's file holds, read from its header."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from urushi.errors import TooLargeError, UnreadableError
from urushi.image.decoding import check_memory, memory_ran_out
from urushi.image.formats import FORMATS, sniff
from urushi.image.libvips import open_image, reason, vips
from urushi.image.opened import Identity, OpenFile, check_unchanged

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "Header",
    "PictureInfo",
    "inspect_picture",
    "read_again",
    "read_header",
]

DEFAULT_MAX_PIXELS = 2**30
"""Pictures with more pixels than this (about a gigapixel) are refused unless told otherwise."""

_CHANNELS = {"grey": 1, "rgb": 3, "cmyk": 4}
_KIND_OF_INTERPRETATION = {
    "b-w": "grey",
    "grey16": "grey",
    "srgb": "rgb",
    "rgb": "rgb",
    "rgb16": "rgb",
    "scrgb": "rgb",
    "cmyk": "cmyk",
}
_BITS_OF_FORMAT = {"uchar": 8, "ushort": 16, "float": 32, "double": 32}


@dataclass(frozen=True)
class PictureInfo:
    """What a file holds.

    Attributes:
        path: of the file.
        format: a name in `FORMATS`, found from the content.
        width, height: in pixels, after the orientation is applied.
        kind: 'grey', 'rgb' or 'cmyk'.
        bits: per sample; 32 is floating point, and 10 or 12 bits of AVIF count as 16.
        has_alpha: whether there are channels beyond the colour ones.
        has_profile: whether an ICC profile is embedded.
        orientation: EXIF's number 1..8 as the file has it; the pixels are turned when read.
        pages: how many pictures the file holds; the first is read.
        identity: of the file when it was opened; None where this was not read from a file.
    """

    path: Path
    format: str
    width: int
    height: int
    kind: str
    bits: int
    has_alpha: bool
    has_profile: bool
    orientation: int
    pages: int = 1
    identity: Identity | None = field(default=None, compare=False, repr=False)

    @property
    def channels(self) -> int:
        """Number of colour channels in the file: 1, 3 or 4."""
        return _CHANNELS[self.kind]

    @property
    def full(self) -> float:
        """The sample value of full intensity: 255, 65535 or 1."""
        return {8: 255.0, 16: 65535.0, 32: 1.0}[self.bits]


@dataclass(frozen=True)
class Header:
    """An opened file: its description, and the libvips image that will give its pixels once.

    Attributes:
        info: what the file holds.
        image: gives the pixels, once.
        notes: sentences about what is not as a user would expect although the file can be read;
            reading the pixels may add some.
    """

    info: PictureInfo
    image: Any
    notes: list[str] = field(default_factory=list)

    @property
    def profile(self) -> bytes | None:
        """The embedded ICC profile."""
        return self.image.get("icc-profile-data") if self.info.has_profile else None


def inspect_picture(
    path: str | Path, *, max_pixels: int | None = DEFAULT_MAX_PIXELS
) -> PictureInfo:
    """Reads what a file holds, without its pixels.

    Args:
        path: of the picture.
        max_pixels: the most pixels it may have; None for no limit.

    Raises:
        UnreadableError: missing, a folder, empty, forbidden, damaged or not a known picture.
        TooLargeError: more than `max_pixels`.
    """
    return read_header(Path(path), max_pixels).info


def read_header(path: Path, max_pixels: int | None) -> Header:
    """Opens a picture and checks everything its header can tell; see `inspect_picture`."""
    format = _recognise(path)
    try:
        file = OpenFile(path)
        image = open_image(file, format)
        info = replace(_describe(path, format, image), identity=file.identity)
    except OSError as error:
        raise UnreadableError(
            f"'{path}' cannot be opened ({reason(error)}): check who may read it."
        ) from error
    except vips().Error as error:
        raise UnreadableError(damaged(path, format, error)) from error
    if max_pixels is not None and info.width * info.height > max_pixels:
        raise TooLargeError(
            f"'{path}' has {info.width} x {info.height} = {info.width * info.height:,} pixels,"
            f" more than the limit of {max_pixels:,}: raise the limit if you trust the file."
        )
    if max_pixels is not None:
        check_memory(info, image, file.identity.size, max_pixels)
    return Header(info, _plain(image))


def read_again(info: PictureInfo) -> Header:
    """Opens a picture once more, for another pass.

    Raises:
        UnreadableError: the file is another one by now, or was changed.
    """
    header = read_header(info.path, None)
    check_unchanged(info.path, info.identity, header.info.identity)
    return header


def damaged(path: Path, format: str, error: Exception) -> str:
    """The sentence for a file whose content breaks off or makes no sense."""
    if memory_ran_out(error):
        return (
            f"'{path}' needs more memory to be decoded than there is ({reason(error)}): close other"
            " programs, or convert it where there is more."
        )
    return (
        f"'{path}' cannot be read as {FORMATS[format].title} ({reason(error)}):"
        " it is damaged, cut short or of an unsupported variant, so get a whole copy."
    )


def _recognise(path: Path) -> str:
    """Finds the format from the first bytes, and refuses what is no picture at all."""
    try:
        if not path.exists() and path.is_symlink():
            raise UnreadableError(f"'{path}' is a link that leads to no file: mend or remove it.")
        if not path.exists():
            raise UnreadableError(f"'{path}' does not exist: check the name.")
        if path.is_dir():
            raise UnreadableError(f"'{path}' is a folder, where a picture was expected.")
        if not path.is_file():
            raise UnreadableError(f"'{path}' is not a regular file, where a picture was expected.")
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise UnreadableError(
            f"'{path}' cannot be opened ({reason(error)}): check who may read it."
        ) from error
    if not head:
        raise UnreadableError(f"'{path}' is empty: get a whole copy.")
    format = sniff(head, path.suffix)
    if format is None:
        known = ", ".join(entry.title for entry in FORMATS.values())
        raise UnreadableError(f"'{path}' is not a picture of a known format ({known}).")
    return format


def _describe(path: Path, format: str, image: Any) -> PictureInfo:
    """Turns libvips' header into ours."""
    kind = _kind(path, image)
    bits = _BITS_OF_FORMAT.get(image.format)
    if bits is None:
        raise UnreadableError(
            f"'{path}' has samples of type {image.format}, where 8 or 16 bits or floating point"
            " were expected: convert it first."
        )
    fields = set(image.get_fields())
    # libvips turns the pixels of HEIF containers itself, always.
    turned = "orientation" in fields and format not in ("avif", "heif")
    orientation = int(image.get("orientation")) if turned else 1
    if not 1 <= orientation <= 8:
        orientation = 1
    width, height = image.width, image.height
    if orientation >= 5:
        width, height = height, width
    return PictureInfo(
        path=path,
        format=format,
        width=width,
        height=height,
        kind=kind,
        bits=bits,
        has_alpha=image.bands > _CHANNELS[kind],
        has_profile="icc-profile-data" in fields,
        orientation=orientation,
        pages=int(image.get("n-pages")) if "n-pages" in fields else 1,
    )


def _kind(path: Path, image: Any) -> str:
    """'grey', 'rgb' or 'cmyk', or an error for pictures of other channels."""
    kind = _KIND_OF_INTERPRETATION.get(image.interpretation)
    if kind is None and image.interpretation == "multiband" and image.bands <= 4:
        kind = "grey" if image.bands <= 2 else "rgb"
    if kind is None or image.bands < _CHANNELS[kind]:
        raise UnreadableError(
            f"'{path}' has {image.bands} channels of {image.interpretation}, where grey, RGB or"
            " CMYK was expected: convert it first."
        )
    return kind


def _plain(image: Any) -> Any:
    """Samples of 64 bits become 32; everything else stays."""
    return image.cast("float") if image.format == "double" else image
