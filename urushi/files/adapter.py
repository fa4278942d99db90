"""Adapter files: one small file that teaches a frozen base a degradation, read without torch.

An adapter file belongs to one base: it carries the hashes of that base's architecture and weights
and is refused on any other. The container is that of `urushi.files.container`; tensors have the
names of the adapter's state dict.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, JsonValue, model_serializer
from safetensors import SafetensorError

from urushi.errors import AdapterError, FileFormatError
from urushi.files.container import (
    Header,
    Kind,
    Storage,
    open_checked,
    read_tensors,
    weights_hash,
    write_container,
)
from urushi.files.model import LoadedModel, architecture_hash
from urushi.files.tensors import Named, Tensors
from urushi.version import __version__

__all__ = [
    "GATE",
    "AdapterHeader",
    "BaseFacts",
    "LoadedAdapter",
    "base_facts",
    "check_base",
    "describe_adapter",
    "read_adapter",
    "read_adapter_header",
    "storage_of",
    "write_adapter",
]

FORMAT = "urushi-adapter"
VERSION = 1
# How names of a gate's tensors begin.
GATE = "gate."
# A tensor is stored as float16 where that moves no number by more than this part of its largest.
_HALF_IS_ENOUGH = 2.0**-10


class BaseFacts(Header):
    """The base an adapter belongs to.

    Attributes:
        name: what people call it.
        backbone: name of the network in the table of backbones.
        config: arguments from which the network is built.
        architecture_hash: `architecture_hash` of the model.
        weights_hash: `weights_hash` of the model.
    """

    name: str = Field(min_length=1)
    backbone: str = Field(min_length=1)
    config: dict[str, JsonValue]
    architecture_hash: str
    weights_hash: str


class AdapterHeader(Header):
    """What an adapter file says about itself.

    Attributes:
        format: always `urushi-adapter`.
        version: version of the file format.
        method: its name in the table of methods.
        config: all settings of the method, defaults included.
        base: what it was trained on, and works on.
        tensors_hash: `weights_hash` of the stored tensors; filled in by `write_adapter`.
        name: what people call it; empty for the name of the file.
        description: one or two sentences for people.
        degradations: names of what it was trained to mend.
        recipe: the resolved recipe of the training.
        scores: measured scores, by benchmark or data.
        licence: licence of the adapter, preferably an SPDX identifier.
        data: statement about the training data and its terms.
        gate: whether tensors named `gate.` belong to a network that says which share of the change
            is taken, see `urushi.inference.change_gate`; False where the file says nothing.
        created_by: program and version that wrote the file.
    """

    format: Literal["urushi-adapter"] = FORMAT
    version: Literal[1] = VERSION
    method: str = Field(min_length=1)
    config: dict[str, JsonValue]
    base: BaseFacts
    tensors_hash: str = ""
    name: str = ""
    description: str = ""
    degradations: list[str] = []
    recipe: dict[str, JsonValue] | None = None
    scores: dict[str, JsonValue] = {}
    licence: str = ""
    data: str = ""
    gate: bool = False
    created_by: str = f"urushi {__version__}"

    @model_serializer(mode="wrap")
    def _without_no_gate(self, write: Callable[[Any], Any]) -> dict[str, Any]:
        """Headers of adapters without a gate stay as versions that know none can read them."""
        said = write(self)
        return said if self.gate else {key: v for key, v in said.items() if key != "gate"}


_KIND = Kind(FORMAT, VERSION, "an adapter file", AdapterHeader)


@dataclass(frozen=True)
class LoadedAdapter:
    """A checked adapter file.

    Attributes:
        header: what the file says about itself.
        tensors: by the names of the adapter's state dict, and those of a gate; float32, counters
            int64.
        path: the file they came from.
    """

    header: AdapterHeader
    tensors: Named
    path: Path

    @property
    def own(self) -> Named:
        """The tensors of the method, without those of a gate."""
        if not self.header.gate:
            return self.tensors
        return {k: v for k, v in self.tensors.items() if not k.startswith(GATE)}

    @property
    def gate(self) -> Named:
        """The tensors of the gate, by their names within it; none where there is no gate."""
        if not self.header.gate:
            return {}
        return {k.removeprefix(GATE): v for k, v in self.tensors.items() if k.startswith(GATE)}

    @property
    def name(self) -> str:
        """What people call it."""
        return self.header.name or self.path.stem

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return sum(tensor.size for tensor in self.tensors.values())


def base_facts(model: LoadedModel, name: str = "") -> BaseFacts:
    """Return what an adapter says about the base it is trained on; `name` is the file's if empty.

    Raises:
        AdapterError: the model has adapters in its weights already, and no file of its own.
    """
    if model.folded:
        raise AdapterError(
            f"{model.path} with {' and '.join(model.folded)} in its weights is no model of its "
            "own: write it to a file first with  urushi export ADAPTER --merged OUT"
        )
    return BaseFacts(
        name=name or model.path.stem,
        backbone=model.header.backbone,
        config=model.header.config,
        architecture_hash=architecture_hash(model.header),
        weights_hash=model.header.weights_hash,
    )


def write_adapter(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    header: AdapterHeader,
    storage: Storage = "float16",
) -> AdapterHeader:
    """Write an adapter file whole or not at all; a file that is there is replaced.

    Args:
        path: target, `NAME.safetensors`.
        tensors: the adapter's state dict: floats, and 64-bit integers for counters.
        header: description; its `tensors_hash` is replaced by that of the stored tensors.
        storage: `float16` halves the file; a tensor that would lose more than a thousandth of its
            largest number stays float32. What was measured is in docs/log.md.

    Returns:
        The header as written.

    Raises:
        FileFormatError: the name, a tensor or the header cannot be stored, or the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise FileFormatError(
            f"{path}: the name of an adapter file must end in .safetensors", usage=True
        )
    stored = {name: _to_storage(path, name, array, storage) for name, array in tensors.items()}
    if not stored:
        raise FileFormatError(
            f"{path}: an adapter of method {header.method!r} without any tensor changes nothing: "
            "the base itself is all that is needed"
        )
    header = header.model_copy(update={"tensors_hash": weights_hash(stored)})
    write_container(path, stored, header)
    return header


