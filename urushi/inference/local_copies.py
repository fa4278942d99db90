"""Models, adapters and folders of pictures that URLs name, copied here once and kept.

Copies lie in `urls` of this user's cache and are taken as long as the store says that they are
unchanged. What a command writes to a URL is made here as well, and put there when it is finished.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from urushi.errors import FileFormatError, TakenError, TargetError, UnreadableError, UrushiError
from urushi.files.container import stated_format
from urushi.files.router_file import read_router
from urushi.image import foreign_name, is_picture_name, left_out_sentence
from urushi.inference.adapted_weights import parse_adapter
from urushi.inference.cache_folder import cache_folder
from urushi.names import counted
from urushi.remote import Entry, Place, fetch, is_url, list_below, local_path, look, put
from urushi.writing import refuse_taken, taken, whole_file

__all__ = ["LocalCopies"]

_FOLDER, _VERSIONS = "urls", "versions.json"
_AT_ONCE = 4  # transfers under way
# What belongs to a model file and stands beside it: a graph, and the ranges of its 8-bit form.
_BESIDE = (".onnx", ".int8")
_PEFT = ("adapter_config.json", "adapter_model.safetensors")


class LocalCopies:
    """Copies of what the URLs of one command name; a context manager.

    Args:
        say: told in a sentence of what is fetched, and of what took several tries.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._given: dict[str, str] = {}  # path here -> URL, without secrets
        self._targets: dict[Path, Place] = {}  # folder here -> where its files go
        self._temporary: list[Path] = []
        # What is changed here -> its version in the store, and the files that stand beside it.
        self._changed: dict[Path, tuple[str, list[Path]]] = {}

    # --- Read ---

    def model(self, text: str | None) -> str | None:
        """The path of a model, adapter or all-in-one file, with what has to stand beside it.

        Args:
            text: a URL, which is fetched; everything else stays as it is.

        Raises:
            FileFormatError: it cannot be had.
            UnreadableError: the store refuses it or cannot be reached.
        """
        if text is None or not is_url(text):
            return text
        if text.lower().startswith("file://"):
            return local_path(text)
        place = Place.of(text)
        copies = _Kept(place if place.is_folder else place.parent, self._say)
        if place.is_folder:
            for name in _PEFT:
                copies.file(place / name)
            return self._named(copies.folder, place)
        path = copies.file(place)
        self._named(path.parent, place.parent)
        for name in _named_beside(path):
            copies.file(place.parent / name, optional=True)
        return str(path)

    def adapters(self, texts: Sequence[str] | None) -> list[str] | None:
        """The same for adapters, each with its strength behind it where it has one."""
        if texts is None:
            return None
        found = []
        for text in texts:
            file, strength = parse_adapter(text) if is_url(text) else (text, 1.0)
            local = self.model(file)
            found.append(f"{local}:{strength:g}" if file != text else f"{local}")
        return found

    def folder(self, text: str | None) -> Path | None:
        """The path of a folder of pictures.

        Args:
            text: a URL, whose pictures are fetched; everything else stays as it is.

        Raises:
            UnreadableError: it holds no pictures, or cannot be had.
            TargetError: there is no room for them.
        """
        if text is None or not is_url(text) or text.lower().startswith("file://"):
            return None if text is None else Path(local_path(text))
        place = Place.of(text).folder()
        entries = [e for e in list_below(place, self._say) if not _hidden(e.name)]
        pictures = [entry for entry in entries if is_picture_name(entry.name)]
        left_out = [Path(entry.name) for entry in entries if foreign_name(entry.name)]
        if left_out:
            self._say(f"note: {left_out_sentence(left_out)}")
        if not pictures:
            raise UnreadableError(f"{place} holds no pictures: check the name")
        copies = _Kept(place, self._say)
        copies.mirror(pictures)
        self._named(copies.folder, place)
        return copies.folder

    def picture(self, text: str) -> Path:
        """The path of a single file of any kind; a URL's is fetched, and removed in the end."""
        if not is_url(text) or text.lower().startswith("file://"):
            return Path(local_path(text))
        place = Place.of(text)
        path = self._temporary_folder() / (place.name or "file")
        fetch(place, path, tell=self._say)
        self._named(path, place)
        return path

    def _named(self, path: Path, place: Place) -> str:
        self._given[str(path)] = str(place).rstrip("/")
        return str(path)

    def told(self, text: str) -> str:
        """A sentence with the URLs that were given, without their secrets."""
        for path, given in sorted(self._given.items(), key=lambda item: -len(item[0])):
            text = text.replace(path, given)
        return text

    # --- Written ---

    def target(self, text: str | None, *, keep: bool = False) -> Path | None:
        """The path of a file to write; for a URL one here, which `send` puts there.

        Args:
            text: a URL; everything else stays as it is.
            keep: what is made on the way has to be found again by the next command.

        Raises:
            TargetError: nothing can be written there.
        """
        if text is None or not is_url(text) or text.lower().startswith("file://"):
            return None if text is None else Path(local_path(text))
        place = Place.of(text)
        if place.is_web or place.is_folder:
            why = "lies on a web server, which is only read" if place.is_web else "is a folder"
            raise TargetError(
                f"{place} {why}: give the name of a file, here or in a store", usage=True
            )
        folder = _Kept(place.parent, self._say).work if keep else self._temporary_folder()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / place.name).unlink(missing_ok=True)  # of a command that could not send it
        self._targets[folder] = place.parent
        self._named(folder, place.parent)
        return folder / place.name

    def changed(self, text: str | None) -> Path | None:
        """The path of an all-in-one file that is to be changed.

        One that a URL names is here with its members, and goes back by `send_changed`.

        Raises:
            FileFormatError: it cannot be had.
            TargetError: nothing can be written there.
        """
        if text is None or not is_url(text) or text.lower().startswith("file://"):
            return None if text is None else Path(local_path(text))
        path, place = self.target(text, keep=True), Place.of(text)
        assert path is not None
        copies = _Kept(place.parent, self._say)
        own = copies.file(place)
        beside = [copies.file(place.parent / n, optional=True) for n in _named_beside(own)]
        shutil.copyfile(own, path)
        for found in beside:
            if found.is_file():
                shutil.copyfile(found, path.with_name(found.name))
        self._changed[path] = copies.version(place), [path.with_name(one.name) for one in beside]
        return path

    def send_changed(self, path: Path) -> None:
        """Puts a file from `changed` back in the place of what it was; a local one is there.

        Raises:
            TargetError: it cannot be put there, or what lies there was changed meanwhile; the
                sentence tells where it is kept.
        """
        place = self._place_of(path)
        if place is None:
            return
        version, beside = self._changed[path]
        found = look(place, self._say)
        if found is None or found.version != version:
            raise TargetError(
                f"{place} was replaced while a class was added to it, and stays as it is; what was "
                f"to take its place is kept as {_unsent(path)}"
            )
        self.send(path, overwrite=True)
        for copy in beside:
            copy.unlink(missing_ok=True)

    def refuse_taken(self, paths: Iterable[Path | None], overwrite: bool) -> None:
        """Refuses names that are taken, here or in a store, before any work.

        Raises:
            TakenError: one exists, and nothing is to be overwritten.
        """
        for path in paths:
            refuse_taken([path], overwrite)
            place = None if path is None else self._place_of(path)
            if place is not None and not overwrite and look(place, self._say) is not None:
                raise TakenError(taken(str(place)))

    def send(self, path: Path, *, overwrite: bool) -> None:
        """Puts a finished file where it belongs; a local one stays where it is.

        Raises:
            TakenError, TargetError: it cannot be put there; the sentence tells where it is kept.
        """
        place = self._place_of(path)
        if place is None or not path.exists():
            return
        try:
            put(path, place, overwrite=overwrite, tell=self._say)
        except TargetError as error:
            raise type(error)(f"{error}; it is kept as {_unsent(path)}") from error
        path.unlink()

    def send_beside(self, path: Path) -> None:
        """The same for a file that nobody named: one that is there is left, and another name taken.

        Raises:
            TargetError: it cannot be put there.
        """
        place, number = self._place_of(path), 2
        while place is not None and look(place, self._say) is not None:
            place, number = place.parent / f"{path.stem}-{number}{path.suffix}", number + 1
        if place is not None:
            put(path, place, tell=self._say)
            self._named(path, place)
            path.unlink()

    def send_all(self, *, overwrite: bool) -> None:
        """Sends all that was made in temporary folders."""
        for folder in self._targets:
            for path in sorted(folder.iterdir()) if folder in self._temporary else ():
                self.send(path, overwrite=overwrite)

    def _place_of(self, path: Path) -> Place | None:
        parent = self._targets.get(path.parent)
        return None if parent is None else parent / path.name

    def _temporary_folder(self) -> Path:
        self._temporary.append(Path(tempfile.mkdtemp(prefix="urushi-")))
        return self._temporary[-1]

    def __enter__(self) -> "LocalCopies":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, UrushiError) and error.args:
            error.args = (self.told(str(error)), *error.args[1:])


