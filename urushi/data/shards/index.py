"""The index of shards: which tars there are, and where in them every picture lies.

Layout (format version 1), in one folder or under one prefix of an object store:

* `shard-000000.tar` and on: WebDataset tars (POSIX, uncompressed), with the bytes of the pictures'
  files as they are. A clean picture is `KEY.jpg`; a pair `KEY.input.png` and `KEY.target.png`.
* `samples.safetensors`: `pictures` int64 `(N, 7)`, one row a picture with the columns of `COLUMNS`,
  and `keys` uint8, the keys as UTF-8, one per line. A pair is two rows, its input first.
* `index.json`: kind, counts and hashes, and the tars under `shardlist` as the wids library wants
  them. It is written last: where it is, all is there.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Int64
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from urushi.data.packed import PAIRS
from urushi.data.shards.shard_store import INDEX_NAME, Store
from urushi.errors import DataError, FileFormatError, brief
from urushi.names import counted
from urushi.settings import Settings, parse_settings

__all__ = [
    "COLUMNS",
    "SAMPLES_NAME",
    "Contents",
    "ShardFile",
    "ShardIndex",
    "check_tars",
    "read_index",
    "shard_name",
    "write_index",
]

SAMPLES_NAME = "samples.safetensors"
VERSION = 1

COLUMNS = ("shard", "offset", "bytes", "crc32", "height", "width", "plain")
"""Number of the tar; where the file begins in it, its length and its CRC-32; height and width in
pixels; and 1 where the file holds plain 8-bit sRGB, which can be decoded in parts."""

# A name, and nothing that leads out of the folder.
_TAR = r"^[^/\\.\x00-\x1f][^/\\\x00-\x1f]{0,200}\.tar$"
_HASH = r"^[0-9a-f]{64}$"
_LONGEST_SIDE = 1 << 24


class ShardFile(Settings):
    """One tar.

    Attributes:
        url: its name, beside the index.
        nsamples: pictures or pairs in it.
        filesize: in bytes.
        sha256: of the file.
    """

    url: Annotated[str, Field(pattern=_TAR)]
    nsamples: Annotated[int, Field(ge=1)]
    filesize: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern=_HASH)]


class ShardIndex(Settings):
    """What `index.json` says.

    Attributes:
        urushi, version: kind and version of the file.
        wids_version: of the part that the wids library reads.
        kind: `pictures` or `pairs`.
        count: pictures or pairs.
        pixels: height times width, summed over all pictures.
        sha256: of the contents, equal for equal tars in equal order.
        samples: hash of `samples.safetensors`.
        shardlist: the tars.
    """

    urushi: Literal["shards"] = "shards"
    version: Literal[1] = VERSION
    wids_version: Literal[1] = 1
    kind: Literal["pictures", "pairs"]
    count: Annotated[int, Field(ge=1)]
    pixels: Annotated[int, Field(ge=1)]
    sha256: Annotated[str, Field(pattern=_HASH)]
    samples: Annotated[str, Field(pattern=_HASH)]
    shardlist: list[ShardFile]


@dataclass(frozen=True)
class Contents:
    """An index that was read.

    Attributes:
        index: what `index.json` says.
        pictures: one row a picture; see `COLUMNS`.
        keys: of the samples.
    """

    index: ShardIndex
    pictures: Int64[np.ndarray, "n 7"]
    keys: tuple[str, ...]


def shard_name(number: int) -> str:
    """The name of a tar by its number."""
    return f"shard-{number:06d}.tar"


def write_index(
    store: Store,
    kind: Literal["pictures", "pairs"],
    shards: list[ShardFile],
    pictures: Int64[np.ndarray, "n 7"],
    keys: list[str],
) -> ShardIndex:
    """Writes both files of an index, the one that makes it complete last."""
    tensors = {
        "pictures": np.ascontiguousarray(pictures, np.int64),
        "keys": np.frombuffer("\n".join(keys).encode(), np.uint8),
    }
    samples = save(tensors)
    contents = hashlib.sha256("\n".join(shard.sha256 for shard in shards).encode()).hexdigest()
    index = ShardIndex(
        kind=kind,
        count=len(keys),
        pixels=int((pictures[:, 4] * pictures[:, 5]).sum()),
        sha256=contents,
        samples=hashlib.sha256(samples).hexdigest(),
        shardlist=shards,
    )
    store.write(SAMPLES_NAME, samples)
    store.write(INDEX_NAME, (index.model_dump_json(indent=1) + "\n").encode())
    return index


def read_index(store: Store) -> Contents:
    """Reads an index, and checks that it is whole.

    Raises:
        FileFormatError: there is none, or it is damaged or of another kind.
        DataError: the store cannot be read.
    """
    place = store.shown(INDEX_NAME)
    try:
        stated = json.loads(store.read(INDEX_NAME))
    except DataError as error:
        raise FileFormatError(
            f"{place} cannot be read ({brief(error)}): name a folder that  urushi data shard  has"
            " finished"
        ) from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{place} is damaged ({brief(error)}): shard it again") from error
    if not isinstance(stated, Mapping):
        raise FileFormatError(f"{place} is no index of shards: make one with  urushi data shard")
    index = parse_settings(dict(stated), ShardIndex, FileFormatError, place)
    data = store.read(SAMPLES_NAME)
    if hashlib.sha256(data).hexdigest() != index.samples:
        raise FileFormatError(
            f"{store.shown(SAMPLES_NAME)} is not the one that {INDEX_NAME} belongs to: shard it"
            " again"
        )
    try:
        tensors = load(data)
        keys = tuple(tensors["keys"].tobytes().decode().split("\n"))
        pictures = _checked(tensors["pictures"], index, keys)
    except (SafetensorError, KeyError, ValueError) as error:
        raise FileFormatError(
            f"{store.shown(SAMPLES_NAME)} is damaged ({brief(error)}): shard it again"
        ) from error
    return Contents(index, pictures, keys)


def _checked(pictures: Any, index: ShardIndex, keys: tuple[str, ...]) -> Int64[np.ndarray, "n 7"]:
    """The table of pictures; a ValueError says what is wrong with it."""
    each = 2 if index.kind == PAIRS else 1
    shape = (each * index.count, len(COLUMNS))
    if pictures.dtype != np.int64 or pictures.shape != shape or len(keys) != index.count:
        raise ValueError(f"it has {counted(len(keys), 'key')} and a table of {pictures.shape}")
    if (pictures < 0).any() or (pictures[:, 0] >= len(index.shardlist)).any():
        raise ValueError("it names a tar that is not there")
    if (pictures[:, 4:6] < 1).any() or (pictures[:, 4:6] > _LONGEST_SIDE).any():
        raise ValueError("it has pictures without pixels")
    sizes = np.array([shard.filesize for shard in index.shardlist])[pictures[:, 0]]
    if (pictures[:, 1] > sizes).any() or (pictures[:, 2] > sizes - pictures[:, 1]).any():
        raise ValueError("it has a picture behind the end of its tar")
    return pictures


def check_tars(store: Store, index: ShardIndex) -> None:
    """Looks whether all tars are there, as long as the index says.

    Raises:
        DataError: one is missing or has another length.
    """
    if not store.lists:
        return  # what is missing is noticed when it is read
    found = store.sizes()
    for shard in index.shardlist:
        if shard.url not in found:
            raise DataError(
                f"{store.shown(shard.url)} is missing: copy it there, or shard the pictures again"
            )
        size = found[shard.url]
        if size is not None and size != shard.filesize:
            what = "cut off" if size < shard.filesize else "not the one that the index belongs to"
            raise DataError(
                f"{store.shown(shard.url)} is {what} ({size} bytes, expected {shard.filesize}): "
                "copy it again, or shard the pictures again"
            )
