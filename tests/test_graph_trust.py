"""The graph beside a model: only the one that belongs to it runs, and a changed one is told."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import batch
from onnx import helper, numpy_helper
from world import write_tiny

from urushi.errors import EngineError, FileFormatError
from urushi.files.model import (
    LoadedModel,
    ModelHeader,
    graph_path,
    hash_of_graph,
    name_graph,
    read_header,
    read_model,
    write_model,
)
from urushi.files.router_file import read_router_header, router_graph_path
from urushi.inference.engines import create_engine, graph_trust
from urushi.inference.zoo import ZOO, find_all_in_one, find_model


@pytest.fixture
def copied(exported, tmp_path) -> Path:
    """A model with its graph, of its own."""
    shutil.copy(graph_path(exported), tmp_path / "tiny.onnx")
    return Path(shutil.copy(exported, tmp_path / "tiny.safetensors"))


def with_entry(key: str, value: str):
    def change(graph: onnx.ModelProto) -> None:
        key_of = f"urushi_{key}"
        found = [entry for entry in graph.metadata_props if entry.key == key_of]
        (found[0] if found else graph.metadata_props.add(key=key_of)).value = value

    return change


def halved(graph: onnx.ModelProto) -> None:
    """Of every picture, half the light."""
    last = graph.graph.output[0].name
    for node in graph.graph.node:
        for index, name in enumerate(node.output):
            if name == last:
                node.output[index] = "before"
    graph.graph.initializer.append(numpy_helper.from_array(np.array([0.5], np.float32), "half"))
    graph.graph.node.append(helper.make_node("Mul", ["before", "half"], [last]))


def without_output(graph: onnx.ModelProto) -> None:
    del graph.graph.output[:]


def without_picture(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].name = "picture"


def cut_short(graph: onnx.ModelProto) -> None:
    """Its result is the first layer's."""
    graph.graph.output[0].name = graph.graph.node[len(graph.graph.node) // 2].output[0]


def of_three_axes(graph: onnx.ModelProto) -> None:
    for entry in graph.graph.input:
        if entry.name == "image":
            del entry.type.tensor_type.shape.dim[3:]


def changed(path: Path, change) -> None:
    graph = onnx.load(str(graph_path(path)))
    change(graph)
    graph_path(path).write_bytes(graph.SerializeToString())


def unnamed(path: Path) -> None:
    """As files were written before they named their graph."""
    model = read_model(path)
    write_model(path, model.tensors, model.header.model_copy(update={"graph_hash": ""}))


CHANGES = {
    "multiple 0": with_entry("size_multiple", "0"),
    "multiple x": with_entry("size_multiple", "x"),
    "no multiple": with_entry("size_multiple", ""),
    "multiple -8": with_entry("size_multiple", "-8"),
    "multiple 16": with_entry("size_multiple", "16"),
    "long multiple": with_entry("size_multiple", "9" * 5000),
    "another digit": with_entry("size_multiple", "\u0664"),
    "scale 2": with_entry("scale", "2"),
    "scale 0": with_entry("scale", "0"),
    "scale 1000": with_entry("scale", "1000"),
    "patch 1.5": with_entry("fixed_patch", "1.5"),
    "patch 3": with_entry("fixed_patch", "3"),
    "half": halved,
    "no output": without_output,
    "no picture": without_picture,
    "cut": cut_short,
    "three axes": of_three_axes,
}


def test_naming_leaves_weights_and_facts(tmp_path):
    path = write_tiny(tmp_path / "a.safetensors")
    before = read_model(path)
    graph_path(path).write_bytes(b"some graph")
    name_graph(path)
    named = path.read_bytes()
    name_graph(path)
    assert path.read_bytes() == named
    after = read_model(path)
    assert after.header.model_copy(update={"graph_hash": ""}) == before.header
    for name, tensor in before.tensors.items():
        np.testing.assert_array_equal(after.tensors[name], tensor)


def test_shipped_files_name_their_graphs():
    base = read_header(find_model("base"))
    assert base.graph_hash == hash_of_graph((ZOO / "base.onnx").read_bytes())
    router = find_all_in_one()
    assert router is not None
    content = router_graph_path(router).read_bytes()
    assert read_router_header(router).graph_hash == hash_of_graph(content)


@pytest.mark.parametrize("how", CHANGES)
def test_a_graph_that_the_model_does_not_name_is_not_run(copied, how):
    changed(copied, CHANGES[how])
    with pytest.raises(FileFormatError, match=r"names a graph .*urushi export") as caught:
        create_engine(read_model(copied), engine="openvino")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("how", CHANGES)
def test_the_graph_of_a_file_that_names_none_is_compared_with_torch(copied, how):
    changed(copied, CHANGES[how])
    unnamed(copied)
    for _ in range(2):  # a graph that was refused is not known the second time
        with pytest.raises(FileFormatError, match=r"tiny\.onnx"):
            create_engine(read_model(copied), engine="openvino")


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_graph_that_the_file_names_ends_in_a_sentence_or_a_picture(copied, how):
    changed(copied, CHANGES[how])
    name_graph(copied)
    with suppress(FileFormatError, EngineError):
        engine = create_engine(read_model(copied), engine="openvino")
        images = batch(engine.size_multiple * 2, engine.size_multiple * 3)
        result = engine.run(images)
        assert result.shape[2:] == tuple(engine.scale * side for side in images.shape[2:])


def test_the_graph_of_an_old_file_is_compared_once(copied, monkeypatch):
    unnamed(copied)
    calls = []
    compare = graph_trust.trusted_graph

    def counted(model: LoadedModel, how):
        def run(model: LoadedModel) -> None:
            calls.append(model)
            how(model)

        return compare(model, run)

    monkeypatch.setattr(graph_trust, "_compared", set())
    monkeypatch.setattr("urushi.inference.engines.openvino_graph.trusted_graph", counted)
    for _ in range(2):
        create_engine(read_model(copied), engine="openvino").run(batch(16, 24))
    assert len(calls) == 1


def test_without_torch_an_old_file_is_refused(copied, monkeypatch):
    unnamed(copied)
    monkeypatch.setattr(graph_trust, "_compared", set())
    monkeypatch.setattr(graph_trust, "is_installed", lambda package: package != "torch")
    with pytest.raises(FileFormatError, match="does not name its graph"):
        create_engine(read_model(copied), engine="openvino")


def test_a_graph_too_large_for_one_is_not_read(copied, monkeypatch):
    monkeypatch.setattr("urushi.files.model._LARGEST_GRAPH", 1000)
    with pytest.raises(FileFormatError, match="more than 1,000 bytes"):
        create_engine(read_model(copied), engine="openvino")


def test_widths_that_no_network_has_do_not_end_the_choice_of_tiles(copied):
    from urushi.inference.engines.base import working_memory

    widths: list[Any] = [10**400, -1, 0, "x", None, [1]]
    for width in widths:
        header = ModelHeader(backbone="nafnet", config={"width": width})
        assert 0 < working_memory(header, "openvino", "float32") < 1e6
