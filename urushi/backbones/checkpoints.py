"""The authors' released checkpoints, read without executing anything they contain."""

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from urushi.backbones.checkpoint_layouts import Chosen, choose_network
from urushi.backbones.checkpoint_leaves import is_plain
from urushi.backbones.pickled import class_of, load_pickled
from urushi.errors import FileFormatError
from urushi.files.container import refuse_json_constant

__all__ = ["read_checkpoint", "read_network"]

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype", b"<html")
_LARGEST_INDEX = 50_000_000
_PART = re.compile(r"-\d{5}-of-(\d{5})\.(safetensors|bin)$")
# Weights do not get smaller by packing; what does so is made to fill memory.
_MOST_UNPACKED = 8
_SPARE_BYTES = 64_000_000
_OTHERS = {b"GGUF": "a GGUF file", b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "an array of NumPy"}
_PACKED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z", b"Rar!": "RAR",
}  # fmt: skip
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# With this number torch.save begins where it writes no archive.
_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_FULL = (
    "gather them, with zero_to_fp32.py (DeepSpeed) or as a full state dict (FSDP), and import that"
)
_DISTRIBUTED = (
    "of torch's distributed checkpoints make one file first, with  python -m "
    "torch.distributed.checkpoint.format_utils dcp_to_torch"
)
# Whole numbers of released networks that are none of their weights.
_INDICES = ("relative_position_index", "position_ids", "num_batches_tracked")


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The tensors of the network in a released checkpoint, by the names of the authors' code.

    Args:
        path: a file written by `torch.save`, safetensors, or the index of several of either.

    Raises:
        FileFormatError: the file is not a checkpoint of plain, finite tensors.
    """
    return read_network(path).tensors


def read_network(path: Path | str, copy: str | None = None) -> Chosen:
    """As `read_checkpoint`, with notes on what else the file holds.

    Args:
        path: the file.
        copy: what the names of the tensors begin with, where the file holds several networks
            alike, or "." for no prefix; None takes the averaged one.
    """
    path = Path(path)
    left: dict[str, None] = {}
    chosen = choose_network(_content(path, left), str(path), copy)
    _check_sizes(path, chosen.tensors)
    small = sorted({str(t.dtype) for t in chosen.tensors.values() if _is_small_float(t)})
    tensors = {name: _plain_tensor(path, name, t) for name, t in chosen.tensors.items()}
    notes = list(chosen.notes)
    if small:
        notes.append(f"weights are stored as {' and '.join(small)}, and were made float32")
    kinds = [*dict.fromkeys(_told_class(name) for name in left if "builtins." not in name)]
    if kinds:
        more = f" and {len(kinds) - 3} more" if len(kinds) > 3 else ""
        notes.append(f"left out: objects that hold no weights, of {', '.join(kinds[:3])}{more}")
    return Chosen(tensors, tuple(notes))


def _told_class(name: str) -> str:
    """A class as people know it: NumPy's numbers and arrays are made by functions within it."""
    return "NumPy" if name.partition(".")[0] == "numpy" else name


def _is_small_float(tensor: Tensor) -> bool:
    """Whether torch stores a float in a byte or less, and hardly calculates with it."""
    return tensor.is_floating_point() and tensor.element_size() == 1


