"""What a picture's file holds, read from its header."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from urushi.errors import TooLargeError, UnreadableError
from urushi.image.colour.stated import Stated, stated_colours
from urushi.image.formats.broken_jpeg import damage_of
from urushi.image.formats.causes import misleading_variant, unknown_format, unread
from urushi.image.formats.decoding import check_memory, memory_ran_out
from urushi.image.formats.known import FORMATS, READ_SUFFIXES, sniff
from urushi.image.formats.pillow_pictures import pillow_header
from urushi.image.libvips import fields_of, open_image, reason, vips
from urushi.image.metadata.contents import ALPHA, Contents, contents_of
from urushi.image.metadata.exif import with_exif_resolution
from urushi.image.opened import Identity, OpenFile, check_unchanged
from urushi.image.samples import AS_FOUND, Samples

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

_MORE_FRAMES = re.compile(r"[0-9]+ more frames?")
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
        has_alpha: whether one of the channels beyond the colour ones is transparency.
        has_profile: whether an ICC profile is embedded.
        orientation: EXIF's number 1..8 as the file has it; the pixels are turned when read.
        pages: how many pictures the file holds that can be read: pages of a TIFF, frames of an
            animated WebP. Previews and masks do not count.
        page: which of them this is, from 0.
        extra: what the channels beyond the colour ones are, in TIFF's numbers: 1 is transparency
            that the colours are multiplied by in the file, 2 is any other transparency, 0 is
            anything else, such as infrared, a spot ink or a selection.
        beside: what else the file holds that cannot be read, as in "3 more frames", "a video".
        identity: of the file when it was opened; None where this was not read from a file.
        stated: colours that it states without an ICC profile; None for sRGB.
        samples: what the user says about its samples.
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
    page: int = 0
    extra: tuple[int, ...] = ()
    beside: tuple[str, ...] = ()
    identity: Identity | None = field(default=None, compare=False, repr=False)
    stated: Stated | None = None
    samples: Samples = AS_FOUND

    @property
    def alpha_band(self) -> int | None:
        """Which of the file's channels is transparency, counted from 0 with the colours."""
        found = [i for i, kind in enumerate(self.extra) if kind in ALPHA]
        return self.channels + found[0] if found else None

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
    path: str | Path,
    *,
    max_pixels: int | None = DEFAULT_MAX_PIXELS,
    page: int | None = None,
    samples: Samples = AS_FOUND,
) -> PictureInfo:
    """Reads what a file holds, without its pixels.

    Args:
        path: of the picture.
        max_pixels: the most pixels it may have; None for no limit.
        page: which of the file's pictures, from 0; None for the first.
        samples: what is known about its samples.

    Raises:
        UnreadableError: missing, a folder, empty, forbidden, damaged or not a known picture.
        TooLargeError: more than `max_pixels`.
    """
    return read_header(Path(path), max_pixels, page, samples).info


def read_header(
    path: Path,
    max_pixels: int | None,
    page: int | None = None,
    samples: Samples = AS_FOUND,
) -> Header:
    """Opens a picture and checks everything its header can tell; see `inspect_picture`."""
    samples.checked()
    format = _recognise(path)
    notes: list[str] = []
    damage: list[str] = []
    try:
        file = OpenFile(path)
    except OSError as error:
        raise UnreadableError(
            f"'{path}' cannot be opened ({reason(error)}): check who may read it."
        ) from error
    contents = contents_of(path, format)
    check_unchanged(path, file.identity)
    if page is not None and contents.pages is not None:
        _check_page(path, page, contents.pages)
    misleading = misleading_variant(path, format, start=contents.start(page or 0))
    if misleading is not None:
        raise UnreadableError(misleading)
    try:
        if FORMATS[format].loader:
            image = open_image(file, format, place=contents.place(page or 0))
        else:
            image = pillow_header(path, format)
    except (vips().Error, OSError) as error:
        if page and contents.pages is None:
            _check_page(path, page, read_header(path, max_pixels).info.pages)
        image = opened_broken(path, format, error, notes, damage)
    if format in ("webp", "avif", "heif"):
        image = with_exif_resolution(image)
    suffix = path.suffix.lower()
    if suffix in READ_SUFFIXES and suffix not in FORMATS[format].suffixes:
        notes.append(f"The file is a {FORMATS[format].title}, although its name ends in {suffix}.")
    try:
        described = _describe(path, format, image, contents, page or 0)
        stated = stated_colours(path, format, image, page=page or 0)
        info = replace(described, identity=file.identity, stated=stated, samples=samples)
    except (vips().Error, OSError) as error:
        raise UnreadableError(unread(path, format, error)) from error
    if max_pixels is not None and info.width * info.height > max_pixels:
        raise TooLargeError(
            f"'{path}' has {info.width} x {info.height} = {info.width * info.height:,} pixels,"
            f" more than the limit of {max_pixels:,}: raise the limit if you trust the file."
        )
    if max_pixels is not None:
        check_memory(info, image, file.identity.size, max_pixels)
    notes += [*contents.notes, *_notes(info, page, contents.larger_page)]
    return Header(info, _plain(image), notes, damage)


