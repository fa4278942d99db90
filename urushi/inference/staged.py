"""Pictures of stores: fetched into a temporary folder before their turn, put back when restored.

Each place has a stand-in, a local path in that folder, under which everything is planned, read and
written as any local file is; so a picture of a store becomes what a local one becomes, to the byte.
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple
from urllib.parse import unquote

from urushi.errors import TargetError, UrushiError
from urushi.image import foreign_name, is_picture_name
from urushi.inference.ahead_of_use import AheadOfUse
from urushi.inference.naming import LOOK_NAME, Found
from urushi.remote import Entry, Place, fetch, is_url, list_below, local_path, look, put

__all__ = ["Part", "Staged"]

_MOST_ROOM = 2 << 30  # bytes of files that wait for their turn
_SHARE = 4  # of what the disk has left, they take so much: one in so many
_ASKED_ONE_BY_ONE = 20  # targets; beyond, their folder is listed
_MAGIC = ("*", "?", "[")
_LONGEST_NAME = 200  # bytes, which leaves room for what is put before and behind on the way


class Part(NamedTuple):
    """What another process needs to do with some of the files as this one would.

    Attributes:
        root: where stand-ins lie here.
        heads: the bucket or server of each folder in the root.
        entries: what was listed of sources.
    """

    root: Path
    heads: list[Place]
    entries: dict[Path, Entry]

    def moved(self, path: Path, root: Path) -> Path:
        """A path as it is in a process whose stand-ins lie elsewhere; a local one stays."""
        return root / path.relative_to(self.root) if path.is_relative_to(self.root) else path


class Staged:
    """Stands in for places of stores while pictures are restored; a context manager.

    Args:
        sources: as given: URLs of files, of folders or of patterns, and local ones.
        output: as given; a URL or a local path.

    Attributes:
        sources, output: local paths in their stead; the same where nothing is a URL.

    Raises:
        UnreadableError: a store refuses to be listed, is not there or cannot be reached.
        TargetError: nothing can be written there.
        MissingExtraError: what opens such URLs is not installed.
    """

    def __init__(self, sources: Sequence[str], output: str | None) -> None:
        self._root = Path(os.path.realpath(tempfile.gettempdir()), f"urushi-{secrets.token_hex(8)}")
        self._heads: list[Place] = []  # the bucket or server of each folder in the root
        self._entries: dict[Path, Entry] = {}
        self._renamed: dict[str, str] = {}
        self._listed: dict[str, tuple[list[Found], list[Path]]] = {}
        self._there: dict[Path, bool] = {}
        self._asked = 0
        self._notes: dict[Path, list[str]] = {}
        self._files: AheadOfUse | None = None
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._before_send: Callable[[Path], None] | None = None
        self.sources = [self._source(text) for text in sources]
        self.output = None if output is None else self._target(output)

    def part(self, sources: Iterable[Path]) -> Part:
        """What another process needs to know of some sources, and of all targets."""
        known = {path: self._entries[path] for path in sources if path in self._entries}
        return Part(self._root, self._heads, known)

    @classmethod
    def of_part(
        cls, part: Part, root: Path, before_send: Callable[[Path], None] | None = None
    ) -> "Staged":
        """What stands in for the same places in this process.

        Args:
            part: from the process that was given them.
            root: a folder that is not there yet, for stand-ins.
            before_send: called with each file before it is put where it belongs.
        """
        staged = cls((), None)
        staged._before_send = before_send
        staged._root, staged._heads = root, part.heads
        for path, entry in part.entries.items():
            staged._know(part.moved(path, root), entry)
        return staged

    # --- What is given ---

    def _source(self, text: str) -> str:
        if not is_url(text) or text.lower().startswith("file://"):
            return local_path(text)
        stand_in, found = self._below(Place.of(text))
        named = not stand_in.endswith("/")
        pictures, foreign = self._listed.setdefault(stand_in, ([], []))
        base = Path(stand_in).parent if named else Path(stand_in)
        for entry in found:
            path = base / _local_name(entry.name)
            self._know(path, entry)
            if named or (is_picture_name(entry.name) and not _hidden(entry.name)):
                pictures.append(Found(path, path.relative_to(base), named))
            elif foreign_name(entry.name):
                foreign.append(path)
        return stand_in

    def _know(self, path: Path, entry: Entry) -> None:
        self._entries[path] = entry
        if self._derived(path) != entry.place:
            self._renamed[str(path)] = str(entry.place)

    def _below(self, place: Place) -> tuple[str, list[Entry]]:
        """The stand-in of a source, with a slash where it is for several files; and those."""
        if not place.is_folder:
            entry = look(place)
            if entry is None and not place.is_web:
                if any(sign in place.url for sign in _MAGIC):
                    return self._matching(place)
                below = list_below(place.folder())
                if below:
                    return f"{self._stand_in(place)}/", below
            # Of one that is not there, whoever fetches it says so.
            return str(self._stand_in(place)), [entry or Entry(place, place.name, None, "")]
        return f"{self._stand_in(place)}/", list_below(place)

    def _matching(self, place: Place) -> tuple[str, list[Entry]]:
        """The files that a pattern names."""
        import re

        from fsspec.utils import glob_translate

        head, path = place.halves()
        parts = path.strip("/").split("/")
        first = next(i for i, part in enumerate(parts) if any(sign in part for sign in _MAGIC))
        base = Place("/".join([head, *parts[:first]])).folder()
        pattern = re.compile(glob_translate("/".join(parts[first:])))
        found = [entry for entry in list_below(base) if pattern.fullmatch(entry.name)]
        return f"{self._stand_in(base)}/", found

    def _target(self, text: str) -> str:
        if not is_url(text) or text.lower().startswith("file://"):
            return local_path(text)
        place = Place.of(text)
        if place.is_web:
            raise TargetError(
                f"{place} lies on a web server, which is only read: give a folder to -o, or a "
                "store such as s3://",
                usage=True,
            )
        return f"{self._stand_in(place)}{'/' if place.is_folder else ''}"

    # --- Names ---

    def _stand_in(self, place: Place) -> Path:
        head, path = place.halves()
        # A query belongs to the server's part: whatever differs in it is another file.
        query = place.url.partition("?")[2] if place.is_web else ""
        key = Place(f"{head}?{query}" if query else head)
        if key not in self._heads:
            self._heads.append(key)
        inside = unquote(path) if place.is_web else path
        return self._root / str(self._heads.index(key)) / _local_name(inside.strip("/"))

    def place_of(self, path: Path) -> Place | None:
        """The place that a path stands in for; None for a local file."""
        entry = self._entries.get(path)
        return self._derived(path) if entry is None else entry.place

    def bytes_of(self, path: Path) -> int:
        """How large a source is; 0 where that is not known."""
        entry = self._entries.get(path)
        if entry is not None:
            return entry.size or 0
        try:
            return path.stat().st_size
        except OSError:
            return 0

    def _derived(self, path: Path) -> Place | None:
        if not self._heads or not path.is_relative_to(self._root):
            return None
        index, *parts = path.relative_to(self._root).parts
        server, _, query = self._heads[int(index)].url.partition("?")
        below = Place(server) / "/".join(parts)
        return Place(f"{below.url}?{query}") if query else below

    def shown(self, path: Path) -> Path | Place:
        """What people know a path as."""
        return self.place_of(path) or path

    def told(self, text: str) -> str:
        """A sentence with the URLs that were given, without their secrets."""
        if not self._heads or str(self._root) not in text:
            return text
        for path, place in self._renamed.items():
            text = text.replace(path, place)
        for index, head in enumerate(self._heads):
            own = str(head).partition("?")[0]
            text = text.replace(f"{self._root / str(index)}", own)
        return text

    def listed(self, source: str | Path) -> list[Found] | None:
        """The pictures of one of the `sources`; None for a local one."""
        found = self._listed.get(str(source))
        return None if found is None else found[0]

    def foreign(self, source: str | Path) -> list[Path] | None:
        """What of one of the `sources` is of no format that is read; None for a local one."""
        found = self._listed.get(str(source))
        return None if found is None else found[1]

    # --- Transfers ---

    def exists(self, path: Path) -> bool:
        """Whether a target is there."""
        place = self.place_of(path)
        if place is None:
            return os.path.lexists(path)
        with self._lock:
            if path not in self._there and self._asked == _ASKED_ONE_BY_ONE:
                self._list_targets()
            if path not in self._there:
                self._there[path] = look(place, self._teller(path)) is not None
            self._asked += 1
            return self._there[path]

    def _list_targets(self) -> None:
        """Looks once at what the output folder holds, instead of asking for each file."""
        folder = Path(self.output or "")
        place = self.place_of(folder)
        if place is None:
            return
        found = {folder / entry.name for entry in list_below(place.folder())}
        self._there = _Among(folder, found)

    def sends(self, targets: Iterable[Path]) -> bool:
        """Whether any of these goes to a store."""
        return any(self.place_of(path) is not None for path in targets)

    def begin(self, sources: Iterable[Path]) -> None:
        """Begins to fetch files in this order, as far as there is room."""
        known = [(path, self._entries[path].size) for path in sources if path in self._entries]
        if known:
            room = min(_MOST_ROOM, shutil.disk_usage(self._root.parent).free // _SHARE)
            self._files = AheadOfUse(dict(known).items(), self._fetch, room)

    def bring(self, path: Path, *, now: bool = True) -> bool:
        """Waits until a source is here; tells whether it is, which it need not be unless `now`.

        Raises:
            UnreadableError: it cannot be had.
        """
        if self.place_of(path) is None:
            return True
        with self._lock:
            if self._files is None:
                self._files = AheadOfUse((), self._fetch, 0)
        return self._files.bring(path, now=now)

    def _fetch(self, path: Path) -> None:
        place = self.place_of(path)
        assert place is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch(place, path, self._entries.get(path), self._teller(path), self._stop)

    def send(self, path: Path, *, overwrite: bool) -> None:
        """Puts a file where it belongs, and removes it here; a local one stays.

        Raises:
            TakenError: there is one already.
            TargetError: it cannot be put there.
        """
        place = self.place_of(path)
        if place is not None:
            if self._before_send is not None:
                self._before_send(path)
            put(path, place, overwrite=overwrite, tell=self._teller(path))
            self.drop(path)

    def drop(self, *paths: Path) -> None:
        """Removes files that stand in for others, where they are here."""
        for path in paths:
            if self.place_of(path) is None:
                continue
            if self._files is not None:
                self._files.drop(path)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def at_hand(self, *paths: Path) -> Iterator[None]:
        """Fetches files, whether they were sources or targets, as long as the block lasts."""
        for path in paths:
            self.bring(path)
        try:
            yield
        finally:
            self.drop(*paths)

    def notes(self, *paths: Path) -> tuple[str, ...]:
        """What is to be told of the transfers of these files."""
        return tuple(note for path in paths for note in self._notes.get(path, ()))

    def _teller(self, path: Path) -> Callable[[str], None]:
        return self._notes.setdefault(path, []).append

    def __enter__(self) -> "Staged":
        if self._heads:
            self._root.mkdir(mode=0o700)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._files is not None:
            self._files.close()
        if self._heads:
            shutil.rmtree(self._root, ignore_errors=True)
        if isinstance(error, UrushiError) and error.args:
            error.args = (self.told(str(error)), *error.args[1:])


class _Among(dict[Path, bool]):
    """Which files of a folder are there; of others nothing is known.

    Args:
        folder: the folder.
        found: all its files.
    """

    def __init__(self, folder: Path, found: set[Path]) -> None:
        super().__init__(dict.fromkeys(found, True))
        self._folder = folder

    def __contains__(self, path: object) -> bool:
        return isinstance(path, Path) and path.is_relative_to(self._folder)

    def __missing__(self, path: Path) -> bool:
        return False


def _hidden(inside: str) -> bool:
    """Whether a file would be passed over in a folder, too: hidden ones, and sheets of `--look`."""
    path = PurePosixPath(inside)
    return any(part.startswith(".") for part in path.parts) or path.name == LOOK_NAME


def _local_name(inside: str) -> str:
    """A name of a store as a relative path here; what no part of a path can be is replaced."""
    if not inside:
        return ""
    return "/".join(part if _fits(part) else _replaced(part) for part in inside.split("/"))


def _fits(part: str) -> bool:
    forbidden = '<>:"|?*\\\0' if os.name == "nt" else "\0"
    plain = part not in ("", ".", "..") and not any(sign in part for sign in forbidden)
    return plain and len(os.fsencode(part)) <= _LONGEST_NAME


def _replaced(part: str) -> str:
    """The same for the same part, and another for another, with its suffix."""
    suffix = PurePosixPath(part).suffix
    suffix = suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) < 9 else ""
    return f"_{hashlib.sha256(part.encode('utf-8', 'replace')).hexdigest()[:12]}{suffix}"
