"""Writing pictures: whole or not at all, in the source's own colours and with its metadata."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from urushi.errors import TargetError
from urushi.image.blend import Blend
from urushi.image.colour.levels import tags_of_white
from urushi.image.formats.known import FORMATS
from urushi.image.formats.lossless import is_lossless
from urushi.image.info import PictureInfo, inspect_picture, read_again
from urushi.image.libvips import compression, interpretation, open_image, reason, vips
from urushi.image.metadata.carrying import Luggage, with_profile
from urushi.image.opened import check_unchanged
from urushi.image.spool import spool_header
from urushi.image.target import Target, lay_out, left_out
from urushi.image.tiff.described import Fitted, fitted_words
from urushi.image.tiff.directories import DAMAGE, TiffFile, amend
from urushi.image.tiff.finishing import first_link, join, page_tags
from urushi.image.tiff.picture_directories import bytes_of_pages
from urushi.names import counted

__all__ = ["PictureWriter", "write_picture"]

_BAND_PIXELS = 2**20


class PictureWriter:
    """Takes rows from first to last and commits a whole file on leaving its `with` block.

    Rows are kept in a temporary file beside the target, so memory stays bounded for JPEG, PNG and
    TIFF. If the block raises, or rows are missing, nothing is left behind and an existing target is
    as it was.

    With `like`, the picture becomes what its source was: grey, RGB or CMYK in the source's profile,
    of the same depth where the format has it, with the same transparency bit for bit, resolution
    and metadata. Pixels that were not changed come out exactly as they were, up to what a lossy
    format does. A picture enlarged by a whole factor keeps all that, too: its transparency is
    enlarged with it, and its resolution, so that it is printed as large as before. Where the source
    does not fit the format: CMYK becomes RGB, floating point 16 bit, 16 bit 8 bit, and a picture
    with transparency is refused by JPEG. Channels that are neither colour nor transparency go into
    a TIFF as they are, and into nothing else; `notes` says so.

    A TIFF may have several pages: `next_page` begins each but the first.

    Args:
        target: the file; its suffix decides the format.
        like: the source whose nature and metadata to keep, or None for plain 8-bit sRGB.
        width, height: of what will be written; those of `like` if there is one, or the same whole
            multiple of both.
        bits: 8, 16 or 32 (floating point) instead of the source's.
        overwrite: whether an existing target may be replaced.
        strip_metadata: drop EXIF, XMP, IPTC and comments; the colour profile stays.
        quality: 1..100 for JPEG, WebP, AVIF and HEIF; 95, 95, 85 and 85 unless told. 100 makes
            WebP and AVIF lossless, and so they are unless told where the source is lossless and of
            the same format. Chroma is never subsampled, but lossy WebP knows no other way.
            AVIF with transparency is always lossless, because it would blur the transparency too.
        own: the rows are in primaries of the source's own, as a `PictureReader` gives them on
            request.
        pages: how many pages will be written at most; more than 1 in TIFF alone.

    Attributes:
        notes: sentences about what the target lacks, or holds in another form than the source;
            complete when the `with` block was left.

    Raises:
        TargetError: the target exists, its folder is missing or cannot be written, its suffix is
            unknown, or its format cannot hold the picture.
    """

    def __init__(
        self,
        target: str | Path,
        *,
        like: PictureInfo | None,
        width: int,
        height: int,
        bits: int | None = None,
        overwrite: bool = False,
        strip_metadata: bool = False,
        quality: int | None = None,
        own: bool = False,
        pages: int = 1,
    ) -> None:
        if quality is not None and not 1 <= quality <= 100:
            raise TargetError(f"The quality {quality} for '{target}' is not in 1..100.")
        self.notes: list[str] = []
        self._target = Target(Path(target), like, overwrite, pages)
        if pages > 1 and self._target.format != "tiff":
            raise TargetError(
                f"'{target}' cannot hold {counted(pages, 'page')} because"
                f" {FORMATS[self._target.format].title} files have one: choose TIFF."
            )
        self._bits, self._strip, self._quality = bits, strip_metadata, quality
        self._own, self._pages, self._finished = own, pages, 0
        self._link = 0
        self._spool: BinaryIO | None = None
        self._fitted: Fitted | None = None
        self._blend: Blend | None = None
        self._begin(like, width, height)
        self._big = self._needs_offsets_of_64_bits()

    def _begin(self, like: PictureInfo | None, width: int, height: int) -> None:
        """Makes ready for the rows of a page."""
        assert min(width, height) >= 1, (width, height)
        scale = 1 if like is None else max(width // like.width, 1)
        if like is not None and (scale * like.width, scale * like.height) != (width, height):
            raise TargetError(
                f"'{self._target.path}' cannot be {width} x {height} like '{like.path}', which is"
                f" {like.width} x {like.height}: leave out the source, or write the same size."
            )
        try:
            self.width, self.height, self._scale, self._row = width, height, scale, 0
            layout = self._layout = lay_out(self._target, like, width, height, self._bits)
            self._like = like
            if like is not None:
                self._blend = Blend(like, layout, scale, own=self._own)
                self._say(left_out(layout, like))
            colour = layout.bands - len(layout.extra)
            # As they are, whatever they mean: libvips divides by some kinds of transparency.
            extra = (0,) * len(layout.extra)
            head = spool_header(width, height, colour, extra, layout.dtype)
            self._spool = self._target.create_spool(head)
        except BaseException:
            self._close()
            raise

    def next_page(self, *, like: PictureInfo | None, width: int, height: int) -> None:
        """Finishes a page, all of whose rows were written, and begins another.

        Args:
            like, width, height: of the new page, as the class takes them.

        Raises:
            TargetError: the page cannot be written.
        """
        assert self._finished + 1 < self._pages, f"more than {self._pages} pages"
        assert self._row == self.height, f"{self._row} of {self.height} rows were written"
        self._guard(self._finish_page)
        self._begin(like, width, height)

    def write(self, rows: np.ndarray) -> None:
        """Takes the next rows.

        Args:
            rows: `(n, W, 3)` in the working space, or the source's own primaries. Values are
                clipped to what the file can hold.

        Raises:
            TargetError: the disk is full.
            UnreadableError: the source, which is read alongside, broke off.
        """
        assert self._spool is not None, "the writer is closed"
        assert rows.shape[1:] == (self.width, 3), rows.shape
        assert self._row + rows.shape[0] <= self.height, "more rows than the picture has"
        step = max(1, _BAND_PIXELS // self.width)
        for top in range(0, rows.shape[0], step):
            samples = self._samples(np.asarray(rows[top : top + step], np.float32))
            # Another number of channels than announced would scramble all rows that follow.
            assert samples.shape[1:] == (self.width, self._layout.bands), samples.shape
            assert samples.dtype == self._layout.dtype, samples.dtype
            try:
                self._spool.write(np.ascontiguousarray(samples).data)
            except OSError as error:
                raise self._target.failure(reason(error)) from error
        self._row += rows.shape[0]

    def _samples(self, pixels: np.ndarray) -> np.ndarray:
        """Working-space rows -> the samples of the file, alpha included."""
        if self._blend is not None:
            return self._blend.apply(pixels)
        return self._layout.quantise(self._layout.plain().from_working(pixels))

    def __enter__(self) -> "PictureWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                assert self._row == self.height, f"{self._row} of {self.height} rows were written"
                self._commit()
        finally:
            self._close()

    def _commit(self) -> None:
        """Finishes the last page, then gives the file its name."""
        self._guard(self._finish_page)
        if self._like is not None:
            check_unchanged(self._like.path, self._like.identity)
        self._guard(self._target.commit)

    def _guard(self, act: Callable[[], None]) -> None:
        """Turns what goes wrong on the disk or in the encoder into a sentence."""
        try:
            act()
        except (OSError, vips().Error) as error:
            raise self._target.failure(reason(error)) from error

    def _finish_page(self) -> None:
        """Encodes the rows beside the target, and joins them to the pages that are there."""
        assert self._spool is not None
        self._spool.close()
        first = self._finished == 0
        path = self._target.create_result() if first else self._target.create_page()
        self._encode(path)
        if self._layout.format == "tiff":
            try:
                self._amend(path)
                if first:
                    self._link = first_link(path)
                else:
                    self._link = join(self._target.result, path, self._link)
            except DAMAGE as error:
                raise self._target.failure(reason(error)) from error
        if self._blend is not None:
            self._blend.close()
            self._blend = None
        self._spool = None
        self._target.end_spool()
        self._finished += 1

    @property
    def _complete(self) -> bool:
        """Whether all pages of the source are written, in their order."""
        like = self._like
        if like is None or self._layout.format != "tiff" or self._pages != like.pages:
            return False
        return like.page == self._finished

    def _amend(self, path: Path) -> None:
        """Gives a page of a TIFF what libvips does not write, or writes otherwise."""
        with TiffFile(path) as tiff:
            form = tiff.form
        given, dropped = page_tags(
            self._like,
            self._layout.extra,
            form,
            scale=self._scale,
            strip=self._strip,
            complete=self._complete,
            imagej=self._fitted is not None and self._fitted.imagej,
        )
        if given or dropped:
            amend(path, given, dropped)

    def _say(self, note: str) -> None:
        if note and note not in self.notes:
            self.notes.append(note)

    def _needs_offsets_of_64_bits(self) -> bool:
        """Whether a TIFF of all pages might be larger than offsets of 32 bits allow."""
        layout = self._layout
        size = self.width * self.height * layout.bands * layout.dtype.itemsize * self._pages
        if self._pages > 1 and self._like is not None:
            size = max(size, self._scale**2 * bytes_of_pages(self._like.path))
        return size > 2**31

    def _encode(self, path: Path) -> None:
        layout = self._layout
        meaning = interpretation(layout.kind, layout.dtype)
        image = open_image(self._target.spool, "tiff").copy(interpretation=meaning)
        keep, luggage, self._fitted = 0, None, None
        if self._like is not None:
            header = read_again(self._like)
            self._fitted = fitted_words(header, layout, scale=self._scale, complete=self._complete)
            for note in self._fitted.notes:
                self._say(note)
            luggage = Luggage(
                header,
                layout.format,
                self._strip,
                self._scale,
                self.notes,
                self._fitted.description,
            )
            image, keep = luggage.attach(image, profile=layout.keeps_profile)
            image, keep = self._with_stated(image, keep)
        save = getattr(image, FORMATS[layout.format].loader.replace("load", "save"))
        # Bytes, since a name need not be UTF-8.
        save(os.fsencode(path), keep=keep, **self._options())
        if luggage is not None:
            chunks = b"" if layout.stated is None else layout.stated.chunks
            alike = layout.keeps_profile and layout.bits == luggage.header.info.bits
            luggage.finish(path, chunks, tags_of_white(luggage.header) if alike else None)

    def _with_stated(self, image: Any, keep: int) -> tuple[Any, int]:
        """Gives an image colours that its source states, as a profile where no chunks say them."""
        stated = self._layout.stated
        profile = None if stated is None or stated.chunks else stated.profile(self._layout.kind)
        return (image, keep) if profile is None else with_profile(image, profile, keep)

    def _options(self) -> dict[str, Any]:
        """How libvips is to encode this format."""
        layout = self._layout
        quality = self._quality or self._usual_quality()
        if layout.format == "jpeg":
            return {"Q": quality, "subsample_mode": "off"}
        if layout.format == "png":
            return {"compression": 6}
        if layout.format == "tiff":
            predictor = "float" if layout.bits == 32 else "horizontal"
            return {"compression": "deflate", "predictor": predictor, "bigtiff": self._big}
        if layout.format == "webp":
            if quality == 100:
                return {"lossless": True, "exact": True}
            return {"Q": quality, "smart_subsample": True, "alpha_q": 100, "exact": True}
        options: dict[str, Any] = {"compression": compression(layout.format), "effort": 4}
        options["bitdepth"] = 12 if layout.bits == 16 else 8
        if layout.extra or quality == 100:
            return {**options, "lossless": True}
        return {**options, "Q": quality, "subsample_mode": "off"}

    def _usual_quality(self) -> int:
        """Where none is asked for: what was lossless stays so where its format does."""
        format, like = self._layout.format, self._like
        usual = FORMATS[format].quality or 100
        if like is None or like.format != format or not is_lossless(like.path, format, like.page):
            return usual
        if format != "jpeg":
            return 100
        self._say(
            f"The source is a lossless JPEG, which is not written: the result has quality {usual};"
            " PNG and TIFF lose nothing."
        )
        return usual

    def _close(self) -> None:
        if self._blend is not None:
            self._blend.close()
            self._blend = None
        # Only what could not be written anyway is lost if the last buffer does not fit.
        with contextlib.suppress(OSError):
            if self._spool is not None:
                self._spool.close()
        self._spool = None
        self._target.clean_up()


def write_picture(
    path: str | Path,
    pixels: np.ndarray,
    *,
    like: PictureInfo | Path | None = None,
    bits: int | None = None,
    overwrite: bool = False,
    strip_metadata: bool = False,
    quality: int | None = None,
) -> list[str]:
    """Writes a whole picture; see `PictureWriter`.

    Args:
        path: the file; its suffix decides the format.
        pixels: `(H, W, 3)` in the working space.
        like: the source whose nature and metadata to keep, or None for plain sRGB.
        bits: 8, 16 or 32 (floating point) instead of the source's.
        overwrite: replace a file that is there.
        strip_metadata: leave out EXIF and XMP.
        quality: of lossy formats, 1 to 100; None for high.

    Returns:
        Sentences about what the target lacks, or holds in another form than `like`.
    """
    if isinstance(like, Path):
        like = inspect_picture(like, max_pixels=None)
    height, width, _ = pixels.shape
    with PictureWriter(
        path,
        like=like,
        width=width,
        height=height,
        bits=bits,
        overwrite=overwrite,
        strip_metadata=strip_metadata,
        quality=quality,
    ) as writer:
        writer.write(pixels)
    return writer.notes
