"""Where a picture will be written, and how its samples are laid out there."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from urushi.errors import TakenError, TargetError
from urushi.image.alpha import survey
from urushi.image.colour.conversion import PlainColours
from urushi.image.colour.stated import Stated
from urushi.image.formats.heif_boxes import heif_extras
from urushi.image.formats.jpeg_parts import read_jpeg_parts
from urushi.image.formats.known import FORMATS, READ_SUFFIXES, SUPPORTED_SUFFIXES, name_of
from urushi.image.info import PictureInfo
from urushi.image.libvips import can_write, reason
from urushi.image.metadata.companions import companions
from urushi.image.metadata.contents import ALPHA, PREMULTIPLIED, STRAIGHT
from urushi.names import counted
from urushi.writing import Part, remove_leftovers, taken

__all__ = ["Layout", "Target", "format_to_write", "lay_out", "left_out"]

_DTYPES = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16), 32: np.dtype(np.float32)}


@dataclass(frozen=True)
class Layout:
    """The samples of a target file.

    Attributes:
        format: a name in `FORMATS`.
        kind: 'grey', 'rgb' or 'cmyk'.
        bits: 8, 16 or 32.
        extra: what the channels beyond the colour ones are, in TIFF's numbers.
        bands_taken: where each of those stands in the source.
        keeps_profile: whether the source's ICC profile describes these samples too.
        stated: colours that the target states, or that a profile is made of for it.
        steps: the largest value a sample can take when rounded; 4095 in AVIF's 12 bits.
    """

    format: str
    kind: str
    bits: int
    extra: tuple[int, ...]
    keeps_profile: bool
    bands_taken: tuple[int, ...] = ()
    stated: Stated | None = None

    @property
    def dtype(self) -> np.dtype:
        """Of the samples."""
        return _DTYPES[self.bits]

    @property
    def bands(self) -> int:
        """Number of channels, those beyond the colours included."""
        return {"grey": 1, "rgb": 3, "cmyk": 4}[self.kind] + len(self.extra)

    @property
    def alpha(self) -> int | None:
        """Which of the channels beyond the colours is transparency, from 0."""
        return next((i for i, kind in enumerate(self.extra) if kind in ALPHA), None)

    @property
    def premultiplied(self) -> bool:
        """Whether the file holds colours multiplied by their transparency."""
        return self.alpha is not None and self.extra[self.alpha] == PREMULTIPLIED

    def plain(self) -> PlainColours:
        """The conversion for samples without a profile."""
        return PlainColours(self.kind)

    def quantise(self, values: np.ndarray) -> np.ndarray:
        """Full intensity 1 -> samples, rounded and clipped; floating point stays as it is."""
        if self.bits == 32:
            return values.astype(np.float32, copy=False)
        values = np.clip(values, 0.0, 1.0)
        if self.bits == 16 and self.format in ("avif", "heif"):
            # The encoder drops the four low bits; repeating the high ones there makes that exact.
            coarse = np.rint(values * 4095.0).astype(np.uint16)
            return (coarse << 4) | (coarse >> 8)
        return np.rint(values * float(np.iinfo(self.dtype).max)).astype(self.dtype)

    def convert(self, samples: np.ndarray) -> np.ndarray:
        """Samples of any type -> samples of this one; untouched where the type is the same."""
        if samples.dtype == self.dtype and self.format not in ("avif", "heif"):
            return samples
        if samples.dtype == np.float32:
            return self.quantise(samples)
        return self.quantise(samples / np.float64(np.iinfo(samples.dtype).max))


def format_to_write(path: Path) -> str:
    """The format that a target's suffix asks for.

    Raises:
        TargetError: it is unknown, or not written by what is installed here.
    """
    format = name_of(path)
    if format is None:
        known = " ".join(SUPPORTED_SUFFIXES)
        read = READ_SUFFIXES.get(path.suffix.lower())
        why = f"names no known picture format by its suffix '{path.suffix}'"
        if read is not None:
            why = f"would be a {FORMATS[read].title}, which is read and not written"
        raise TargetError(f"'{path}' {why}: use one of {known}.", usage=True)
    if not can_write(format):
        others = [entry.suffixes[0][1:] for name, entry in FORMATS.items() if can_write(name)]
        raise TargetError(
            f"'{path}' cannot be written because the installed libvips has no"
            f" {FORMATS[format].title} encoder: choose another format, one of {', '.join(others)}."
        )
    return format


class Target:
    """A file that appears whole or not at all.

    Everything is prepared in hidden files of the same folder, so that the last step is a rename.

    Raises:
        TargetError: the name, the folder or an existing file stands in the way.
    """

    def __init__(
        self, path: Path, like: PictureInfo | None, overwrite: bool, pages: int = 1
    ) -> None:
        format = format_to_write(path)
        self.path, self.format, self._overwrite = path, format, overwrite
        # A link is followed: what it points to is replaced, and the link stays.
        self._final = Path(os.path.realpath(path))
        try:
            self._check(like, pages)
        except OSError as error:  # a folder on the way that may not be searched
            raise self.failure((error.strerror or str(error)).lower()) from error
        self._spool: Part | None = None
        self._result: Part | None = None
        self._page: Part | None = None

    def _check(self, like: PictureInfo | None, pages: int) -> None:
        if self._final.is_dir():
            raise TargetError(f"'{self.path}' is a folder, where a file name was expected.")
        if not self._final.parent.is_dir():
            raise TargetError(
                f"'{self.path}' cannot be written because its folder '{self._final.parent}' does"
                " not exist: create it first."
            )
        if not self._final.exists():
            return
        if not self._overwrite:
            raise TakenError(taken(self.path))
        if like is not None and self._final.samefile(like.path):
            self._check_in_place(like, pages)

    def _check_in_place(self, like: PictureInfo, pages: int) -> None:
        """Nothing that lies in a file beside its picture may be lost where it replaces itself."""
        if pages < like.pages:
            remain = "only the first" if pages == 1 else f"only {pages} of them"
            raise TargetError(
                f"'{self.path}' holds {counted(like.pages, 'picture')} and {remain} would remain:"
                " write to another name."
            )
        beside = (*like.beside, *_further(like))
        if beside:
            raise TargetError(
                f"'{self.path}' also holds {' and '.join(beside)}, which would be lost:"
                " write to another name."
            )

    def failure(self, why: str) -> TargetError:
        """The sentence for a target that cannot be written after all."""
        return TargetError(
            f"'{self.path}' cannot be written ({why}): nothing was changed; check the folder's"
            " permissions and free space."
        )

    @property
    def spool(self) -> Path:
        """The file that collects rows."""
        assert self._spool is not None
        return self._spool.path

    def create_spool(self, head: bytes) -> BinaryIO:
        """The file that collects rows, beginning with `head`."""
        _clear(self._final.parent)
        try:
            self._spool = Part(self._final, "rows")
            file = self._spool.path.open("r+b")
            file.write(head)
            return file
        except OSError as error:
            raise self.failure(reason(error)) from error

    def create_result(self) -> Path:
        """The file that the encoder fills; made here so that it gets the usual permissions."""
        _clear(self._final.parent)
        self._result = Part(self._final)
        return self._result.path

    @property
    def result(self) -> Path:
        """The file that becomes the target."""
        assert self._result is not None
        return self._result.path

    def create_page(self) -> Path:
        """The file that the encoder fills with a further page, before it joins the result."""
        if self._page is not None:
            self._page.discard()
        self._page = Part(self._final)
        return self._page.path

    def end_spool(self) -> None:
        """Removes the rows of a page that is encoded."""
        if self._spool is not None:
            self._spool.discard()
            self._spool = None

    def commit(self) -> None:
        """Makes the result the target, in one step."""
        assert self._result is not None
        self._result.commit(self._overwrite)

    def clean_up(self) -> None:
        """Removes what was only needed on the way."""
        for part in (self._spool, self._result, self._page):
            if part is not None:
                part.discard()


def _further(like: PictureInfo) -> tuple[str, ...]:
    """Pictures that belong to the picture and cannot be made again from it."""
    if like.format == "jpeg":
        found = companions(like.path, "jpeg").gain_map or read_jpeg_parts(like.path).gain_map
        return ("a gain map",) if found else ()
    if like.format in ("avif", "heif"):
        return tuple(f"a {name}" for name in heif_extras(like.path))
    return ()


@functools.lru_cache(maxsize=256)
def _clear(folder: Path) -> None:
    """Removes what killed processes left in a folder, once: to look again and again is slow."""
    remove_leftovers(folder)


def lay_out(
    target: Target, like: PictureInfo | None, width: int, height: int, bits: int | None
) -> Layout:
    """Decides how the samples of the target look.

    Raises:
        TargetError: the format cannot hold the picture.
    """
    entry = FORMATS[target.format]
    if entry.longest is not None and max(width, height) > entry.longest:
        raise TargetError(
            f"'{target.path}' would be {width} x {height}, but {entry.title} ends at"
            f" {entry.longest} pixels a side: choose PNG or TIFF."
        )
    wanted = bits or (like.bits if like is not None else 8)
    if wanted not in (8, 16, 32):
        raise TargetError(f"'{target.path}' cannot have {wanted} bits: choose 8, 16 or 32.")
    depth = max((d for d in entry.depths if d <= wanted), default=entry.depths[0])
    if like is None:
        return Layout(target.format, "rgb", depth, (), False)
    kind = like.kind if like.kind in entry.kinds else "rgb"
    taken = _bands_taken(target, like)
    extra = tuple(like.extra[band - like.channels] for band in taken)
    if target.format != "tiff":
        extra = (STRAIGHT,) * len(extra)
    stated = like.stated if kind == like.kind else None
    if stated is not None and not (target.format == "png" and stated.chunks):
        stated = stated.portable()
    return Layout(target.format, kind, depth, extra, kind == like.kind, taken, stated)


def _bands_taken(target: Target, like: PictureInfo) -> tuple[int, ...]:
    """Which of the source's channels beyond the colours the target has, too."""
    entry = FORMATS[target.format]
    if target.format == "tiff":
        return tuple(range(like.channels, like.channels + len(like.extra)))
    if like.alpha_band is None or (not entry.alpha and survey(like).opaque):
        return ()
    if not entry.alpha:
        raise TargetError(
            f"'{target.path}' cannot hold the transparency of '{like.path}' because"
            f" {entry.title} has none: choose PNG, TIFF or WebP."
        )
    return (like.alpha_band,)


def left_out(layout: Layout, like: PictureInfo) -> str:
    """What becomes of channels that are neither colour nor transparency; empty without any."""
    count = sum(like.channels + i != like.alpha_band for i in range(len(like.extra)))
    if not count:
        return ""
    what = "1 further channel" if count == 1 else f"{count} further channels"
    if len(layout.extra) == len(like.extra):
        return f"{what} beside colour and transparency kept, unrestored."
    title = FORMATS[layout.format].title
    return (
        f"{what} of the source (infrared, inks, selections or the like) left out, because {title}"
        " cannot hold such: choose TIFF to keep all."
    )
