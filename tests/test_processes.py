"""Restorers among threads and processes: sent, copied, shared, forked."""

import copy
import multiprocessing
import os
import pickle
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run_watched
from world import SEEN, write_all_in_one, write_tiny

from urushi.errors import AdapterError, EngineError, PictureError
from urushi.files.adapter import read_adapter
from urushi.files.model import read_model
from urushi.inference.arrays import as_array
from urushi.inference.auto import AutoRestorer
from urushi.inference.restorer import Restorer

ENGINES = ("torch", "openvino")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def path(exported, tmp_path_factory) -> Path:
    """In a folder of its own, for what is written beside it."""
    folder = tmp_path_factory.mktemp("models")
    return shutil.copytree(exported.parent, folder, dirs_exist_ok=True) / exported.name


def picture(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def matrix(array: np.ndarray) -> np.matrix:
    return array.view(np.matrix)  # its constructor warns


@pytest.mark.parametrize("engine", ENGINES)
def test_pickled_and_copied_it_restores_the_same(path, engine):
    restorer = Restorer(path, engine=engine, tile=32, overlap=8, threads=1)
    expected = restorer.restore(picture())
    for again in (
        pickle.loads(pickle.dumps(restorer)),
        pickle.loads(pickle.dumps(copy.copy(restorer))),  # of one that was never used
        copy.deepcopy(restorer),
    ):
        assert again.describe() == restorer.describe()
        assert np.array_equal(again.restore(picture()), expected)
        assert again.engine is not restorer.engine


def test_what_is_sent_are_paths_and_options(path, tmp_path, monkeypatch):
    monkeypatch.chdir(path.parent)
    sent = pickle.dumps(Restorer(Path(path.name), threads=1))
    assert len(sent) < 2000
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(sent).restore(picture()).shape == picture().shape


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_given_in_memory_goes_along(path, engine):
    model = read_model(path)
    for made in (Restorer(model, engine=engine), Restorer(path, engine=engine).engine):
        again = pickle.loads(pickle.dumps(made))
        restorers = [
            m if isinstance(m, Restorer) else Restorer.from_engine(m) for m in (made, again)
        ]
        one, two = (restorer.restore(picture()) for restorer in restorers)
        assert np.array_equal(one, two)
    through_engine = pickle.loads(pickle.dumps(restorers[0]))
    assert np.array_equal(through_engine.restore(picture()), one)


def test_a_file_that_changed_on_the_way_is_told(tmp_path):
    changing = write_tiny(tmp_path / "changing.safetensors")
    again = copy.copy(Restorer(changing, engine="torch"))
    write_tiny(changing, seed=1)
    for _ in range(2):  # it stays as it is, and is told each time
        with pytest.raises(EngineError, match=r"changing\.safetensors: changed after"):
            again.restore(picture())


def test_a_missing_attribute_is_an_error_of_whoever_asks(path):
    restorer = Restorer(path, engine="torch")
    for one in (restorer, copy.copy(restorer)):
        assert not hasattr(one, "nothing")
        with pytest.raises(AttributeError, match="'Restorer' object has no attribute 'nothing'"):
            _ = one.nothing


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pool_of_processes_takes_it(path, engine):
    restorer = Restorer(path, engine=engine, threads=1)
    pictures = [picture(seed) for seed in range(3)]
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        found = list(pool.map(restorer.restore, pictures))
    for image, restored in zip(pictures, found, strict=True):
        assert np.array_equal(restored, restorer.restore(image))


@pytest.mark.parametrize("engine", ENGINES)
def test_threads_are_served_one_after_the_other(path, engine):
    restorer = Restorer(path, engine=engine, tile=32, overlap=8)
    pictures = [picture(seed) for seed in range(8)]
    expected = [restorer.restore(image) for image in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(restorer.restore, pictures))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_notes_are_those_of_the_thread(path):
    restorer = Restorer(path, engine="torch")
    restorer.notes.append("of this picture")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: list(restorer.notes)).result() == []
        pool.submit(restorer.restore, picture()).result()
    assert restorer.notes == ["of this picture"]
    restorer.restore(picture())
    assert restorer.notes == []