def _check_page(path: Path, page: int, pages: int) -> None:
    if page >= pages:
        holds = "1 picture" if pages == 1 else f"{pages} pictures"
        raise UnreadableError(
            f"'{path}' holds {holds}, so there is no page {page + 1}: ask for pages 1 to {pages}."
        )


def _notes(info: PictureInfo, page: int | None, larger: int | None) -> list[str]:
    """What is left out of a file because it cannot be read, or was not asked for."""
    notes = []
    if page is None and info.pages > 1:
        what, keep = ("frames", "") if info.format != "tiff" else ("pages", "a TIFF keeps all, ")
        notes.append(
            f"Only the first of {info.pages} {what} was taken: {keep}--pages takes another."
        )
        if larger is not None:
            notes.append(f"Page {larger + 1} is much larger, perhaps the picture itself.")
    frames = [found for found in info.beside if _MORE_FRAMES.fullmatch(found)]
    if frames:
        count = int(frames[0].split()[0]) + 1
        notes.append(
            f"Only the first of {count} frames was taken: {frames[0]} cannot be read, so keep the "
            "original."
        )
    if others := [found for found in info.beside if found not in frames]:
        what = " and ".join(others)
        notes.append(f"The file also holds {what}: not in the result, so keep the original.")
    return notes


def read_again(info: PictureInfo) -> Header:
    """Opens a picture once more, for another pass.

    Raises:
        UnreadableError: the file is another one by now, or was changed.
    """
    header = read_header(info.path, None, info.page, info.samples)
    check_unchanged(info.path, info.identity, header.info.identity)
    return header


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
    if format != "jpeg" or memory_ran_out(error):
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
    raise UnreadableError(f"'{path}' is cut off: {found.note}: get a complete copy.") from error


def _recognise(path: Path) -> str:
    """Finds the format from the first bytes, and refuses what is no picture at all."""
    try:
        if not path.exists() and path.is_symlink():
            raise UnreadableError(f"'{path}' is a link to a missing file: repair or remove it.")
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
        raise UnreadableError(f"'{path}' is empty: get a complete copy.")
    format = sniff(head[:64], path.suffix)
    if format is None:
        raise UnreadableError(unknown_format(path, head))
    return format


def _describe(path: Path, format: str, image: Any, contents: Contents, page: int) -> PictureInfo:
    """Turns libvips' header into ours."""
    kind = contents.kind(page)
    if kind is None or image.bands < _CHANNELS[kind]:
        kind = _kind(path, image)
    if contents.has_own_inks(page):
        raise UnreadableError(
            f"'{path}' is separated into {image.bands} inks that are not CMYK: convert it to RGB or"
            " CMYK first."
        )
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
    extra = contents.extra(page, image.bands - _CHANNELS[kind])
    if extra is None:
        raise UnreadableError(
            f"'{path}' has transparency that is multiplied in, behind channels of another kind:"
            " save it with straight transparency, or without those channels."
        )
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
        has_alpha=any(value in ALPHA for value in extra),
        has_profile="icc-profile-data" in fields,
        orientation=orientation,
        pages=contents.pages or (int(image.get("n-pages")) if "n-pages" in fields else 1),
        page=page,
        extra=extra,
        beside=contents.beside,
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
