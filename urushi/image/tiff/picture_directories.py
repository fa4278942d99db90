"""Which directories of a TIFF are its pictures: pages, not previews, masks or raw sensor data."""

import functools
import struct
from dataclasses import dataclass
from pathlib import Path

from urushi.image.tiff.directories import (
    DAMAGE,
    SUBDIRECTORIES,
    Directory,
    TiffFile,
)
from urushi.image.tiff.stacks import planes_of, stack_title

__all__ = [
    "TiffPage",
    "TiffPages",
    "bytes_of_pages",
    "description_of",
    "has_tag",
    "page_offset",
    "tiff_pages",
]

_REDUCED, _MASK = 1, 4
_CFA, _LINEAR_RAW = 32803, 34892
_CFA_PATTERN, _DNG_VERSION, _TIFF_EP = 33422, 50706, 37398
_MAKE, _MODEL = 271, 272
_DESCRIPTION, _LAYERS = 270, 37724
# Planes of a MetaMorph stack: the number of values is the number of planes.
_METAMORPH = 33629
_STRIPS, _TILES, _JPEG_OFFSET = 273, 324, 513


@dataclass(frozen=True)
class TiffPage:
    """One directory that holds a picture.

    Attributes:
        directory: its number in the chain, from 0.
        subdirectory: its number among the subdirectories of that one; None for the one itself.
        offset: where it begins in the file.
        width, height: in pixels, as stored.
        separate: each channel lies in a plane of its own.
        samples: channels.
        bits: of a sample.
        photometric: TIFF's number for what the colours are.
        extra: what ExtraSamples says, in order; 0 is unspecified, 1 and 2 are transparency.
        inks: what InkSet says of separations: 1 is CMYK, 2 other inks.
        reduced: it is a smaller copy of another picture.
        mask: it tells which parts of another picture are to be seen.
    """

    directory: int
    subdirectory: int | None
    offset: int
    width: int
    height: int
    samples: int
    separate: bool
    bits: int
    photometric: int
    extra: tuple[int, ...]
    inks: int
    reduced: bool
    mask: bool

    @property
    def pixels(self) -> int:
        """How many it has."""
        return self.width * self.height

    @property
    def size(self) -> int:
        """Of its samples, uncompressed."""
        return self.pixels * self.samples * -(-self.bits // 8)


@dataclass(frozen=True)
class TiffPages:
    """What a TIFF holds.

    Attributes:
        pages: its pictures in order; empty where the file is too damaged to tell.
        smaller: number of smaller copies beside them.
        masks: number of masks beside them.
        raw: why it is a camera's raw file; empty for pictures.
        planes: how many planes are told of where one directory stands for all; 0 or 1 otherwise.
        layers: whether an image editor's layers lie beside the picture.
        broken: the list of pages breaks off.
    """

    pages: tuple[TiffPage, ...] = ()
    smaller: int = 0
    masks: int = 0
    raw: str = ""
    planes: int = 0
    layers: bool = False
    broken: bool = False


def tiff_pages(path: Path) -> TiffPages:
    """Looks through the directories of a TIFF; asking again about one unchanged costs nothing."""
    try:
        stat = path.stat()
    except OSError:
        return TiffPages(broken=True)
    return _tiff_pages(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


def bytes_of_pages(path: Path) -> int:
    """Bytes of the samples of all pages, uncompressed; 0 where this is no TIFF."""
    return sum(page.size for page in tiff_pages(path).pages)


def page_offset(path: Path, number: int) -> int | None:
    """Where the directory begins that tells of a page; None for the first of the file.

    A page below previews is told of in the file's first directory (TIFF/EP).
    """
    if not number:
        return None
    pages = tiff_pages(path).pages
    if number >= len(pages) or pages[number].subdirectory is not None:
        return None
    return pages[number].offset


def has_tag(path: Path, page: TiffPage, tag: int) -> bool:
    """Whether a page's directory has a tag."""
    try:
        with TiffFile(path) as tiff:
            return tag in tiff.directory(page.offset).entries
    except DAMAGE:
        return False


def description_of(path: Path, page: TiffPage) -> bytes:
    """What a page's ImageDescription says; empty without one."""
    try:
        with TiffFile(path) as tiff:
            return tiff.text(tiff.directory(page.offset), _DESCRIPTION)
    except DAMAGE:
        return b""


@functools.lru_cache(maxsize=4)
def _tiff_pages(path: Path, identity: tuple[int, ...]) -> TiffPages:
    """See `tiff_pages`. `identity` tells one state of the file from another."""
    found: list[TiffPage] = []
    raw, layers, broken, planes, stack = "", False, False, 0, b""
    try:
        with TiffFile(path) as tiff:
            raw = _raw_signature(tiff)
            try:
                for number, directory in enumerate(tiff.chain()):
                    family = [(None, directory), *_subdirectories(tiff, directory)]
                    for sub, each in family:
                        raw = raw or _raw(tiff, each, directory)
                        found.append(_page(tiff, each, number, sub))
                    if number == 0:
                        layers = _has_layers(tiff, directory)
                        stack = tiff.text(directory, _DESCRIPTION)
                        planes = _planes_of_metamorph(directory)
            except DAMAGE:
                broken = True
    except DAMAGE:
        return TiffPages(broken=True)
    pages = _pictures(found)
    told = planes_of(stack)
    if pages and stack_title(stack) != "ImageJ":
        # The others count the samples of a pixel as planes, too.
        told = max(told // max(pages[0].samples, 1), 1) if told else 0
    planes = max(planes, told) if len(pages) == 1 else 0
    chosen = {(page.directory, page.subdirectory) for page in pages}
    rest = [page for page in found if (page.directory, page.subdirectory) not in chosen]
    return TiffPages(
        pages=pages,
        smaller=sum(not page.mask for page in rest),
        masks=sum(page.mask for page in rest),
        raw=raw,
        planes=planes,
        layers=layers,
        broken=broken,
    )


def _pictures(found: list[TiffPage]) -> tuple[TiffPage, ...]:
    """The pages among all directories: those of the chain that are no copies.

    A chain of nothing but previews has its pictures below them (TIFF/EP); a file whose only
    directories are marked as previews means the largest.
    """
    own = [p for p in found if not (p.reduced or p.mask)]
    pages = [p for p in own if p.subdirectory is None] or own
    if not pages and found:
        largest = max(found, key=lambda page: (not page.mask, page.pixels))
        pages = [largest]
    return tuple(pages)


def _subdirectories(tiff: TiffFile, directory: Directory) -> list[tuple[int, Directory]]:
    """Those that hang on a directory, with their numbers; damaged ones are left out."""
    found = []
    for index, place in enumerate(tiff.numbers(directory, SUBDIRECTORIES, most=256)):
        try:
            found.append((index, tiff.directory(int(place))))
        except DAMAGE:
            continue
    return found


def _page(tiff: TiffFile, directory: Directory, number: int, sub: int | None) -> TiffPage:
    kind = tiff.number(directory, 254, 0)
    # The older tag of TIFF 5.0: 2 is a smaller copy.
    reduced = bool(kind & _REDUCED) or tiff.number(directory, 255, 1) == 2
    bare = not {_STRIPS, _TILES} & set(directory.entries)
    # EXIF's thumbnail is a JPEG file that the second directory points to.
    thumbnail = bare and (_JPEG_OFFSET in directory.entries or number > 0)
    return TiffPage(
        directory=number,
        subdirectory=sub,
        offset=directory.offset,
        width=tiff.number(directory, 256, 0),
        height=tiff.number(directory, 257, 0),
        samples=tiff.number(directory, 277, 1),
        separate=tiff.number(directory, 284, 1) == 2,
        bits=tiff.number(directory, 258, 1),
        photometric=tiff.number(directory, 262, -1),
        extra=tuple(int(value) for value in tiff.numbers(directory, 338, most=1024)),
        inks=tiff.number(directory, 332, 1),
        reduced=reduced or thumbnail,
        mask=bool(kind & _MASK),
    )


def _raw_signature(tiff: TiffFile) -> str:
    """What the first bytes tell of a camera's raw file."""
    try:
        mark = tiff.take(8, 4)
    except DAMAGE:
        return ""
    if mark[:2] == b"CR" and not tiff.form.big:
        return "Canon CR2"
    return "Phase One raw" if mark in (b"IIII", b"MMMM") and not tiff.form.big else ""


def _raw(tiff: TiffFile, directory: Directory, main: Directory) -> str:
    """Why this directory makes the file a camera's raw file; empty where it does not.

    `main` is the one that it hangs on, which names the camera.
    """
    if _DNG_VERSION in directory.entries:
        return "DNG"
    photometric = tiff.number(directory, 262, -1)
    if photometric == _LINEAR_RAW:
        return "linear raw data"
    if photometric != _CFA and _CFA_PATTERN not in directory.entries:
        return ""
    maker = " ".join(
        tiff.text(main, tag, most=256).decode("ascii", "replace").strip() for tag in (_MAKE, _MODEL)
    ).strip()
    return f"a mosaic of sensor values{' of ' + maker if maker else ''}"


def _has_layers(tiff: TiffFile, directory: Directory) -> bool:
    """Whether Photoshop's or Affinity's layers lie beside the flattened picture."""
    entry = directory.entries.get(_LAYERS)
    if entry is None or entry.size <= 40:
        return False
    try:
        head = tiff.take(tiff.form.offset.unpack(entry.value)[0], min(entry.size, 2**16))
    except DAMAGE:
        return False
    for key in (b"Layr", b"Lr16", b"Lr32"):
        for mark, order in ((b"8BIM" + key, ">I"), (b"MIB8" + key[::-1], "<I")):
            place = head.find(mark)
            told = 0 <= place <= len(head) - 12
            if told and struct.unpack_from(order, head, place + 8)[0] > 16:
                return True
    return False


def _planes_of_metamorph(directory: Directory) -> int:
    entry = directory.entries.get(_METAMORPH)
    return entry.count if entry is not None and 1 < entry.count < 2**20 else 0
