"""Model files: one safetensors file that carries its own meaning, read without torch.

The weights are ordinary safetensors entries. The metadata has the single entry `urushi`, a JSON
object that is described by `ModelHeader`; a single entry, because safetensors keeps several in
no particular order and the same model should give the same bytes.

Everything is checked before anything is used, and nothing in a file is ever executed.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from urushi.errors import FileFormatError
from urushi.version import __version__

__all__ = [
    "LoadedModel",
    "ModelHeader",
    "architecture_hash",
    "describe_model",
    "graph_path",
    "read_header",
    "read_model",
    "weights_hash",
    "write_model",
    "write_whole",
]

FORMAT = "urushi-model"
VERSION = 1
_METADATA_KEY = "urushi"
_STORED_DTYPES = {"F16": "float16", "F32": "float32"}
_PICKLE_WAY_OUT = "it is never opened, because loading a pickle can run code"


class ModelHeader(BaseModel):
    """What a model file says about itself.

    Attributes:
        format: always `urushi-model`.
        version: version of the file format.
        backbone: name of the network in the table of backbones.
        config: arguments from which the network is built.
        weights_hash: `weights_hash` of the stored tensors; filled in by `write_model`.
        description: one or two sentences for people.
        degradations: names of the degradations the network was trained on.
        recipe: the resolved recipe of the training, if there was one.
        scores: measured scores, by benchmark.
        licence: licence of the weights, preferably an SPDX identifier.
        data: statement about the training data and its terms.
        created_by: program and version that wrote the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["urushi-model"] = FORMAT
    version: Literal[1] = VERSION
    backbone: str = Field(min_length=1)
    config: dict[str, JsonValue]
    weights_hash: str = ""
    description: str = ""
    degradations: list[str] = []
    recipe: dict[str, JsonValue] | None = None
    scores: dict[str, JsonValue] = {}
    licence: str = ""
    data: str = ""
    created_by: str = f"urushi {__version__}"


@dataclass(frozen=True)
class LoadedModel:
    """A checked model file.

    Attributes:
        header: what the file says about itself.
        tensors: weights by name, float32.
        path: the file they came from.
        graph: the exported graph beside the file, or None.
    """

    header: ModelHeader
    tensors: Mapping[str, np.ndarray]
    path: Path
    graph: Path | None


def graph_path(path: Path) -> Path:
    """Return where the exported graph of the model file `path` stands (or would stand)."""
    return path.with_suffix(".onnx")


