"""Packs folders of pictures into one file of 8-bit pixels, for training.

Decoding a thousand JPEGs in every epoch costs more than the training step of a small network. A
pack holds the decoded pixels of all pictures; :mod:`urushi.data.packed` says how, and reads it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from urushi.data.packed import PAIRS, PICTURES, VERSION, PackedPairs, PackedPictures, Pixels
from urushi.data.pairs import whole_factor
from urushi.errors import DataError, PictureError, TargetError
from urushi.names import counted, plain_name
from urushi.writing import Part, refuse_taken

__all__ = [
    "Made",
    "PackSummary",
    "PackedPairs",
    "PackedPictures",
    "pack_pairs",
    "pack_pictures",
    "read_8bit",
]

_HEADER_BYTES = 1024  # reserved before the pixels, written last, padded with spaces
_ALIGNMENT = 64
_READ_AHEAD = 8

Made = tuple[str, Callable[[], Pixels]]
"""A picture without a file: its name, and what makes it."""

_Group = tuple[str, tuple[Path | Callable[[], Pixels], ...]]


@dataclass(frozen=True)
class PackSummary:
    """What went into a pack and what did not.

    Attributes:
        path: the file written.
        count: pictures (or pairs) packed.
        pixels: height times width, summed over all packed pictures.
        sha256: hash of the content, equal for equal pixels, sizes and names in equal order.
        skipped: (name, reason) of what was left out.
    """

    path: Path
    count: int
    pixels: int
    sha256: str
    skipped: tuple[tuple[str, str], ...]


def pack_pictures(
    sources: Sequence[Path],
    target: Path,
    *,
    min_side: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
    made: Sequence[Made] = (),
) -> PackSummary:
    """Packs pictures and folder trees of pictures into one file.

    16-bit and float pictures are rounded to 8 bits, grey ones repeated into three channels,
    alpha is dropped.
    A picture that cannot be read or is too small is left out and listed in the summary.

    Args:
        sources: pictures, or folders searched to any depth; packed in the order given, and
            sorted by name inside a folder.
        target: the file to write; complete when it appears.
        min_side: pictures with a shorter side than this many pixels are left out.
        overwrite: replace ``target`` if it exists.
        on_progress: called after every picture with (done, total, name).
        made: pictures without a file, packed after the others, such as
            `urushi.data.synthetic_pages.made_pages`.

    Raises:
        DataError: a source does not exist, or nothing can be packed.
        TargetError: ``target`` exists or cannot be written.
    """
    found = list(_find(sources))
    groups: list[_Group] = [(name, (path,)) for name, path in found]
    groups += [(name, (make,)) for name, make in made]
    return _pack(groups, target, PICTURES, min_side, overwrite, on_progress)


def pack_pairs(
    pairs: Iterable[tuple[str, Path, Path]],
    target: Path,
    *,
    min_side: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> PackSummary:
    """Packs (name, input, target) pictures; see :func:`pack_pictures` for the rest.

    A pair of which one half is unreadable, or whose target has neither the size of the input nor a
    whole multiple of it, is left out and listed.
    """
    groups: list[_Group] = [(name, (degraded, clean)) for name, degraded, clean in pairs]
    return _pack(groups, target, PAIRS, min_side, overwrite, on_progress)


def _find(sources: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    from urushi.image import is_picture_name

    for source in map(Path, sources):
        if source.is_dir():
            base = source.resolve().name
            for path in sorted(source.rglob("*")):
                if path.is_file() and is_picture_name(path):
                    yield plain_name(f"{base}/{path.relative_to(source).as_posix()}"), path
        elif source.is_file():
            yield plain_name(source.name), source
        else:
            raise DataError(f"{source} does not exist: name a picture or a folder of pictures")


def _pack(
    groups: Sequence[_Group],
    target: Path,
    kind: str,
    min_side: int,
    overwrite: bool,
    on_progress: Callable[[int, int, str], None] | None,
) -> PackSummary:
    target = Path(target)
    refuse_taken([target], overwrite)
    if not groups:
        raise DataError("no pictures found to pack: name a folder that contains some")
    skipped: list[tuple[str, str]] = []
    names: list[str] = []
    rows: list[tuple[int, int, int]] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Part(target)
    except OSError as error:
        raise TargetError(
            f"{target} cannot be written ({error.strerror}): choose another folder"
        ) from error
    try:
        with part.path.open("r+b") as file:
            writer = _Writer(file)
            for done, (name, members) in enumerate(_decoded(groups, kind, min_side), start=1):
                if isinstance(members, str):
                    skipped.append((name, members))
                else:
                    names.append(name)
                    rows.extend(writer.picture(pixels) for pixels in members)
                if on_progress is not None:
                    on_progress(done, len(groups), name)
            if not names:
                reason = skipped[0][1]
                raise DataError(
                    f"none of {counted(len(groups), 'picture')} can be packed; the first because "
                    f"{reason}"
                )
            digest = writer.finish(kind, rows, names)
        part.commit(overwrite)
    except OSError as error:
        raise TargetError(
            f"{target} cannot be written ({error.strerror}): free some space"
        ) from error
    finally:
        part.discard()
    total = sum(height * width for _, height, width in rows)
    return PackSummary(target, len(names), total, digest, tuple(skipped))


def _decoded(
    groups: Sequence[_Group], kind: str, min_side: int
) -> Iterator[tuple[str, list[Pixels] | str]]:
    """Decodes in order, a few groups ahead in threads: (name, pictures or why there are none)."""

    def decode(group: _Group) -> tuple[str, list[Pixels] | str]:
        name, members = group
        if "\n" in name:
            return name, "its name contains a line break"
        try:
            pictures = [read_8bit(m) if isinstance(m, Path) else m() for m in members]
        except PictureError as error:
            return name, str(error)
        sizes = [f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures]
        if min(pictures[0].shape[:2]) < min_side:
            return name, f"{name} is {sizes[0]} pixels, less than {min_side} on its shorter side"
        if kind == PAIRS and whole_factor(pictures[0].shape[:2], pictures[1].shape[:2]) is None:
            return name, f"{name} is {sizes[0]} as input and {sizes[1]} as target"
        return name, pictures

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(groups), _READ_AHEAD):
            yield from pool.map(decode, groups[start : start + _READ_AHEAD])


def read_8bit(path: Path) -> Pixels:
    """Reads a picture as RGB rounded to 8 bits, ``(H, W, 3)``; raises PictureError."""
    from urushi.image import read_picture

    pixels = np.clip(read_picture(path), 0.0, 1.0)
    return np.ascontiguousarray(np.rint(pixels * 255.0), dtype=np.uint8)


class _Writer:
    """Appends pictures after the space for the header; writes the header when sizes are known."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._position = 0
        file.write(b" " * (8 + _HEADER_BYTES))

    def _append(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._position += len(data)

    def picture(self, pixels: Pixels) -> tuple[int, int, int]:
        row = (self._position, pixels.shape[0], pixels.shape[1])
        self._append(pixels.reshape(-1).data)
        return row

    def finish(self, kind: str, rows: list[tuple[int, int, int]], names: list[str]) -> str:
        self._append(bytes(-self._position % _ALIGNMENT))
        after_pixels = self._position
        self._append(np.array(rows, dtype="<i8").tobytes())
        after_index = self._position
        self._append("\n".join(names).encode())
        digest = self._hash.hexdigest()

        def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
            return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}

        header = {
            "__metadata__": {"urushi": kind, "version": str(VERSION), "sha256": digest},
            "pixels": tensor("U8", [after_pixels], 0, after_pixels),
            "index": tensor("I64", [len(rows), 3], after_pixels, after_index),
            "names": tensor("U8", [self._position - after_index], after_index, self._position),
        }
        text = json.dumps(header).encode()
        assert len(text) <= _HEADER_BYTES
        self._file.seek(0)
        self._file.write(_HEADER_BYTES.to_bytes(8, "little") + text.ljust(_HEADER_BYTES))
        self._file.flush()
        os.fsync(self._file.fileno())
        return digest
