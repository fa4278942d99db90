"""Model files: the weights of a network with what must be known about them.

The container, and what is checked in it, is that of `urushi.files.container`.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
from pydantic import Field, JsonValue

from urushi.errors import FileFormatError
from urushi.files.container import (
    Header,
    Kind,
    Storage,
    open_checked,
    read_tensors,
    to_storage,
    weights_hash,
    write_container,
)
from urushi.files.tensors import Named, Tensors
from urushi.version import __version__

__all__ = [
    "LoadedModel",
    "ModelHeader",
    "architecture_hash",
    "describe_model",
    "graph_path",
    "hash_of_graph",
    "name_graph",
    "read_graph_file",
    "read_header",
    "read_model",
    "weights_hash",
    "write_model",
]

FORMAT = "urushi-model"
VERSION = 1
_SETTLED_NS = 2_000_000_000
# The graph of the largest network known here has some hundred kB.
_LARGEST_GRAPH = 100_000_000


class ModelHeader(Header):
    """What a model file says about itself.

    Attributes:
        format: always `urushi-model`.
        version: version of the file format.
        backbone: name of the network in the table of backbones.
        config: arguments from which the network is built.
        weights_hash: `weights_hash` of the stored tensors; filled in by `write_model`.
        graph_hash: SHA-256 of the exported graph that belongs to it; filled in by `name_graph`,
            empty as long as there is none.
        description: one or two sentences for people.
        degradations: names of the degradations the network was trained on.
        recipe: the resolved recipe of the training, if there was one.
        scores: measured scores, by benchmark.
        licence: licence of the weights, preferably an SPDX identifier.
        data: statement about the training data and its terms.
        created_by: program and version that wrote the file.
    """

    format: Literal["urushi-model"] = FORMAT
    version: Literal[1] = VERSION
    backbone: str = Field(min_length=1)
    config: dict[str, JsonValue]
    weights_hash: str = ""
    graph_hash: str = ""
    description: str = ""
    degradations: list[str] = []
    recipe: dict[str, JsonValue] | None = None
    scores: dict[str, JsonValue] = {}
    licence: str = ""
    data: str = ""
    created_by: str = f"urushi {__version__}"


_KIND = Kind(FORMAT, VERSION, "a model file", ModelHeader)


@dataclass(frozen=True)
class LoadedModel:
    """A checked model file.

    Attributes:
        header: what the file says about itself.
        tensors: weights by name, float32; those of a file are `urushi.files.tensors.Tensors`.
        path: the file they came from.
        graph: the exported graph beside the file, or None.
        folded: the adapters in its weights, as people know them; empty for what the file holds.
    """

    header: ModelHeader
    tensors: Named
    path: Path
    graph: Path | None
    folded: tuple[str, ...] = ()


_held: WeakValueDictionary[tuple[object, ...], LoadedModel] = WeakValueDictionary()


def graph_path(path: Path) -> Path:
    """Return where the exported graph of the model file `path` stands (or would stand)."""
    return path.with_suffix(".onnx")


def read_graph_file(path: Path) -> bytes:
    """Return the bytes of an exported graph, which has no weights and is small.

    Raises:
        FileFormatError: it cannot be read, or is no graph by its size.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_GRAPH + 1)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror or error})") from error
    if len(content) > _LARGEST_GRAPH:
        raise FileFormatError(
            f"{path}: more than {_LARGEST_GRAPH:,} bytes, which no graph without weights has: "
            "export it again"
        )
    return content


def hash_of_graph(content: bytes) -> str:
    """Return the SHA-256 by which files name an exported graph."""
    return hashlib.sha256(content).hexdigest()


def name_graph(path: Path) -> None:
    """Write the hash of the graph beside a model file into that file, whose weights stay.

    Raises:
        FileFormatError: the file or its graph cannot be read, or the disk refuses.
    """
    path = Path(path)
    header, _ = open_checked(path, _KIND)
    named = hash_of_graph(read_graph_file(graph_path(path)))
    if header.graph_hash != named:
        stored = read_tensors(path, header.weights_hash)
        write_container(path, stored, header.model_copy(update={"graph_hash": named}))


