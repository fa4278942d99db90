"""Engines: they agree, choose as documented, fail in sentences, and tell nobody anything."""

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from commands import ROOT, run_watched
from networks import batch
from world import EXAMPLE, write_tiny

from urushi.backbones import create_backbone
from urushi.convert.graphs import verify_graph
from urushi.errors import (
    BackboneError,
    EngineError,
    FileFormatError,
    MissingExtraError,
    OutOfMemoryError,
)
from urushi.files.model import (
    LoadedModel,
    ModelHeader,
    graph_path,
    hash_of_graph,
    read_model,
    write_model,
)
from urushi.inference.engines import create_engine
from urushi.inference.engines.base import runs_when_small, working_memory
from urushi.inference.engines.torch_engine import TorchEngine
from urushi.inference.restorer import Restorer


@pytest.fixture(scope="module")
def model(exported) -> LoadedModel:
    """A tiny model whose graph was exported under watch, and run by torch there as well."""
    return read_model(exported)


def test_export_names_the_graph_in_the_model_file(model):
    assert model.header.graph_hash == hash_of_graph(graph_path(model.path).read_bytes())


@pytest.mark.processor
@pytest.mark.parametrize("size", [(4, 12), (28, 36), (132, 260)])
def test_openvino_equals_torch(model, size):
    images = batch(*size)
    expected = create_engine(model, engine="torch").run(images)
    restored = create_engine(model, engine="openvino").run(images)
    assert np.abs(expected - images).max() > 0.1
    assert np.abs(restored - expected).max() <= 1e-5


def test_torch_engine_equals_the_network(model):
    network = create_backbone("nafnet", EXAMPLE)
    network.load_state_dict({k: torch.tensor(v) for k, v in model.tensors.items()})
    images = batch()
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    assert np.abs(create_engine(model, engine="torch").run(images) - expected).max() < 1e-5


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_contract_of_run(model, engine):
    ready = create_engine(model, engine=engine, device="cpu", threads=1)
    assert (ready.name, ready.device, ready.precision) == (engine, "cpu", "float32")
    assert ready.size_multiple == 4
    assert ready.bytes_per_pixel > 0
    images = batch(40, 24)
    images.flags.writeable = False
    kept = images.copy()
    first = ready.run(images)
    again = ready.run(images)
    other = ready.run(batch(24, 40, 1))
    assert first.shape == images.shape
    assert first.dtype == other.dtype == np.float32
    assert np.array_equal(first, again)  # neither random nor overwritten by the later run
    assert np.array_equal(images, kept)
    assert first.flags.writeable
    # Pictures of one batch do not touch one another.
    assert np.abs(ready.run(images[1:]) - first[1:]).max() < 1e-6
    # A slice of a larger array is a batch like any other.
    assert np.abs(ready.run(batch(40, 48)[..., ::2][..., :24]).mean()) < 10


def test_a_signal_is_survived_after_engines_have_gone(model, tmp_path):
    run_watched(
        "import gc, signal\n"
        "model = read_model(Path(sys.argv[1]))\n"
        "one, other = (create_engine(model, engine='openvino') for _ in range(2))\n"
        "del one; gc.collect()\n"  # in the order in which they came
        "del other; gc.collect()\n"
        "arrived = []\n"
        "signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "assert arrived == [signal.SIGINT]",
        tmp_path / "home",
        model.path,
    )


@pytest.mark.processor
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bf16_is_close_and_falls_back_to_float32(model, engine):
    full = create_engine(model, engine=engine)
    try:
        half = create_engine(model, engine=engine, precision="bf16")
    except EngineError as error:
        pytest.skip(str(error))  # this CPU has no bfloat16
    images = batch(32, 32)
    assert half.precision == "bf16"
    difference = np.abs(half.run(images) - full.run(images))
    assert 0 < difference.max() < 0.1
    assert difference.mean() < 0.02
    exact = half.in_float32()
    assert exact.precision == "float32"
    assert exact.name == engine
    assert np.array_equal(exact.run(images), full.run(images))
    assert half.in_float32() is exact
    assert full.in_float32() is full


def test_compile_is_torch_s(model):
    compiled = create_engine(model, compile=True, device="cpu")
    assert compiled.name == "torch"
    assert compiled.in_float32() is compiled


def test_graph_repeats_no_weights(model):
    assert model.graph == graph_path(model.path)
    graph = onnx.load(model.graph).graph
    assert model.graph.stat().st_size < 100_000
    assert {entry.name for entry in graph.input} == {"image", *model.tensors}
    assert sum(len(entry.raw_data) for entry in graph.initializer) < 1000
    assert str(ROOT).encode() not in model.graph.read_bytes()


