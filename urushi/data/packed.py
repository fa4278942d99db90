"""A pack: many pictures in one file of 8-bit pixels, one after another.

It is mapped into memory and read at random without a decoder, or put on an accelerator whole.

Layout (safetensors, format version 1):

* ``pixels`` uint8 ``(bytes,)``: for every picture H*W*3 bytes, rows from the top, RGB interleaved;
  at the end up to 63 zeros, so that what follows is aligned.
* ``index`` int64 ``(N, 3)``: where a picture begins in ``pixels``, its height, its width.
* ``names`` uint8: the N names as UTF-8, one per line. (In the header they would have to be known
  before the first picture is decoded.)
* metadata: ``urushi`` (the kind), ``version``, ``sha256`` of the three tensors in this order.

A pack of pairs is the same with the input of pair k as picture 2k and its target as picture 2k + 1.
The target has the size of the input, or the same whole multiple of it in all pairs.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int, UInt8

from urushi.errors import DataError, FileFormatError, brief

if TYPE_CHECKING:
    import torch

__all__ = ["PAIRS", "PICTURES", "VERSION", "PackedPairs", "PackedPictures", "Pixels"]

VERSION = 1
PICTURES, PAIRS = "pictures", "pairs"
_DTYPES = {"U8": np.dtype(np.uint8), "I64": np.dtype("<i8")}
# Dtype and number of axes.
_TENSORS = {"pixels": ("U8", 1), "index": ("I64", 2), "names": ("U8", 1)}
_LARGEST_HEADER = 10_000_000
_LONGEST_SIDE = 1 << 24
Pixels = UInt8[np.ndarray, "h w 3"]


class PackedPictures:
    """A pack, mapped into memory: random access without decoding and without reading it whole.

    Pictures are read-only views of the file. It may be sent to other processes, which map the file
    again.

    Args:
        path: a file written by :func:`urushi.data.pack.pack_pictures`.

    Raises:
        FileFormatError: the file is missing, damaged, or not a pack of this kind and version.
    """

    kind = PICTURES

    def __init__(self, path: str | Path) -> None:
        self.path: Path | str = Path(path)
        metadata, arrays = _map(self.path)
        if metadata["urushi"] != self.kind:
            raise FileFormatError(
                f"{path} is a pack of {metadata['urushi']!r:.40}, expected {self.kind!r}: "
                "make one with  urushi data pack"
            )
        self.sha256: str = metadata["sha256"]
        self.index: Int[np.ndarray, "n 3"] = np.array(arrays["index"])
        self.pixels: UInt8[np.ndarray, " bytes"] = arrays["pixels"]
        try:
            names = arrays["names"].tobytes().decode()
        except UnicodeDecodeError as error:
            raise FileFormatError(
                f"{path} is damaged: its names are not UTF-8; pack it again"
            ) from error
        self.names: tuple[str, ...] = tuple(names.split("\n"))
        per_name = 2 if self.kind == PAIRS else 1
        if len(self.names) * per_name != len(self.index) or not self._index_fits():
            raise FileFormatError(
                f"{path} is damaged: its index does not match its pixels; pack it again"
            )

    @classmethod
    def of_arrays(cls, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> "PackedPictures":
        """A pack of pictures that are in memory already; it has no file and cannot be sent.

        Args:
            pictures: `(H, W, 3)` uint8, at least one.
        """
        pack = cls.__new__(cls)
        pack.path = Path("pictures in memory")
        starts = np.cumsum([0, *(p.size for p in pictures)])
        pack.index = np.array(
            [(s, *p.shape[:2]) for s, p in zip(starts, pictures, strict=False)], np.int64
        )
        pack.pixels = np.concatenate([p.reshape(-1) for p in pictures])
        pack.names = tuple(str(number) for number in range(len(pictures)))
        pack.sha256 = hashlib.sha256(pack.pixels.data).hexdigest()
        return pack

    def _index_fits(self) -> bool:
        """Whether all pictures lie within the pixels; larger sides would exceed 64 bits below."""
        starts, sides = self.index[:, 0], self.index[:, 1:]
        if (starts < 0).any() or (starts > self.pixels.size).any():
            return False
        if (sides < 1).any() or (sides > _LONGEST_SIDE).any():
            return False
        return bool((starts + sides[:, 0] * sides[:, 1] * 3 <= self.pixels.size).all())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sizes(self) -> Int[np.ndarray, "n 2"]:
        """Height and width of every picture in pixels (of a pair, those of the input)."""
        return self.index[:: len(self.index) // len(self.names), 1:]

    def picture(self, i: int | np.integer) -> Pixels:
        """Picture ``i`` as a read-only uint8 view of the file."""
        start, height, width = (int(value) for value in self.index[i])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def row_starts(
        self,
        indices: Int[np.ndarray, " b"],
        tops: Int[np.ndarray, " b"],
        lefts: Int[np.ndarray, " b"],
        size: int,
    ) -> Int[np.ndarray, "b size"]:
        """Where in ``pixels`` each row of square crops begins; a row is ``size * 3`` bytes long.

        With the flat tensor of :meth:`to_tensor` on an accelerator, the batch is
        ``flat[starts[:, :, None] + arange(size * 3)].view(b, size, size, 3)``.

        Raises:
            DataError: a crop reaches beyond its picture.
        """
        start, height, width = self.index[indices].T
        outside = (tops < 0) | (lefts < 0) | (tops + size > height) | (lefts + size > width)
        if outside.any():
            k = int(np.argmax(outside))
            raise DataError(
                f"a crop of {size} at ({tops[k]}, {lefts[k]}) does not lie inside picture "
                f"{indices[k]} of {width[k]}x{height[k]} pixels: choose a smaller patch"
            )
        rows = tops[:, None] + np.arange(size)
        return start[:, None] + (rows * width[:, None] + lefts[:, None]) * 3

    def crops(
        self,
        indices: Int[np.ndarray, " b"],
        tops: Int[np.ndarray, " b"],
        lefts: Int[np.ndarray, " b"],
        size: int,
    ) -> UInt8[np.ndarray, "b size size 3"]:
        """Square crops of ``size`` pixels, one per entry of ``indices``, copied into one array."""
        starts = self.row_starts(indices, tops, lefts, size)
        batch = np.empty((len(starts), size, size * 3), dtype=np.uint8)
        for crop, rows in zip(batch, starts, strict=True):
            for line, at in zip(crop, rows, strict=True):
                line[:] = self.pixels[at : at + size * 3]
        return batch.reshape(len(starts), size, size, 3)

    def to_tensor(self, device: Any = "cpu") -> "torch.Tensor":
        """All pixels as one flat uint8 tensor on ``device``; ``index`` tells where a picture is."""
        import torch

        flat = torch.empty(self.pixels.size, dtype=torch.uint8, device=device)
        step = 1 << 26
        for start in range(0, self.pixels.size, step):
            flat[start : start + step] = torch.from_numpy(
                np.array(self.pixels[start : start + step])
            )
        return flat


class PackedPairs(PackedPictures):
    """A pack of pairs; pair ``i`` is pictures ``2 i`` (input) and ``2 i + 1`` (target)."""

    kind = PAIRS

    @cached_property
    def scale(self) -> int:
        """Sides of the targets divided by those of their inputs.

        Raises:
            FileFormatError: it is not the same whole number for all pairs.
        """
        inputs, targets = self.index[::2, 1:], self.index[1::2, 1:]
        scale = max(int(targets[0, 0]) // max(int(inputs[0, 0]), 1), 1)
        wrong = np.flatnonzero((scale * inputs != targets).any(1))
        if len(wrong):
            name = self.names[wrong[0]]
            raise FileFormatError(
                f"{self.path}: the target of {name!r} is not {scale} times as large as its input, "
                "as the first pair's is: pack pairs of each scale apart"
            )
        return scale

    def pair(
        self, i: int | np.integer
    ) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h2 w2 3"]]:
        """Input and target of pair ``i`` as read-only uint8 views."""
        i = range(len(self))[i]
        return self.picture(2 * i), self.picture(2 * i + 1)


def _map(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and arrays of a safetensors file, mapped read-only instead of loaded."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LARGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
            size = file.seek(0, 2) - 8 - length
        metadata = _checked_metadata(header)
        arrays = {}
        for name, (kind, axes) in _TENSORS.items():
            start, shape = _checked_entry(name, header.get(name), kind, axes, size)
            arrays[name] = np.memmap(
                path, dtype=_DTYPES[kind], mode="r", offset=8 + length + start, shape=shape
            )
        return metadata, arrays
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be opened ({error.strerror or error}): name an existing pack"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is not a pack of version {VERSION} or is cut off ({brief(error)}): "
            "make it with  urushi data pack"
        ) from error


def _checked_metadata(header: Any) -> dict[str, str]:
    """What a pack says about itself; a ValueError says what is wrong."""
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("no metadata")
    if metadata.get("version") != str(VERSION):
        raise ValueError(f"format version {metadata.get('version')!r:.40}")
    for key in ("urushi", "sha256"):
        if not isinstance(metadata.get(key), str):
            raise ValueError(f"no {key} in its metadata")
    return metadata


def _checked_entry(
    name: str, entry: Any, kind: str, axes: int, size: int
) -> tuple[int, tuple[int, ...]]:
    """Where a tensor begins behind the header, and its shape; a ValueError says what is wrong."""
    if not isinstance(entry, dict) or entry.get("dtype") != kind:
        raise ValueError(f"no tensor {name} of {kind}")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    for numbers, count in ((shape, axes), (offsets, 2)):
        well = isinstance(numbers, list) and len(numbers) == count
        # In JSON, true is no number; in Python it is.
        if not well or not all(type(n) is int and 0 <= n <= size for n in numbers):
            raise ValueError(f"{name} lies in no place of the file")
    taken = math.prod(shape) * _DTYPES[kind].itemsize
    if taken < 1 or offsets[1] - offsets[0] != taken or (name == "index" and shape[1] != 3):
        raise ValueError(f"{name} has the shape {shape} in {offsets[1] - offsets[0]} bytes")
    return offsets[0], tuple(shape)
