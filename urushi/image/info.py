"""What a picture's file holds, read from its header."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urushi.errors import TooLargeError, UnreadableError
from urushi.image.broken_jpeg import damage_of
from urushi.image.causes import misleading_variant, unknown_format, unread
from urushi.image.formats import FORMATS, READ_SUFFIXES, sniff
from urushi.image.libvips import fields_of, open_image, reason, vips
from urushi.image.pillow_pictures import pillow_header

__all__ = ["DEFAULT_MAX_PIXELS", "Header", "PictureInfo", "inspect_picture", "read_header"]

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
        damage: those of the notes that tell of pixels that are missing or wrong.
    """

    info: PictureInfo
    image: Any
    notes: list[str] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)

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
    notes: list[str] = []
    damage: list[str] = []
    try:
        image = (open_image if FORMATS[format].loader else pillow_header)(path, format)
    except (vips().Error, OSError) as error:
        image = opened_broken(path, format, error, notes, damage)
    suffix = path.suffix.lower()
    if suffix in READ_SUFFIXES and suffix not in FORMATS[format].suffixes:
        notes.append(f"The file is a {FORMATS[format].title}, although its name ends in {suffix}.")
    try:
        info = _describe(path, format, image)
    except vips().Error as error:
        raise UnreadableError(unread(path, format, error)) from error
    if max_pixels is not None and info.width * info.height > max_pixels:
        raise TooLargeError(
            f"'{path}' has {info.width} x {info.height} = {info.width * info.height:,} pixels,"
            f" more than the limit of {max_pixels:,}: raise the limit if you trust the file."
        )
    return Header(info, _plain(image), notes, damage)


def opened_broken(
    path: Path, format: str, error: Exception, notes: list[str], damage: list[str]
) -> Any:
    """Opens a damaged picture anew, if it is a JPEG of which most is there.

    Args:
        path, format: of the picture.
        error: what libvips said of it.
        notes, damage: take a sentence on what is wrong with it; see `Header`.

    Raises:
        UnreadableError: it cannot be read.
    """
    if format != "jpeg":
        raise UnreadableError(unread(path, format, error)) from error
    try:
        found = damage_of(path)
        if not found.hopeless:
            image = open_image(path, format, broken=True)
            notes.extend({found.note} - {"", *notes})
            damage.extend([found.note] if found.spoils else [])
            return image
    except (vips().Error, OSError) as another:
        raise UnreadableError(unread(path, format, error)) from another
    raise UnreadableError(f"'{path}' breaks off: {found.note}: get a whole copy.") from error


def _recognise(path: Path) -> str:
    """Finds the format from the first bytes, and refuses what is no picture at all."""
    try:
        if not path.exists():
            raise UnreadableError(f"'{path}' does not exist: check the name.")
        if path.is_dir():
            raise UnreadableError(f"'{path}' is a folder, where a picture was expected.")
        if not path.is_file():
            raise UnreadableError(f"'{path}' is not a regular file, where a picture was expected.")
        with path.open("rb") as file:
            head = file.read(192)
    except OSError as error:
        raise UnreadableError(
            f"'{path}' cannot be opened ({reason(error)}): check who may read it."
        ) from error
    if not head:
        raise UnreadableError(f"'{path}' is empty: get a whole copy.")
    format = sniff(head[:64], path.suffix)
    if format is None:
        raise UnreadableError(unknown_format(path, head))
    if misleading := misleading_variant(path, format):
        raise UnreadableError(misleading)
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
    fields = fields_of(image)
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
