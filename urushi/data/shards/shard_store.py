"""Where shards lie: a folder, or a prefix of an object store that fsspec knows."""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from urushi.errors import DataError, TargetError, UnreadableError, brief
from urushi.writing import whole_file

__all__ = ["INDEX_NAME", "Store", "open_store"]

INDEX_NAME = "index.json"


class Store(ABC):
    """Files under one place, by name. It may be sent to other processes, and used by threads.

    Args:
        source: the folder, or the URL.
        place: the same as sentences name it, without secrets.

    Attributes:
        lists: whether it can say what it holds.
        workers: threads that read and decode pictures of it well.
    """

    lists = True
    workers = os.cpu_count() or 1

    def __init__(self, source: str, place: str) -> None:
        self.source, self.place = source, place

    @abstractmethod
    def shown(self, name: str) -> str:
        """A file as sentences name it."""

    @abstractmethod
    def sizes(self) -> dict[str, int | None]:
        """The files that are there, and their lengths in bytes; none where there is no such place.

        Raises:
            DataError: the place cannot be read.
        """

    @abstractmethod
    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """A file, or a part of it.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    @contextmanager
    def open(self, name: str) -> Iterator[BufferedReader]:
        """Gives a file, to be read from its beginning.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Gives a file to fill, which is put in its place if the block ends well.

        Raises:
            TargetError: it cannot be written.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file; see `new`."""
        with self.new(name) as path:
            path.write_bytes(content)

    def _unreadable(self, name: str, error: Exception) -> DataError:
        return DataError(
            f"{self.shown(name)} cannot be read ({_why(error)}): look whether it is there"
        )

    def _unwritable(self, name: str, error: Exception) -> TargetError:
        return TargetError(
            f"{self.shown(name)} cannot be written ({_why(error)}): free some space, or choose "
            "another place"
        )


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or brief(error)


class FolderStore(Store):
    """A folder."""

    def __init__(self, source: str) -> None:
        super().__init__(source, source)
        self.folder = Path(source)

    def shown(self, name: str) -> str:
        """See `Store`."""
        return str(self.folder / name)

    def sizes(self) -> dict[str, int | None]:
        """See `Store`."""
        try:
            with os.scandir(self.folder) as entries:
                return {e.name: e.stat().st_size for e in entries if e.is_file()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unreadable("", error) from error

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        try:
            # Opened each time: there may be more shards than files that a process may have open.
            with (self.folder / name).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except OSError as error:
            raise self._unreadable(name, error) from error

    @contextmanager
    def open(self, name: str) -> Iterator[BufferedReader]:
        """See `Store`."""
        try:
            with (self.folder / name).open("rb") as file:
                yield file
        except OSError as error:
            raise self._unreadable(name, error) from error

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """See `Store`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self.folder / name, overwrite=True) as path:
                yield path
        except OSError as error:
            raise self._unwritable(name, error) from error

    def remove(self, name: str) -> None:
        """See `Store`."""
        (self.folder / name).unlink(missing_ok=True)


class RemoteStore(Store):
    """A prefix of an object store, or a folder of a web server; see `urushi.remote`."""

    # Most of their time they wait for an answer.
    workers = 16

    def __init__(self, source: str) -> None:
        from urushi.remote import Place

        self._folder = Place.of(source).folder()
        super().__init__(source, str(self._folder))
        # Most web servers do not say what their folders hold.
        self.lists = not self._folder.is_web

    def shown(self, name: str) -> str:
        """See `Store`."""
        return str(self._folder / name) if name else self.place

    def sizes(self) -> dict[str, int | None]:
        """See `Store`."""
        from urushi.remote import list_below

        with self._reading():
            found = list_below(self._folder)
        return {entry.name: entry.size for entry in found if "/" not in entry.name}

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """See `Store`."""
        from urushi.remote import read_part

        with self._reading():
            return read_part(self._folder / name, start, length)

    @contextmanager
    def open(self, name: str) -> Iterator[BufferedReader]:
        """See `Store`."""
        from urushi.remote import fetch

        with tempfile.TemporaryDirectory(prefix="urushi-") as folder:
            path = Path(folder, "file")
            with self._reading():
                fetch(self._folder / name, path)
            with path.open("rb") as file:
                yield file

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """See `Store`."""
        from urushi.remote import put

        with tempfile.TemporaryDirectory(prefix="urushi-") as folder:
            path = Path(folder, "file")
            yield path
            put(path, self._folder / name, overwrite=True)

    def remove(self, name: str) -> None:
        """See `Store`."""
        from urushi.remote import remove

        remove(self._folder / name)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except UnreadableError as error:
            raise DataError(str(error)) from error


def open_store(source: str | Path) -> Store:
    """The store of a place: a folder, a URL, or the `index.json` in either.

    Raises:
        DataError: it is no place that there can be.
    """
    from urushi.remote import is_url, local_path

    text = str(source)
    if text.endswith(f"/{INDEX_NAME}"):
        text = text.removesuffix(INDEX_NAME)
    text = local_path(text)
    if not is_url(text):
        return FolderStore(text)
    try:
        return RemoteStore(text)
    except UnreadableError as error:
        raise DataError(str(error)) from error
