"""Where shards lie: a folder, or a prefix of an object store that fsspec knows."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from urushi.errors import DataError, TargetError, brief
from urushi.writing import whole_file

__all__ = ["FolderStore", "Store", "open_store"]


class Store(ABC):
    """Files under one place, by name. It may be sent to other processes, and used by threads.

    Args:
        place: the folder, or the URL.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.place,)

    @abstractmethod
    def shown(self, name: str) -> str:
        """A file as sentences name it."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
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
    def open(self, name: str) -> BinaryIO:
        """A file, to be read from its beginning; whoever opens it closes it.

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
        return DataError(f"{self.shown(name)} cannot be read ({_why(error)}): look whether it is there")

    def _unwritable(self, name: str, error: Exception) -> TargetError:
        return TargetError(
            f"{self.shown(name)} cannot be written ({_why(error)}): free some space, or choose "
            "another place"
        )


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or brief(error)


class FolderStore(Store):
    """A folder."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.folder = Path(place)

    def shown(self, name: str) -> str:
        """See `Store`."""
        return str(self.folder / name)

    def sizes(self) -> dict[str, int]:
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

    def open(self, name: str) -> BinaryIO:
        """See `Store`."""
        try:
            return (self.folder / name).open("rb")
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