FORKED = """
import os, signal, warnings
from urushi.inference.restorer import Restorer
restorer = Restorer(Path(sys.argv[1]), engine=sys.argv[2], threads=2)
image = np.zeros((300, 280, 3), np.uint8)
restorer.restore(image)
warnings.simplefilter("ignore")  # later Pythons warn of forking while there are threads
for make in (lambda: restorer, lambda: Restorer(Path(sys.argv[1]), engine=sys.argv[2])):
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            make().restore(image)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
restorer.restore(image)  # the parent goes on
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("engine", ENGINES)
def test_a_fork_is_noticed_and_told(path, tmp_path, engine):
    said = run_watched(FORKED, tmp_path / "home", path, engine)
    assert said.count(f"EngineError {engine} was used before this process was forked") == 2
    assert said.count('multiprocessing.get_context("spawn")') == 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not forked")
def test_a_forked_pool_gets_the_sentence(path, tmp_path):
    code = (
        "import multiprocessing\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from urushi.inference.restorer import Restorer\n"
        "restorer = Restorer(Path(sys.argv[1]), engine='torch')\n"
        "image = np.zeros((300, 280, 3), np.uint8)\n"
        "restorer.restore(image)\n"
        "import warnings; warnings.simplefilter('ignore')\n"  # of forking while there are threads
        "with ProcessPoolExecutor(1, multiprocessing.get_context('fork')) as pool:\n"
        "    try:\n"
        "        pool.submit(restorer.restore, image).result(timeout=600)\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    assert "EngineError torch was used" in run_watched(code, tmp_path / "home", path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [matrix, partial(np.ma.masked_array, mask=False)])
def test_other_kinds_of_arrays_are_arrays(path, engine, make):
    grey = np.random.default_rng(0).random((40, 50))
    restorer = Restorer(path, engine=engine)
    restored = restorer.restore(make(grey))
    assert type(restored) is np.ndarray
    assert np.array_equal(restored, restorer.restore(grey))


def test_tensors_and_lists_are_arrays_and_the_rest_is_not():
    for right in (picture(), picture().tolist(), torch.from_numpy(picture())):
        assert type(as_array(right)) is np.ndarray
        assert np.array_equal(as_array(right), picture())
    trained = torch.zeros(3, 3, requires_grad=True)
    for wrong in (None, "photo.jpg", 3, [[1, 2], [3]], trained):
        with pytest.raises(PictureError, match="must be a numpy array"):
            as_array(wrong)
    with pytest.raises(PictureError, match="not one of objects"):
        as_array(picture().astype(object))


# --- one that chooses ---


@pytest.fixture(scope="module")
def members(path) -> Path:
    return write_all_in_one(path.parent, path)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_that_chooses_is_sent_too(members, engine, tmp_path, monkeypatch):
    monkeypatch.chdir(members.parent)
    auto = AutoRestorer(Path(members.name), engine=engine, threads=1, guard=False)
    expected = auto.restore(picture())
    auto.choose_by(k=2, threshold=0.5)
    sent = pickle.dumps(auto)
    assert len(sent) < 2000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(sent)
    assert (again.k, again.threshold, again.task) == (2, 0.5, "auto")
    again.choose_by()
    assert np.array_equal(again.restore(picture()), expected)
    assert again.last is not None
    assert again.last.route == ((SEEN, 1.0),)
    assert again.restore(matrix(picture()[..., 0])).shape == picture().shape[:2]


def test_members_in_memory_go_along_and_changed_ones_are_told(members):
    auto = AutoRestorer(members, engine="torch")
    inside = pickle.loads(pickle.dumps(AutoRestorer(auto.members, model=auto.base, engine="torch")))
    assert np.array_equal(inside.restore(picture()), auto.restore(picture()))
    again = copy.copy(auto)
    member = auto.members.experts[SEEN].adapter.path
    before = {path: path.read_bytes() for path in members.parent.iterdir() if path.is_file()}
    write_all_in_one(members.parent, members.with_name("tiny.safetensors"), rank=3)
    try:
        assert read_adapter(member).path == member
        with pytest.raises(AdapterError, match="changed after"):
            again.restore(picture())
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def test_threads_get_each_the_expert_of_its_picture(members):
    auto = AutoRestorer(members, engine="openvino")

    def restored(seed):
        result = auto.restore(picture(seed))
        assert auto.last is not None
        return result, auto.last

    expected = [restored(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(restored, range(6)))
    for (one, choice), (two, other) in zip(expected, found, strict=True):
        assert np.array_equal(one, two)
        assert choice.describe() == other.describe()
