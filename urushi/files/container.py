"""What all our files share: safetensors that carry their own meaning, read without torch.

Tensors are ordinary safetensors entries. The metadata has the single entry `urushi`, a JSON object
that a class under `Header` describes; a single entry, because safetensors keeps several in no
particular order and the same content should give the same bytes.

Everything is checked before anything is used, and nothing in a file is ever executed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, NoReturn, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from urushi.errors import FileFormatError
from urushi.files.stated_format import LARGEST_METADATA, METADATA_KEY, stated_format
from urushi.writing import whole_file

__all__ = [
    "METADATA_KEY",
    "Header",
    "Kind",
    "Layout",
    "Storage",
    "open_checked",
    "read_tensors",
    "refuse_json_constant",
    "stated_format",
    "to_storage",
    "weights_hash",
    "write_container",
    "write_whole",
]

Storage = Literal["float32", "float16"]
# Dtype on disk and shape of every tensor, by name.
Layout = Mapping[str, tuple[str, tuple[int, ...]]]

_STORED_DTYPES = {"F16": "float16", "F32": "float32"}
_PICKLE_WAY_OUT = "it is never opened, because loading a pickle can run code"
# What a file of another kind is called, and where it belongs.
_KINDS = {
    "urushi-model": ("a model file", "give it with --model"),
    "urushi-adapter": ("an adapter file", "give it with --adapter"),
    "urushi-router": ("a router file", "give it with --router"),
    "urushi-int8": ("the int8 file of a model", "give the model itself"),
    "urushi-checkpoint": (
        "the checkpoint of a training",
        "give what the training wrote in the end",
    ),
}


class Header(BaseModel):
    """Base of what files say about themselves: frozen, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)


H = TypeVar("H", bound=Header)


@dataclass(frozen=True)
class Kind(Generic[H]):
    """A kind of file.

    Attributes:
        format: what its metadata calls it.
        version: the newest version known here.
        noun: what people call it, with its article.
        header: what describes it.
    """

    format: str
    version: int
    noun: str
    header: type[H]