def test_one_graph_serves_other_weights(model, tmp_path):
    other = read_model(write_tiny(tmp_path / "other.safetensors", seed=1))
    other = replace(other, graph=model.graph)
    expected = create_engine(other, engine="torch").run(batch())
    assert np.abs(create_engine(other, engine="openvino").run(batch()) - expected).max() <= 1e-5
    assert np.abs(create_engine(model, engine="torch").run(batch()) - expected).max() > 1e-3


def test_float16_files_run(model, tmp_path):
    path = tmp_path / "half.safetensors"
    write_model(path, model.tensors, model.header, storage="float16")
    half = replace(read_model(path), graph=model.graph)
    restored = create_engine(half, engine="openvino").run(batch())
    assert np.abs(restored - create_engine(half, engine="torch").run(batch())).max() <= 1e-5


def test_openvino_runs_without_torch_and_in_silence(model, tmp_path):
    expected = create_engine(model, engine="torch").run(batch())
    np.save(tmp_path / "batch.npy", batch())
    run_watched(
        "sys.modules['torch'] = None\n"
        "engine = create_engine(read_model(Path(sys.argv[1])))\n"
        "assert engine.name == 'openvino'\n"
        "np.save(sys.argv[3], engine.run(np.load(sys.argv[2])))\n"
        "assert not any(name.startswith('torch.') for name in sys.modules)",
        tmp_path / "home",
        model.path,
        tmp_path / "batch.npy",
        tmp_path / "restored.npy",
    )
    assert np.abs(np.load(tmp_path / "restored.npy") - expected).max() <= 1e-5


def test_auto_chooses_by_what_there_is(model, monkeypatch):
    assert create_engine(model, device="cpu").name == "openvino"
    bare = replace(model, graph=None)
    assert create_engine(bare, device="cpu").name == "torch"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "openvino", None)
        assert create_engine(model, device="cpu").name == "torch"
        with pytest.raises(MissingExtraError, match=r"urushi\[fast\]"):
            create_engine(model, engine="openvino")
        without.setitem(sys.modules, "torch", None)
        with pytest.raises(MissingExtraError, match=r"an engine, which runs.*\[fast\]"):
            create_engine(model)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "torch", None)
        assert create_engine(model).name == "openvino"
        with pytest.raises(MissingExtraError, match=r"urushi\[torch\]"):
            create_engine(model, engine="torch")
        with pytest.raises(MissingExtraError, match=r"urushi\[torch\]"):
            create_engine(model, compile=True)
        with pytest.raises(EngineError, match="has no exported graph"):
            create_engine(bare)


def test_openvino_is_not_waited_for_where_nothing_describes_the_processor(model, monkeypatch):
    home = "urushi.inference.engines.openvino_engine"
    monkeypatch.setattr(f"{home}.describes_processor", lambda: False)
    monkeypatch.setattr(f"{home}._the_core", None)
    with pytest.raises(EngineError, match="neither /proc nor /sys describes the processor"):
        create_engine(model, engine="openvino")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "tensorflow"}, "'tensorflow' is unknown: expected auto, openvino, torch"),
        ({"device": "gpu"}, "'gpu' is unknown.*cuda, xpu, mps, cpu"),
        ({"device": "cpu:1"}, "unknown"),
        ({"device": "cuda:x", "engine": "torch"}, "unknown"),
        ({"precision": "float16"}, "expected float32, bf16, int8"),
        ({"threads": 0}, "at least 1"),
        ({"engine": "openvino", "compile": True}, "compile is an option of torch"),
    ],
)
def test_options_that_cannot_be(model, options, words):
    with pytest.raises(EngineError, match=words):
        create_engine(model, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device here")
def test_absent_device_names_what_there_is(model):
    with pytest.raises(EngineError, match=r"'cuda' is not available here: use .*cpu"):
        create_engine(model, device="cuda")


def test_openvino_needs_the_right_graph(model, tmp_path):
    other = read_model(write_tiny(tmp_path / "other.safetensors", width=8))
    with pytest.raises(EngineError, match="has no exported graph"):
        create_engine(other, engine="openvino")
    with pytest.raises(FileFormatError, match="the graph of another network"):
        create_engine(replace(other, graph=model.graph), engine="openvino")
    disguised = replace(other, graph=model.graph, header=model.header)
    with pytest.raises(FileFormatError, match="has shape"):
        create_engine(disguised, engine="openvino")
    with pytest.raises(FileFormatError, match="do not form a nafnet"):
        create_engine(disguised, engine="torch")
    missing = {k: v for k, v in model.tensors.items() if k != "intro.bias"}
    with pytest.raises(FileFormatError, match=r"'intro\.bias' is missing"):
        create_engine(replace(model, tensors=missing), engine="openvino")
    surplus = {**model.tensors, "more": np.zeros(1, np.float32)}
    with pytest.raises(FileFormatError, match="'more'"):
        create_engine(replace(model, tensors=surplus), engine="openvino")


@pytest.mark.parametrize("content", [b"", b"<html>", b"cut"])
def test_damaged_graph(model, tmp_path, content):
    broken = tmp_path / "broken.onnx"
    whole = model.graph.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2] if content == b"cut" else content)
    with pytest.raises(FileFormatError, match=r"broken\.onnx"):
        create_engine(replace(model, graph=broken), engine="openvino")


