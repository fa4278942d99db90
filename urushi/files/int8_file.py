"""Files for 8-bit arithmetic: `NAME.int8` beside a model, the ranges of its layers.

Such a file holds neither network nor weights: for every convolution that is calculated in 8 bits
it has the range of its input, the ranges of its weights and its corrected bias. It is a
safetensors file, read without torch, and belongs to one set of weights and to one graph.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import JsonValue, ValidationError
from safetensors import SafetensorError, safe_open

from urushi.errors import FileFormatError
from urushi.files.container import METADATA_KEY, Header, weights_hash, write_container
from urushi.files.model import LoadedModel, architecture_hash, hash_of_graph, read_graph_file
from urushi.version import __version__

__all__ = [
    "Int8Header",
    "LayerRanges",
    "int8_command",
    "int8_path",
    "new_header",
    "read_int8",
    "write_int8",
]

FORMAT = "urushi-int8"
VERSION = 1


class Int8Header(Header):
    """What such a file says about itself.

    Attributes:
        format: always `urushi-int8`.
        version: version of the file format.
        architecture_hash: `architecture_hash` of the model it was made from.
        weights_hash: `weights_hash` of that model.
        graph_hash: SHA-256 of the exported graph whose layers it names.
        ranges_hash: `weights_hash` of its own tensors; filled in by `write_int8`.
        calibration: how the ranges were found, and what they cost.
        created_by: program and version that wrote the file.
    """

    format: Literal["urushi-int8"] = FORMAT
    version: Literal[1] = VERSION
    architecture_hash: str
    weights_hash: str
    graph_hash: str
    ranges_hash: str = ""
    calibration: dict[str, JsonValue] = {}
    created_by: str = f"urushi {__version__}"


@dataclass(frozen=True)
class LayerRanges:
    """What one convolution needs to be calculated in 8 bits.

    Attributes:
        activation: `(2,)` float32, lowest and highest value of its input.
        weight: `(2, C)` float32, lowest and highest weight of each of its C output channels.
        bias: `(C,)` float32, the bias that makes up for the mean error; None without one.
    """

    activation: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None


def int8_path(path: Path) -> Path:
    """Return where the int8 file of the model file `path` stands (or would stand)."""
    return path.with_suffix(".int8")


def int8_command(path: Path) -> str:
    """Return the command that makes the int8 file of the model file `path`."""
    return f"urushi export {path} --precision int8 --clean FOLDER"


def new_header(model: LoadedModel, calibration: dict[str, JsonValue], tool: str) -> Int8Header:
    """Return a header that ties ranges to `model` and to its graph; `tool` found the ranges."""
    return Int8Header(
        architecture_hash=architecture_hash(model.header),
        weights_hash=model.header.weights_hash,
        graph_hash=_graph_hash(model),
        calibration=calibration,
        created_by=f"urushi {__version__}, {tool}",
    )


def write_int8(path: Path, layers: Mapping[str, LayerRanges], header: Int8Header) -> None:
    """Write an int8 file whole or not at all; a file that is there is replaced.

    Args:
        path: target, `NAME.int8`.
        layers: ranges by the name that a convolution's result has in the graph.
        header: from `new_header`; its `ranges_hash` is replaced.

    Raises:
        FileFormatError: the disk refuses.
    """
    tensors: dict[str, np.ndarray] = {}
    for name, ranges in layers.items():
        tensors[f"{name}/activation"] = ranges.activation
        tensors[f"{name}/weight"] = ranges.weight
        if ranges.bias is not None:
            tensors[f"{name}/bias"] = ranges.bias
    tensors = {n: np.ascontiguousarray(t, dtype=np.float32) for n, t in tensors.items()}
    header = header.model_copy(update={"ranges_hash": weights_hash(tensors)})
    write_container(path, tensors, header)


def read_int8(model: LoadedModel) -> tuple[Int8Header, dict[str, LayerRanges]]:
    """Read and check the int8 file of a model.

    Args:
        model: a checked model file, with the graph beside it.

    Returns:
        Its header, and ranges by the name that a convolution's result has in the graph.

    Raises:
        FileFormatError: the file is damaged, or belongs to other weights or another graph.
    """
    path = int8_path(model.path)
    again = f"make it again with  {int8_command(model.path)}"
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            # numpy does not have all types of such files.
            floats = [name for name, type in types.items() if type == "F32"]
            tensors = {name: file.get_tensor(name) for name in floats}
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path}: not a complete int8 file ({error}): {again}") from error
    try:
        header = Int8Header.model_validate(json.loads(metadata.get(METADATA_KEY, "")))
    except (ValueError, RecursionError, ValidationError) as error:
        raise FileFormatError(
            f"{path}: its metadata is not that of an int8 file of version {VERSION}: {again}"
        ) from error
    if other := next((name for name in types if name not in tensors), None):
        raise FileFormatError(
            f"{path}: its tensor {other!r} is of {types[other]}, expected F32: {again}"
        )
    _check_origin(header, model, again)
    if weights_hash(tensors) != header.ranges_hash:
        raise FileFormatError(f"{path}: it was changed or damaged: {again}")
    try:
        layers = _as_layers(tensors)
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}: {again}") from error
    return header, layers


def _check_origin(header: Int8Header, model: LoadedModel, again: str) -> None:
    path = int8_path(model.path)
    if model.folded:
        raise FileFormatError(
            f"{path}: measured on {model.path.name} without {' and '.join(model.folded)}: use "
            "float32 or bf16, or write both to a model file with  urushi export ADAPTER --merged "
            "OUT  and make the int8 file of that"
        )
    if header.architecture_hash != architecture_hash(model.header):
        raise FileFormatError(f"{path}: of another network than {model.path.name}: {again}")
    if header.weights_hash != model.header.weights_hash:
        raise FileFormatError(
            f"{path}: made from the weights {header.weights_hash[:12]}, but {model.path.name} has "
            f"{model.header.weights_hash[:12]}: {again}"
        )
    if header.graph_hash != _graph_hash(model):
        raise FileFormatError(
            f"{path}: made from another graph than the one beside {model.path.name}: {again}"
        )


def _graph_hash(model: LoadedModel) -> str:
    assert model.graph is not None
    return hash_of_graph(read_graph_file(model.graph))


def _as_layers(tensors: Mapping[str, np.ndarray]) -> dict[str, LayerRanges]:
    """Group tensors by layer; a ValueError says what is wrong with them."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition("/")
        if part not in ("activation", "weight", "bias"):
            raise ValueError(f"unknown tensor {key!r}")
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise ValueError(f"the tensor {key!r} is not of finite float32 numbers")
        parts.setdefault(name, {})[part] = tensor
    layers = {}
    for name, found in parts.items():
        activation, weight = found.get("activation"), found.get("weight")
        bias = found.get("bias")
        if activation is None or activation.shape != (2,) or not activation[0] < activation[1]:
            raise ValueError(f"{name!r} has no range for its input")
        if weight is None or weight.ndim != 2 or len(weight) != 2 or (weight[0] > weight[1]).any():
            raise ValueError(f"{name!r} has no ranges for its weights")
        if bias is not None and bias.shape != weight.shape[1:]:
            raise ValueError(f"{name!r} has a bias of shape {bias.shape}")
        layers[name] = LayerRanges(activation, weight, bias)
    if not layers:
        raise ValueError("it holds no ranges")
    return layers
