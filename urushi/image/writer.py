"""Writing pictures: whole or not at all, in the source's own colours and with its metadata."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from urushi.errors import TargetError
from urushi.image.blend import Blend
from urushi.image.formats import FORMATS
from urushi.image.info import PictureInfo, inspect_picture, read_header
from urushi.image.libvips import compression, interpretation, open_image, reason, vips
from urushi.image.metadata import Luggage
from urushi.image.spool import spool_header
from urushi.image.target import Layout, Target, lay_out

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
    with transparency is refused by JPEG.

    Args:
        target: the file; its suffix decides the format.
        like: the source whose nature and metadata to keep, or None for plain 8-bit sRGB.
        width, height: of what will be written; those of `like` if there is one, or the same whole
            multiple of both.
        bits: 8, 16 or 32 (floating point) instead of the source's.
        overwrite: whether an existing target may be replaced.
        strip_metadata: drop EXIF, XMP, IPTC and comments; the colour profile stays.
        quality: 1..100 for JPEG, WebP, AVIF and HEIF; 95, 95, 85 and 85 unless told. 100 makes
            WebP and AVIF lossless. Chroma is never subsampled, but lossy WebP knows no other way.
            AVIF with transparency is always lossless, because it would blur the transparency too.

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
    ) -> None:
        assert min(width, height) >= 1, (width, height)
        scale = 1 if like is None else max(width // like.width, 1)
        if like is not None and (scale * like.width, scale * like.height) != (width, height):
            raise TargetError(
                f"'{target}' cannot be {width} x {height} like '{like.path}', which is"
                f" {like.width} x {like.height}: leave out the likeness or write the same size."
            )
        if quality is not None and not 1 <= quality <= 100:
            raise TargetError(f"The quality {quality} for '{target}' is not in 1..100.")
        self.width, self.height = width, height
        self.notes: list[str] = []
        self._target = Target(Path(target), like, overwrite)
        self._layout: Layout = lay_out(self._target, like, width, height, bits)
        self._like, self._strip, self._quality = like, strip_metadata, quality
        self._row = 0
        self._scale = scale
        self._blend = Blend(like, self._layout, scale) if like is not None else None
        self._spool: BinaryIO | None = None
        try:
            layout = self._layout
            colour = layout.bands - layout.alpha
            head = spool_header(width, height, colour, layout.alpha, layout.dtype)
            self._spool = self._target.create_spool(head)
        except BaseException:
            self._close()
            raise

    def write(self, rows: np.ndarray) -> None:
        """Takes the next rows.

        Args:
            rows: `(n, W, 3)` in the working space. Values are clipped to what the file can hold.

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
        """Encodes the rows beside the target, then gives the file its name."""
        assert self._spool is not None
        try:
            self._spool.close()
            self._encode(self._target.create_result())
            if self._blend is not None:
                self._blend.close()
            self._target.commit()
        except OSError as error:
            raise self._target.failure(reason(error)) from error
        except vips().Error as error:
            raise self._target.failure(reason(error)) from error

    def _encode(self, path: Path) -> None:
        layout = self._layout
        meaning = interpretation(layout.kind, layout.dtype)
        image = open_image(self._target.spool, "tiff").copy(interpretation=meaning)
        keep, luggage = 0, None
        if self._like is not None:
            header = read_header(self._like.path, None)
            luggage = Luggage(header, layout.format, self._strip, self._scale, self.notes)
            image, keep = luggage.attach(image, profile=layout.keeps_profile)
        save = getattr(image, FORMATS[layout.format].loader.replace("load", "save"))
        save(str(path), keep=keep, **self._options())
        if luggage is not None:
            luggage.finish(path)

    def _options(self) -> dict[str, Any]:
        """How libvips is to encode this format."""
        layout = self._layout
        quality = self._quality or FORMATS[layout.format].quality or 100
        if layout.format == "jpeg":
            return {"Q": quality, "subsample_mode": "off"}
        if layout.format == "png":
            return {"compression": 6}
        if layout.format == "tiff":
            big = self.width * self.height * layout.bands * layout.dtype.itemsize > 2**31
            predictor = "float" if layout.bits == 32 else "horizontal"
            return {"compression": "deflate", "predictor": predictor, "bigtiff": big}
        if layout.format == "webp":
            if quality == 100:
                return {"lossless": True, "exact": True}
            return {"Q": quality, "smart_subsample": True, "alpha_q": 100, "exact": True}
        options: dict[str, Any] = {"compression": compression(layout.format), "effort": 4}
        options["bitdepth"] = 12 if layout.bits == 16 else 8
        if layout.alpha or quality == 100:
            return {**options, "lossless": True}
        return {**options, "Q": quality, "subsample_mode": "off"}

    def _close(self) -> None:
        if self._blend is not None:
            self._blend.close()
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
) -> None:
    """Writes a whole picture; see `PictureWriter`.

    Args:
        path: the file; its suffix decides the format.
        pixels: `(H, W, 3)` in the working space.
        like: the source whose nature and metadata to keep, or None for plain sRGB.
        bits, overwrite, strip_metadata, quality: as `PictureWriter`.
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
