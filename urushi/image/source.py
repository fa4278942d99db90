"""Native rows of a file, from top to bottom, already turned the right way up, in bounded memory."""

import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from urushi.errors import UnreadableError
from urushi.image.formats.causes import unread
from urushi.image.formats.known import FORMATS
from urushi.image.formats.pillow_pictures import PillowRows
from urushi.image.info import Header, opened_broken
from urushi.image.libvips import fields_of, reason, vips

__all__ = ["NativeRows"]

_DTYPES = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16), 32: np.dtype(np.float32)}
_TURN_BYTES = 6 * 2**20


class NativeRows:
    """Streams a file's samples as they are stored: uint8, uint16 or float32, all channels.

    Pictures that lie on their side or upside down (orientations 3 to 8) need their last row first,
    so those are decoded once into a temporary file and read from there.

    Args:
        header: of the file, just opened. It gives its pixels once.
    """

    def __init__(self, header: Header) -> None:
        self.info = header.info
        self.dtype = _DTYPES[header.info.bits]
        self._image: Any = header.image
        self._said = header.notes, header.damage
        self._shift = _missing_bits(header)
        self._region: Any = None
        self._pillow: PillowRows | None = None
        self._turned: Any = None
        self._row = 0

    @property
    def bands(self) -> int:
        """Number of channels, alpha included."""
        return self._image.bands

    def read(self, rows: int) -> np.ndarray:
        """The next rows, `(n, W, bands)` with `n = min(rows, what remains)`.

        Raises:
            UnreadableError: the file is damaged further down, or a temporary file does not fit.
        """
        count = max(0, min(rows, self.info.height - self._row))
        if count == 0:
            return np.empty((0, self.info.width, self.bands), self.dtype)
        if self.info.orientation <= 2:
            block = self._decode(self._row, count)
            if self.info.orientation == 2:
                block = block[:, ::-1]
        else:
            if self._turned is None:
                self._turned = self._turn()
            size = count * self.info.width * self.bands * self.dtype.itemsize
            block = np.frombuffer(self._turned.read(size), self.dtype)
            block = block.reshape(count, self.info.width, self.bands)
        self._row += count
        return block

    def stored(self, size: int, channels: int) -> Iterator[np.ndarray]:
        """All rows as they lie in the file, some `size` bytes at a time, in place of `read`.

        Yields:
            `(n, W, channels)`, the first channels. It ends early where the file is damaged.
        """
        step = max(1, size // (self._image.width * self.bands * self.dtype.itemsize))
        for top in range(0, self._image.height, step):
            try:
                rows = self._decode(top, min(step, self._image.height - top))
            except UnreadableError:
                return  # told by whoever reads the picture
            yield rows[..., :channels]

    def close(self) -> None:
        """Lets go of the file and of the temporary one."""
        if self._turned is not None:
            self._turned.close()
            self._turned = None
        self._region = None
        self._pillow = None

    def __enter__(self) -> "NativeRows":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _decode(self, row: int, count: int) -> np.ndarray:
        """Rows as they lie in the file."""
        if not FORMATS[self.info.format].loader:
            return self._decode_with_pillow(row, count)
        try:
            data = self._fetch(row, count)
        except vips().Error as error:
            self._go_on_broken(error)
            data = self._fetch(row, count)
        samples = np.frombuffer(data, self.dtype)
        if self._shift:
            samples = np.bitwise_or(samples, np.right_shift(samples, 16 - self._shift))
        return samples.reshape(count, self._image.width, self.bands)

    def _decode_with_pillow(self, row: int, count: int) -> np.ndarray:
        try:
            if self._pillow is None:
                self._pillow = PillowRows(self.info.path, self.info.format)
            return self._pillow.read(row, count)
        except OSError as error:
            raise UnreadableError(unread(self.info.path, self.info.format, error)) from error

    def _fetch(self, row: int, count: int) -> Any:
        if self._region is None:
            self._region = vips().Region.new(self._image)
        return self._region.fetch(0, row, self._image.width, count)

    def _go_on_broken(self, error: Exception) -> None:
        """Opens a JPEG anew, to be read on in spite of its damage, and notes that.

        Raises:
            UnreadableError: another format, or most of the picture is missing.
        """
        self._region = None
        self._image = opened_broken(self.info.path, self.info.format, error, *self._said)

    def _turn(self) -> Any:
        """Decodes the whole picture into an unnamed temporary file, turned."""
        stride = self._image.width * self.bands * self.dtype.itemsize
        step = max(1, _TURN_BYTES // stride)
        # Closed by `close`, or by the system when the process ends.
        file = tempfile.TemporaryFile(prefix="urushi-", buffering=0)  # noqa: SIM115
        try:
            for top in range(0, self._image.height, step):
                count = min(step, self._image.height - top)
                self._place(file, self._decode(top, count), top)
            file.seek(0)
        except OSError as error:
            file.close()
            raise UnreadableError(
                f"'{self.info.path}' has to be turned, which needs a temporary file in"
                f" '{tempfile.gettempdir()}' ({reason(error)}): make room there or set TMPDIR."
            ) from error
        except BaseException:
            file.close()
            raise
        return file

    def _place(self, file: Any, block: np.ndarray, top: int) -> None:
        """Writes one block of stored rows to where it belongs in the turned picture.

        EXIF's numbers say where the first stored row and column are seen: 3 is a half turn, 4 a
        vertical mirror; 5 to 8 exchange rows and columns first, then mirror (6, 8, 7).
        """
        orientation = self.info.orientation
        start = top
        if orientation in (3, 4, 6, 7):
            block = block[::-1]
            start = self._image.height - top - block.shape[0]
        if orientation in (3, 7, 8):
            block = block[:, ::-1]
        pixel = self.bands * self.dtype.itemsize
        if orientation <= 4:
            file.seek(start * self.info.width * pixel)
            file.write(np.ascontiguousarray(block).data)
            return
        columns = np.ascontiguousarray(block.swapaxes(0, 1))
        for row in range(columns.shape[0]):
            file.seek((row * self.info.width + start) * pixel)
            file.write(columns[row].data)


def _missing_bits(header: Header) -> int:
    """How many low bits libvips left at zero: it shifts the 10 or 12 bits of AVIF up to 16."""
    if header.info.format not in ("avif", "heif") or header.info.bits != 16:
        return 0
    fields = fields_of(header.image)
    depth = int(header.image.get("bits-per-sample")) if "bits-per-sample" in fields else 16
    return 16 - depth