def test_a_graph_that_lacks_a_branch_is_found_out(model, tmp_path):
    # What tracing makes of local pooling: a graph of the global one, under the same name.
    local = read_model(write_tiny(tmp_path / "local.safetensors", pooling_window=16))
    with pytest.raises(BackboneError, match="depends on the size of the picture"):
        verify_graph(model, TorchEngine(local, device="cpu"))
    verify_graph(model, TorchEngine(model, device="cpu"))


@pytest.mark.processor
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_memory_that_runs_out_is_told_and_survived(model, tmp_path, engine):
    output = run_watched(
        "import resource\n"
        "from urushi.errors import OutOfMemoryError\n"
        "engine = create_engine(read_model(Path(sys.argv[1])), engine=sys.argv[2], threads=1)\n"
        "small = np.full((1, 3, 16, 16), 0.5, np.float32)\n"
        "before = engine.run(small)\n"
        "large = np.zeros((1, 3, 2400, 2400), np.float32)\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20),) * 2)\n"
        "try:\n"
        "    engine.run(large)\n"
        "except OutOfMemoryError as error:\n"
        "    print(error)\n"
        "assert np.array_equal(engine.run(small), before)",
        tmp_path / "home",
        model.path,
        engine,
    )
    assert "1 x 2400 x 2400" in output
    assert issubclass(OutOfMemoryError, EngineError)


def test_working_memory_grows_with_width():
    narrow = ModelHeader(backbone="nafnet", config={"width": 16})
    wide = ModelHeader(backbone="nafnet", config={"width": 32})
    unknown = ModelHeader(backbone="other", config={})
    one, two, three = (working_memory(h, "torch", "float32") for h in (narrow, wide, unknown))
    assert 0 < one < two < three


@pytest.mark.processor
@pytest.mark.parametrize("variable", ["OV_CPU_MAX_ISA", "ONEDNN_MAX_CPU_ISA"])
def test_bf16_is_there_only_where_it_calculates(model, tmp_path, monkeypatch, variable):
    # Each limits a part of OpenVINO, and the other part goes on believing in bfloat16.
    monkeypatch.setenv(variable, "AVX2")
    said = run_watched(
        "from urushi.errors import EngineError\n"
        "model = read_model(Path(sys.argv[1]))\n"
        "images = np.random.default_rng(0).random((1, 3, 16, 16), dtype=np.float32)\n"
        "full = create_engine(model, engine='openvino').run(images)\n"
        "try:\n"
        "    half = create_engine(model, engine='openvino', precision='bf16').run(images)\n"
        "    print(0 < np.abs(half - full).max() < 0.1)\n"
        "except EngineError as error:\n"
        "    print(error)",
        tmp_path / "home",
        model.path,
    )
    assert said == "True" or "no bfloat16 arithmetic" in said


class FailsWhenLarge:
    """An engine whose library has other words for memory that runs out."""

    name, device, precision = "torch", "cpu", "float32"
    size_multiple, fixed_patch, scale, bytes_per_pixel = 4, None, 1, 1.0

    def __init__(self, most: int) -> None:
        self.most = most

    def in_float32(self):
        return self

    def run(self, batch: np.ndarray) -> np.ndarray:
        if batch.shape[2] * batch.shape[3] > self.most:
            raise RuntimeError("No suitable implementations found")
        return batch


@pytest.mark.parametrize(
    ("most", "side", "told"), [(64 * 64, 400, True), (0, 400, False), (0, 64, False)]
)
def test_what_fails_when_large_alone_is_want_of_memory(most, side, told):
    engine = FailsWhenLarge(most)
    batch = np.zeros((1, 3, side, side), np.float32)
    assert runs_when_small(engine, batch, engine.run) is told


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_words_that_nobody_knows_are_a_smaller_tile(model, monkeypatch, engine):
    restorer = Restorer(model, engine=engine, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    expected = restorer.restore(image)
    infer = restorer.engine._infer

    def failing(batch):
        if batch.shape[2] * batch.shape[3] > 128 * 128:
            raise RuntimeError("No suitable implementations found")
        return infer(batch)

    monkeypatch.setattr(restorer.engine, "_infer", failing)
    restored = restorer.restore(image)
    assert restorer.describe()["tile"] <= 150
    assert restored.shape == expected.shape

    def broken(batch):
        raise RuntimeError("nothing goes")

    monkeypatch.setattr(restorer.engine, "_infer", broken)
    with pytest.raises(EngineError, match=r"failed.*nothing goes"):
        restorer.restore(image)
