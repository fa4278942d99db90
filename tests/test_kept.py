"""Compiled networks on disk: the same result, within bounds, and never in the way."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from world import write_random

from urushi.adapters.fold import fold
from urushi.errors import AdapterError, FileFormatError
from urushi.files.adapter import read_adapter
from urushi.files.model import read_model
from urushi.files.tensors import Tensors
from urushi.inference.engines import compiling
from urushi.inference.engines import compiling as kept
from urushi.inference.engines.openvino_engine import OpenVINOEngine


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("URUSHI_KEEP_COMPILED", "1")
    monkeypatch.setenv("URUSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_written", 0)
    return tmp_path / "cache" / "compiled"


@pytest.fixture(scope="module")
def base(exported):
    return exported


@pytest.fixture(scope="module")
def noise(base, tmp_path_factory):
    """The file of an expert."""
    path = tmp_path_factory.mktemp("expert") / "noise.safetensors"
    return write_random(path, read_model(base), size=0.3).path


@pytest.fixture
def view():
    return np.random.default_rng(0).random((1, 3, 32, 48), dtype=np.float32)


def is_there(tensors):
    assert isinstance(tensors, Tensors)
    return tensors.ready


def counted(monkeypatch, name):
    calls, plain = [], getattr(compiling, name)

    def count(*own, **options):
        calls.append(own)
        return plain(*own, **options)

    monkeypatch.setattr(compiling, name, count)
    return calls


def test_what_is_kept_restores_the_same_and_no_graph_is_read_again(base, folder, view, monkeypatch):
    model = read_model(base)
    first = OpenVINOEngine(model, threads=1).run(view)
    read = counted(monkeypatch, "read_graph")
    engine = OpenVINOEngine(read_model(base), threads=1)
    np.testing.assert_array_equal(engine.run(view), first)
    assert not read
    monkeypatch.setenv("URUSHI_KEEP_COMPILED", "0")
    np.testing.assert_array_equal(OpenVINOEngine(model, threads=1).run(view), first)
    assert len(read) == 1


def test_an_expert_that_is_kept_is_not_read_or_folded(base, noise, folder, view):
    model = read_model(base)
    expert = read_adapter(noise, lazily=True)
    folded = fold(model, [(expert, 1.0)], lazily=True)
    first = OpenVINOEngine(folded, threads=1).run(view)
    assert is_there(expert.tensors)
    assert is_there(folded.tensors)
    np.testing.assert_array_equal(
        OpenVINOEngine(fold(model, [(expert, 1.0)]), threads=1).run(view), first
    )
    expert = read_adapter(noise, lazily=True)
    folded = fold(model, [(expert, 1.0)], lazily=True)
    np.testing.assert_array_equal(OpenVINOEngine(folded, threads=1).run(view), first)
    assert not is_there(expert.tensors)
    assert not is_there(folded.tensors)
    half = OpenVINOEngine(fold(model, [(expert, 0.5)], lazily=True), threads=1).run(view)
    assert np.abs(half - first).max() > 0


@pytest.mark.parametrize("damage", ["changed", "short", "empty", "another"])
def test_damaged_files_are_ignored_and_replaced(base, folder, view, damage):
    model = read_model(base)
    first = OpenVINOEngine(model, threads=1).run(view)
    files = sorted(folder.iterdir())
    sound = {path: path.read_bytes() for path in files}
    for path, content in sound.items():
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        spoilt = {"changed": bytes(changed), "short": content[:40], "empty": b"", "another": b"x"}
        path.write_bytes(spoilt[damage])
    np.testing.assert_array_equal(OpenVINOEngine(model, threads=1).run(view), first)
    assert sorted(folder.iterdir()) == files
    found = [kept.find(path.name.partition(".")[0]) for path in files]
    assert all(found), "not replaced by sound ones"


def test_what_openvino_cannot_take_is_compiled_again(base, folder, view):
    model = read_model(base)
    first = OpenVINOEngine(model, threads=1).run(view)
    networks = [path for path in folder.iterdir() if path.stat().st_size > 10_000]
    assert networks
    for path in networks:  # sound by their own hash, and yet no network
        kept.keep(path.name.partition(".")[0], b"no network at all")
    np.testing.assert_array_equal(OpenVINOEngine(model, threads=1).run(view), first)


def test_where_nothing_can_be_written_pictures_are_restored_all_the_same(
    base, tmp_path, view, folder, monkeypatch
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("URUSHI_CACHE", str(tmp_path / "file"))
    model = read_model(base)
    assert OpenVINOEngine(model, threads=1).run(view).shape == view.shape
    assert (tmp_path / "file").read_text() == "no folder"


def test_the_folder_is_bounded_and_the_latest_stay(folder, monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 5000)
    monkeypatch.setattr(kept, "MOST_WRITTEN", 100)
    keys = [kept.key_of(number) for number in range(8)]
    for number, key in enumerate(keys):
        kept.keep(key, bytes(1000))
        path = folder / f"{key}.network"
        os.utime(path, (number + 1, number + 1))
        if number == 3:  # used again, so it is none of the oldest
            assert kept.find(keys[0]) == bytes(1000)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5000
    assert all(kept.find(key) for key in (keys[-1], keys[0]))
    assert kept.find(keys[1]) is None
    kept.keep(kept.key_of("large"), bytes(6000))
    assert kept.find(kept.key_of("large")) is None


def test_one_process_writes_so_many_at_most(folder, monkeypatch):
    monkeypatch.setattr(kept, "MOST_WRITTEN", 2)
    for number in range(4):
        kept.keep(kept.key_of(number), b"content")
    assert len(list(folder.iterdir())) == 2


def test_what_a_key_depends_on(monkeypatch):
    plain = kept.key_of("network", 1)
    assert kept.key_of("network", 1) == plain != kept.key_of("network", 2)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert kept.key_of("network", 1) != plain


def test_changed_weights_are_not_taken_for_kept_ones(base, folder, view):
    from dataclasses import replace

    model = read_model(base)
    first = OpenVINOEngine(model, threads=1).run(view)
    changed = {name: 0.9 * tensor for name, tensor in model.tensors.items()}
    engine = OpenVINOEngine(replace(model, tensors=changed), threads=1)
    assert np.abs(engine.run(view) - first).max() > 1e-3


def test_threads_and_processes_at_once(base, folder, view):
    code = (
        "import numpy as np, sys\n"
        "from pathlib import Path\n"
        "from urushi.files.model import read_model\n"
        "from urushi.inference.engines.openvino_engine import OpenVINOEngine\n"
        "view = np.random.default_rng(0).random((1, 3, 32, 48), dtype=np.float32)\n"
        "engine = OpenVINOEngine(read_model(Path(sys.argv[1])), threads=1)\n"
        "sys.stdout.write(str(float(engine.run(view).sum(dtype=float))))\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(base)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = {process.communicate()[0] for process in started}
    assert all(process.returncode == 0 for process in started)
    assert len(said) == 1
    model = read_model(base)
    assert said == {str(float(OpenVINOEngine(model, threads=1).run(view).sum(dtype=float)))}
    assert all(path.suffix == ".network" for path in folder.iterdir())
    key, failed = kept.key_of("shared"), []

    def use(number):
        for _ in range(20):
            kept.keep(key, bytes([number]) * 5000)
            found = kept.find(key)
            if found is not None and len(set(found)) != 1:
                failed.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_tensors_are_checked_by_their_first_use(noise, tmp_path):
    path = tmp_path / "noise.safetensors"
    content = bytearray(noise.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="hash"):
        read_adapter(path)
    expert = read_adapter(path, lazily=True)
    for _ in range(2):
        with pytest.raises(FileFormatError, match="hash"):
            dict(expert.tensors)
    path.unlink()
    with pytest.raises(FileFormatError, match="any more"):
        dict(expert.tensors)


def test_a_graph_that_was_changed_is_not_run_from_what_was_kept(base, folder, view, tmp_path):
    for suffix in (".safetensors", ".onnx"):
        (tmp_path / f"base{suffix}").write_bytes(base.with_suffix(suffix).read_bytes())
    OpenVINOEngine(read_model(tmp_path / "base.safetensors"), threads=1).run(view)
    graph = tmp_path / "base.onnx"
    graph.write_bytes(graph.read_bytes() + b" ")
    with pytest.raises(FileFormatError, match="names a graph"):
        OpenVINOEngine(read_model(tmp_path / "base.safetensors"), threads=1)


def test_unsound_adapters_are_told_of_when_an_engine_is_made(base, noise, folder):
    from dataclasses import replace

    model = read_model(base)
    expert = read_adapter(noise)
    less = dict(list(expert.tensors.items())[1:])
    bad = replace(expert, tensors=Tensors.made("of another content", less))
    with pytest.raises(AdapterError):
        OpenVINOEngine(fold(model, [(bad, 1.0)], lazily=True), threads=1)
