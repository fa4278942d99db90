"""A router file at work: on torch, and without torch from its exported graph."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from world import (
    NATIVE,
    tiny_clip,
    tiny_file,
    tiny_router,
    write_all_in_one,
    write_tiny_model,
)

from urushi.convert.router_graph import export_router
from urushi.errors import EngineError, FileFormatError
from urushi.files.router_file import read_router
from urushi.image import open_picture, write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.router_engine import open_router
from urushi.routing import make_views
from urushi.routing.encoders import ClipEncoder
from urushi.routing.router import Router, RouterHead, save_router


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tiny_file(tmp_path_factory.mktemp("router"), threshold=0.0)
    assert export_router(path) == path.with_suffix(".onnx")
    return path


def picture(height=50, width=37):
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


def test_torch_reads_what_the_router_reads(tmp_path):
    opened = open_router(tiny_file(tmp_path), engine="torch", device="cpu")
    found = opened.read(picture())
    with torch.inference_mode():
        views = torch.from_numpy(make_views(picture(), NATIVE))[None]
        expected = tiny_router()(views)
    np.testing.assert_allclose(found.logits, expected.logits[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.vector, expected.vector[0], rtol=1e-4, atol=1e-5)
    assert opened.decide(found).seen in opened.header.classes


@pytest.mark.parametrize("sides", [(1, 1), (50, 37), (16, 300)])
def test_openvino_reads_the_same(exported, sides):
    fast, plain = (open_router(exported, engine=name) for name in ("openvino", "torch"))
    found, expected = fast.read(picture(*sides)), plain.read(picture(*sides))
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.vector, expected.vector, rtol=1e-4, atol=1e-5)


def test_the_graph_is_taken_where_it_stands(exported, tmp_path):
    assert open_router(exported).engine.name == "openvino"
    assert open_router(tiny_file(tmp_path)).engine.name == "torch"


def test_the_router_runs_on_the_engine_that_was_asked_for(tmp_path):
    base = write_tiny_model(tmp_path / "base.safetensors")
    path = write_all_in_one(tmp_path, base)
    assert export_router(path)
    for engine, router in (("torch", "torch"), ("auto", "openvino")):
        made = AutoRestorer(path, engine=engine)
        assert made._router is not None
        assert made._router.engine.name == router
        assert made.choose(picture()).decision is not None


def test_a_graph_serves_other_weights_of_the_same_encoder(exported, tmp_path):
    path = tmp_path / "other.safetensors"
    save_router(path, tiny_router(seed=9), ("a", "b", "c"))
    shutil.copy(exported.with_suffix(".onnx"), path.with_suffix(".onnx"))
    fast, plain = (open_router(path, engine=name).read(picture()) for name in ("auto", "torch"))
    np.testing.assert_allclose(fast.logits, plain.logits, rtol=1e-4, atol=1e-5)


def test_rows_of_a_file_are_read_as_the_whole(exported, tmp_path):
    write_picture(tmp_path / "p.png", picture(300, 40))
    opened = open_router(exported)
    with open_picture(tmp_path / "p.png") as reader:
        found = opened.read_rows(reader.read, 300, 40)
    stored = np.rint(picture(300, 40) * 255) / 255
    np.testing.assert_allclose(found.logits, opened.read(stored).logits, rtol=1e-4, atol=1e-5)


def test_no_torch_is_needed(exported, tmp_path):
    script = """
import sys
sys.modules["torch"] = None
import numpy as np
from pathlib import Path
from urushi.inference.auto import AutoRestorer
from urushi.inference.router_engine import open_router
opened = open_router(Path(sys.argv[1]))
decision = opened.decide(opened.read(np.zeros((20, 30, 3), np.float32)))
assert opened.engine.name == "openvino" and decision.reason
"""
    command = [sys.executable, "-c", script, str(exported)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.returncode == 0, done.stderr


def test_engines_that_cannot_be_are_refused(exported, tmp_path):
    with pytest.raises(EngineError, match="'tensorrt' is unknown"):
        open_router(exported, engine="tensorrt")
    with pytest.raises(EngineError, match="CPU only"):
        open_router(exported, engine="openvino", device="cuda")
    with pytest.raises(EngineError, match="no exported graph"):
        open_router(tiny_file(tmp_path), engine="openvino")
    other = tmp_path / "tiny.safetensors"
    other.with_suffix(".onnx").write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match="not a complete ONNX graph"):
        open_router(other, engine="openvino")


def test_clip_runs_on_torch_alone(tmp_path):
    tiny_clip().save_pretrained(tmp_path / "clip")
    encoder = ClipEncoder(str(tmp_path / "clip"), download=False)
    path = tmp_path / "clip.safetensors"
    views = NATIVE.model_copy(update={"size": 28})
    save_router(path, Router(encoder, RouterHead(8, 2), views), ("a", "b"))
    assert open_router(path).read(picture()).logits.shape == (2,)
    with pytest.raises(EngineError, match="cannot run the CLIP"):
        open_router(path, engine="openvino")
    with pytest.raises(EngineError, match="only torch runs"):
        export_router(path)


def test_results_that_are_not_finite_are_refused(tmp_path):
    opened = open_router(tiny_file(tmp_path), engine="torch")

    class Broken:
        name, device = "torch", "cpu"

        def embed(self, views):
            return np.full((len(views), 8), np.nan, np.float32)

    opened.engine = Broken()
    with pytest.raises(EngineError, match="logits that are not finite"):
        opened.read(picture())
    assert read_router(tmp_path / "tiny.safetensors").graph is None
