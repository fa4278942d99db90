"""Shards: written, indexed, read at random, gone through in epochs; and what is wrong with some."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from commands import run
from pictures import picture

from urushi.app.output import EXIT_FAILED, EXIT_WELL
from urushi.data.pack import read_8bit
from urushi.data.pairs import PairedFolder
from urushi.data.shards.part_decoding import cut, decoded
from urushi.data.shards.scanning import index_tars
from urushi.data.shards.shard_store import open_store
from urushi.data.shards.shard_writing import find_pairs, find_samples, write_shards
from urushi.data.shards.sharded import ShardedPairs, ShardedPictures, open_shards
from urushi.errors import DataError, FileFormatError, TakenError, UnreadableError
from urushi.image import write_picture
from urushi.training.batches import CleanBatches, PairBatches
from urushi.training.streaming import Stream

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Seven pictures of several kinds and sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for index, name in enumerate(("a.1.jpg", "b.png", "c.jpg", "d.png", "deep/e.jpg", "f.tif")):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        write_picture(path, picture(shift=float(index))[: 40 + index, :48])
    write_picture(folder / "grey.png", picture()[:44, :48, :1].repeat(3, axis=2))
    return folder


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory) -> Path:
    """The same in several tars; read alone."""
    folder = tmp_path_factory.mktemp("shards")
    write_shards(find_samples([photos]), open_store(folder), shard_bytes=15_000)
    return folder


@pytest.fixture(scope="module")
def paired(world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("paired")
    write_shards(find_pairs([PairedFolder(world / "pairs")]), open_store(folder))
    return folder


def tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def test_tars_hold_the_files_as_they_are_and_the_index_counts_them(photos, shards):
    index = json.loads((shards / "index.json").read_text())
    assert index["count"] == 7
    assert [row["url"] for row in index["shardlist"]] == [path.name for path in tars(shards)]
    assert len(tars(shards)) > 1
    held = {}
    for path in tars(shards):
        with tarfile.open(path) as tar:
            held |= {entry.name: tar.extractfile(entry).read() for entry in tar}
    base = photos.name
    assert held[f"{base}/a_1.jpg"] == (photos / "a.1.jpg").read_bytes()
    assert held[f"{base}/deep/e.jpg"] == (photos / "deep/e.jpg").read_bytes()
    assert len(held) == 7


def test_equal_pictures_make_equal_shards(photos, shards, tmp_path):
    again = write_shards(find_samples([photos]), open_store(tmp_path), shard_bytes=15_000)
    assert again.index.sha256 == json.loads((shards / "index.json").read_text())["sha256"]
    assert [p.read_bytes() for p in tars(tmp_path)] == [p.read_bytes() for p in tars(shards)]
    other = write_shards(find_samples([photos]), open_store(tmp_path), seed=1, overwrite=True)
    assert other.index.sha256 != again.index.sha256


def test_every_picture_is_found_as_a_pack_would_hold_it(photos, shards):
    opened = open_shards(shards)
    assert type(opened) is ShardedPictures
    files = {path.relative_to(photos.parent).as_posix(): path for path in photos.rglob("*.*")}
    keys = {name.rpartition(".")[0].replace("a.1", "a_1"): path for name, path in files.items()}
    assert keys.keys() == set(opened.names)
    for index, key in enumerate(opened.names):
        expected = read_8bit(keys[key])
        assert np.array_equal(opened.picture(index), expected)
        crop = opened.crops(np.array([index]), np.array([5]), np.array([7]), 24)[0]
        assert np.array_equal(crop, expected[5:29, 7:31])


@pytest.mark.filterwarnings("ignore:unclosed file")  # the library leaves it to Python
def test_the_webdataset_library_reads_them(paired):
    wds = pytest.importorskip("webdataset")
    found = list(wds.WebDataset([str(path) for path in tars(paired)], shardshuffle=False))
    assert len(found) == 3
    assert {key for key in found[0] if not key.startswith("__")} == {"input.png", "target.png"}


# --- epochs ---


def batches(pack, rank=0, processes=1, *, batch=4, crops=1, kind=CleanBatches, **own):
    stream = Stream(pack, np.arange(len(pack)), batch, 5, crops, **own)
    return kind(pack, 16, batch, True, 5, CPU, None, rank, processes, stream=stream)


@pytest.mark.parametrize("crops", [1, 3])
def test_each_picture_comes_once_an_epoch_over_all_processes(shards, crops):
    pack = open_shards(shards)
    drawn = batches(pack, crops=crops)
    visits: dict[tuple[int, int], set[int]] = {}
    for step in range(21 * crops):
        for row, (sample, visit) in enumerate(
            zip(drawn.stream.samples(step), drawn.stream._visits(step), strict=True)
        ):
            visits.setdefault((int(visit), row), set()).add(int(sample))
    assert all(len(samples) == 1 for samples in visits.values())  # it stays for all its crops
    order = [visits[key].pop() for key in sorted(visits)]
    epochs = [order[begin : begin + 7] for begin in range(0, 7 * 11, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 8  # in another order each time


@pytest.mark.parametrize("crops", [1, 3])
def test_a_stream_goes_on_at_any_step_and_is_shared_by_any_number(shards, crops):
    whole = batches(open_shards(shards), crops=crops)
    steps = [whole(step).clean for step in range(9)]
    assert not torch.equal(steps[0], steps[1])
    resumed = batches(open_shards(shards), crops=crops)
    for step in (5, 6, 7, 2, 3):  # later, on from there, and back
        assert torch.equal(resumed(step).clean, steps[step])
    parts = [batches(open_shards(shards), rank, 2, crops=crops) for rank in (0, 1)]
    for step in range(4, 9):
        assert torch.equal(torch.cat([part(step).clean for part in parts]), steps[step])


def test_a_picture_is_read_once_for_all_its_patches_and_by_its_process_alone(shards, monkeypatch):
    read = Counter()
    plain = ShardedPictures._bytes

    packs = [open_shards(shards) for _ in range(2)]

    def counted(pack, i):
        # Threads of other tests' packs may still be reading.
        if any(pack is one for one in packs):
            read[id(pack), i] += 1
        return plain(pack, i)

    monkeypatch.setattr(ShardedPictures, "_bytes", counted)
    own = [batches(packs[rank], rank, 2, crops=4, last=8) for rank in (0, 1)]
    for step in range(8):
        for part in own:
            part(step)
    # Each of four rows shows three pictures in eight steps, one that has begun among them.
    expected = sum(len({int(v) for v in {own[0].stream._visits(s)[r] for s in range(8)}})
                   for r in range(4))  # fmt: skip
    assert sum(read.values()) == expected


def test_pairs_are_cut_at_the_same_place(world, paired):
    pack = open_shards(paired)
    assert type(pack) is ShardedPairs
    assert pack.scale == 1
    batch = batches(pack, kind=PairBatches)(3)
    assert not torch.equal(batch.degraded, batch.clean)
    for dark, clear in zip(batch.degraded, batch.clean, strict=True):
        assert np.corrcoef(dark.flatten(), clear.flatten())[0, 1] > 0.95


# --- in an object store ---


@pytest.fixture
def memory():
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def test_an_object_store_takes_and_gives_the_same(photos, shards, memory):
    place = "memory://bucket/shards"
    write_shards(find_samples([photos]), open_store(place), shard_bytes=15_000)
    assert memory.cat(f"{place}/shard-000000.tar") == tars(shards)[0].read_bytes()
    for step in (0, 4):
        ours, theirs = (batches(open_shards(p))(step).clean for p in (shards, f"{place}/"))
        assert torch.equal(ours, theirs)
    memory.rm(f"{place}/index.json")
    assert index_tars(open_store(place)).count == 7
    assert open_shards(f"{place}/index.json").sha256 == open_shards(shards).sha256


# --- tars of others ---


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture(scope="module")
def png(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("png") / "a.png"
    write_picture(path, picture()[:32, :40])
    return path.read_bytes()


def test_tars_of_others_are_indexed(tmp_path, png):
    write_tar(tmp_path / "0.tar", {"a.lq.png": png, "a.gt.png": png, "a.json": b"{}"})
    write_tar(tmp_path / "1.tar", {"b.gt.png": png, "b.lq.png": png})
    assert index_tars(open_store(tmp_path)).count == 2
    pack = open_shards(tmp_path)
    assert pack.names == ("a", "b")
    assert np.array_equal(pack.picture(0), pack.picture(3))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.png", 1), ("b.png", 1), ("a.png", 1)], "has the key 'a' twice"),
        ([("a.input.png", 1), ("b.input.png", 1)], "the key 'a' has no target"),
        ([("a.target.png", 1)], "the key 'a' has no input"),
        ([("../a.png", 1)], "leads out of the folder"),
        ([("/a.png", 1)], "leads out of the folder"),
        ([("a.png", 0)], "a picture that cannot be used"),
        ([("a.x.png", 1), ("a.y.png", 1)], "has 2 pictures under the key 'a'"),
        ([("a.input.png", 1), ("a.target.png", 1), ("b.png", 1)], "of pictures or of pairs"),
        ([("a.txt", 1)], "holds no pictures"),
    ],
)
def test_tars_that_cannot_be_learnt_from_are_told(tmp_path, png, members, words):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, whole in members:
            content = png if whole else png[: len(png) // 2]
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    with pytest.raises(DataError, match=words):
        index_tars(open_store(tmp_path))
    assert not (tmp_path / "index.json").exists()


def test_a_tar_that_is_cut_off_is_told(tmp_path, png):
    path = write_tar(tmp_path / "x.tar", {f"{i}.png": png for i in range(3)})
    content = path.read_bytes()
    for length in (len(png) + 700, 2 * (512 + -(-len(png) // 512) * 512), 100):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"x\.tar is (cut off|damaged)"):
            index_tars(open_store(tmp_path))


# --- what changed since ---


@pytest.fixture
def copied(shards, tmp_path) -> Path:
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_tar_that_changed_since_its_index_is_told(copied):
    pack = open_shards(copied)
    content = bytearray(tars(copied)[0].read_bytes())
    begin = int(pack._table[0, 1])
    content[begin + 50] ^= 1
    tars(copied)[0].write_bytes(content)
    with pytest.raises(DataError, match="has changed since its index was written"):
        pack.picture(0)
    tars(copied)[0].write_bytes(content[:-512])
    with pytest.raises(DataError, match="is cut off"):
        open_shards(copied)
    tars(copied)[0].unlink()
    with pytest.raises(DataError, match="is missing"):
        open_shards(copied)


def test_an_index_that_is_not_whole_is_told(copied, tmp_path_factory):
    index, stated = copied / "index.json", json.loads((copied / "index.json").read_text())
    for change, words in [
        ({"version": 2}, "version"),
        ({"shardlist": [{**stated["shardlist"][0], "url": "../x.tar"}]}, "url"),
        ({"shardlist": stated["shardlist"][:1]}, "not there"),
        ({"count": 6}, "keys"),
    ]:
        index.write_text(json.dumps({**stated, **change}))
        with pytest.raises(FileFormatError, match=words):
            open_shards(copied)
    index.write_text(json.dumps(stated))
    samples = copied / "samples.safetensors"
    samples.write_bytes(samples.read_bytes()[:-1] + b"x")
    with pytest.raises(FileFormatError, match="not the one"):
        open_shards(copied)
    index.write_text("[")
    with pytest.raises(FileFormatError, match="damaged"):
        open_shards(copied)
    with pytest.raises(FileFormatError, match="urushi data shard"):
        open_shards(tmp_path_factory.mktemp("empty"))


def test_shards_of_another_kind_are_refused(shards):
    with pytest.raises(FileFormatError, match="expected pairs"):
        ShardedPairs(shards)


def test_keys_that_two_pictures_would_have_are_refused(tmp_path):
    for name in ("a.png", "a.jpg"):
        write_picture(tmp_path / name, picture()[:16, :16])
    with pytest.raises(DataError, match="would both have the key"):
        find_samples([tmp_path])
    with pytest.raises(DataError, match="does not exist"):
        find_samples([tmp_path / "nothing"])


def test_damage_that_appears_while_training_names_the_picture(photos, tmp_path):
    data = (photos / "c.jpg").read_bytes()
    for broken in (data[: len(data) // 2], b""):
        with pytest.raises(UnreadableError, match="'c in x' is damaged"):
            decoded(broken, "c in x", True)
    assert cut(data, "c", True, []) == []


# --- the command ---


def test_the_command_shards_tells_and_trains(world, tmp_path):
    target = tmp_path / "shards"
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.png").write_bytes(b"no picture")
    done = run("data", "shard", world / "clean", bad, target, "--json")
    assert done.exit_code == EXIT_WELL, done.stderr
    document = json.loads(done.stdout)
    assert document["count"] == 3
    assert [row["name"] for row in document["skipped"]] == ["bad/x"]
    taken = run("data", "shard", world / "clean", target)
    assert taken.exit_code == EXIT_FAILED
    assert "--overwrite" in taken.stderr
    assert run("data", "shard", world / "clean", target, "--overwrite").exit_code == EXIT_WELL
    (target / "index.json").unlink()
    assert "3 pictures in 1 tar" in run("data", "index", target).stdout
    nothing = run("data", "index", bad)
    assert nothing.exit_code == EXIT_FAILED
    assert "holds no tars" in nothing.stderr


def test_shards_are_not_written_over_unasked(photos, copied):
    with pytest.raises(TakenError):
        write_shards(find_samples([photos]), open_store(copied))
    with pytest.raises(TakenError):
        index_tars(open_store(copied))
