"""Router files: nothing unsound or hostile is used."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from world import CLASSES, tiny_clip, tiny_file

from urushi.errors import FileFormatError
from urushi.files.container import weights_hash
from urushi.files.model import ModelHeader, read_model, write_model
from urushi.files.router_file import RouterMemory, read_router, read_router_header, write_router


@pytest.fixture
def path(tmp_path) -> Path:
    return tiny_file(tmp_path)


def rewrite(path: Path, change, stored: dict[str, np.ndarray] | None = None) -> Path:
    """Write the file again with its metadata's object changed."""
    with safe_open(path, framework="np") as file:
        content = json.loads(file.metadata()["urushi"])
    if stored is not None:
        content["tensors_hash"] = weights_hash(stored)
    change(content)
    save_file(stored or load_file(path), path, metadata={"urushi": json.dumps(content)})
    return path


def check_refused(path: Path, words: str) -> None:
    with pytest.raises(FileFormatError, match=words):
        read_router(path)


def test_header_and_tensors_are_read(path):
    stored = read_router(path)
    assert stored.header == read_router_header(path)
    assert (stored.name, stored.graph) == ("tiny", None)
    assert stored.part("head")["classifier.weight"].shape == (len(CLASSES), 4)
    assert not any(name.endswith("num_batches_tracked") for name in stored.tensors)
    assert stored.tensors["encoder.project.weight"].dtype == np.float32


def test_half_precision_halves_the_file(tmp_path, path):
    stored = read_router(path)
    half = tmp_path / "half.safetensors"
    write_router(half, stored.tensors, stored.header, "float16")
    for name, tensor in read_router(half).tensors.items():
        np.testing.assert_allclose(tensor, stored.tensors[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(classes=["a", "a", "b"]), "a class is named twice"),
        (lambda c: c.update(classes=["a", "../b", "c"]), r"wrong at 'classes.1'"),
        (lambda c: c.update(added=["clean"]), "must be the last"),
        (lambda c: c.update(added=c["classes"]), "must be the last"),
        (lambda c: c.update(classes=["a", "b"]), "'head.classifier.weight' has shape"),
        (lambda c: c.update(mode="some"), "wrong at 'mode'"),
        (lambda c: c.update(temperature=0), "wrong at 'temperature'"),
        (lambda c: c.update(threshold=1.5), "wrong at 'threshold'"),
        (lambda c: c.update(other=1), "unknown key 'other'"),
        (lambda c: c["views"].update(size=10**9), "wrong at 'views.size'"),
        (lambda c: c["views"].update(most=10**9), "wrong at 'views.most'"),
        (lambda c: c["views"].update(grid=2), "grid has no effect"),
        (lambda c: c["encoder"].update(kind="pickle"), "wrong at 'encoder'"),
        (lambda c: c["encoder"].update(widths=[10**6]), "wrong at 'encoder.compact.widths.0'"),
        (lambda c: c["encoder"].update(widths=[]), "wrong at 'encoder.compact.widths'"),
        (lambda c: c["encoder"].update(width=16), "'head.extractor.0.weight' has shape"),
        (lambda c: c["encoder"].update(width=7), "wrong at 'encoder.compact.width'"),
        (lambda c: c.update(version=2), "newer than 1"),
        (lambda c: c.update(format="urushi-model"), "give it with --model"),
    ],
)
def test_wrong_metadata_is_refused(path, change, words):
    check_refused(rewrite(path, change), words)


def test_wrong_tensors_are_refused(path):
    tensors = load_file(path)
    bias = "head.classifier.bias"
    check_refused(
        rewrite(path, lambda c: None, {**tensors, "x": np.ones(1, np.float32)}), "'x' is none"
    )
    less = {name: tensor for name, tensor in tensors.items() if name != bias}
    check_refused(rewrite(path, lambda c: None, less), "'head.classifier.bias' is missing")
    hot = {**tensors, bias: np.full_like(tensors[bias], np.nan)}
    check_refused(rewrite(path, lambda c: None, hot), "NaN")
    changed = {**tensors, bias: tensors[bias] + 1}
    rewrite(path, lambda c: c.update(tensors_hash="0" * 64), changed)
    check_refused(path, "it was changed or damaged")


def test_a_memory_is_kept_and_checked(tmp_path, path):
    stored = read_router(path)
    assert stored.memory is None
    rng = np.random.default_rng(0)
    kept = RouterMemory(rng.normal(size=(5, 4)), np.eye(len(CLASSES))[[0, 1, 1, 2, 0]])
    write_router(path, {**stored.tensors, **kept.tensors}, stored.header, "float16")
    found = read_router(path).memory
    assert found is not None
    np.testing.assert_allclose(found.vectors, kept.vectors, atol=2e-3)
    np.testing.assert_array_equal(found.truths, kept.truths)
    for wrong in (kept._replace(truths=kept.truths[:, :1]), kept._replace(vectors=np.ones((4, 4)))):
        with pytest.raises(FileFormatError, match=r"memory\.truths' has shape"):
            write_router(path, {**stored.tensors, **wrong.tensors}, stored.header)
    alone = {**stored.tensors, "memory.truths": kept.truths}
    with pytest.raises(FileFormatError, match=r"memory\.vectors' is missing"):
        write_router(path, alone, stored.header)


def test_a_router_with_clip_holds_no_encoder(path):
    facts = {"kind": "clip", "name": "a/b", "width": 8, "projection_hash": "0" * 64}
    check_refused(
        rewrite(path, lambda c: c.update(encoder=facts)), "none of a router with a clip encoder"
    )


def test_other_files_are_named(tmp_path, path):
    model = tmp_path / "model.safetensors"
    header = ModelHeader(backbone="x", config={})
    write_model(model, {"a": np.ones(2, np.float32)}, header)
    check_refused(model, "a model file, expected a router file")
    with pytest.raises(FileFormatError, match="expected"):
        read_model(path)
    tiny_clip().save_pretrained(tmp_path)
    check_refused(tmp_path / "config.json", "not a complete safetensors file")
    check_refused(tmp_path / "absent.safetensors", "there is no such file")
    with pytest.raises(FileFormatError, match=r"must end in \.safetensors"):
        write_router(tmp_path / "x.pth", {}, read_router_header(path))
