"""Model files: what is written comes back, and nothing that is unsound is accepted."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from urushi.errors import FileFormatError
from urushi.files.model import (
    ModelHeader,
    architecture_hash,
    describe_model,
    graph_path,
    read_header,
    read_model,
    weights_hash,
    write_model,
)

CONFIG = {"width": 4, "enc_blk_nums": [1, 1]}
HEADER = ModelHeader(
    backbone="nafnet",
    config=CONFIG,
    description="A tiny network.",
    degradations=["gaussian noise", "jpeg"],
    recipe={"steps": 10, "optimizer": {"name": "adamw"}},
    scores={"cbsd68-noise25": {"psnr": 29.5}},
    licence="Apache-2.0",
    data="Made up.",
)


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "intro.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "intro.bias": rng.normal(size=4).astype(np.float32),
        "scale": np.array(0.5, np.float32),
    }


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "tiny.safetensors"
    write_model(path, tensors(), HEADER)
    return path


def rewrite(path: Path, change) -> Path:
    """Write the file again with its metadata's object changed."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["urushi"])
    changed = change(header)
    text = json.dumps(header if changed is None else changed)
    save_file(load_file(path), path, metadata={"urushi": text})
    return path


def test_what_is_written_comes_back(path):
    model = read_model(path)
    for name, expected in tensors().items():
        assert np.array_equal(model.tensors[name], expected)
        assert model.tensors[name].shape == expected.shape
    assert model.header == HEADER.model_copy(update={"weights_hash": weights_hash(tensors())})
    assert model.header == read_header(path)
    assert model.graph is None


def test_float16_halves_the_file_and_is_read_as_float32(tmp_path, path):
    half = tmp_path / "half.safetensors"
    big = {"weight": np.linspace(-1, 1, 5000, dtype=np.float32)}
    write_model(path, big, HEADER)
    write_model(half, big, HEADER, storage="float16")
    assert half.stat().st_size < 0.6 * path.stat().st_size
    read = read_model(half).tensors["weight"]
    assert read.dtype == np.float32
    assert np.array_equal(read, big["weight"].astype(np.float16).astype(np.float32))
    assert describe_model(half)["storage"] == ["float16"]


def test_strided_and_float64_tensors_are_stored_by_value(path):
    array = np.arange(12, dtype=np.float64).reshape(3, 4).T
    write_model(path, {"weight": array}, HEADER)
    assert np.array_equal(read_model(path).tensors["weight"], array)


def test_same_model_gives_same_bytes(tmp_path, path):
    other = tmp_path / "other.safetensors"
    write_model(other, dict(reversed(tensors().items())), HEADER)
    assert other.read_bytes() == path.read_bytes()


def test_hash_depends_on_names_shapes_dtypes_and_values():
    base = tensors()
    changed = [
        {**base, "scale": np.array(0.25, np.float32)},
        {**base, "scale": np.array([0.5], np.float32)},
        {**base, "scale": np.array(0.5, np.float16)},
        # The same bytes, which mean something else.
        {**base, "scale": base["scale"].view(np.int32)},
        {**{k: v for k, v in base.items() if k != "scale"}, "scales": base["scale"]},
    ]
    assert len({weights_hash(x) for x in [base, *changed]}) == 6
    assert weights_hash(dict(reversed(base.items()))) == weights_hash(base)


def test_architecture_hash_ignores_key_order_and_weights():
    same = HEADER.model_copy(update={"config": dict(reversed(CONFIG.items())), "weights_hash": "x"})
    other = HEADER.model_copy(update={"config": {**CONFIG, "width": 8}})
    assert architecture_hash(same) == architecture_hash(HEADER) != architecture_hash(other)


def test_description_counts_and_names_the_graph(path):
    graph_path(path).write_bytes(b"graph")
    summary = describe_model(path)
    assert summary["parameters"] == 4 * 27 + 4 + 1
    assert summary["tensors"] == 3
    assert summary["size"] == path.stat().st_size
    assert summary["graph"] == str(path.with_suffix(".onnx"))
    assert summary["header"]["scores"] == {"cbsd68-noise25": {"psnr": 29.5}}
    assert json.loads(json.dumps(summary)) == summary


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"short", "not a complete safetensors"),
        (b"\x00" * 64, "not a complete safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\n <html lang='en'></html>", "web page"),
        (pickle.dumps({"weight": [1.0] * 10}), "pickle"),
        (b"PK\x03\x04" + b"\x00" * 60, "never opened"),
    ],
)
def test_other_files_are_named(path, content, words):
    path.write_bytes(content)
    for read in (read_header, read_model, describe_model):
        with pytest.raises(FileFormatError, match=words):
            read(path)


