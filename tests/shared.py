"""What is made once for all tests, however many processes run them, and left as it is."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from commands import run_watched
from filelock import FileLock
from pictures import write_pictures
from world import write_tiny

from urushi.convert import tracing
from urushi.files.model import LoadedModel, architecture_hash

# One level and one block in the middle: tracing takes half as long.
GREY = {"img_channel": 1, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [0]}
# Six in each block, and those that change the resolution.
GREY_LAYERS = 6 * 2 + 1 + 1


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills: for whoever asks first; all others wait for it, and read.

    It is renamed when it is whole, so that what is written into it must not name its place.
    """
    base = factory.getbasetemp()
    # Below it each process of pytest-xdist has a folder of its own.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, part = base / name, base / f"{name}.part"
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(folder)
    return folder


WATCHED = """
import shutil
from urushi.convert.graphs import export_graph
from urushi.convert.quantize import export_int8
folder, clean, small = Path(sys.argv[1]), Path(sys.argv[2]), dict(crops=4, side=32)
model = read_model(export_graph(folder / "graph/tiny.safetensors").with_suffix(".safetensors"))
assert create_engine(model, engine="torch").run(np.ones((1, 3, 8, 8), "f")).any()
shutil.copytree(folder / "graph", folder / "int8")
export_int8(folder / "int8/tiny.safetensors", clean, **small)
# Of this network there is no graph yet.
assert export_int8(folder / "grey/grey.safetensors", clean, **small).layers == int(sys.argv[3])
"""


def make_watched(folder: Path) -> None:
    """Models whose graphs and int8 files are made under watch, in a process that says nothing.

    `graph/tiny` has a graph; `int8/tiny` is the same with an int8 file; `grey/grey`, for grey
    pictures, has both. `clean` are the pictures by which ranges were measured.
    """
    for name in ("graph", "grey"):
        (folder / name).mkdir()
    write_pictures(folder / "clean", 2, height=64, width=96)
    write_tiny(folder / "graph/tiny.safetensors")
    write_tiny(folder / "grey/grey.safetensors", **GREY)
    words = (folder, folder / "clean", GREY_LAYERS)
    assert run_watched(WATCHED, folder / "home", *words) == ""
    found = {path.name for kind in ("graph", "int8", "grey") for path in (folder / kind).iterdir()}
    assert found == {f"{n}.{s}" for n in ("tiny", "grey") for s in ("safetensors", "onnx", "int8")}


def trace_once(factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `traced` write the graph of each NAFNet once.

    Tracing takes torch's exporter five to ten seconds, and a graph depends on nothing but the
    architecture: weights are its inputs. Whoever exports compares it with torch nevertheless.
    """
    plain = tracing.traced

    def traced(model: LoadedModel, size_multiple: int, attached=()) -> onnx.ModelProto:
        # Other names may be those of a test's own network.
        if attached or model.header.backbone != "nafnet":
            return plain(model, size_multiple, attached)

        def make(folder: Path) -> None:
            onnx.save(plain(model, size_multiple), folder / "graph.onnx")

        name = f"graph-{architecture_hash(model.header)}"
        return onnx.load(made_once(factory, name, make) / "graph.onnx")

    monkeypatch.setattr(tracing, "traced", traced)