def _check_sizes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A view may have any number of elements, whatever is stored: every copy would take memory."""
    stored, claimed = {}, 0
    for name, tensor in tensors.items():
        if not is_plain(tensor):
            continue  # told apart below
        storage = tensor.untyped_storage()
        if tensor.numel() * tensor.element_size() > storage.nbytes() + _SPARE_BYTES:
            raise FileFormatError(
                f"{path}: tensor {name!r:.200} claims {tensor.numel():,} elements of "
                f"{storage.nbytes():,} bytes: it was made to exhaust memory, get it again"
            )
        stored[storage.data_ptr()] = storage.nbytes()
        claimed += tensor.numel() * tensor.element_size()
    if claimed > 4 * sum(stored.values()) + _SPARE_BYTES:
        raise FileFormatError(
            f"{path}: its tensors claim {claimed:,} bytes and share {sum(stored.values()):,}: it "
            "was made to exhaust memory, get it again"
        )


def _plain_tensor(path: Path, name: str, tensor: Tensor) -> Tensor:
    """The tensor as numbers that can be weights."""
    told = f"{path}: tensor {name!r:.200}"
    if tensor.is_meta:
        raise FileFormatError(
            f"{told} is on torch's device 'meta', which holds no numbers: save the network again "
            "once it has its weights"
        )
    if type(tensor).__name__ == "DTensor":
        raise FileFormatError(f"{told} is a part of one that is spread over devices: {_FULL}")
    if not is_plain(tensor) or tensor.is_complex():
        kind = "nested" if tensor.is_nested else tensor.layout
        raise FileFormatError(
            f"{told} is of the kind {tensor.dtype} {kind}: plain numbers were expected"
        )
    if not tensor.numel():
        raise FileFormatError(
            f"{told} is empty, as trainers leave weights that are spread over devices: {_FULL}"
        )
    if not tensor.is_floating_point():
        if not name.endswith(_INDICES):
            raise FileFormatError(
                f"{told} is of {tensor.dtype}: whole numbers are no weights without the scales of "
                "their quantisation, save the network in float32 or float16"
            )
        return tensor
    try:
        tensor = tensor.float() if _is_small_float(tensor) else tensor
        finite = bool(torch.isfinite(tensor).all())
    except RuntimeError as error:
        raise FileFormatError(
            f"{told} is of {tensor.dtype}, with which torch cannot calculate: save the network in "
            "float32 or float16"
        ) from error
    if not finite:
        raise FileFormatError(f"{told} holds values that are not finite")
    return tensor


def _content(path: Path, left: dict[str, None]) -> Any:
    """What the file holds, as it stands there; `left` takes the classes of what was left out."""
    if path.is_dir():
        raise FileFormatError(
            f"{path} is a folder: give the file in it that holds the weights, or the index of "
            f"several (.index.json); {_DISTRIBUTED}"
        )
    if path.suffix == ".distcp" or path.name == ".metadata":
        raise FileFormatError(f"{path} is a part of a checkpoint: {_DISTRIBUTED}")
    if path.suffix == ".json":
        return _sharded(path, left)
    part = _PART.search(path.name)
    if part and int(part[1]) > 1:
        index = f"{path.name[: part.start()]}.{part[2]}.index.json"
        raise FileFormatError(
            f"{path} is one of {int(part[1])} parts of a checkpoint: give their index, {index}"
        )
    return _loaded(path, left)


def _loaded(path: Path, left: dict[str, None]) -> Any:
    """What one file holds."""
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(512)
        _refuse_others(path, start)
        if _is_safetensors(path, start):
            return load_file(path)
        _check_packing(path)
        content, classes = load_pickled(path)
        if whole := class_of(content):
            raise FileFormatError(
                f"{path} is one whole object of the class {whole}, which would have to be executed:"
                " save the network's state_dict() where that class is known, and import that"
            )
        left.update(dict.fromkeys(classes))
        return content
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise FileFormatError(
            f"{path} is no safetensors file, or is cut off ({error}): get it again"
        ) from error
    except UnpicklingError as error:
        raise FileFormatError(f"{path} {_why_refused(str(error), start)}") from error
    except FileFormatError:
        raise
    except Exception as error:
        # Whatever the bytes of a damaged or hostile file make of the reader.
        if "Creating a Tensor subclass" in str(error):
            raise FileFormatError(
                f"{path} holds tensors of classes of their own, which would have to be executed: "
                "save them as plain tensors, and import that"
            ) from error
        raise FileFormatError(
            f"{path} is not a checkpoint of plain tensors, or is damaged or cut off: get it again"
        ) from error


def _is_safetensors(path: Path, start: bytes) -> bool:
    """By what is in it: people rename such files as they do others."""
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        return True
    return path.suffix == ".safetensors" and not start.startswith((_ZIP, _PICKLE))


def _why_refused(text: str, start: bytes) -> str:
    """What torch's reader of weights alone stumbled over."""
    if "load DTensors" in text:
        return f"holds parts of tensors that are spread over devices: {_FULL}"
    if "Unsupported operand" in text and start.startswith((_ZIP, _PICKLE)):
        return (
            "was saved with a pickle_protocol that torch does not read without executing it: save "
            "it again without that option, or as safetensors"
        )
    named = re.search(r"GLOBAL ([\w.]+)", text)
    wants = f" (it asks for {named[1]})" if named else ""
    return (
        f"is not a checkpoint of plain tensors, or is damaged{wants}: nothing else is loaded, "
        "because other objects could run code"
    )