def storage_of(adapter: LoadedAdapter) -> Storage:
    """How an adapter is stored without a change: as `write_adapter` is told."""
    half = {
        name: _to_storage(adapter.path, name, tensor, "float16")
        for name, tensor in adapter.tensors.items()
    }
    return "float16" if weights_hash(half) == adapter.header.tensors_hash else "float32"


def read_adapter_header(path: Path) -> AdapterHeader:
    """Read and check what an adapter file says about itself, without reading its tensors.

    Raises:
        FileFormatError: the file is not a complete adapter file of a version known here.
    """
    return _open(Path(path))[0]


def read_adapter(path: Path, *, lazily: bool = False) -> LoadedAdapter:
    """Read an adapter file and check all of it, the tensors' hash and finiteness included.

    That its tensors are those its method needs on its base is checked when it is folded or
    attached.

    Args:
        path: the file.
        lazily: check its header now; read and check its tensors, which the header's hash names,
            when they are used first.

    Raises:
        FileFormatError: the file is not a sound adapter file of a version known here.
    """
    path = Path(path)
    header, _ = _open(path)
    tensors = Tensors(header.tensors_hash, partial(_read_tensors, path, header.tensors_hash))
    if not lazily:
        len(tensors)
    return LoadedAdapter(header, tensors, path)


def _read_tensors(path: Path, expected_hash: str) -> dict[str, np.ndarray]:
    try:
        stored = read_tensors(path, expected_hash)
    except (SafetensorError, OSError) as error:
        raise FileFormatError(
            f"{path} cannot be read any more ({error}): get it again, or put it back"
        ) from error
    return {
        name: tensor if tensor.dtype == np.int64 else tensor.astype(np.float32, copy=False)
        for name, tensor in stored.items()
    }


def describe_adapter(path: Path) -> dict[str, Any]:
    """Summarise an adapter file, as plain JSON values.

    Returns:
        `path`, `size` in bytes, `name`, `tensors` and `parameters` (counts), `storage` (dtypes on
        disk) and `header`.

    Raises:
        FileFormatError: as `read_adapter`; a file that is described is one that can be used.
    """
    adapter = read_adapter(path)
    _, layout = _open(adapter.path)
    return {
        "path": str(adapter.path),
        "size": adapter.path.stat().st_size,
        "name": adapter.name,
        "tensors": len(adapter.tensors),
        "parameters": adapter.parameters,
        "storage": sorted({dtype for dtype, _ in layout.values()}),
        "header": adapter.header.model_dump(),
    }


def check_base(adapter: LoadedAdapter, model: LoadedModel) -> None:
    """Check that an adapter was made for this very model.

    Raises:
        AdapterError: it was made for another one; the sentence names both.
    """
    base = adapter.header.base
    if base.architecture_hash != architecture_hash(model.header):
        theirs, ours = f"a {base.backbone}", f" (a {model.header.backbone})"
        if base.backbone == model.header.backbone:
            theirs, ours = f"{theirs} of another configuration", ""
    elif base.weights_hash != model.header.weights_hash:
        theirs = f"weights {base.weights_hash[:12]}"
        ours = f" (weights {model.header.weights_hash[:12]})"
    else:
        return
    given = " with ".join([model.path.name, " and ".join(model.folded)] if model.folded else [])
    raise AdapterError(
        f"{adapter.path}: made for the base {base.name!r} ({theirs}), but the model is "
        f"{given or model.path.name}{ours}: give that base as the model, or adapt this one"
    )


def _open(path: Path) -> tuple[AdapterHeader, Mapping[str, tuple[str, tuple[int, ...]]]]:
    if (path / "adapter_config.json").is_file():
        raise FileFormatError(
            f"{path}: a folder in the format of PEFT, expected an adapter file: make one with  "
            f"urushi import-peft {path} -o NAME.safetensors"
        )
    return open_checked(path, _KIND, integers=True)


def _to_storage(path: Path, name: str, array: np.ndarray, storage: Storage) -> np.ndarray:
    """Return a tensor as it is stored: counters as they are, numbers as short as does no harm."""
    array = np.asarray(array)
    if array.size == 0:
        raise FileFormatError(f"{path}: the tensor {name!r} of shape {array.shape} is empty")
    if array.dtype == np.int64:
        return np.ascontiguousarray(array).reshape(array.shape)
    if not np.issubdtype(array.dtype, np.floating):
        raise FileFormatError(
            f"{path}: the tensor {name!r} has dtype {array.dtype}, such files hold floats, and "
            "int64 for counters"
        )
    with np.errstate(over="ignore", under="ignore"):
        full = array.astype(np.float32, order="C")
        half = full.astype(np.float16)
    if not np.isfinite(full).all():
        raise FileFormatError(
            f"{path}: the tensor {name!r} holds NaN or infinite values: the training went wrong"
        )
    if storage == "float32" or not np.isfinite(half).all():
        return full
    moved = np.abs(half.astype(np.float32) - full).max()
    return half if moved <= _HALF_IS_ENOUGH * np.abs(full).max() else full