def weights_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of `tensors`, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        digest.update(f"{name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode())
        digest.update(tensor.data if tensor.size else b"")
    return digest.hexdigest()


def architecture_hash(header: ModelHeader) -> str:
    """Return the SHA-256 of backbone and configuration: what a graph and its weights share."""
    config = json.dumps(header.config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{header.backbone}\0{config}".encode()).hexdigest()


def write_model(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    header: ModelHeader,
    storage: Literal["float32", "float16"] = "float32",
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
        raise FileFormatError(f"{path}: the name of a model file must end in .safetensors")
    stored = {name: _to_storage(path, name, array, storage) for name, array in tensors.items()}
    if not stored:
        raise FileFormatError(f"{path}: a model file needs at least one tensor, none was given")
    header = header.model_copy(update={"weights_hash": weights_hash(stored)})
    try:
        text = json.dumps(header.model_dump(), allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise FileFormatError(
            f"{path}: the header cannot be written as JSON ({error}); use finite numbers"
        ) from error
    write_whole(path, save(stored, metadata={_METADATA_KEY: text}))
    return header


def read_header(path: Path) -> ModelHeader:
    """Read and check what a model file says about itself, without reading its weights.

    Raises:
        FileFormatError: the file is not a complete model file of a version known here.
    """
    return _open_checked(Path(path))[0]


def read_model(path: Path) -> LoadedModel:
    """Read a model file and check all of it, the weights' hash and finiteness included.

    Raises:
        FileFormatError: the file is not a sound model file of a version known here.
    """
    path = Path(path)
    header, _ = _open_checked(path)
    with safe_open(path, framework="np") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    found = weights_hash(stored)
    if found != header.weights_hash:
        raise FileFormatError(
            f"{path}: its weights have the hash {found[:12]}, the header says "
            f"{header.weights_hash[:12] or 'nothing'}: it was changed or damaged, get it again"
        )
    for name, tensor in stored.items():
        if not np.isfinite(tensor).all():
            raise FileFormatError(
                f"{path}: the tensor {name!r} holds NaN or infinite values, expected finite "
                "weights: the training that wrote it went wrong"
            )
    tensors = {name: tensor.astype(np.float32, copy=False) for name, tensor in stored.items()}
    graph = graph_path(path)
    return LoadedModel(header, tensors, path, graph if graph.is_file() else None)


def describe_model(path: Path) -> dict[str, Any]:
    """Summarise a model file, as plain JSON values.

    Returns:
        `path`, `size` in bytes, `tensors` and `parameters` (counts), `storage` (dtypes on disk),
        `graph` (path of the exported graph, or None), `architecture_hash` and `header`.

    Raises:
        FileFormatError: as `read_model`; a file that is described is one that can be used.
    """
    model = read_model(path)
    _, dtypes = _open_checked(model.path)
    return {
        "path": str(model.path),
        "size": model.path.stat().st_size,
        "tensors": len(model.tensors),
        "parameters": sum(tensor.size for tensor in model.tensors.values()),
        "storage": dtypes,
        "graph": str(model.graph) if model.graph else None,
        "architecture_hash": architecture_hash(model.header),
        "header": model.header.model_dump(),
    }


def _to_storage(path: Path, name: str, array: np.ndarray, storage: str) -> np.ndarray:
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise FileFormatError(
            f"{path}: the tensor {name!r} has dtype {array.dtype}, a model file holds floats only"
        )
    if array.size == 0:
        raise FileFormatError(f"{path}: the tensor {name!r} of shape {array.shape} is empty")
    with np.errstate(over="ignore"):
        array = array.astype(storage, order="C")
    if not np.isfinite(array).all():
        raise FileFormatError(
            f"{path}: the tensor {name!r} is not finite in {storage}; "
            "repair the weights, or store them as float32 if they are only too large"
        )
    return array


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all; a file that is there is replaced.

    Raises:
        FileFormatError: the disk refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FileFormatError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "choose a folder that exists and may be written"
        ) from error


def _open_checked(path: Path) -> tuple[ModelHeader, list[str]]:
    """Check the container and the header; return the header and the dtypes on disk."""
    _check_kind(path)
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            layout = {name: (s.get_dtype(), s.get_shape()) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{path}: not a complete safetensors file ({error}): it is damaged or its download "
            "was cut short, get it again"
        ) from error
    if _METADATA_KEY not in metadata:
        raise FileFormatError(
            f"{path}: a safetensors file without Urushi's metadata, expected a model file "
            "written by Urushi"
        )
    header = _parse_header(path, metadata[_METADATA_KEY])
    if unknown := sorted(set(metadata) - {_METADATA_KEY}):
        raise FileFormatError(f"{path}: unknown metadata {unknown[0]!r}, only 'urushi' is known")
    if not layout:
        raise FileFormatError(f"{path}: it holds no tensors, expected the weights of a network")
    for name, (dtype, shape) in layout.items():
        if dtype not in _STORED_DTYPES:
            raise FileFormatError(
                f"{path}: the tensor {name!r} has dtype {dtype}, expected F16 or F32"
            )
        if 0 in shape:
            raise FileFormatError(f"{path}: the tensor {name!r} of shape {shape} is empty")
    return header, sorted({_STORED_DTYPES[dtype] for dtype, _ in layout.values()})


def _check_kind(path: Path) -> None:
    """Name files that are something else, as downloads often are."""
    if path.is_dir():
        raise FileFormatError(f"{path}: a folder, expected a model file NAME.safetensors")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: there is no such file, expected a model file") from error
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not start:
        kind, way_out = "an empty file", "its download failed, get it again"
    elif start.startswith(b"version https://git-lfs"):
        kind, way_out = "a Git LFS pointer, not the file itself", "run  git lfs pull"
    elif start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        kind, way_out = "a web page", "the link led to a page, download the file itself"
    elif start.startswith(b"PK\x03\x04"):
        kind, way_out = "a zip archive, probably a PyTorch .pth checkpoint", _PICKLE_WAY_OUT
    # A pickle of protocol 2 to 5 starts so; the header of safetensors has a brace at byte 8.
    elif len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5 and start[8:9] != b"{":
        kind, way_out = "a Python pickle", _PICKLE_WAY_OUT
    else:
        return
    raise FileFormatError(f"{path}: {kind}, expected a model file NAME.safetensors: {way_out}")


def _parse_header(path: Path, text: str) -> ModelHeader:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: its metadata is not valid JSON ({error})") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        kind = raw.get("format") if isinstance(raw, dict) else raw
        raise FileFormatError(f"{path}: its format is {kind!r}, expected {FORMAT!r}")
    version = raw.get("version")
    if isinstance(version, int) and version > VERSION:
        raise FileFormatError(
            f"{path}: format version {version} is newer than {VERSION}, the newest known here: "
            "upgrade Urushi"
        )
    try:
        return ModelHeader.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise FileFormatError(
                f"{path}: unknown key {where!r} in its metadata, expected only "
                f"{', '.join(ModelHeader.model_fields)}"
            ) from error
        raise FileFormatError(
            f"{path}: its metadata is wrong at {where!r}: {first['msg'].lower()}"
        ) from error