def _sharded(path: Path, left: dict[str, None]) -> dict[str, Tensor]:
    """The tensors of the files that an index names; they stand beside it."""
    try:
        if path.stat().st_size > _LARGEST_INDEX:
            raise FileFormatError(f"{path} is too large for the index of a checkpoint")
        index = json.loads(path.read_text("utf-8"), parse_constant=refuse_json_constant)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is no index of a checkpoint: not valid JSON") from error
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names:
        raise FileFormatError(
            f"{path} is no index of a checkpoint: its weight_map was expected to name a file for "
            "each tensor"
        )
    names = {str(name): str(file) for name, file in names.items()}
    parts: dict[str, Any] = {}
    for file in dict.fromkeys(names.values()):
        if file != Path(file).name or "\\" in file or file in (".", ".."):
            raise FileFormatError(f"{path} names {file!r:.100}, which is not beside it")
        parts[file] = _loaded(path.with_name(file), left)
        if not isinstance(parts[file], Mapping):
            raise FileFormatError(f"{path.with_name(file)} holds no named tensors")
    tensors = {}
    for name, file in names.items():
        if name not in parts[file]:
            raise FileFormatError(
                f"{path} looks for the tensor {name!r:.200} in {file}, which does not have it: get "
                "all parts from one place"
            )
        tensors[name] = parts[file][name]
    return tensors


def _check_packing(path: Path) -> None:
    """A few kB of packed zeros may unpack to anything; `torch.save` packs nothing."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > _MOST_UNPACKED * path.stat().st_size + _SPARE_BYTES:
        raise FileFormatError(
            f"{path} would unpack to {unpacked:,} bytes: it was made to exhaust memory, get it "
            "again"
        )


def _refuse_others(path: Path, start: bytes) -> None:
    """Names what often lies in the place of a file that was not fetched, and what is none."""
    if not start:
        raise FileFormatError(f"{path} is empty: get a whole copy")
    if start.startswith(_LFS_POINTER):
        raise FileFormatError(
            f"{path} is a pointer of Git LFS and not the file itself: fetch that with  git lfs pull"
        )
    if start.lstrip().lower().startswith(_PAGES):
        raise FileFormatError(
            f"{path} is a web page and not a checkpoint: download the file that the page offers"
        )
    if _is_safetensors(path, start):
        return
    if packed := _packed_in(path, start):
        raise FileFormatError(f"{path} is packed ({packed}): unpack it, and import what is in it")
    if start.startswith(_PICKLE) and _MAGIC not in start[:40]:
        raise FileFormatError(
            f"{path} is a pickle that torch.save did not write: read it where it was made, and save"
            " the tensors with torch.save or safetensors"
        )
    kind = _other_format(path, start)
    if kind:
        raise FileFormatError(
            f"{path} is {kind}, where a checkpoint of plain tensors was expected: save the "
            "network's state_dict() with torch.save or safetensors, and import that"
        )


def _packed_in(path: Path, start: bytes) -> str:
    """What a checkpoint was packed with after it was written; "" for none."""
    kind = next((kind for begin, kind in _PACKED.items() if start.startswith(begin)), "")
    if not kind and start[257:262] == b"ustar":
        return "tar"
    if kind or not start.startswith(_ZIP) or not zipfile.is_zipfile(path):
        return kind
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    held = [name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".safetensors"))]
    return f"zip, with {held[0]:.80} in it" if held else ""


def _other_format(path: Path, start: bytes) -> str:
    """What else holds networks; "" for none of it."""
    kind = next((kind for begin, kind in _OTHERS.items() if start.startswith(begin)), "")
    if kind or path.suffix.lower() == ".onnx":
        return kind or "an ONNX model"
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name for name in names):
        return "TorchScript, which is a program"
    if any(name.endswith("/archive_format") or name == "archive_format" for name in names):
        return "a network of torch.export, which is a program"
    return "an archive of NumPy's arrays" if all(n.endswith(".npy") for n in names) else ""
