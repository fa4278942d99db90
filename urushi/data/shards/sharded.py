"""Shards as pictures at random access: what a training reads, from a folder or an object store."""

import threading
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from urushi.data.packed import PAIRS, PICTURES, PackedPairs, PackedPictures, Pixels
from urushi.data.shards.index import Contents, check_tars, read_index
from urushi.data.shards.part_decoding import Crop, cut, decoded
from urushi.data.shards.shard_store import INDEX_NAME, Store, open_store
from urushi.errors import DataError, FileFormatError

__all__ = ["ShardedPairs", "ShardedPictures", "are_shards", "open_shards"]


class ShardedPictures(PackedPictures):
    """Shards of pictures, read at random: as a pack, but decoded when they are wanted.

    What will be wanted is announced by `expect`, and then read and decoded by threads in the order
    of its announcement. It may be sent to other processes, which open the shards again.

    Args:
        place: the folder, its `index.json`, or a URL of either.
        workers: threads that read and decode; None takes one for each core, and 16 for a URL, where
            reading is waiting.

    Raises:
        FileFormatError: there are no shards of this kind and version.
        DataError: a tar is missing or has another length than when the index was written.
    """

    kind = PICTURES

    def __init__(self, place: str | Path, *, workers: int | None = None) -> None:
        self._set(open_store(place), None, workers)

    def _set(self, store: Store, contents: Contents | None, workers: int | None) -> None:
        contents = contents or read_index(store)
        if contents.index.kind != self.kind:
            raise FileFormatError(
                f"{store.place} holds shards of {contents.index.kind}, expected {self.kind}: make "
                "some with  urushi data shard"
            )
        check_tars(store, contents.index)
        self._store, self._index, self._table = store, contents.index, contents.pictures
        self.path = store.place
        self.sha256 = contents.index.sha256
        self.names = contents.keys
        # Where it begins plays no part here; height and width are as in a pack.
        self.index = contents.pictures[:, [1, 4, 5]]
        self.workers = workers or store.workers
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._expected: dict[tuple[int, Crop], list[tuple[Future[list[Pixels]], int]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (type(self), self._store.source, self.workers)

    # --- reading ---

    def _bytes(self, i: int) -> bytes:
        """The file of a picture, as it was when the index was written."""
        shard, start, length, expected = (int(value) for value in self._table[i, :4])
        tar = self._index.shardlist[shard].url
        data = self._store.read(tar, start, length)
        if len(data) != length or zlib.crc32(data) != expected:
            raise DataError(
                f"{self._store.shown(tar)} has changed since its index was written, "
                f"{self._named(i)} is not where it was: copy the tar again, or shard the pictures "
                "again"
            )
        return data

    def _named(self, i: int) -> str:
        """A picture as sentences name it."""
        each = len(self._table) // len(self.names)
        side = "" if each == 1 else ("input of ", "target of ")[i % 2]
        return f"{side}{self.names[i // each]}"

    def _in_tar(self, i: int) -> str:
        tar = self._index.shardlist[int(self._table[i, 0])].url
        return f"{self._named(i)} in {self._store.shown(tar)}"

    def picture(self, i: int | np.integer) -> Pixels:
        """Picture `i`, decoded whole."""
        i = range(len(self._table))[int(i)]
        return decoded(self._bytes(i), self._in_tar(i), bool(self._table[i, 6]))

    def _cut(self, i: int, crops: Sequence[Crop]) -> list[Pixels]:
        return cut(self._bytes(i), self._in_tar(i), bool(self._table[i, 6]), crops)

    # --- ahead of time ---

    def expect(self, wanted: Iterable[tuple[int, Sequence[Crop]]]) -> None:
        """Announces pictures and the parts of them that `crops` will be asked for.

        Each picture is read and decoded once for all of its parts.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, "shards")
        for i, parts in wanted:
            future = self._pool.submit(self._cut, i, parts)
            with self._lock:
                for number, part in enumerate(parts):
                    self._expected.setdefault((i, part), []).append((future, number))

    def forget(self) -> None:
        """Drops what was announced and not asked for."""
        with self._lock:
            waiting = [future for futures in self._expected.values() for future, _ in futures]
            self._expected.clear()
        for future in waiting:
            future.cancel()

    def _part(self, i: int, part: Crop) -> Pixels:
        with self._lock:
            announced = self._expected.get((i, part))
            future, number = announced.pop(0) if announced else (None, 0)
            if announced is not None and not announced:
                del self._expected[i, part]
        if future is None:
            return self._cut(i, [part])[0]
        return future.result()[number]

    def crops(
        self,
        indices: Int[np.ndarray, " b"],
        tops: Int[np.ndarray, " b"],
        lefts: Int[np.ndarray, " b"],
        size: int,
    ) -> UInt8[np.ndarray, "b size size 3"]:
        """See `PackedPictures.crops`; waits for what was announced, and reads what was not."""
        batch = np.empty((len(indices), size, size, 3), np.uint8)
        rows = zip(indices, tops, lefts, strict=True)
        for crop, (i, top, left) in zip(batch, rows, strict=True):
            crop[:] = self._part(int(i), (int(top), int(left), size))
        return batch


class ShardedPairs(ShardedPictures, PackedPairs):
    """Shards of pairs; see `ShardedPictures`."""

    kind = PAIRS


def _opened(kind: type[ShardedPictures], place: str, workers: int | None) -> ShardedPictures:
    return kind(place, workers=workers)


def open_shards(place: str | Path, *, workers: int | None = None) -> ShardedPictures:
    """Shards of pictures or of pairs, whichever lie there; see `ShardedPictures`."""
    store = open_store(place)
    contents = read_index(store)
    kind = ShardedPairs if contents.index.kind == PAIRS else ShardedPictures
    made = kind.__new__(kind)
    made._set(store, contents, workers)
    return made


def are_shards(place: str | Path) -> bool:
    """Whether a place is that of shards, and not the file of a pack."""
    from urushi.remote import is_url

    return is_url(place) or Path(place).is_dir() or Path(place).name == INDEX_NAME