def _unsent(path: Path) -> Path:
    """Where a file now lies that could not be sent."""
    kept = cache_folder() / _FOLDER / "unsent" / path.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, kept)
    return kept


class _Kept:
    """What is kept of one folder of a store.

    Args:
        place: that folder.
        say: told of what is fetched.

    Attributes:
        folder: of the copies, named as the folder of the store is.
        work: of what is made here to be put there.
    """

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        head, path = place.halves()
        # Neither users nor signatures, which change, tell one folder from another.
        key = hashlib.sha256(f"{head.rpartition('@')[2]}{path}".encode()).hexdigest()[:16]
        root = cache_folder() / _FOLDER / key
        bucket = head.rpartition("/")[2].rpartition("@")[2].partition(":")[0]
        self.folder, self.work = root / (place.name or bucket), root / "made"
        self._place, self._say = place, say
        self._record = root / _VERSIONS

    def file(self, place: Place, *, optional: bool = False) -> Path:
        """A copy of one file; of one that is optional, where it is not there, there is none.

        Raises:
            FileFormatError: it is not there.
        """
        path = self.folder / place.name
        entry = look(place, self._say)
        if entry is None:
            path.unlink(missing_ok=True)
            if not optional:
                raise FileFormatError(f"{place} is not there: check the name")
            return path
        self._fetch([entry], {place.name: path})
        return path

    def version(self, place: Place) -> str:
        """What the store called the version of a file that is copied here."""
        return self._versions().get(place.name, "")

    def mirror(self, entries: Sequence[Entry]) -> None:
        """Copies of these files, and of no others."""
        paths = {entry.name: self.folder / _checked(entry) for entry in entries}
        wanted = set(paths.values())
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()
        self._fetch(entries, paths)

    def _fetch(self, entries: Sequence[Entry], paths: dict[str, Path]) -> None:
        versions = self._versions()
        missing = [
            entry
            for entry in entries
            if not (
                entry.version
                and versions.get(entry.name) == entry.version
                and paths[entry.name].is_file()
            )
        ]
        if not missing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = sum(entry.size or 0 for entry in missing)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise TargetError(
                f"{self._place}: {needed} bytes are to be fetched, and {self.folder} has room for "
                f"{free}: free space, or set URUSHI_CACHE to another disk"
            )
        what = (
            f"{counted(len(missing), 'file')} of {self._place}"
            if len(entries) > 1
            else missing[0].place
        )
        self._say(f"fetching {what} ({needed / 1e6:.1f} MB)")

        def one(entry: Entry) -> Entry:
            paths[entry.name].parent.mkdir(parents=True, exist_ok=True)
            return fetch(entry.place, paths[entry.name], entry, self._say)

        with ThreadPoolExecutor(_AT_ONCE, "urushi-fetch") as threads:
            try:
                for entry, found in zip(missing, threads.map(one, missing), strict=True):
                    versions[entry.name] = found.version
            finally:
                threads.shutdown(cancel_futures=True)
                self._write(versions)

    def _versions(self) -> dict[str, str]:
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, versions: dict[str, str]) -> None:
        with whole_file(self._record, overwrite=True) as part:
            part.write_text(json.dumps(versions, indent=1), encoding="utf-8")


def _named_beside(path: Path) -> list[str]:
    """What may stand beside a model, adapter or all-in-one file and belong to it."""
    names = [path.with_suffix(suffix).name for suffix in _BESIDE]
    if stated_format(path) != "urushi-router":
        return names if stated_format(path) == "urushi-model" else []
    try:
        header = read_router(path).header
    except UrushiError:
        return names  # whoever uses it says what is wrong with it
    members = [*header.experts.values(), *([header.guidance] if header.guidance else [])]
    base = [] if header.base is None else [Path(header.base.name).name]
    own = [f"{name}{suffix}" for name in base for suffix in (".safetensors", *_BESIDE)]
    return [*names, *own, *(member.file for member in members)]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _checked(entry: Entry) -> str:
    """The name of a listed file, where it can be that of one below a folder here."""
    parts = entry.name.split("/")
    if any(part in ("", ".", "..") or os.sep in part or "\0" in part for part in parts):
        raise UnreadableError(f"{entry.place}: no file can be named so here: rename it there")
    return entry.name
