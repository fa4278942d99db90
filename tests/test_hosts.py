"""Files for other programs: each is read as its program reads it."""

import io
import json
import zipfile
from collections import Counter

import numpy as np
import onnx
import pytest
from commands import run, run_watched
from safetensors.numpy import load_file
from world import TINY_X2, write_network, write_random, write_tiny

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.backbones import BACKBONES
from urushi.convert.graph_checks import import_onnxruntime
from urushi.convert.host_graphs import inferred_shape
from urushi.convert.hosts import HOSTS, SPANDREL_KEYS, export_for_host, find_host
from urushi.errors import AdapterError, BackboneError, FileFormatError, TakenError
from urushi.files.model import read_model
from urushi.inference.adapted_weights import apply_adapters
from urushi.inference.engines.torch_engine import TorchEngine
from urushi.inference.restorer import Restorer
from urushi.inference.tiling import pad_tile

SIZE = (21, 30)
GRAPHS = ("opencv", "darktable", "chainner", "imagetoolbox", "vs-mlrt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network without blocks on its outermost levels, an adapter, and what hosts are given.

    Made in another process: torch's tracer gives functions sides that are no `int` of Python's,
    which the check of annotations takes amiss.
    """
    folder = tmp_path_factory.mktemp("hosts")
    few = {"enc_blk_nums": [0, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 0]}
    model = read_model(write_tiny(folder / "naf.safetensors", **few))
    write_random(folder / "rain.safetensors", model, facts={"degradations": ["rain"]})
    write_network(folder / "squares.safetensors", "ipt", dict(BACKBONES["ipt"].example))
    write_network(folder / "double.safetensors", "swinir", TINY_X2)
    write_random(folder / "branch.safetensors", model, method="houlsby", hidden=2)
    run_watched(
        "import copy, functools, os\n"
        "from urushi.convert import host_graphs\n"
        "from urushi.convert.hosts import HOSTS, export_for_host\n"
        "from urushi.files.model import read_model\n"
        # Tracing takes long, and is the same for all graphs of open sizes.
        "trace, kept = host_graphs.traced_with_weights, {}\n"
        "def traced(*arguments, size):\n"
        "    if size not in kept:\n"
        "        kept[size] = trace(*arguments, size=size)\n"
        "    return copy.deepcopy(kept[size])\n"
        "host_graphs.traced_with_weights = traced\n"
        "folder = Path(sys.argv[1])\n"
        "os.chdir(folder)\n"
        "model, sizes = read_model(folder / 'naf.safetensors'), {'opencv': (21, 30)}\n"
        f"for name in {GRAPHS}:\n"
        "    made = export_for_host(model, HOSTS[name], None, ['rain.safetensors'],\n"
        "                           static=sizes.get(name))\n"
        "    assert made.checked_with == ('onnxruntime', 'openvino'), made\n"
        "    assert made.adapters == ('rain.safetensors',)\n",
        folder / "home",
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    """What torch makes of a picture `(1, 3, h, w)` whose sides are filled up."""
    model = read_model(folder / "naf.safetensors")
    ready, _, attached = apply_adapters(model, [folder / "rain.safetensors"])
    engine = TorchEngine(ready, device="cpu", adapters=attached)

    def restored(image):
        height, width = image.shape[2:]
        sides = (
            -(-side // engine.size_multiple) * engine.size_multiple for side in (height, width)
        )
        return engine.run(pad_tile(image[0].transpose(1, 2, 0), *sides)[None])[..., :height, :width]

    return restored


def picture(height, width, largest=1.0):
    generator = np.random.default_rng(height)
    return generator.random((1, 3, height, width), dtype=np.float32) * np.float32(largest)


def close(one, other):
    return one.shape == other.shape and np.abs(one - other).max() < 1e-4


def onnx_of(folder, host):
    (path,) = folder.glob(f"*urushi-naf-rain-{host}.onnx")
    return path


@pytest.mark.parametrize("engine", ["ENGINE_CLASSIC", "ENGINE_NEW"])
def test_both_engines_of_opencv_read_it(folder, reference, engine):
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    path = onnx_of(folder, "opencv")
    net = cv2.dnn.readNetFromONNX(str(path), getattr(cv2.dnn, engine))
    image = picture(*SIZE)
    net.setInput(image, "input")
    assert close(net.forward("output"), reference(image))


def test_a_graph_of_one_size_measures_nothing(folder):
    graph = onnx.load(onnx_of(folder, "opencv"))
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert not {"Shape", "Range", "MatMul", "Size"} & kinds.keys()
    constants = {tensor.name for tensor in graph.graph.initializer}
    assert [node.input[1] in constants for node in graph.graph.node if node.op_type == "Pad"] == [
        True
    ]
    sides = [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim]
    assert sides == [1, 3, *SIZE]


@pytest.mark.parametrize("host", ["opencv", "chainner", "imagetoolbox"])
def test_a_graph_asks_for_no_newer_operators_than_it_uses(folder, host):
    graph = onnx.load(onnx_of(folder, host))
    (stated,) = graph.opset_import
    assert stated.version <= 19  # MIGraphX knows no newer ones, nor does TensorRT 9
    newest = max(node.since_version for node in schemas_of(graph, stated.version))
    assert stated.version == newest
    # They mean the same as in the newest version that this ONNX knows, as far as that is older.
    onnx.checker.check_model(graph, full_check=True)


def schemas_of(graph, version):
    return [onnx.defs.get_schema(node.op_type, version) for node in graph.graph.node]


def test_darktable_binds_its_tiles(folder, reference):
    path = folder / "urushi-naf-rain.dtmodel"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == [f"{path.stem}/config.json", f"{path.stem}/model.onnx"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        config, graph = json.loads(archive.read(names[0])), archive.read(names[1])
    assert config["id"] == path.stem
    assert isinstance(config["version"], str)
    assert (config["task"], config["backend"]) == ("denoise", "onnx")
    assert "rain" in config["description"]
    assert all(isinstance(text, str) and text for text in config["model_card"].values())
    runtime = import_onnxruntime()
    for side in (64, 96):
        options = runtime.SessionOptions()
        for name, size in (("batch", 1), ("height", side), ("width", side)):
            options.add_free_dimension_override_by_name(name, size)
        session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        (given,), (made,) = session.get_inputs(), session.get_outputs()
        assert given.shape == made.shape == [1, 3, side, side]
        image = picture(side, side, largest=1.8)
        assert close(session.run([made.name], {given.name: image})[0], reference(image))


@pytest.mark.parametrize("host", ["chainner", "vs-mlrt"])
def test_shapes_tell_the_scale(folder, host):
    graph = onnx.load(onnx_of(folder, host))
    assert len(graph.graph.input) == len(graph.graph.output) == 1
    for side in (16, 64, 256, 512):
        assert inferred_shape(graph, side, side) == (1, 3, side, side)


def test_the_strength_of_imagetoolbox_goes_from_nothing_to_all(folder, reference):
    path = onnx_of(folder, "imagetoolbox")
    assert path.name.startswith("1x-")
    runtime = import_onnxruntime()
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image, strength = session.get_inputs()
    assert strength.shape == [1, 1]
    pixels = picture(24, 32)

    def at(amount):
        fed = {image.name: pixels, strength.name: np.full((1, 1), amount, np.float32)}
        return session.run(None, fed)[0]

    whole = reference(pixels)
    assert np.abs(whole - pixels).max() > 0.01
    assert np.array_equal(at(0), pixels)
    assert close(at(1), whole)
    assert close(at(0.5), (pixels + whole) / 2)


def test_spandrel_finds_what_it_looks_for(folder, tmp_path):
    model, adapters = read_model(folder / "naf.safetensors"), [folder / "rain.safetensors"]
    made = export_for_host(model, HOSTS["spandrel"], tmp_path / "comfy.safetensors", adapters)
    tensors = load_file(made.path)
    assert set(SPANDREL_KEYS) <= tensors.keys()
    assert len(SPANDREL_KEYS) == 18
    for level in ("encoders.0.0", "decoders.1.0"):
        assert not tensors[f"{level}.beta"].any()
        assert not tensors[f"{level}.gamma"].any()
    image = picture(24, 32)[0].transpose(1, 2, 0)
    ours = Restorer(model, adapters=adapters, engine="torch").restore(image)
    assert np.abs(Restorer(made.path, engine="torch").restore(image) - ours).max() < 1e-5


@pytest.mark.parametrize("name", ["squares", "double"])
def test_what_cannot_go_to_spandrel(folder, tmp_path, name):
    model = read_model(folder / f"{name}.safetensors")
    with pytest.raises(BackboneError, match="of a nafnet alone"):
        export_for_host(model, HOSTS["spandrel"], tmp_path / "a.safetensors")


def test_an_adapter_that_weights_cannot_hold(folder, tmp_path):
    model, branch = read_model(folder / "naf.safetensors"), folder / "branch.safetensors"
    with pytest.raises(AdapterError, match=r"branch\.safetensors \(houlsby\) cannot be put into"):
        export_for_host(model, HOSTS["spandrel"], tmp_path / "a.safetensors", [branch])


@pytest.mark.parametrize(
    ("host", "name", "size", "said"),
    [
        ("opencv", "squares", None, r"squares of \d+ pixels alone: give --static"),
        ("chainner", "squares", None, r"squares of \d+ pixels alone: give --static"),
        ("darktable", "squares", None, "choose another host"),
        ("darktable", "double", None, "enlarges 2 times"),
        ("darktable", "naf", (256, 512), "squares of at least 256"),
        ("opencv", "naf", (3, 512), "is smaller than the 4 pixels"),
        ("opencv", "naf", (0, 512), "a side is from 1"),
        ("spandrel", "naf", (64, 64), "leave it out"),
    ],
)
def test_networks_and_sizes_that_do_not_fit(folder, tmp_path, host, name, size, said):
    model = read_model(folder / f"{name}.safetensors")
    target = tmp_path / f"a{HOSTS[host].ending}"
    with pytest.raises(BackboneError, match=said):
        export_for_host(model, HOSTS[host], target, static=size)
    assert not target.exists()


@pytest.mark.parametrize(
    ("host", "name", "said"),
    [
        ("opencv", "a.dtmodel", "ends in .onnx"),
        ("darktable", "a b.dtmodel", "darktable's id"),
        ("imagetoolbox", "mine.onnx", "begin it with 1x-"),
        ("imagetoolbox", "1x-mine-2x.onnx", "no other digit"),
        ("chainner", "naf.onnx", "choose another name"),
        ("spandrel", "naf.safetensors", "would overwrite the model"),
    ],
)
def test_names_that_do_not_fit(folder, host, name, said):
    with pytest.raises(FileFormatError, match=said):
        export_for_host(read_model(folder / "naf.safetensors"), HOSTS[host], folder / name)


def test_a_name_that_is_taken_stays(folder):
    path = folder / "urushi-naf-rain.dtmodel"
    before = path.read_bytes()
    with pytest.raises(TakenError):
        export_for_host(read_model(folder / "naf.safetensors"), HOSTS["darktable"], path)
    assert path.read_bytes() == before


def test_other_names_of_a_host():
    assert find_host("ComfyUI").name == "spandrel"
    with pytest.raises(BackboneError, match="did you mean 'darktable'"):
        find_host("darktabel")


def test_the_command_writes_for_a_host(folder, tmp_path):
    target = tmp_path / "comfy.safetensors"
    words = ["export", str(folder / "naf.safetensors"), "--for", "comfyui", "-o", str(target)]
    result = run(*words, "--json")
    assert result.exit_code == EXIT_WELL, result.output
    facts = json.load(io.StringIO(result.stdout))
    assert (facts["host"], facts["multiple"], facts["scale"]) == ("spandrel", 4, 1)
    assert run(*words).exit_code == EXIT_FAILED
    assert run(*words, "--overwrite").exit_code == EXIT_WELL


@pytest.mark.parametrize("size", ["720", "720x", "0x-3", "wide"])
def test_a_size_that_is_none(folder, size):
    result = run("export", str(folder / "naf.safetensors"), "--static", size)
    assert result.exit_code == EXIT_USAGE
    assert "HEIGHTxWIDTH" in result.output
