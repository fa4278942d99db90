"""One ONNX file for other programs: any size, adapters inside, checked before it is kept."""

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from commands import run, run_watched
from onnx import TensorProto, helper
from pictures import picture
from world import TINY_X2, write_network, write_random, write_tiny

from urushi.adapters.adaptir import AdaptIRSettings, FrequencyBranch
from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.backbones import BACKBONES
from urushi.convert import standalone as export_module
from urushi.convert.graph_checks import Agreement, import_onnxruntime
from urushi.convert.standalone import export_standalone
from urushi.convert.standalone_frame import framed, squares
from urushi.convert.traced_forms import frequency_branch
from urushi.errors import BackboneError, FileFormatError
from urushi.files.model import architecture_hash, graph_path, read_model
from urushi.inference.engines.openvino_engine import openvino_core
from urushi.inference.engines.torch_engine import TorchEngine
from urushi.inference.restorer import Restorer
from urushi.inference.tiling import pad_tile


def opened(path):
    """What runs a file on pictures `(B, H, W, 3)`."""
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run_file(images):
        result = compiled({"image": np.ascontiguousarray(images.transpose(0, 3, 1, 2))})[0]
        return result.transpose(0, 2, 3, 1)

    return run_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network for grey pictures that enlarges, with its graph; one of squares, with a branch.

    Both traced in another process: torch's tracer gives functions sides that are no `int` of
    Python's, which the check of annotations takes amiss.
    """
    folder = tmp_path_factory.mktemp("models")
    write_network(folder / "grey.safetensors", "swinir", {**TINY_X2, "in_chans": 1})
    squares = write_network(folder / "squares.safetensors", "ipt", dict(BACKBONES["ipt"].example))
    write_random(folder / "branch.safetensors", squares, method="houlsby", hidden=2)
    few = {"enc_blk_nums": [1], "dec_blk_nums": [0]}  # tracing takes by the number of layers
    naf = read_model(write_tiny(folder / "naf.safetensors", **few))
    write_random(folder / "spectral.safetensors", naf, method="adaptir", variant="paper")
    (folder / "out").mkdir()
    run_watched(
        "from urushi.convert.graphs import export_graph\n"
        "from urushi.convert.standalone import export_standalone\n"
        "folder = Path(sys.argv[1])\n"
        "export_graph(folder / 'grey.safetensors')\n"
        "model, branch = (folder / f'{name}.safetensors' for name in ('squares', 'branch'))\n"
        "made = export_standalone(read_model(model), folder / 'out' / 'one.onnx', [branch])\n"
        "assert made.adapters == ('branch.safetensors',)\n"
        "model, branch = (folder / f'{name}.safetensors' for name in ('naf', 'spectral'))\n"
        "made = export_standalone(read_model(model), folder / 'out' / 'naf.onnx', [branch])\n"
        "assert made.checked_with == ('onnxruntime', 'openvino') and not made.notes, made",
        folder / "home",
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return read_model(folder / "grey.safetensors")


def test_the_graph_beside_runs_grey_pictures_in_tiles(model):
    image = picture(45, 70)
    options = {"tile": 32, "overlap": 8, "device": "cpu"}
    slow, fast = (
        Restorer(model, engine=e, **options).restore(image) for e in ("torch", "openvino")
    )
    assert fast.shape == (90, 140, 3)
    np.testing.assert_allclose(fast, slow, atol=1e-5)


def test_a_file_takes_any_size_and_batch(model, tmp_path):
    made = export_standalone(model, tmp_path / "one.onnx")
    assert (made.path, made.adapters, made.scale) == (tmp_path / "one.onnx", (), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["one.onnx"]
    run_file = opened(made.path)
    restorer = Restorer(model, engine="torch", device="cpu")
    for size in ((1, 1), (2, 9), (33, 17), (40, 48)):
        images = np.stack([picture(*size), picture(*size, shift=1.0)])
        expected = np.stack([restorer.restore(image) for image in images])
        np.testing.assert_allclose(run_file(images).clip(0, 1), expected, atol=1e-5)


def test_onnx_runtime_runs_it(model, tmp_path):
    onnxruntime = import_onnxruntime()
    made = export_standalone(model, tmp_path / "one.onnx")
    assert (made.checked_with, made.notes) == (("onnxruntime", "openvino"), ())
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 3, "2*height", "2*width"]
    image = picture(23, 31)
    (result,) = session.run(None, {"image": image.transpose(2, 0, 1)[None].copy()})
    expected = opened(made.path)(image[None])[0]
    np.testing.assert_allclose(result[0].transpose(1, 2, 0), expected, atol=1e-5)


def test_the_command_merges_adapters_and_says_what_it_wrote(model, tmp_path):
    adapter = write_random(tmp_path / "mine.safetensors", model, {"licence": "CC0-1.0"}, size=0.3)
    target = tmp_path / "out.onnx"
    result = run("export", model.path, "-o", target, "--adapter", f"{adapter.path}:0.5", "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    told = json.loads(result.stdout)
    assert told["onnx"] == str(target)
    assert told["adapters"] == ["mine.safetensors:0.5"]
    assert told["size"] == target.stat().st_size
    image = picture(21, 35)
    adapted = Restorer(model, adapters=[(adapter, 0.5)], engine="torch").restore(image)
    np.testing.assert_allclose(opened(target)(image[None])[0].clip(0, 1), adapted, atol=1e-5)
    assert np.abs(adapted - Restorer(model, engine="torch").restore(image)).max() > 1e-3
    graph = onnx.load(target)
    facts = {entry.key: entry.value for entry in graph.metadata_props}
    assert facts["input"] == "RGB, float32, 0..1, (batch, 3, height, width), any size"
    assert {key: facts[key] for key in ("name", "licence", "scale", "backbone")} == {
        "name": "grey", "licence": "MIT; CC0-1.0", "scale": "2", "backbone": "swinir",
    }  # fmt: skip
    assert facts["version"] == graph.producer_version
    onnx.checker.check_model(graph, full_check=True)


def test_squares_and_a_branch_are_part_of_the_file(folder):
    run_file = opened(folder / "out" / "one.onnx")
    model, adapter = folder / "squares.safetensors", folder / "branch.safetensors"
    restorer = Restorer(model, adapters=[adapter], engine="torch", overlap=4)
    # Where the squares of a file are those into which a restorer cuts the picture.
    for size in ((12, 12), (20, 12), (36, 28)):
        image = picture(*size)
        expected = restorer.restore(image)
        np.testing.assert_allclose(run_file(image[None])[0].clip(0, 1), expected, atol=1e-5)
    plain = Restorer(model, engine="torch", overlap=4).restore(picture(20, 12))
    assert np.abs(plain - restorer.restore(picture(20, 12))).max() > 1e-4


def test_a_spectrum_is_summed_without_a_transform(folder):
    path = folder / "out" / "naf.onnx"
    assert not [node for node in onnx.load(path).graph.node if node.op_type == "DFT"]
    run_file = opened(path)
    session = import_onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
    restorer = Restorer(
        folder / "naf.safetensors", adapters=[folder / "spectral.safetensors"], engine="torch"
    )
    plain = Restorer(folder / "naf.safetensors", engine="torch")
    for size in ((8, 12), (23, 31), (64, 44)):
        image = picture(*size)
        expected = restorer.restore(image)
        assert np.abs(plain.restore(image) - expected).max() > 1e-3
        np.testing.assert_allclose(run_file(image[None])[0].clip(0, 1), expected, atol=1e-4)
        (other,) = session.run(None, {"image": image.transpose(2, 0, 1)[None].copy()})
        np.testing.assert_allclose(other[0].transpose(1, 2, 0).clip(0, 1), expected, atol=1e-4)


@pytest.mark.parametrize("settings", [{"variant": "released"}, {"fft_norm": "backward"}])
@pytest.mark.parametrize("size", [(1, 1), (2, 7), (13, 22), (16, 9)])
def test_sums_over_waves_are_the_transform(settings, size):
    branch = FrequencyBranch(3, AdaptIRSettings(**settings).resolved())
    for parameter in branch.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.manual_seed(0))
    x = torch.randn((2, 3, *size), generator=torch.manual_seed(1))
    torch.testing.assert_close(frequency_branch(branch, x), branch(x), atol=1e-5, rtol=1e-4)


def test_what_one_engine_alone_runs_is_told(model, tmp_path, monkeypatch):
    def refusing(path):
        raise RuntimeError("an operation\nthat it lacks")

    monkeypatch.setattr(export_module, "_in_openvino", refusing)
    result = run("export", model.path, "-o", tmp_path / "one.onnx")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert "run by onnxruntime" in result.stdout
    assert "note: OpenVINO does not run this file" in result.stderr
    assert "an operation that it lacks" in result.stderr
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("export", model.path, "-o", tmp_path / "two.onnx")
    assert result.exit_code == EXIT_FAILED
    assert "cannot be opened: an operation that it lacks" in result.stderr
    assert not (tmp_path / "two.onnx").exists()


def test_the_name_of_an_adapter_is_free(model, tmp_path):
    adapter = write_random(tmp_path / "mine.safetensors", model)
    made = export_standalone(model, tmp_path / "mine.onnx", [adapter])
    assert made.path.is_file()


# --- the frame alone ---


def repeating_network(scale):
    """A graph that repeats every pixel `scale` times in both directions."""
    value = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["b", 3, "h", "w"])
    result = helper.make_tensor_value_info("restored", TensorProto.FLOAT, ["b", 3, "y", "x"])
    sizes = helper.make_tensor("sizes", TensorProto.FLOAT, [4], [1, 1, scale, scale])
    node = helper.make_node(
        "Resize", ["image", "", "sizes"], ["restored"], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    graph = helper.make_graph([node], "repeating", [value], [result], [sizes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(("scale", "patch"), [(1, None), (3, None), (1, 12), (2, 12), (2, 7)])
def test_a_frame_leaves_no_trace(tmp_path, scale, patch):
    graph = repeating_network(scale)
    multiple = patch or 8
    framed(graph, "image", "restored", multiple=multiple, scale=scale, patch=patch)
    onnx.save(graph, tmp_path / "framed.onnx")
    run_file = opened(tmp_path / "framed.onnx")
    for size in ((1, 1), (3, 50), (12, 13), (40, 29)):
        image = picture(*size)
        expected = image.repeat(scale, axis=0).repeat(scale, axis=1)
        np.testing.assert_allclose(run_file(image[None])[0], expected, atol=1e-6)


def test_pictures_are_filled_up_as_tiles_are(tmp_path):
    graph = repeating_network(1)
    framed(graph, "image", "restored", multiple=16, scale=1, patch=None)
    # What is behind the frame's front: without cropping.
    graph.graph.output[0].name = "frame_whole"
    onnx.save(graph, tmp_path / "filled.onnx")
    for size in ((1, 5), (3, 20), (17, 16)):
        image = picture(*size)
        height, width = (-(-side // 16) * 16 for side in size)
        filled = opened(tmp_path / "filled.onnx")(image[None])[0]
        np.testing.assert_array_equal(filled, pad_tile(image, height, width).transpose(1, 2, 0))


def test_squares_overlap_by_a_third():
    side = squares(48, 4)
    assert (side.length, side.starts) == (144, (0, 32, 64, 96))


# --- what cannot be ---


def test_a_file_that_differs_from_torch_is_not_kept(model, tmp_path):
    # The same weights, which mean something else: what the graph beside does not know.
    config = {**model.header.config, "img_range": 9.0}
    header = model.header.model_copy(update={"config": config})
    graph = onnx.load(model.graph)
    entry = next(e for e in graph.metadata_props if e.key == "urushi_architecture_hash")
    entry.value = architecture_hash(header)
    onnx.save(graph, tmp_path / "other.onnx")
    other = replace(model, header=header, graph=tmp_path / "other.onnx")
    with pytest.raises(BackboneError, match=r"gives a different result from torch"):
        export_standalone(other, tmp_path / "one.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]


def test_names_that_cannot_be(model, tmp_path):
    with pytest.raises(FileFormatError, match=r"must end in \.onnx"):
        export_standalone(model, tmp_path / "out.pb")
    with pytest.raises(
        FileFormatError, match=r"belongs, of grey\.safetensors: choose another name"
    ):
        export_standalone(model, graph_path(model.path))
    result = run("export", model.path, "-o", tmp_path / "none" / "out.onnx")
    assert result.exit_code == EXIT_FAILED
    assert "cannot be written" in result.stderr


def test_adapters_of_another_base_are_refused(model, tmp_path):
    other = write_network(tmp_path / "other.safetensors", "swinir", {**TINY_X2, "mlp_ratio": 1.0})
    adapter = write_random(tmp_path / "a.safetensors", other)
    result = run("export", model.path, "-o", tmp_path / "out.onnx", "-a", adapter.path)
    assert result.exit_code == EXIT_FAILED
    assert "made for the base 'other'" in result.stderr
    result = run("export", adapter.path, "-o", tmp_path / "out.onnx")
    assert "--adapter" in result.stderr
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "a.onnx", "--merged", "b.safetensors"],
        ["-o", "a.onnx", "--precision", "int8", "--clean", "photos"],
        ["--adapter", "a.safetensors"],
    ],
    ids=" ".join,
)
def test_options_that_exclude_each_other(words):
    assert run("export", "m.safetensors", *words).exit_code == EXIT_USAGE


@pytest.mark.parametrize(("gain", "allowed"), [(1, False), (10, True)])
def test_what_amplifies_rounding_may_differ_by_rounding(tmp_path, gain, allowed):
    """Attention with logits a hundred times as large: float32 is off by a two-thousandth."""
    model = write_network(tmp_path / "squares.safetensors", "ipt", dict(BACKBONES["ipt"].example))
    amplified = {n: gain * t if "in_proj" in n else t for n, t in model.tensors.items()}
    reference = TorchEngine(replace(model, tensors=amplified), device="cpu")
    images = np.random.default_rng(0).random((1, 3, 12, 24), dtype=np.float32)
    assert (reference.rounding(images) > 1e-4) == allowed
    expected, agreement = reference.run(images), Agreement(reference)
    assert agreement.holds(expected, expected)
    assert agreement.holds(expected + np.float32(1e-3), expected) == allowed
    assert not agreement.holds(expected + np.float32(0.05), expected)
    assert not agreement.holds(expected[..., 1:], expected)
