"""Restoring with adapters: from Python and from the command line, with and without torch."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from commands import run, run_watched
from pictures import picture, write_pictures
from world import network_of, random_adapter, write_random, write_tiny_model

from urushi.adapters import attach
from urushi.adapters.fold import fold
from urushi.adapters.stored import header_of, tensors_of
from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import AdapterError, EngineError, FileFormatError, MissingExtraError
from urushi.files.adapter import read_adapter, write_adapter
from urushi.files.int8_file import int8_path
from urushi.files.model import graph_path, read_model
from urushi.image import read_picture
from urushi.inference.adapted_weights import parse_adapter
from urushi.inference.engines import create_engine
from urushi.inference.health import examine
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_model

SMALL = picture(40, 48)
# Of the shipped base: small changes, since it has many layers.
SHIPPED = {"size": 0.003, "rank": 1, "tune": ["bias"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def model(folder):
    return read_model(write_tiny_model(folder / "tiny.safetensors"))


@pytest.fixture(scope="module")
def mine(folder, model):
    facts = {"description": "For rain.", "scores": {"mine": {"psnr": 20.0}}, "licence": "MIT"}
    return write_random(folder / "mine.safetensors", model, facts).path


@pytest.fixture(scope="module")
def other(folder, model):
    return write_random(folder / "other.safetensors", model, seed=1, method="ssf").path


@pytest.fixture(scope="module")
def branch(folder, model):
    """An adapter that weights cannot hold."""
    return write_random(folder / "branch.safetensors", model, size=0.5, method="adaptformer").path


@pytest.fixture(scope="module")
def shipped(folder):
    """An adapter for the shipped base, which has its graph."""
    base = read_model(find_model("base"))
    return write_random(folder / "shipped.safetensors", base, **SHIPPED).path


def with_torch(model, *pairs):
    """What torch makes of the small picture, adapters attached."""
    from urushi.adapters.stored import load_adapter

    network = network_of(model)
    loaded = [load_adapter(network, read_adapter(path), strength) for path, strength in pairs]
    adapted = attach(network, *loaded).eval()
    with torch.no_grad():
        result = adapted(torch.tensor(SMALL).permute(2, 0, 1)[None])
    return result[0].permute(1, 2, 0).clamp(0, 1).numpy()


def test_adapters_act_as_attached_ones(model, mine, other):
    plain = Restorer(model, engine="torch").restore(SMALL)
    for pairs in ([(mine, 1)], [(mine, 1.0), (other, 0.5)]):
        restored = Restorer(model, adapters=pairs, engine="torch").restore(SMALL)
        np.testing.assert_allclose(restored, with_torch(model, *pairs), atol=1e-5)
        assert np.abs(restored - plain).max() > 1e-3
    none = Restorer(model, adapters=[(mine, 0)], engine="torch").restore(SMALL)
    np.testing.assert_array_equal(none, plain)


def test_branches_are_attached_by_torch(model, mine, branch):
    pairs = [(branch, 0.5), (mine, 1.0)]
    restorer = Restorer(model, adapters=pairs)
    assert restorer.engine.name == "torch"
    np.testing.assert_allclose(restorer.restore(SMALL), with_torch(model, *pairs), atol=1e-5)
    alone = Restorer(model, adapters=[mine]).restore(SMALL)
    assert np.abs(restorer.restore(SMALL) - alone).max() > 1e-3
    half = Restorer(model, adapters=pairs, precision="bf16")
    assert np.abs(half.restore(SMALL) - restorer.restore(SMALL)).max() < 0.05
    np.testing.assert_allclose(
        half.engine.in_float32().run(SMALL.transpose(2, 0, 1)[None].copy()),
        restorer.engine.run(SMALL.transpose(2, 0, 1)[None].copy()),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "options", [{"engine": "openvino"}, {"precision": "int8"}], ids=["openvino", "int8"]
)
def test_branches_need_torch(model, branch, options, monkeypatch):
    words = r"cannot run the adapter branch\.safetensors of method 'adaptformer'.*engine torch"
    with pytest.raises(EngineError, match=words):
        Restorer(model, adapters=[branch], **options)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"adaptformer.*urushi\[torch\]"):
        Restorer(model, adapters=[branch])


def test_describe_names_them(model, mine, branch):
    assert Restorer(model).describe()["adapters"] == []
    told = Restorer(model, adapters=[mine, (branch, 0.5)]).describe()["adapters"]
    assert [(a["file"], a["method"], a["strength"]) for a in told] == [
        ("mine.safetensors", "lora", 1.0),
        ("branch.safetensors", "adaptformer", 0.5),
    ]
    assert told[0]["tensors_hash"] == read_adapter(mine).header.tensors_hash
    assert json.loads(json.dumps(told)) == told


def test_the_base_itself_is_not_changed(model, mine):
    kept = {name: tensor.copy() for name, tensor in model.tensors.items()}
    Restorer(model, adapters=[mine])
    for name, tensor in kept.items():
        np.testing.assert_array_equal(model.tensors[name], tensor)


def test_what_does_not_belong_is_refused(model, mine, shipped, folder):
    with pytest.raises(AdapterError, match=r"shipped\.safetensors.*'base'.*tiny\.safetensors"):
        Restorer(model, adapters=[shipped])
    with pytest.raises(AdapterError, match="strength is nan"):
        Restorer(model, adapters=[(mine, float("nan"))])
    with pytest.raises(FileFormatError, match="a model file, expected an adapter file"):
        Restorer(model, adapters=[model.path])
    with pytest.raises(FileFormatError, match="no such file"):
        Restorer(model, adapters=[folder / "none.safetensors"])
    with pytest.raises(AdapterError, match="expected a list"):
        Restorer(model, adapters=str(mine))


def test_tensors_of_a_branch_are_checked(model, branch, folder):
    good = read_adapter(branch)
    first = next(iter(good.tensors))
    rest = {name: tensor for name, tensor in good.tensors.items() if name != first}
    for tensors in (rest, {**good.tensors, "more": np.ones(2)}, {**rest, first: np.ones(2)}):
        write_adapter(folder / "bad.safetensors", tensors, good.header)
        with pytest.raises(AdapterError, match=r"bad\.safetensors: not a sound adapter"):
            Restorer(model, adapters=[folder / "bad.safetensors"])
    header = good.header.model_copy(update={"method": "unheard-of"})
    write_adapter(folder / "bad.safetensors", rest, header)
    with pytest.raises(AdapterError, match=r"bad\.safetensors: method 'unheard-of' is unknown"):
        Restorer(model, adapters=[folder / "bad.safetensors"])


def test_folded_adapters_run_where_torch_is_not(shipped, tmp_path):
    np.save(tmp_path / "picture.npy", SMALL)
    run_watched(
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError(name='torch')\n"
        "sys.meta_path.insert(0, Absent())\n"
        "sys.modules['torch'] = None\n"
        "from urushi.inference.restorer import Restorer\n"
        "restorer = Restorer(adapters=[(sys.argv[1], 0.75)], threads=1)\n"
        "assert restorer.engine.name == 'openvino'\n"
        "np.save(sys.argv[3], restorer.restore(np.load(sys.argv[2])))",
        tmp_path / "home",
        shipped,
        tmp_path / "picture.npy",
        tmp_path / "restored.npy",
    )
    restored = np.load(tmp_path / "restored.npy")
    expected = Restorer(adapters=[(shipped, 0.75)], engine="torch").restore(SMALL)
    np.testing.assert_allclose(restored, expected, atol=1e-4)
    assert np.abs(restored - Restorer(engine="openvino").restore(SMALL)).max() > 1e-3


def test_the_int8_file_of_the_base_is_refused_in_words(shipped, tmp_path):
    base = read_model(find_model("base"))
    assert base.graph is not None
    path = tmp_path / "base.safetensors"
    path.write_bytes(base.path.read_bytes())
    graph_path(path).write_bytes(base.graph.read_bytes())
    from urushi.files.int8_file import LayerRanges, new_header, write_int8

    copied = read_model(path)
    bounds = np.array([[-1.0] * 4, [1.0] * 4], np.float32)
    write_int8(
        int8_path(path),
        {"x": LayerRanges(bounds[:, 0], bounds, None)},
        new_header(copied, {}, "a test"),
    )
    folded = fold(copied, [(read_adapter(shipped), 1)])
    with pytest.raises(FileFormatError, match=r"without shipped\.safetensors.*--merged"):
        create_engine(folded, precision="int8")


def test_files_and_strengths_are_told_apart(tmp_path, monkeypatch):
    assert parse_adapter("a.safetensors") == ("a.safetensors", 1.0)
    assert parse_adapter("a.safetensors:0.5") == ("a.safetensors", 0.5)
    assert parse_adapter("a.safetensors:-1") == ("a.safetensors", -1.0)
    assert parse_adapter(r"C:\a.safetensors") == (r"C:\a.safetensors", 1.0)
    assert parse_adapter(":0.5") == (":0.5", 1.0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:2").touch()
    assert parse_adapter("a:2") == ("a:2", 1.0)
    assert parse_adapter("a:2:0.5") == ("a:2", 0.5)


def test_restore(model, mine, other, tmp_path):
    (photo,) = write_pictures(tmp_path / "photos", 1)
    out = tmp_path / "out"
    words = ["-o", out, "--model", model.path, "--adapter", mine, "--adapter", f"{other}:0.5"]
    result = run("restore", photo.parent, *words)
    assert result.exit_code == EXIT_WELL, result.stderr
    assert "with mine.safetensors and other.safetensors:0.5" in result.stdout
    expected = Restorer(model, adapters=[mine, (other, 0.5)]).restore(read_picture(photo))
    restored = read_picture(out / photo.name)
    np.testing.assert_allclose(restored, expected, atol=1 / 255)
    told = json.loads(run("restore", photo.parent, *words, "--overwrite", "--json").stdout)
    assert [a["file"] for a in told["restorer"]["adapters"]] == [mine.name, other.name]
    assert told["outdated"] == []


def test_a_younger_adapter_is_noticed(model, mine, tmp_path):
    write_pictures(tmp_path / "photos", 2)
    words = [tmp_path / "photos", "-o", tmp_path / "out", "--model", model.path]
    run("restore", *words)
    for path in (tmp_path / "out").iterdir():
        age = mine.stat().st_mtime_ns - 10**9
        os.utime(path, ns=(age, age))
    result = run("restore", *words, "--adapter", mine)
    assert result.exit_code == EXIT_WELL
    assert "2 skipped pictures are older than an adapter in use" in result.stdout
    told = json.loads(run("restore", *words, "--adapter", mine, "--json").stdout)
    assert len(told["outdated"]) == told["skipped"] == 2
    run("restore", *words, "--adapter", mine, "--overwrite")
    assert "older than" not in run("restore", *words, "--adapter", mine).stdout
    assert "older than" not in run("restore", *words).stdout


def test_evaluate(model, mine, tmp_path):
    write_pictures(tmp_path / "set" / "input", 1)
    write_pictures(tmp_path / "set" / "target", 1)
    words = ["evaluate", "--pairs", tmp_path / "set", "--json", "-", "--model", model.path]
    scores = []
    for more in ([], ["--adapter", mine]):
        result = run(*words, *more)
        assert result.exit_code == EXIT_WELL, result.stderr
        scores.append(json.loads(result.stdout)["results"][0])
    assert scores[0]["means"]["psnr"] != scores[1]["means"]["psnr"]
    assert scores[0]["restorer"]["adapters"] == []
    assert scores[1]["restorer"]["adapters"][0]["file"] == "mine.safetensors"
    assert run(*words, "--adapter", mine, "--as-is").exit_code == EXIT_USAGE


def test_one_sentence_for_an_adapter_of_another_base(shipped, model, mine, tmp_path):
    (photo,) = write_pictures(tmp_path, 1)
    for words in (["--adapter", mine], ["--adapter", shipped, "--model", model.path]):
        result = run("restore", photo, "-o", tmp_path / "out.png", *words)
        assert result.exit_code == EXIT_FAILED
        assert result.stderr.count("\n") == 1
        assert "base" in result.stderr
        assert "tiny" in result.stderr
        assert not (tmp_path / "out.png").exists()


def test_inspect(mine, branch):
    result = run("inspect", mine)
    assert result.exit_code == EXIT_WELL, result.stderr
    for words in ("For rain.", "lora: rank 2", "tiny, a nafnet", "psnr 20.00", "MIT", "any engine"):
        assert words in result.stdout
    assert "the engine torch alone" in run("inspect", branch).stdout
    told = json.loads(run("inspect", mine, "--json").stdout)
    assert (told["kind"], told["foldable"], told["header"]["method"]) == ("adapter", True, "lora")
    assert told["size"] == mine.stat().st_size
    assert told["header"]["base"]["name"] == "tiny"


def test_inspect_says_what_is_wrong(mine, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(mine.read_bytes()[:-10])
    result = run("inspect", bad)
    assert result.exit_code == EXIT_FAILED
    assert "cut short" in result.stderr


def test_export_merged(shipped, model, branch, tmp_path):
    target = tmp_path / "merged.safetensors"
    result = run("export", f"{shipped}:0.5", "--merged", target, "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert json.loads(result.stdout)["model"] == str(target)
    merged = Restorer(target, engine="openvino").restore(SMALL)
    expected = Restorer(adapters=[(shipped, 0.5)], engine="openvino").restore(SMALL)
    np.testing.assert_array_equal(merged, expected)
    assert "with shipped.safetensors:0.5" in read_model(target).header.description
    result = run("export", branch, "--merged", tmp_path / "no.safetensors", "--model", model.path)
    assert result.exit_code == EXIT_FAILED
    assert "weights cannot hold" in result.stderr
    same = run("export", shipped, "--merged", find_model("base"), "--overwrite")
    assert "would overwrite the base" in same.stderr
    graph = run("export", shipped)
    assert graph.exit_code == EXIT_FAILED
    assert "--merged OUT or --peft FOLDER" in graph.stderr
    for words in (["--merged", "a", "--peft", "b"], ["--model", "tiny"]):
        assert run("export", shipped, *words).exit_code == EXIT_USAGE


def test_the_health_check_takes_adapters(model, mine, branch, shipped):
    for path in (mine, branch):
        report = examine(str(model.path), [path])
        assert report["ok"], report["problems"]
        assert report["test"]["uses"]["adapters"][0]["file"] == path.name
    result = run("doctor", "--adapter", shipped, "--adapter", mine)
    assert result.exit_code == EXIT_FAILED
    assert "broken: " in result.stderr
    assert "mine.safetensors" in result.stderr
    told = json.loads(run("doctor", "--adapter", shipped, "--json").stdout)
    assert told["ok"]
    assert told["test"]["engines"] == ["openvino", "torch"]


def test_stored_in_half_precision_restores_the_same(model, tmp_path):
    adapter = random_adapter(model)
    path = tmp_path / "half.safetensors"
    write_adapter(path, tensors_of(adapter), header_of(adapter, model))
    full = tmp_path / "full.safetensors"
    write_adapter(full, tensors_of(adapter), header_of(adapter, model), "float32")
    results = [Restorer(model, adapters=[p]).restore(SMALL) for p in (path, full)]
    assert np.abs(results[0] - results[1]).max() < 1e-4
    assert path.stat().st_size < full.stat().st_size
