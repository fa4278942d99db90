"""8-bit arithmetic: what is made, what it costs, and what is refused."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run, run_watched
from networks import batch
from pictures import picture, write_pictures
from safetensors import safe_open
from safetensors.torch import save_file
from shared import GREY_LAYERS
from world import write_all_in_one, write_tiny

from urushi.app.output import EXIT_FAILED, EXIT_WELL
from urushi.convert.quantize import calibration_crops, export_int8
from urushi.errors import DataError, EngineError, FileFormatError, MissingExtraError
from urushi.files.int8_file import int8_path, new_header, read_int8, write_int8
from urushi.files.model import LoadedModel, graph_path, name_graph, read_model, write_model
from urushi.inference.arrays import telling_windows
from urushi.inference.auto import AutoRestorer
from urushi.inference.engines import create_engine
from urushi.inference.restorer import Restorer

# Of the tiny network: six in each block, and those that change the resolution.
LAYERS = 6 * 5 + 2 + 2
SMALL = {"crops": 4, "side": 32}


@pytest.fixture(scope="module")
def clean(watched) -> Path:
    return watched / "clean"


@pytest.fixture(scope="module")
def made(watched) -> LoadedModel:
    """A tiny model whose int8 file was made under watch, in a process that says nothing."""
    return read_model(watched / "int8/tiny.safetensors")


@pytest.fixture
def copied(made, tmp_path) -> LoadedModel:
    """The same in a folder of its own, to be harmed."""
    for suffix in (".safetensors", ".onnx", ".int8"):
        source = made.path.with_suffix(suffix)
        (tmp_path / f"copy{suffix}").write_bytes(source.read_bytes())
    return read_model(tmp_path / "copy.safetensors")


def int8_engine(model: LoadedModel):
    return create_engine(model, precision="int8", threads=1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * np.log10(np.square(a - b, dtype=np.float64).mean())


@pytest.mark.processor
@pytest.mark.parametrize("size", [(12, 20), (264, 256)])
def test_int8_is_close_to_float32(made, size):
    exact, rounded = create_engine(made, engine="openvino"), int8_engine(made)
    assert (rounded.name, rounded.device, rounded.precision) == ("openvino", "cpu", "int8")
    assert rounded.size_multiple == exact.size_multiple
    images = batch(*size)
    expected, found = exact.run(images), rounded.run(images)
    assert psnr(expected, images) < 25  # the network does something
    assert 35 < psnr(found, expected) < 80
    assert np.array_equal(found, rounded.run(images))


@pytest.mark.processor
def test_networks_of_grey_pictures_keep_their_ends_exact(watched):
    model = read_model(watched / "grey/grey.safetensors")
    layers = set(read_int8(model)[1])
    assert len(layers) == GREY_LAYERS
    assert not {name for name in layers if "intro" in name or "ending" in name}
    images = batch(40, 24)
    expected, found = (
        create_engine(model, engine="openvino").run(images),
        int8_engine(model).run(images),
    )
    assert psnr(expected, images) < 25
    assert 35 < psnr(found, expected) < 80


def test_float32_is_there_for_what_int8_cannot_do(made):
    rounded = int8_engine(made)
    exact = rounded.in_float32()
    assert exact.precision == "float32"
    assert exact is rounded.in_float32()
    expected = create_engine(made, engine="openvino", threads=1).run(batch())
    assert np.array_equal(exact.run(batch()), expected)


def test_a_network_that_leaves_pictures_alone_still_does(made, clean, tmp_path):
    # The sum with the input is not rounded: what comes back is as exact as in float32.
    still = {n: t * 0 if n.startswith("ending") else t for n, t in made.tensors.items()}
    path = tmp_path / "still.safetensors"
    write_model(path, still, made.header)
    assert made.graph is not None
    graph_path(path).write_bytes(made.graph.read_bytes())
    export_int8(path, clean, **SMALL)
    images = batch(32, 32)
    assert np.abs(int8_engine(read_model(path)).run(images) - images).max() < 1e-6


def test_loading_needs_neither_nncf_nor_torch(made, tmp_path):
    np.save(tmp_path / "batch.npy", batch())
    run_watched(
        "sys.modules['nncf'] = sys.modules['torch'] = None\n"
        "engine = create_engine(read_model(Path(sys.argv[1])), precision='int8', threads=1)\n"
        "np.save(sys.argv[3], engine.run(np.load(sys.argv[2])))",
        tmp_path / "home",
        made.path,
        tmp_path / "batch.npy",
        tmp_path / "restored.npy",
    )
    assert np.array_equal(np.load(tmp_path / "restored.npy"), int8_engine(made).run(batch()))


@pytest.mark.processor
def test_older_processors_give_the_same(made, tmp_path, monkeypatch):
    # Without VNNI products of 8 bits are added in 16 bits, and would overflow if weights used all
    # of their range. (Where this variable has no effect, this repeats what others test.)
    for variable in ("ONEDNN_MAX_CPU_ISA", "OV_CPU_MAX_ISA"):
        monkeypatch.setenv(variable, "AVX2")
    images = batch(256, 256, 1)
    np.save(tmp_path / "batch.npy", images)
    run_watched(
        "engine = create_engine(read_model(Path(sys.argv[1])), precision='int8', threads=1)\n"
        "assert engine._hint == 'f32'  # such processors have no bfloat16\n"
        "np.save(sys.argv[3], engine.run(np.load(sys.argv[2])))",
        tmp_path / "home",
        made.path,
        tmp_path / "batch.npy",
        tmp_path / "restored.npy",
    )
    exact = create_engine(made, engine="openvino").run(images)
    assert psnr(np.load(tmp_path / "restored.npy"), exact) > 35


def test_what_is_written_is_small_and_of_these_layers(made):
    header, layers = read_int8(made)
    assert len(layers) == LAYERS
    assert int8_path(made.path).stat().st_size < 50_000
    assert header.weights_hash == made.header.weights_hash
    assert header.calibration["pictures"] == 2
    assert "nncf" in header.created_by
    assert str(made.path.parent).encode() not in int8_path(made.path).read_bytes()


def test_the_same_is_made_again(copied, made, clean):
    int8_path(copied.path).write_bytes(b"broken")
    result = export_int8(copied.path, clean, **SMALL)
    assert result.path.read_bytes() == int8_path(made.path).read_bytes()
    assert result.layers == LAYERS
    assert abs(result.psnr_float32 - result.psnr_int8) < 0.5


def other_weights(model: LoadedModel) -> None:
    write_tiny(model.path, seed=1)


def other_network(model: LoadedModel) -> None:
    _, layers = read_int8(model)
    header = new_header(model, {}, "a test").model_copy(update={"architecture_hash": "0" * 64})
    write_int8(int8_path(model.path), layers, header)


def other_graph(model: LoadedModel) -> None:
    import onnx

    assert model.graph is not None
    graph = onnx.load(model.graph)
    graph.producer_version = "another"
    onnx.save(graph, model.graph)
    name_graph(model.path)


def cut(model: LoadedModel) -> None:
    path = int8_path(model.path)
    path.write_bytes(path.read_bytes()[:-100])


def changed(model: LoadedModel) -> None:
    path = int8_path(model.path)
    path.write_bytes(path.read_bytes()[:-4] + bytes(4))


def empty(model: LoadedModel) -> None:
    int8_path(model.path).write_bytes(b"")


def a_model(model: LoadedModel) -> None:
    int8_path(model.path).write_bytes(model.path.read_bytes())


def unknown_layer(model: LoadedModel) -> None:
    _, layers = read_int8(model)
    layers["another"] = layers.popitem()[1]
    write_int8(int8_path(model.path), layers, new_header(model, {}, "a test"))


def fewer_channels(model: LoadedModel) -> None:
    _, layers = read_int8(model)
    name, ranges = layers.popitem()
    layers[name] = replace(ranges, weight=ranges.weight[:, 1:], bias=None)
    write_int8(int8_path(model.path), layers, new_header(model, {}, "a test"))


def no_range(model: LoadedModel) -> None:
    _, layers = read_int8(model)
    name, ranges = layers.popitem()
    layers[name] = replace(ranges, activation=np.array([np.nan, 1], np.float32))
    write_int8(int8_path(model.path), layers, new_header(model, {}, "a test"))


def other_type(model: LoadedModel) -> None:
    """Of a type that numpy does not have."""
    path = int8_path(model.path)
    with safe_open(path, "pt") as file:
        notes = file.metadata()
        ranges = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    ranges[min(ranges)] = ranges[min(ranges)].to(torch.float8_e4m3fn)
    save_file(ranges, path, metadata=notes)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (other_type, r"its tensor '.*' is of F8_E4M3, expected F32: make it again"),
        (other_weights, "made from the weights"),
        (other_network, "of another network than copy.safetensors"),
        (other_graph, "made from another graph"),
        (cut, "not a complete int8 file"),
        (changed, "changed or damaged"),
        (empty, "not a complete int8 file"),
        (a_model, "not that of an int8 file"),
        (unknown_layer, "no layer 'another'"),
        (fewer_channels, "another shape"),
        (no_range, "finite"),
    ],
)
def test_what_does_not_belong_is_refused(copied, harm: Callable[[LoadedModel], None], words):
    harm(copied)
    model = read_model(copied.path)
    with pytest.raises(FileFormatError, match=words) as refused:
        int8_engine(model)
    assert str(int8_path(copied.path)) in str(refused.value)
    again = f"urushi export {copied.path} --precision int8 --clean FOLDER"
    assert again in str(refused.value)
    assert create_engine(model, device="cpu").run(batch()).any()  # the others go on


def test_missing_files_name_the_command(copied):
    int8_path(copied.path).unlink()
    with pytest.raises(EngineError, match=r"urushi export .* --precision int8 --clean FOLDER"):
        int8_engine(copied)
    with pytest.raises(EngineError, match="has no exported graph"):
        int8_engine(replace(copied, graph=None))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "torch"}, "torch has no precision int8"),
        ({"compile": True}, "compile is an option of torch"),
        ({"device": "cuda"}, "cuda"),
    ],
)
def test_only_openvino_has_it(made, options, words):
    with pytest.raises(EngineError, match=words):
        create_engine(made, precision="int8", **options)


def test_missing_packages_name_the_extra(made, clean, monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "nncf", None)
        with pytest.raises(MissingExtraError, match=r"nncf.*urushi\[quantize\]"):
            export_int8(made.path, clean)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"urushi\[fast\]"):
        int8_engine(made)


def test_crops_are_clean_and_degraded(clean, tmp_path):
    write_pictures(tmp_path / "more", 1, height=16)
    (tmp_path / "more" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "more" / "large.png").write_bytes((clean / "picture0.png").read_bytes())
    crops = calibration_crops(tmp_path, count=6, side=24, seed=0)
    assert crops.inputs.shape == crops.clean.shape == (6, 3, 24, 24)
    assert crops.pictures == 1
    np.testing.assert_array_equal(crops.inputs[:3], crops.clean[:3])
    assert (np.abs(crops.inputs[3:] - crops.clean[3:]).max(axis=(1, 2, 3)) > 0.01).all()
    again = calibration_crops(tmp_path, count=6, side=24, seed=0)
    np.testing.assert_array_equal(crops.inputs, again.inputs)
    other = calibration_crops(tmp_path, count=6, side=24, seed=1)
    assert not np.array_equal(crops.clean, other.clean)
    with pytest.raises(DataError, match="at least 200 x 200 pixels"):
        calibration_crops(tmp_path, count=6, side=200, seed=0)
    with pytest.raises(DataError, match="does not exist"):
        calibration_crops(tmp_path / "nowhere", count=6, side=24, seed=0)


def test_commands(copied, tmp_path):
    path = copied.path
    int8_path(path).unlink()
    assert "none" in int8_row(path)
    write_pictures(tmp_path / "photos", 1, height=128, width=128)
    arguments = ["--precision", "int8", "--clean", tmp_path / "photos", "--crops", 2]
    result = run("export", path, *arguments, "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    told = json.loads(result.stdout)
    assert told["int8"] == str(int8_path(path))
    assert told["layers"] == LAYERS
    assert os.path.getsize(told["int8"]) == told["size"]
    assert f"{LAYERS} convolutions" in int8_row(path)
    (photo,) = write_pictures(tmp_path / "bad", 1)
    restored = run("restore", photo, "-o", tmp_path / "good.png", "-m", path, "--precision", "int8")
    assert restored.exit_code == EXIT_WELL, restored.stderr
    assert "int8" in restored.stdout
    other_weights(copied)
    assert "unusable" in int8_row(path)
    failed = run("restore", photo, "-o", tmp_path / "b.png", "-m", path, "--precision", "int8")
    assert failed.exit_code == EXIT_FAILED
    assert "made from the weights" in failed.stderr
    assert not (tmp_path / "b.png").exists()


def int8_row(model: Path) -> str:
    result = run("inspect", model)
    assert result.exit_code == EXIT_WELL, result.stderr
    return next(line for line in result.stdout.splitlines() if line.startswith("int8 "))


# --- what int8 does not do justice ---


@pytest.mark.processor
def test_within_its_ranges_int8_restores(made):
    image = batch(96, 128, 1)[0].transpose(1, 2, 0)
    exact, rounded = (
        Restorer(made, engine="openvino", precision=p).restore(image) for p in ("float32", "int8")
    )
    assert 35 < psnr(rounded, exact) < 80


@pytest.mark.processor
def test_numbers_that_leave_the_ranges_are_noticed_and_told(copied):
    header, layers = read_int8(copied)
    narrow = {n: replace(r, activation=r.activation * np.float32(0.1)) for n, r in layers.items()}
    write_int8(int8_path(copied.path), narrow, header)
    image = batch(96, 128, 1)[0].transpose(1, 2, 0)
    expected = Restorer(copied, engine="openvino").restore(image)
    cut_off = int8_engine(copied).run(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
    assert psnr(cut_off[0].transpose(1, 2, 0), expected) < 35
    restorer = Restorer(copied, precision="int8")
    assert np.array_equal(restorer.restore(image), expected)
    (note,) = restorer.notes
    assert "restored in float32" in note
    restorer.restore(image)
    assert restorer.notes == [note]  # each picture is looked at anew


def test_windows_are_where_most_happens_and_in_every_part():
    tile = np.full((3, 512, 832), 0.5, np.float32)
    tile[:, 64:128, 128:192] = np.indices((64, 64)).sum(0) % 2 * 0.1  # the most change
    tile[:, 200:250, 10:30] = 1.0  # the most contrast
    tile[:, 400, 700] = 0.9  # elsewhere nothing but a point
    windows = telling_windows(tile, 64)
    assert windows.shape == (2 * 2 * 3, 3, 64, 64)
    for top, left in ((64, 128), (192, 0), (384, 640)):
        block = tile[:, top : top + 64, left : left + 64]
        assert any(np.array_equal(window, block) for window in windows)
    assert len(telling_windows(tile[:, :64, :64], 64)) == 1
    assert telling_windows(tile[:, :20, :40], 20).shape == (2, 3, 20, 20)


def test_experts_are_restored_in_float32_and_that_is_told(copied, tmp_path):
    file = write_all_in_one(tmp_path, copied.path)
    rounded, exact = (
        AutoRestorer(file, engine="openvino", precision=p) for p in ("int8", "float32")
    )
    assert np.array_equal(rounded.restore(picture()), exact.restore(picture()))
    assert rounded.last is not None
    assert rounded.last.route
    assert any("with an expert" in n for n in rounded.restorer(rounded.last).notes)
    assert rounded.describe()["precision"] == "int8"
    rounded.choose_by(threshold=1.0)
    alone = rounded.restore(picture())
    assert rounded.last.route == ()
    assert np.array_equal(alone, Restorer(copied, precision="int8").restore(picture()))
    assert rounded.restorer(rounded.last).notes == []


def test_the_command_says_what_int8_is_for(copied, tmp_path):
    file = write_all_in_one(tmp_path, copied.path)
    write_pictures(tmp_path / "in", 1)
    told = run(
        "restore", tmp_path / "in", "-o", tmp_path / "out", "--router", file,
        "--precision", "int8", "--json",
    )  # fmt: skip
    assert told.exit_code == EXIT_WELL, told.stderr
    assert "int8 is for the base alone" in told.stderr
    assert any("with an expert" in n for n in json.loads(told.stdout)["files"][0]["notes"])


def test_pages_and_rare_degradations_are_measured(clean):
    crops = calibration_crops(clean, count=80, side=64, seed=0)
    half = len(crops.inputs) // 2
    # Of photographs few neighbours differ by half of the range.
    jumps = (np.abs(np.diff(crops.clean, axis=3)) > 0.5).mean(axis=(1, 2, 3))
    assert (jumps > 0.02).sum() >= 6
    changed = np.abs(crops.inputs[half:] - crops.clean[half:]).mean(axis=(1, 2, 3))
    assert (changed > 0.1).sum() >= 4  # haze, rain and their like
    again = calibration_crops(clean, count=80, side=64, seed=0)
    np.testing.assert_array_equal(again.inputs, crops.inputs)
