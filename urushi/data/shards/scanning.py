"""An index for WebDataset tars that are there already."""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader

import numpy as np

from urushi.data.packed import PAIRS, PICTURES
from urushi.data.pairs import INPUT_FOLDERS, TARGET_FOLDERS, whole_factor
from urushi.data.shards.index import ShardFile, ShardIndex, write_index
from urushi.data.shards.part_decoding import decoded, is_plain, seen
from urushi.data.shards.shard_store import INDEX_NAME, Store
from urushi.errors import DataError, PictureError, TakenError, brief
from urushi.image import is_picture_name
from urushi.names import counted
from urushi.writing import taken

__all__ = ["index_tars"]

# Two empty blocks end a tar.
_END = 2 * tarfile.BLOCKSIZE


@dataclass
class _Found:
    """What lies in the tars, as the index will say it."""

    shards: list[ShardFile] = field(default_factory=list)
    rows: list[tuple[int, ...]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    kind: str = ""


def index_tars(
    store: Store,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> ShardIndex:
    """Reads all tars of a place, and writes the index beside them.

    Files that are no pictures, such as captions, are passed over. A key with two pictures is a pair
    where their suffixes begin with the names of its sides, as in `KEY.input.png` and
    `KEY.target.png`; any of the words that folders of pairs go by will do.

    Args:
        store: where the tars lie.
        overwrite: replace an index that is there.
        on_progress: called after every tar with (done, total, name).

    Raises:
        DataError: there are no tars; or one is cut off, has a name that leads out of its folder, a
            key twice, an input without its target, or a picture that cannot be read.
        TargetError: there is an index already, or it cannot be written.
    """
    there = store.sizes()
    if INDEX_NAME in there and not overwrite:
        raise TakenError(taken(store.shown(INDEX_NAME)))
    names = sorted(name for name in there if name.endswith(".tar") and not name.startswith("."))
    if not names:
        raise DataError(f"{store.shown('')} holds no tars: name a folder that contains some")
    found = _Found()
    for done, name in enumerate(names, start=1):
        _index_one(store, name, found)
        if on_progress is not None:
            on_progress(done, len(names), name)
    kind = PAIRS if found.kind == PAIRS else PICTURES
    return write_index(store, kind, found.shards, np.array(found.rows), list(found.keys))


def _index_one(store: Store, name: str, found: _Found) -> None:
    place, before = store.shown(name), len(found.keys)
    with store.open(name) as file:
        size = file.seek(0, 2)
        file.seek(0)
        for key, files in _samples(file, place, size):
            if key in found.keys:
                where = found.keys[key]
                twice = "twice" if where == place else f"as {where} does"
                raise DataError(f"{place} has the key {key!r} {twice}: give each sample its own")
            if "\n" in key:
                raise DataError(f"{place} has a key with a line break, {key!r}: rename it")
            found.keys[key] = place
            _add(key, files, place, len(found.shards), found)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    count = len(found.keys) - before
    if count == 0:
        raise DataError(f"{place} holds no pictures: move it elsewhere")
    found.shards.append(ShardFile(url=name, nsamples=count, filesize=size, sha256=digest))


_File = tuple[str, int, bytes]  # the suffix, where it begins, and what it holds


def _samples(file: BufferedReader, place: str, size: int) -> Iterator[tuple[str, list[_File]]]:
    """Keys and their pictures, which follow one another."""
    key, files = "", list[_File]()
    for entry, data in _members(file, place, size):
        own, suffix = _split(entry.name)
        if own != key and files:
            yield key, files
            files = []
        key = own
        files.append((suffix, entry.offset_data, data))
    if files:
        yield key, files


def _members(
    file: BufferedReader, place: str, size: int
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for entry in tar:
                end = entry.offset_data + -(-entry.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if entry.name.startswith("/") or ".." in entry.name.split("/"):
                    raise DataError(
                        f"{place} has a file named {entry.name!r}, which leads out of the folder "
                        "that it would be unpacked into: make it anew"
                    )
                if entry.isfile() and end + _END <= size and is_picture_name(entry.name):
                    content = tar.extractfile(entry)
                    assert content is not None
                    yield entry, content.read()
                # As it goes on, tarfile remembers all it has seen.
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
    except tarfile.TarError as error:
        raise DataError(f"{place} is damaged ({brief(error)}): copy it again") from error
    if end + _END > size:
        raise DataError(f"{place} is cut off after {size} bytes: copy it again")


def _split(name: str) -> tuple[str, str]:
    """Key and suffix, as WebDataset divides a name: at the first dot of its last part."""
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def _add(key: str, files: list[_File], place: str, shard: int, found: _Found) -> None:
    """Adds the rows of one sample."""
    ordered = _ordered(key, files, place)
    kind = PAIRS if len(ordered) == 2 else PICTURES
    if found.kind not in ("", kind):
        raise DataError(
            f"{place} has {'one picture' if kind == PICTURES else 'two pictures'} under the key "
            f"{key!r}, unlike those before it: an index is of pictures or of pairs"
        )
    found.kind = kind
    shapes = []
    for suffix, begins, data in ordered:
        name = f"{place}: {key}.{suffix}"
        try:
            info = seen(data, name)
            plain = is_plain(info)
            decoded(data, name, plain)
        except PictureError as error:
            raise DataError(f"{place} has a picture that cannot be used: {error}") from error
        shapes.append((info.height, info.width))
        row = (shard, begins, len(data), zlib.crc32(data), info.height, info.width, int(plain))
        found.rows.append(row)
    if len(shapes) == 2 and whole_factor(*shapes) is None:
        (h, w), (th, tw) = shapes
        raise DataError(f"{place}: {key} is {w}x{h} pixels as input and {tw}x{th} as target")


def _ordered(key: str, files: list[_File], place: str) -> list[_File]:
    """The picture; or the input and the target of a pair."""
    sides: dict[int, _File] = {}
    for file in files:
        word = file[0].rpartition(".")[0].rpartition(".")[2]
        side = 0 if word in INPUT_FOLDERS else 1 if word in TARGET_FOLDERS else None
        if side is None or side in sides:
            break
        sides[side] = file
    else:
        if len(sides) == 2:
            return [sides[0], sides[1]]
        missing = "target" if 0 in sides else "input"
        raise DataError(f"{place}: the key {key!r} has no {missing}: add it, or leave the key out")
    if len(files) == 1:
        return files
    raise DataError(
        f"{place} has {counted(len(files), 'picture')} under the key {key!r}: expected one, or an "
        "input and a "
        f"target as {key}.input.png and {key}.target.png"
    )
