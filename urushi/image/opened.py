"""A picture's file, opened once: what was looked at first is what is read to the end.

libvips gets its bytes through an open file, never by name. By name it would open the file again
when the pixels are wanted, which may be another one by then; it could not be told names that are
not UTF-8; and it would map JPEG and WebP into memory, which ends the process when the file is
shortened meanwhile.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from urushi.errors import UnreadableError

__all__ = ["Identity", "OpenFile", "check_unchanged", "identity_of"]


class Identity(NamedTuple):
    """Tells one state of a file from another, and from other files."""

    device: int
    inode: int
    size: int
    modified_ns: int


class OpenFile:
    """An open file as libvips asks for it; closed when nothing refers to it any longer.

    As long as it is open, its inode's number is given to no other file.

    Args:
        path: of the file.

    Attributes:
        identity: of the file when it was opened.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.identity = _identity(os.fstat(self._descriptor))

    def read(self, size: int) -> bytes:
        """At most so many bytes; a disk that refuses looks like the end of the file."""
        try:
            return os.read(self._descriptor, size)
        except OSError:
            return b""

    def seek(self, offset: int, whence: int) -> int:
        """Goes to another place, and says which; -1 where it cannot."""
        try:
            return os.lseek(self._descriptor, offset, whence)
        except OSError:
            return -1

    def __del__(self) -> None:
        descriptor = self.__dict__.get("_descriptor")
        if descriptor is not None:
            os.close(descriptor)


def identity_of(path: Path) -> Identity:
    """The identity of the file that has this name now.

    Raises:
        OSError: there is none.
    """
    return _identity(os.stat(path))


def check_unchanged(path: Path, expected: Identity | None, found: Identity | None = None) -> None:
    """Refuses to go on with a file that is no longer the one that was opened first.

    Args:
        path: of the file.
        expected: when it was first opened; None where nobody looked.
        found: of the file just opened; None takes that which has the name now.

    Raises:
        UnreadableError: it was replaced, changed or removed meanwhile.
    """
    if expected is None:
        return
    try:
        same = expected == (found or identity_of(path))
    except OSError:
        same = False
    if not same:
        raise UnreadableError(
            f"'{path}' was replaced or changed while it was being read: nothing was written, so"
            " wait until it is complete and run the command again."
        )


def _identity(found: Any) -> Identity:
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
