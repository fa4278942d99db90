"""The functions of the package itself: `restore`, `adapt`, `Adapter`, a model from the hub."""

import numpy as np
import pytest
from pictures import picture, write_pictures
from test_fetch import serving
from world import SEEN, write_all_in_one, write_tiny_model

import urushi
from urushi import api
from urushi.api import found_pairs
from urushi.errors import (
    AdapterError,
    DataError,
    FileFormatError,
    MissingExtraError,
    TakenError,
    UnreadableError,
    UrushiError,
)
from urushi.files.model import read_model
from urushi.image import read_picture, write_picture
from urushi.inference import auto, members, zoo
from urushi.training.examples import pair_examples

DARK = np.float32(0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A zoo of tiny networks, whose router takes every picture of the tests for hazy."""
    root = tmp_path_factory.mktemp("zoo")
    base = read_model(write_tiny_model(root / "base.safetensors"))
    write_all_in_one(root, base.path)
    return root


@pytest.fixture
def shipped(folder, monkeypatch):
    for module in (zoo, members):
        monkeypatch.setattr(module, "ZOO", folder)
    api._kept.cache_clear()
    yield folder
    api._kept.cache_clear()


# --- restore ---


def test_an_array_is_mended_as_the_command_does(shipped):
    pixels = picture()
    mended = urushi.restore(pixels, engine="torch")
    assert (mended.shape, mended.dtype) == (pixels.shape, pixels.dtype)
    expected = urushi.AutoRestorer(engine="torch").restore(pixels)
    np.testing.assert_array_equal(mended, expected)
    alone = urushi.restore(pixels, task="none", engine="torch")
    np.testing.assert_array_equal(alone, urushi.Restorer(engine="torch").restore(pixels))
    assert not np.array_equal(alone, mended)


def test_a_file_is_mended_into_an_array_or_a_file(shipped, tmp_path):
    source = tmp_path / "a.png"
    write_picture(source, picture(), bits=16)
    mended = urushi.restore(source, engine="torch")
    np.testing.assert_array_equal(mended, urushi.restore(read_picture(source), engine="torch"))
    result = urushi.restore(str(source), tmp_path / "b.png", engine="torch")
    assert result.choice is not None
    assert [name for name, _ in result.choice.route] == [SEEN]
    np.testing.assert_allclose(read_picture(tmp_path / "b.png"), mended, atol=1 / 65535)
    with pytest.raises(TakenError, match="overwrite=True"):
        urushi.restore(source, tmp_path / "b.png", engine="torch")
    urushi.restore(source, tmp_path / "b.png", overwrite=True, engine="torch")


def test_files_may_be_urls(shipped, monkeypatch, tmp_path):
    store = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setenv("URUSHI_CACHE", str(tmp_path / "cache"))
    (path,) = write_pictures(tmp_path, 1)
    store.pipe("/in/a.png", path.read_bytes())
    store.pipe("/in/haze.safetensors", (shipped / "haze.safetensors").read_bytes())
    adapter = ("memory://in/haze.safetensors", 0.5)
    try:
        told = urushi.restore("memory://in/a.png", "memory://out/b.png", engine="torch")
        assert told.status == "restored"
        assert not told.target.exists()
        here = urushi.restore(path, tmp_path / "b.png", engine="torch")
        assert here.target == tmp_path / "b.png"
        assert store.cat("/out/b.png") == (tmp_path / "b.png").read_bytes()
        with pytest.raises(TakenError, match=r"memory://out/b\.png: exists already"):
            urushi.restore("memory://in/a.png", "memory://out/b.png", engine="torch")
        mended = urushi.restore("memory://in/a.png", adapters=[adapter], engine="torch")
        expected = urushi.restore(
            path, adapters=[(shipped / "haze.safetensors", 0.5)], engine="torch"
        )
        np.testing.assert_array_equal(mended, expected)
        loaded = urushi.Adapter.load("memory://in/haze.safetensors")
        assert loaded.header == urushi.Adapter.load(shipped / "haze.safetensors").header
        with pytest.raises(UrushiError, match=r"memory://in/none\.png"):
            urushi.restore("memory://in/none.png")
    finally:
        store.rm("/in", recursive=True)
        store.rm("/out", recursive=True)


def test_what_restores_is_made_ready_once(shipped, monkeypatch):
    made = []
    monkeypatch.setattr(api, "AutoRestorer", lambda **o: made.append(o) or auto.AutoRestorer(**o))
    for _ in range(2):
        urushi.restore(picture(), engine="torch", threads=1)
    assert made == [{"task": "auto", "engine": "torch", "threads": 1}]


def test_what_cannot_be_mended_is_said_in_a_sentence(shipped, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(UrushiError, match=r"a\.png"):
        urushi.restore(tmp_path / "a.png", tmp_path / "b.png", engine="torch")
    assert not (tmp_path / "b.png").exists()
    with pytest.raises(UnreadableError, match="write_picture"):
        urushi.restore(picture(), tmp_path / "b.png", engine="torch")  # pyright: ignore
    with pytest.raises(AdapterError, match="leave one out"):
        urushi.restore(picture(), task="haze", adapters=["haze"], engine="torch")


# --- adapters ---


def test_an_adapter_is_loaded_used_and_saved(shipped, tmp_path):
    adapter = urushi.Adapter.load("haze")
    assert adapter.path == shipped / "haze.safetensors"
    path = adapter.save(tmp_path / "mine.safetensors")
    again = urushi.Adapter.load(path)
    assert again.name == "mine"
    assert again.header.tensors_hash == adapter.header.tensors_hash
    with pytest.raises(TakenError, match="overwrite=True"):
        adapter.save(path)
    adapter.save(path, overwrite=True)
    found = urushi.restore(picture(), adapters=[(again, 0.5)], engine="torch")
    by_name = urushi.restore(picture(), adapters=[("haze", 0.5)], engine="torch")
    np.testing.assert_array_equal(found, by_name)


def test_a_base_is_taught_by_arrays(shipped, tmp_path):
    good = [picture(24, 32, shift=float(i)) for i in range(4)]
    pairs = [(DARK * one, one) for one in good]
    adapter = urushi.adapt(pairs, method="full", steps=12, device="cpu", seed=1)
    scores = adapter.header.scores["validation"]
    assert isinstance(scores, dict)
    assert scores["psnr"] > scores["psnr_base"] + 0.1
    mended = urushi.restore(pairs[0][0], adapters=[adapter], engine="torch")
    errors = [float(np.abs(image - good[0]).mean()) for image in (mended, pairs[0][0])]
    assert errors[0] < errors[1]


def test_pairs_are_arrays_files_or_folders(tmp_path):
    both = []
    for index in range(2):
        paths = [tmp_path / side / f"{index}.png" for side in ("input", "target")]
        for path, strength in zip(paths, (DARK, 1), strict=True):
            path.parent.mkdir(exist_ok=True)
            write_picture(path, strength * picture(shift=float(index)))
        both.append(tuple(paths))
    arrays = [tuple(read_picture(path) for path in pair) for pair in both]
    wide = [tuple((65535 * one).round().astype(np.uint16) for one in pair) for pair in arrays]
    folders = (tmp_path / "input", str(tmp_path / "target"))
    for number, given in enumerate((both, arrays, wide, iter(arrays), tmp_path, folders)):
        run = tmp_path / f"run{number}"
        pack = pair_examples(found_pairs(given, run / "given"), run).pack
        assert len(pack) == 1
        degraded, clean = (np.asarray(side) for side in pack.pair(0))
        np.testing.assert_array_equal(clean, (255 * arrays[0][1]).round())
        np.testing.assert_array_equal(degraded, (255 * arrays[0][0]).round())


def test_pairs_that_are_none_are_refused(shipped, tmp_path):
    good = picture()
    with pytest.raises(DataError, match="two files or two arrays"):
        found_pairs([good, good, good], tmp_path / "given")
    with pytest.raises(DataError, match=r"nowhere\.png"):
        urushi.adapt([(tmp_path / "nowhere.png", good)], steps=1)
    with pytest.raises(DataError, match="at least 2 are needed"):
        urushi.adapt([(good, good)], steps=1)
    with pytest.raises(AdapterError, match="one of them"):
        urushi.adapt([(good, good)], steps=1, minutes=1)
    with pytest.raises(AdapterError, match="did you mean 'lora'"):
        urushi.adapt([(good, good)], steps=1, method="loar")


def test_an_adapter_that_helps_nothing_is_not_given(shipped):
    # In 8 bits, which is how they are measured, the base does all that can be done.
    given = [np.rint(255 * picture(shift=float(i))).astype(np.uint8) for i in range(3)]
    mended = [(one, urushi.restore(one, task="none", engine="torch")) for one in given]
    with pytest.raises(AdapterError, match="no adapter was better"):
        urushi.adapt(mended, method="full", steps=1, device="cpu")


# --- the hub ---


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    return monkeypatch


def test_a_model_comes_from_the_hub_once(folder, hub):
    content = (folder / "base.safetensors").read_bytes()
    with serving({"model.safetensors": content, "model.onnx": b"a graph"}) as (endpoint, asked):
        hub.setenv("HF_ENDPOINT", endpoint)
        restorer = urushi.Restorer.from_hub("someone/tiny", engine="torch")
        assert any("model.onnx" in path for path in asked)
        asked.clear()
        again = urushi.Restorer.from_hub("someone/tiny", engine="torch")
        assert asked == []
    expected = urushi.Restorer(folder / "base.safetensors", engine="torch").restore(picture())
    for one in (restorer, again):
        np.testing.assert_array_equal(one.restore(picture()), expected)


def test_what_the_hub_has_not_is_said(folder, hub, tmp_path):
    with serving({"other.safetensors": b"x"}) as (endpoint, _):
        hub.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(FileFormatError, match="someone/tiny"):
            urushi.Restorer.from_hub("someone/tiny")
        with pytest.raises(FileFormatError, match=r"model\.onnx|other"):
            urushi.Restorer.from_hub("someone/tiny", file="other.safetensors")
    with pytest.raises(FileFormatError, match="owner/name"):
        urushi.Restorer.from_hub("tiny")
    hub.setattr("urushi.inference.hub.is_installed", lambda _: False)
    with pytest.raises(MissingExtraError, match=r"urushi\[hub\]"):
        urushi.Restorer.from_hub("someone/tiny")


def test_pictures_of_a_folder_keep_to_one_restorer(shipped, tmp_path):
    paths = write_pictures(tmp_path / "in", 2)
    for path in paths:
        urushi.restore(path, tmp_path / f"out-{path.name}", task="haze", engine="torch")
    assert api._kept.cache_info().misses == 1
