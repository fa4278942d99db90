"""Writes pictures as shards: tars of their files as they are, and the index."""

import hashlib
import io
import itertools
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from urushi.data.packed import PAIRS, PICTURES
from urushi.data.pairs import PairedFolder, find_pictures, whole_factor
from urushi.data.shards.index import (
    SAMPLES_NAME,
    ShardFile,
    ShardIndex,
    shard_name,
    write_index,
)
from urushi.data.shards.part_decoding import decoded, is_plain
from urushi.data.shards.shard_store import INDEX_NAME, Store
from urushi.errors import DataError, PictureError, TakenError
from urushi.image import inspect_picture
from urushi.names import counted, plain_name
from urushi.writing import taken

__all__ = ["SHARD_BYTES", "Sample", "ShardSummary", "find_pairs", "find_samples", "write_shards"]

SHARD_BYTES = 256 * 2**20
"""A tar is closed when it has so many bytes: few for a store, and each soon copied."""

_READ_AHEAD = 8
SIDES = ("input", "target")


@dataclass(frozen=True)
class Sample:
    """A picture, or the two of a pair, under one key.

    Attributes:
        key: its path without suffix and without dots in its last part, which WebDataset would take
            for the beginning of a suffix.
        files: the picture; or the input and the target.
    """

    key: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ShardSummary:
    """What was written.

    Attributes:
        place: the folder or URL.
        index: what `index.json` says.
        size: bytes of all tars.
        skipped: (key, reason) of what was left out.
    """

    place: str
    index: ShardIndex
    size: int
    skipped: tuple[tuple[str, str], ...]


def find_samples(sources: Sequence[Path]) -> list[Sample]:
    """Pictures, and folder trees of pictures; keys begin with the name of their folder.

    Raises:
        DataError: a source does not exist, or two pictures would have one key.
    """
    found = []
    for source in map(Path, sources):
        if source.is_dir():
            base = source.resolve().name
            for path in find_pictures(source):
                found.append(Sample(_key(f"{base}/{path.relative_to(source).as_posix()}"), (path,)))
        elif source.is_file():
            found.append(Sample(_key(source.name), (source,)))
        else:
            raise DataError(f"{source} does not exist: name a picture or a folder of pictures")
    return _unique(found)


def find_pairs(folders: Sequence[PairedFolder]) -> list[Sample]:
    """The pairs of folders; keys begin with the name of the folder that both sides lie in.

    Raises:
        DataError: two pairs would have one key.
    """
    found = []
    for folder in folders:
        same = folder.input_folder == folder.target_folder
        base = (folder.input_folder if same else folder.input_folder.parent).resolve().name
        for pair in folder:
            # Names of pairs have no suffix, and may have dots.
            found.append(Sample(_key(f"{base}/{pair.name}."), (pair.input, pair.target)))
    return _unique(found)


def _key(name: str) -> str:
    folder, slash, last = plain_name(name).rpartition("/")
    stem = last.rpartition(".")[0] or last
    return folder + slash + stem.replace(".", "_")


def _unique(samples: list[Sample]) -> list[Sample]:
    times = Counter(sample.key for sample in samples)
    twice = next((sample.key for sample in samples if times[sample.key] > 1), None)
    if twice is not None:
        first, second = [sample.files[0] for sample in samples if sample.key == twice][:2]
        raise DataError(
            f"{first} and {second} would both have the key {twice!r}: rename one, or shard them "
            "into places of their own"
        )
    return samples


