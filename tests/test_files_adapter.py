"""Adapter files: what is written comes back, and what is unsound or of another base is refused."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from urushi.adapters.fold import fold
from urushi.errors import AdapterError, FileFormatError
from urushi.files.adapter import (
    AdapterHeader,
    base_facts,
    check_base,
    describe_adapter,
    read_adapter,
    read_adapter_header,
    write_adapter,
)
from urushi.files.model import LoadedModel, ModelHeader, read_model, weights_hash, write_model

CONFIG = {"width": 4, "enc_blk_nums": [1, 1]}


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "intro.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "intro.bias": rng.normal(size=4).astype(np.float32),
    }


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "down.intro/weight": rng.normal(size=(2, 27)).astype(np.float32),
        "up.intro/weight": rng.normal(size=(4, 2)).astype(np.float32),
    }


@pytest.fixture
def base(tmp_path) -> LoadedModel:
    write_model(tmp_path / "base.safetensors", weights(), ModelHeader(backbone="x", config=CONFIG))
    return read_model(tmp_path / "base.safetensors")


@pytest.fixture
def header(base) -> AdapterHeader:
    return AdapterHeader(
        method="lora",
        config={"rank": 2, "ranks": {}, "alpha": None, "scaling": "alpha/r", "layout": "flat"},
        base=base_facts(base),
        description="Learnt from nothing.",
        degradations=["rain"],
        recipe={"steps": 10},
        scores={"mine": {"psnr": 21.5}},
        licence="Apache-2.0",
        data="Made up.",
    )


@pytest.fixture
def path(tmp_path, header) -> Path:
    write_adapter(tmp_path / "mine.safetensors", tensors(), header, "float32")
    return tmp_path / "mine.safetensors"


def rewrite(path: Path, change, stored: dict[str, np.ndarray] | None = None) -> Path:
    """Write the file again with its metadata's object changed."""
    with safe_open(path, framework="np") as file:
        content = json.loads(file.metadata()["urushi"])
    if stored is not None:
        content["tensors_hash"] = weights_hash(stored)
    changed = change(content)
    text = json.dumps(content if changed is None else changed)
    save_file(stored or load_file(path), path, metadata={"urushi": text})
    return path


def test_what_is_written_comes_back(path, header):
    adapter = read_adapter(path)
    assert adapter.tensors.keys() == tensors().keys()
    for name, expected in tensors().items():
        np.testing.assert_array_equal(adapter.tensors[name], expected)
    assert adapter.header == header.model_copy(update={"tensors_hash": weights_hash(tensors())})
    assert adapter.header == read_adapter_header(path)
    assert (adapter.name, adapter.parameters) == ("mine", 2 * 27 + 2 * 4)


def test_float16_where_it_does_no_harm(tmp_path, header):
    path = tmp_path / "half.safetensors"
    special = {
        "value.a": np.linspace(-1, 1, 50, dtype=np.float32),
        "value.large": np.array([1e5, 1], np.float32),
        "value.tiny": np.array([3e-8, 2e-7], np.float32),
        "value.zero": np.zeros(3, np.float32),
        "value.count": np.array(7, np.int64),
    }
    write_adapter(path, special, header)
    stored = {name: tensor.dtype.name for name, tensor in load_file(path).items()}
    assert stored == {
        "value.a": "float16", "value.large": "float32", "value.tiny": "float32",
        "value.zero": "float16", "value.count": "int64",
    }  # fmt: skip
    read = read_adapter(path).tensors
    np.testing.assert_allclose(read["value.a"], special["value.a"], atol=2**-11)
    for name in ("value.large", "value.tiny", "value.zero", "value.count"):
        np.testing.assert_array_equal(read[name], special[name])
    assert read["value.a"].dtype == np.float32
    assert read["value.count"].dtype == np.int64
    assert describe_adapter(path)["storage"] == ["float16", "float32", "int64"]


def test_same_adapter_gives_same_bytes(tmp_path, path, header):
    other = tmp_path / "other.safetensors"
    write_adapter(other, dict(reversed(tensors().items())), header, "float32")
    assert other.read_bytes() == path.read_bytes()


def test_description(path):
    said = describe_adapter(path)
    assert (said["tensors"], said["parameters"]) == (2, 62)
    assert said["size"] == path.stat().st_size
    assert said["header"]["scores"] == {"mine": {"psnr": 21.5}}
    assert json.loads(json.dumps(said)) == said


def test_another_base_is_refused_in_a_sentence_that_names_both(tmp_path, path, base):
    adapter = read_adapter(path)
    check_base(adapter, base)
    other = tmp_path / "other.safetensors"
    write_model(other, {**weights(), "intro.bias": np.ones(4)}, base.header)
    with pytest.raises(AdapterError, match=r"mine\.safetensors.*'base'.*weights.*other\.safete"):
        check_base(adapter, read_model(other))
    write_model(other, weights(), base.header.model_copy(update={"config": {"width": 4}}))
    with pytest.raises(AdapterError, match=r"'base'.*another configuration.*other\.safetensors"):
        check_base(adapter, read_model(other))
    write_model(other, weights(), base.header.model_copy(update={"backbone": "y"}))
    with pytest.raises(AdapterError, match=r"'base' \(a x\).*other\.safetensors \(a y\)"):
        check_base(adapter, read_model(other))


