"""What restores, sent to nodes that may not have its files.

A restorer is pickled as what it is made from: paths and options. On another node the shipped
weights lie elsewhere, and a file of the user's may not lie at all: so each path is sent by what it
is, and files that do not ship travel along.
"""

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urushi.errors import UrushiError
from urushi.files.router_file import read_router_header
from urushi.inference.zoo import ZOO

__all__ = ["Luggage", "packed", "unpacked"]


@dataclass(frozen=True)
class Luggage:
    """Something pickled, and the files that it needs.

    Attributes:
        pickled: it, with paths told by what they are.
        files: content by absolute path.
    """

    pickled: bytes
    files: dict[str, bytes]


def packed(thing: Any) -> Luggage:
    """Packs something with the files that it names; see `unpacked`.

    Raises:
        UrushiError: a file cannot be read.
    """
    written = io.BytesIO()
    packer = _Packer(written)
    packer.dump(thing)
    files: dict[str, bytes] = {}
    for path in packer.paths:
        for companion in _companions(path):
            try:
                files[str(companion)] = companion.read_bytes()
            except OSError as error:
                reason = error.strerror or error
                raise UrushiError(f"{companion} cannot be read ({reason})") from error
    return Luggage(written.getvalue(), files)


def unpacked(luggage: Luggage, folder: Path) -> Any:
    """What was packed, its paths leading to the same content here.

    Args:
        luggage: from `packed`.
        folder: where files are put that are not here, or are others here; made if there are any.
    """
    return _Unpacker(luggage, folder).load()


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.paths: list[Path] = []

    def persistent_id(self, obj: Any) -> tuple[str, str] | None:
        if not isinstance(obj, Path):
            return None
        if obj.parent == ZOO:
            return "zoo", obj.name
        self.paths.append(obj)
        return "file", str(obj)


class _Unpacker(pickle.Unpickler):
    def __init__(self, luggage: Luggage, folder: Path) -> None:
        super().__init__(io.BytesIO(luggage.pickled))
        self._places = _laid(luggage.files, folder)

    def persistent_load(self, pid: Any) -> Path:
        kind, name = pid
        if kind == "zoo":
            return ZOO / name
        path = Path(name)
        return self._places.get(str(path.parent), path.parent) / path.name


def _laid(files: dict[str, bytes], folder: Path) -> dict[str, Path]:
    """Where the files of each folder are here: all of one folder stay together."""
    parents: dict[str, list[Path]] = {}
    for name in files:
        parents.setdefault(str(Path(name).parent), []).append(Path(name))
    places = {}
    for parent, paths in parents.items():
        if all(_is_here(path, files[str(path)]) for path in paths):
            continue
        places[parent] = folder / hashlib.sha256(parent.encode()).hexdigest()[:16]
        folder.mkdir(mode=0o700, exist_ok=True)
        places[parent].mkdir(exist_ok=True)
        for path in paths:
            (places[parent] / path.name).write_bytes(files[str(path)])
    return places


def _is_here(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _companions(path: Path) -> set[Path]:
    """A file and those that are read with it: its graph and the like, and members that it names."""
    if path.is_dir():
        return {found for found in path.rglob("*") if found.is_file()}
    beside = {path.parent / name for name in _members(path)} | {path}
    stems = {found.stem for found in beside}
    found = {one for one in path.parent.glob("*") if one.name.split(".")[0] in stems}
    found = {one for one in found if one.is_file() and one.suffix != path.suffix} | beside
    return {one for one in found if one.is_file()}


def _members(path: Path) -> list[str]:
    """Files that an all-in-one file names."""
    try:
        header = read_router_header(path)
    except UrushiError:
        return []
    members = [member.file for member in header.experts.values()]
    members += [] if header.guidance is None else [header.guidance.file]
    return [*members, *([] if header.base is None else [f"{header.base.name}.safetensors"])]