def weights_hash(tensors: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of `tensors`, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name], order="C")
        digest.update(f"{name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode())
        digest.update(tensor.data if tensor.size else b"")
    return digest.hexdigest()


def to_storage(path: Path, name: str, array: np.ndarray, storage: Storage) -> np.ndarray:
    """Return a tensor as it is stored.

    Raises:
        FileFormatError: it is empty, not of floats, or not finite in that dtype.
    """
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise FileFormatError(
            f"{path}: the tensor {name!r} has dtype {array.dtype}, such files hold floats only"
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


def write_container(path: Path, tensors: Mapping[str, np.ndarray], header: Header) -> None:
    """Write tensors and header whole or not at all; a file that is there is replaced.

    Raises:
        FileFormatError: the header cannot be stored, or the disk refuses.
    """
    try:
        text = json.dumps(header.model_dump(), allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise FileFormatError(
            f"{path}: the header cannot be written as JSON ({error}); use finite numbers"
        ) from error
    write_whole(path, save(dict(tensors), metadata={METADATA_KEY: text}))


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all; a file that is there is replaced.

    Commands ask `urushi.writing.refuse_taken` first, before any work.

    Raises:
        FileFormatError: the disk refuses.
    """
    try:
        with whole_file(path, overwrite=True) as part:
            part.write_bytes(content)
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be written ({error.strerror or error}); "
            "choose a folder that exists and may be written"
        ) from error


def open_checked(path: Path, kind: Kind[H], *, integers: bool = False) -> tuple[H, Layout]:
    """Check container and header of a file, without reading its tensors.

    Args:
        path: the file.
        kind: what it should be.
        integers: whether 64-bit integers may be among its tensors.

    Raises:
        FileFormatError: it is not a complete file of this kind, of a version known here.
    """
    _check_not_another(path, kind)
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            layout = {name: (s.get_dtype(), tuple(s.get_shape())) for name, s in slices.items()}
    except (SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{path}: not a complete safetensors file ({error}): it is damaged or its download "
            "was cut short, get it again"
        ) from error
    if METADATA_KEY not in metadata:
        raise FileFormatError(
            f"{path}: a safetensors file without Urushi's metadata, expected {kind.noun} "
            "written by Urushi"
        )
    header = _parse_header(path, metadata[METADATA_KEY], kind)
    if unknown := sorted(set(metadata) - {METADATA_KEY}):
        raise FileFormatError(f"{path}: unknown metadata {unknown[0]!r}, only 'urushi' is known")
    if not layout:
        raise FileFormatError(f"{path}: it holds no tensors, expected those of {kind.noun}")
    known = {**_STORED_DTYPES, **({"I64": "int64"} if integers else {})}
    for name, (dtype, shape) in layout.items():
        if dtype not in known:
            raise FileFormatError(
                f"{path}: the tensor {name!r} has dtype {dtype}, expected {' or '.join(known)}"
            )
        if 0 in shape:
            raise FileFormatError(f"{path}: the tensor {name!r} of shape {shape} is empty")
    return header, {name: (known[dtype], shape) for name, (dtype, shape) in layout.items()}


def read_tensors(path: Path, expected_hash: str) -> dict[str, np.ndarray]:
    """Read the tensors of a file that `open_checked` has passed, as they are stored.

    Raises:
        FileFormatError: their hash is not `expected_hash`, or one is not finite.
    """
    with safe_open(path, framework="np") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
    found = weights_hash(stored)
    if found != expected_hash:
        raise FileFormatError(
            f"{path}: its weights have the hash {found[:12]}, the header says "
            f"{expected_hash[:12] or 'nothing'}: it was changed or damaged, get it again"
        )
    for name, tensor in stored.items():
        if not np.isfinite(tensor).all():
            raise FileFormatError(
                f"{path}: the tensor {name!r} holds NaN or infinite values, expected finite "
                "weights: the training that wrote it went wrong"
            )
    return stored


def refuse_json_constant(name: str) -> NoReturn:
    """Refuse what Python's JSON reader takes and JSON does not have: `NaN`, `Infinity`."""
    raise ValueError(f"{name} is no number of JSON")


def _check_not_another(path: Path, kind: Kind[H]) -> None:
    """Name files that are something else, as downloads often are."""
    if path.is_dir():
        raise FileFormatError(f"{path}: a folder, expected {kind.noun} NAME.safetensors")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise FileFormatError(f"{path}: there is no such file, expected {kind.noun}") from error
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror or error})") from error
    if not start:
        what, way_out = "an empty file", "its download failed, get it again"
    elif start.startswith(b"version https://git-lfs"):
        what, way_out = "a Git LFS pointer, not the file itself", "run  git lfs pull"
    elif start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        what, way_out = "a web page", "the link led to a page, download the file itself"
    elif start.startswith(b"PK\x03\x04"):
        what, way_out = "a zip archive, probably a PyTorch .pth checkpoint", _PICKLE_WAY_OUT
    # A pickle of protocol 2 to 5 starts so; the header of safetensors has a brace at byte 8.
    elif len(start) > 1 and start[0] == 0x80 and 2 <= start[1] <= 5 and start[8:9] != b"{":
        what, way_out = "a Python pickle", _PICKLE_WAY_OUT
    else:
        return
    raise FileFormatError(f"{path}: {what}, expected {kind.noun} NAME.safetensors: {way_out}")


def _parse_header(path: Path, text: str, kind: Kind[H]) -> H:
    if len(text) > LARGEST_METADATA:
        raise FileFormatError(
            f"{path}: its metadata has {len(text):,} characters, at most {LARGEST_METADATA:,} are "
            "read: it is not one of ours, or damaged"
        )
    try:
        raw = json.loads(text, parse_constant=refuse_json_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: its metadata is not valid JSON ({error})") from error
    said = raw.get("format", raw.get("kind")) if isinstance(raw, dict) else raw
    if not isinstance(raw, dict) or said != kind.format:
        if isinstance(said, str) and said in _KINDS:
            noun, way_out = _KINDS[said]
            raise FileFormatError(f"{path}: {noun}, expected {kind.noun}: {way_out}")
        raise FileFormatError(f"{path}: its format is {said!r:.80}, expected {kind.format!r}")
    version = raw.get("version")
    if isinstance(version, int) and version > kind.version:
        raise FileFormatError(
            f"{path}: format version {version} is newer than {kind.version}, the newest known "
            "here: upgrade Urushi"
        )
    try:
        return kind.header.model_validate(raw)
    except (ValidationError, RecursionError) as error:
        raise FileFormatError(f"{path}: {_explain(error, kind)}") from error


def _explain(error: ValidationError | RecursionError, kind: Kind[H]) -> str:
    if isinstance(error, RecursionError):
        return "its metadata is nested too deeply"
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])[:80]
    if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
        fields = ", ".join(kind.header.model_fields)
        return f"unknown key {where!r} in its metadata, expected only {fields}"
    return f"its metadata is wrong at {where!r}: {first['msg'].lower()}"
