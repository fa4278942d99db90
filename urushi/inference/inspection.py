"""What a file is and what it says: a model, an adapter, a profile, a pack, a picture ..."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from urushi.adapters.fold import can_hold
from urushi.data.pack import PackedPairs, PackedPictures
from urushi.errors import FileFormatError, MissingExtraError, UrushiError
from urushi.files.adapter import describe_adapter
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.container import stated_format
from urushi.files.int8_file import int8_path, read_int8
from urushi.files.model import describe_model, read_model
from urushi.files.router_file import read_router
from urushi.image import inspect_picture

__all__ = ["inspect_file", "is_adapter"]

_LONGEST_HEADER = 100_000_000


def inspect_file(path: Path) -> dict[str, Any]:
    """Describes a file as plain JSON values; its content decides what it is, not its name.

    Returns:
        `kind`, one of `model`, `adapter`, `router`, `profile`, `pack`, `checkpoint` and `picture`,
        and what such a file holds.

    Raises:
        UrushiError: the file is none of these, damaged, or cannot be read.
    """
    metadata = _safetensors_metadata(path)
    if metadata is None and path.suffix == ".json":
        return {"kind": "profile", **_describe_profile(path)}
    if metadata is None:
        info = asdict(inspect_picture(path, max_pixels=None))
        channels, stated = info.pop("kind"), info.pop("stated")
        del info["samples"], info["identity"]
        info["stated_by"] = None if stated is None else stated["by"]
        facts = {**info, "path": str(path), "size": path.stat().st_size}
        return {"kind": "picture", "channels": channels, **facts}
    said = metadata.get("urushi", "")
    if said in (PackedPictures.kind, PackedPairs.kind):
        return {"kind": "pack", **_describe_pack(path, said)}
    facts = _json_object(said)
    if facts.get("kind") == "urushi-checkpoint":
        return {**facts, "kind": "checkpoint", "path": str(path), "size": path.stat().st_size}
    if facts.get("format") == "urushi-adapter":
        content = describe_adapter(path)
        header = content["header"]
        foldable = can_hold(header["method"], header["config"])
        return {"kind": "adapter", **content, "foldable": foldable}
    if facts.get("format") == "urushi-router":
        return {"kind": "router", **_describe_router(path)}
    return {"kind": "model", **describe_model(path), "int8": _describe_int8(path)}


def is_adapter(path: Path) -> bool:
    """Tell whether a file says that it is an adapter file; it may be damaged nevertheless."""
    return stated_format(path) == "urushi-adapter"


def _describe_router(path: Path) -> dict[str, Any]:
    """A router file; `problem` says why the members of an all-in-one cannot be used, or is None."""
    stored = read_router(path)
    facts: dict[str, Any] = {
        "path": str(path),
        "size": path.stat().st_size,
        "name": stored.name,
        "parameters": sum(tensor.size for tensor in stored.tensors.values()),
        "tensors": len(stored.tensors),
        "graph": None if stored.graph is None else str(stored.graph),
        "header": stored.header.model_dump(mode="json"),
    }
    if not stored.header.is_all_in_one:
        return {**facts, "members": [], "problem": None}
    try:
        found = read_all_in_one(path)
    except UrushiError as error:
        return {**facts, "members": [], "problem": str(error)}
    members = [*found.experts.items()]
    members += [("guidance", found.guidance)] if found.guidance is not None else []
    rows = [
        {
            "for": name,
            "file": member.adapter.path.name,
            "method": member.adapter.header.method,
            "strength": member.strength,
            "parameters": member.adapter.parameters,
            "size": member.adapter.path.stat().st_size,
        }
        for name, member in members
    ]
    return {**facts, "members": rows, "problem": None}


def _describe_int8(path: Path) -> dict[str, Any] | None:
    """The int8 file beside a model; `problem` says why it cannot be used, or is None."""
    beside = int8_path(path)
    if not beside.is_file():
        return None
    facts = {"path": str(beside), "size": beside.stat().st_size}
    model = read_model(path)
    if model.graph is None:
        return {**facts, "problem": f"{path} has no exported graph beside it, which int8 needs"}
    try:
        header, layers = read_int8(model)
    except FileFormatError as error:
        return {**facts, "problem": str(error)}
    return {
        **facts,
        "problem": None,
        "layers": len(layers),
        "calibration": header.calibration,
        "created_by": header.created_by,
    }


def _describe_profile(path: Path) -> dict[str, Any]:
    try:
        from urushi.adapters.contribution_profile import read_profile
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch, which reading a profile needs,", "torch") from error
    profile = read_profile(path)
    return {
        "path": str(path),
        "size": path.stat().st_size,
        "base": profile.base.model_dump(mode="json"),
        "tasks": [task.model_dump(mode="json") for task in profile.tasks],
        "steps": profile.steps,
        "rule": profile.rule,
        "normalise": profile.normalise,
        "parameters": sum(score.count for score in profile.parameters.values()),
        "kinds": profile.of_kinds(),
        "stages": profile.of_stages(),
        "created_by": profile.created_by,
    }


def _describe_pack(path: Path, kind: str) -> dict[str, Any]:
    pack = PackedPairs(path) if kind == PackedPairs.kind else PackedPictures(path)
    heights, widths = pack.sizes[:, 0], pack.sizes[:, 1]
    return {
        "path": str(path),
        "size": path.stat().st_size,
        "holds": kind,
        "count": len(pack),
        "pixels": int((heights * widths).sum()),
        "narrowest": int(widths.min()),
        "widest": int(widths.max()),
        "lowest": int(heights.min()),
        "highest": int(heights.max()),
        "sha256": pack.sha256,
        "first": list(pack.names[:3]),
    }


def _json_object(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _safetensors_metadata(path: Path) -> dict[str, str] | None:
    """The metadata of a safetensors file; None for a file that is another thing.

    Raises:
        FileFormatError: it is named as one, but is none.
    """
    metadata: Any = None
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length <= _LONGEST_HEADER and file.read(1) == b"{":
                metadata = _json_object("{" + file.read(length - 1).decode()).get(
                    "__metadata__", {}
                )
    except (OSError, UnicodeDecodeError):
        metadata = None  # whoever reads such files, models or pictures, says what is wrong
    if isinstance(metadata, dict):
        return metadata
    if path.suffix == ".safetensors":
        describe_model(path)
        raise FileFormatError(f"{path}: not a safetensors file: get it again")
    return None