def test_a_folded_model_is_another_base(path, base):
    adapter = read_adapter(path)
    folded = fold(base, [(adapter, 1.0)])
    with pytest.raises(AdapterError, match=r"base\.safetensors with mine\.safetensors"):
        check_base(adapter, folded)
    with pytest.raises(AdapterError, match="--merged"):
        base_facts(folded)


def test_files_of_another_kind_are_named(tmp_path, path, base):
    with pytest.raises(FileFormatError, match=r"a model file, expected an adapter file.*--model"):
        read_adapter(base.path)
    with pytest.raises(FileFormatError, match=r"an adapter file, expected a model file.*--adapter"):
        read_model(path)
    folder = tmp_path / "peft"
    folder.mkdir()
    with pytest.raises(FileFormatError, match="a folder, expected an adapter file"):
        read_adapter(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(FileFormatError, match="urushi import-peft"):
        read_adapter(folder)
    save_file(tensors(), path, metadata={"format": "pt"})
    with pytest.raises(FileFormatError, match="without Urushi's metadata"):
        read_adapter(path)
    path.write_bytes(b"\x80\x04" + bytes(60))
    with pytest.raises(FileFormatError, match="pickle"):
        read_adapter(path)


def test_truncation_and_changes_are_found(path):
    whole = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 40, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            read_adapter(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(FileFormatError, match="changed or damaged"):
        read_adapter(path)


def test_missing_and_extra_tensors_are_found(path):
    kept = load_file(path)
    for stored in ({**kept, "more": np.ones(2, np.float32)}, dict(list(kept.items())[:1])):
        with safe_open(path, framework="np") as file:
            metadata = file.metadata()
        save_file(stored, path, metadata=metadata)
        with pytest.raises(FileFormatError, match="changed or damaged"):
            read_adapter(path)


def deep(content: dict) -> None:
    nested: dict = {}
    for _ in range(400):
        nested = {"a": nested}
    content["config"] = nested


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update(version=2), "newer than 1.*upgrade"),
        (lambda h: h.update(version="1"), "version"),
        (lambda h: h.update(format="urushi-model"), "a model file"),
        (lambda h: h.update(format=["urushi-adapter"] * 1000), "expected 'urushi-adapter'"),
        (lambda h: h.update(colour="red"), "unknown key 'colour'"),
        (lambda h: h["base"].update(colour="red"), r"base\.colour"),
        (lambda h: h["base"].update(weights_hash=5), r"base\.weights_hash"),
        (lambda h: h.update(base="base"), "base"),
        (lambda h: h.update(config=[1]), "config"),
        (lambda h: h.update(method=""), "method"),
        (lambda h: h.update(degradations=[1]), "degradations"),
        (lambda h: h.update(tensors_hash=""), "says nothing"),
        (lambda h: h.update(scores={"a": float("nan")}), "not valid JSON"),
        (lambda h: h.update(description="x" * 5_000_000), "characters"),
        (lambda h: [h], "expected 'urushi-adapter'"),
        (deep, "wrong at|nested|not valid"),
    ],
)
def test_headers_that_are_wrong(path, change, words):
    rewrite(path, change)
    with pytest.raises(FileFormatError, match=words) as refused:
        read_adapter(path)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"format": ', "1" * 10_000])
def test_metadata_that_is_not_json(path, text):
    save_file(tensors(), path, metadata={"urushi": text})
    with pytest.raises(FileFormatError, match="not valid JSON"):
        read_adapter(path)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.array([1, np.nan], np.float32), "NaN or infinite"),
        (np.array([1, np.inf], np.float16), "NaN or infinite"),
        (np.zeros((0, 2), np.float32), "is empty"),
        (np.zeros(2, np.float64), "F64"),
        (np.zeros(2, np.int32), "I32"),
    ],
)
def test_tensors_that_are_wrong(path, bad, words):
    rewrite(path, lambda h: None, {**tensors(), "bad": bad})
    with pytest.raises(FileFormatError, match=words):
        read_adapter(path)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"a": np.array([np.nan], np.float32)}, "NaN or infinite"),
        ({"a": np.array([1e300])}, "NaN or infinite"),
        ({"a": np.zeros((2, 0), np.float32)}, "is empty"),
        ({"a": np.zeros(2, bool)}, "dtype bool"),
        ({}, "changes nothing"),
    ],
)
def test_unsound_tensors_are_not_written(tmp_path, header, bad, words):
    with pytest.raises(FileFormatError, match=words):
        write_adapter(tmp_path / "new.safetensors", bad, header)
    with pytest.raises(FileFormatError, match=r"end in \.safetensors"):
        write_adapter(tmp_path / "new.pth", tensors(), header)
    assert [file.name for file in tmp_path.iterdir()] == ["base.safetensors"]


def test_reading_and_folding_need_no_torch(path, base):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from urushi.files.adapter import read_adapter\n"
        "from urushi.adapters.fold import fold\n"
        "from urushi.files.model import read_model\n"
        "model, adapter = read_model(Path(sys.argv[1])), read_adapter(Path(sys.argv[2]))\n"
        "print(fold(model, [(adapter, 0.5)]).folded[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(base.path), str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "mine.safetensors:0.5"
