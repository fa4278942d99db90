"""Damaged packs of pictures end in a sentence; none is read beyond its file."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from urushi.data.packed import PAIRS, PICTURES, PackedPairs, PackedPictures
from urushi.errors import FileFormatError

PIXELS = bytes(range(256)) * 36
INDEX = struct.pack("<3q", 0, 48, 64)


def write(path: Path, names=b"a", index=INDEX, kind=PICTURES, metadata=None, **changes) -> Path:
    ends = np.cumsum([len(PIXELS), len(index), len(names)]).tolist()
    said = {"urushi": kind, "version": "1", "sha256": "0" * 64}
    header = {
        "__metadata__": said if metadata is None else metadata,
        "pixels": {"dtype": "U8", "shape": [ends[0]], "data_offsets": [0, ends[0]]},
        "index": {"dtype": "I64", "shape": [len(index) // 24, 3], "data_offsets": ends[:2]},
        "names": {"dtype": "U8", "shape": [len(names)], "data_offsets": ends[1:]},
    }
    for key, value in changes.items():
        tensor, _, entry = key.partition("_")
        header[tensor][entry] = value
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + PIXELS + index + names)
    return path


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "pack.safetensors"


def test_a_sound_one_is_read(path):
    pack = PackedPictures(write(path))
    assert pack.names == ("a",)
    assert pack.picture(0).shape == (48, 64, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": b"\xff"},
        {"names": b"a\nb"},
        {"metadata": {"urushi": PICTURES, "version": "1"}},
        {"metadata": {"urushi": PICTURES, "version": 1, "sha256": "0"}},
        {"metadata": {"urushi": ["pictures"], "version": "1", "sha256": "0"}},
        {"metadata": {"urushi": PAIRS, "version": "1", "sha256": "0"}},
        {"metadata": "pictures"},
        {"index_shape": [3]},
        {"index_shape": [3, 1]},
        {"index_shape": [True, 3]},
        {"index_shape": [[1], 3]},
        {"index_shape": None},
        {"index_dtype": "U8"},
        {"index_dtype": ["I64"]},
        {"index_data_offsets": []},
        {"index_data_offsets": [0, 24, 24]},
        {"index_data_offsets": [-24, 0]},
        {"index_data_offsets": ["0", "24"]},
        {"index_data_offsets": [10**30, 10**30 + 24]},
        {"pixels_shape": [10**30]},
        {"pixels_shape": [-1]},
        {"pixels_shape": [0], "pixels_data_offsets": [0, 0]},
        {"pixels_shape": [9216.0]},
        {"index": struct.pack("<3q", 0, 2**62, 2**62)},
        {"index": struct.pack("<3q", 0, 2**31, 2**33)},
        {"index": struct.pack("<3q", 2**63 - 1, 1, 1)},
        {"index": struct.pack("<3q", -3, 1, 1)},
        {"index": struct.pack("<3q", 0, 0, 64)},
        {"index": struct.pack("<3q", 0, 48, 65)},
        {"index": b""},
    ],
    ids=str,
)
def test_damage_is_told(path, changes):
    with pytest.raises(FileFormatError, match="pack") as caught:
        PackedPictures(write(path, **changes))
    assert len(str(caught.value)) < 500


def test_the_header_may_be_anything(path):
    for text in (
        b"[" * 100_000,
        b"[]",
        b"3",
        b"{}",
        b'{"__metadata__": null}',
        b"\xff" * 9,
        b"9" * 5000,
    ):
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        with pytest.raises(FileFormatError):
            PackedPictures(path)


def test_any_changed_byte_of_the_header_ends_well(path):
    sound = write(path, kind=PAIRS, names=b"a", index=INDEX + INDEX).read_bytes()
    length = 8 + int.from_bytes(sound[:8], "little")
    rng = np.random.default_rng(0)
    for position in (*range(length), *range(len(sound) - 49, len(sound))):
        changed = bytearray(sound)
        changed[position] = rng.integers(256)
        path.write_bytes(changed)
        try:
            pack = PackedPairs(path)
        except FileFormatError:
            continue
        for i in range(2):
            assert pack.picture(i).size


@pytest.mark.parametrize("left", [0, 5, 8, 100, 400, 5000])
def test_what_is_cut_off_is_told(path, left):
    path.write_bytes(write(path).read_bytes()[:left])
    with pytest.raises(FileFormatError):
        PackedPictures(path)