def write_shards(
    samples: Sequence[Sample],
    store: Store,
    *,
    min_side: int = 1,
    shard_bytes: int = SHARD_BYTES,
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> ShardSummary:
    """Writes tars and their index; the files of pictures go into them as they are.

    Samples are shuffled first, so that whoever reads the tars one after another gets a mixture.
    A picture that cannot be read to its end or is too small is left out and listed in the summary;
    so is a pair whose target has neither the size of the input nor a whole multiple of it.

    Args:
        samples: all of pictures, or all of pairs.
        store: where to.
        min_side: samples with a shorter side than this many pixels are left out.
        shard_bytes: a tar is closed when it has so many bytes.
        seed: of the shuffling.
        overwrite: replace shards that are there.
        on_progress: called after every sample with (done, total, key).

    Raises:
        DataError: there is nothing to write, or nothing of it can be read.
        TargetError: the place holds shards already, or cannot be written.
    """
    if not samples:
        raise DataError("no pictures found to shard: name a folder that contains some")
    _make_room(store, overwrite)
    kind = PAIRS if len(samples[0].files) == 2 else PICTURES
    drawn = np.random.PCG64(np.random.SeedSequence(seed)).random_raw(len(samples))
    order = [samples[i] for i in np.argsort(drawn, kind="stable")]
    skipped: list[tuple[str, str]] = []
    contents = _Contents(store, shard_bytes)

    def usable() -> Iterator[tuple[Sample, list[_Member]]]:
        for done, (sample, members) in enumerate(_examined(order, min_side), start=1):
            if isinstance(members, str):
                skipped.append((sample.key, members))
            else:
                yield sample, members
            if on_progress is not None:
                on_progress(done, len(order), sample.key)

    contents.fill(usable())
    if not contents.keys:
        raise DataError(
            f"none of {counted(len(samples), 'picture')} can be sharded; the first because "
            f"{skipped[0][1]}"
        )
    index = write_index(store, kind, contents.shards, np.array(contents.rows), contents.keys)
    size = sum(shard.filesize for shard in contents.shards)
    return ShardSummary(store.place, index, size, tuple(skipped))


def _make_room(store: Store, overwrite: bool) -> None:
    """Refuses a place that holds shards; their index goes first where they are to be replaced."""
    there = store.sizes()
    ours = [n for n in (INDEX_NAME, SAMPLES_NAME, shard_name(0)) if n in there]
    if ours and not overwrite:
        raise TakenError(taken(store.shown(ours[0])))
    if INDEX_NAME in there:
        store.remove(INDEX_NAME)


@dataclass(frozen=True)
class _Member:
    data: bytes
    suffix: str
    height: int
    width: int
    plain: bool


def _examined(
    samples: Sequence[Sample], min_side: int
) -> Iterator[tuple[Sample, list[_Member] | str]]:
    """Reads in order, a few samples ahead in threads: the files, or why the sample is left out."""

    def examine(sample: Sample) -> tuple[Sample, list[_Member] | str]:
        if "\n" in sample.key:
            return sample, "its name contains a line break"
        try:
            members = [_read(path) for path in sample.files]
        except PictureError as error:
            return sample, str(error)
        sizes = [f"{m.width}x{m.height}" for m in members]
        if min(members[0].height, members[0].width) < min_side:
            return sample, (
                f"{sample.key} is {sizes[0]} pixels, less than {min_side} on its shorter side"
            )
        shapes = [(m.height, m.width) for m in members]
        if len(shapes) == 2 and whole_factor(*shapes) is None:
            return sample, f"{sample.key} is {sizes[0]} as input and {sizes[1]} as target"
        return sample, members

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(samples), _READ_AHEAD):
            yield from pool.map(examine, samples[start : start + _READ_AHEAD])


def _read(path: Path) -> _Member:
    info = inspect_picture(path)
    data = path.read_bytes()
    plain = is_plain(info)
    # A picture that breaks off further down would end a training days later.
    decoded(data, str(path), plain)
    return _Member(data, path.suffix.lower(), info.height, info.width, plain)


class _Contents:
    """The tars that were written, and what lies where in them."""

    def __init__(self, store: Store, shard_bytes: int) -> None:
        self._store, self._shard_bytes = store, shard_bytes
        self.shards: list[ShardFile] = []
        self.rows: list[tuple[int, ...]] = []
        self.keys: list[str] = []

    def fill(self, samples: Iterator[tuple[Sample, list[_Member]]]) -> None:
        """Writes one tar after another, until there are no samples left."""
        while (first := next(samples, None)) is not None:
            name, before = shard_name(len(self.shards)), len(self.keys)
            with self._store.new(name) as path:
                with tarfile.open(path, "w") as tar:
                    for sample, members in itertools.chain([first], samples):
                        self._add(tar, sample, members)
                        if tar.offset >= self._shard_bytes:
                            break
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = path.stat().st_size
            count = len(self.keys) - before
            self.shards.append(ShardFile(url=name, nsamples=count, filesize=size, sha256=digest))

    def _add(self, tar: tarfile.TarFile, sample: Sample, members: list[_Member]) -> None:
        sides = [""] if len(members) == 1 else [f".{side}" for side in SIDES]
        for side, member in zip(sides, members, strict=True):
            # Without times and owners, so that equal pictures make equal tars.
            entry = tarfile.TarInfo(sample.key + side + member.suffix)
            entry.size = len(member.data)
            tar.addfile(entry, io.BytesIO(member.data))
            begins = tar.offset - -(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            row = (len(self.shards), begins, entry.size, zlib.crc32(member.data))
            self.rows.append((*row, member.height, member.width, int(member.plain)))
        self.keys.append(sample.key)