def architecture_hash(header: ModelHeader) -> str:
    """Return the SHA-256 of backbone and configuration: what a graph and its weights share."""
    config = json.dumps(header.config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{header.backbone}\0{config}".encode()).hexdigest()


def write_model(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    header: ModelHeader,
    storage: Storage = "float32",
) -> ModelHeader:
    """Write a model file whole or not at all; a file that is there is replaced.

    Args:
        path: target, `NAME.safetensors`.
        tensors: weights by name, of any float dtype and shape.
        header: description; its `weights_hash` is replaced by that of the stored tensors.
        storage: dtype on disk. `float16` halves the file and rounds the weights.

    Returns:
        The header as written.

    Raises:
        FileFormatError: the name, a tensor or the header cannot be stored, or the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise FileFormatError(
            f"{path}: the name of a model file must end in .safetensors", usage=True
        )
    stored = {name: to_storage(path, name, array, storage) for name, array in tensors.items()}
    if not stored:
        raise FileFormatError(f"{path}: a model file needs at least one tensor, none was given")
    header = header.model_copy(update={"weights_hash": weights_hash(stored)})
    write_container(path, stored, header)
    return header


def read_header(path: Path) -> ModelHeader:
    """Read and check what a model file says about itself, without reading its weights.

    Raises:
        FileFormatError: the file is not a complete model file of a version known here.
    """
    return open_checked(Path(path), _KIND)[0]


def read_model(path: Path) -> LoadedModel:
    """Read a model file and check all of it, the weights' hash and finiteness included.

    As long as someone holds what was read, and the file is still the same, that is what is given:
    a training asks for its base in many places.

    Raises:
        FileFormatError: the file is not a sound model file of a version known here.
    """
    path = Path(path)
    state = _state(path)
    found = None if state is None else _held.get(state)
    if found is None:
        found = _read_model(path)
        if state is not None and state == _state(path):
            _held[state] = found
    return found


def _state(path: Path) -> tuple[object, ...] | None:
    """What tells whether a file was changed; None where that cannot be told.

    Clocks of file systems are coarse: a file that was written a moment ago may be written again
    without a later time.
    """
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    latest = max(facts.st_mtime_ns, facts.st_ctime_ns)
    if time.time_ns() - latest < _SETTLED_NS:
        return None
    place = (os.fspath(path), facts.st_dev, facts.st_ino, graph_path(path).is_file())
    return (*place, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def _read_model(path: Path) -> LoadedModel:
    header, _ = open_checked(path, _KIND)
    stored = read_tensors(path, header.weights_hash)
    tensors = {name: tensor.astype(np.float32, copy=False) for name, tensor in stored.items()}
    known = Tensors.made(header.weights_hash, tensors)
    graph = graph_path(path)
    return LoadedModel(header, known, path, graph if graph.is_file() else None)


def describe_model(path: Path) -> dict[str, Any]:
    """Summarise a model file, as plain JSON values.

    Returns:
        `path`, `size` in bytes, `tensors` and `parameters` (counts), `storage` (dtypes on disk),
        `graph` (path of the exported graph, or None), `architecture_hash` and `header`.

    Raises:
        FileFormatError: as `read_model`; a file that is described is one that can be used.
    """
    model = read_model(path)
    _, layout = open_checked(model.path, _KIND)
    return {
        "path": str(model.path),
        "size": model.path.stat().st_size,
        "tensors": len(model.tensors),
        "parameters": sum(tensor.size for tensor in model.tensors.values()),
        "storage": sorted({dtype for dtype, _ in layout.values()}),
        "graph": str(model.graph) if model.graph else None,
        "architecture_hash": architecture_hash(model.header),
        "header": model.header.model_dump(),
    }