def test_truncation_at_any_place_is_found(path):
    whole = path.read_bytes()
    for length in [*range(1, 40), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            read_model(path)


def test_a_changed_weight_is_found(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    read_header(path)
    with pytest.raises(FileFormatError, match="changed or damaged"):
        read_model(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileFormatError, match="no such file"):
        read_model(tmp_path / "none.safetensors")
    with pytest.raises(FileFormatError, match="a folder"):
        read_model(tmp_path)


def test_safetensors_without_our_metadata(path):
    save_file(tensors(), path)
    with pytest.raises(FileFormatError, match="without Urushi's metadata"):
        read_model(path)


def test_surplus_metadata(path):
    text = HEADER.model_dump_json()
    save_file(tensors(), path, metadata={"urushi": text, "format": "pt"})
    with pytest.raises(FileFormatError, match="'format'"):
        read_model(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update(version=2), "newer than 1.*upgrade"),
        (lambda h: h.update(version=0), "version"),
        (lambda h: h.update(version="one"), "version"),
        (lambda h: h.update(format="other"), "'other'"),
        (lambda h: h.update(colour="red"), "unknown key 'colour'"),
        (lambda h: h.update(config=[1]), "config"),
        (lambda h: h.update(backbone=""), "backbone"),
        (lambda h: {k: v for k, v in h.items() if k != "backbone"}, "backbone"),
        (lambda h: h.update(weights_hash=""), "says nothing"),
        (lambda h: [1, 2], "expected 'urushi-model'"),
        (lambda h: "text", "expected 'urushi-model'"),
    ],
)
def test_headers_that_are_wrong(path, change, words):
    rewrite(path, change)
    with pytest.raises(FileFormatError, match=words):
        read_model(path)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"format": '])
def test_metadata_that_is_not_json(path, text):
    save_file(tensors(), path, metadata={"urushi": text})
    with pytest.raises(FileFormatError, match="not valid JSON"):
        read_model(path)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.array([1, np.nan], np.float32), "NaN or infinite"),
        (np.array([np.inf, 1], np.float32), "NaN or infinite"),
        (np.zeros((0, 3), np.float32), "is empty"),
        (np.zeros(3, np.int64), "I64"),
    ],
)
def test_tensors_that_are_wrong(path, bad, words):
    stored = {**tensors(), "bad": bad}
    text = HEADER.model_copy(update={"weights_hash": weights_hash(stored)}).model_dump_json()
    save_file(stored, path, metadata={"urushi": text})
    with pytest.raises(FileFormatError, match=words):
        read_model(path)


def test_no_tensors_at_all(path):
    save_file({}, path, metadata={"urushi": HEADER.model_dump_json()})
    with pytest.raises(FileFormatError, match="no tensors"):
        read_model(path)


@pytest.mark.parametrize(
    ("bad", "storage", "words"),
    [
        (np.array([np.nan], np.float32), "float32", "not finite"),
        (np.array([70000.0], np.float32), "float16", "store them as float32"),
        (np.zeros((2, 0), np.float32), "float32", "is empty"),
        (np.zeros(2, np.int32), "float32", "floats only"),
    ],
)
def test_unsound_tensors_are_not_written(tmp_path, bad, storage, words):
    path = tmp_path / "new.safetensors"
    with pytest.raises(FileFormatError, match=words):
        write_model(path, {"bad": bad}, HEADER, storage=storage)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_targets_leave_nothing(tmp_path, path):
    with pytest.raises(FileFormatError, match="cannot be written"):
        write_model(tmp_path / "none" / "a.safetensors", tensors(), HEADER)
    with pytest.raises(FileFormatError, match=r"end in \.safetensors"):
        write_model(tmp_path / "a.pth", tensors(), HEADER)
    with pytest.raises(FileFormatError, match="at least one tensor"):
        write_model(path, {}, HEADER)
    with pytest.raises(FileFormatError, match="finite numbers"):
        write_model(path, tensors(), HEADER.model_copy(update={"scores": {"a": float("nan")}}))
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.safetensors"]
    read_model(path)


def test_reading_needs_no_torch(path):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from urushi.files.model import read_model\n"
        "print(len(read_model(Path(sys.argv[1])).tensors))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "3"
