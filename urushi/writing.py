"""The one rule for everything that is written, whatever the command.

Nothing is replaced that nobody asked to replace, nothing is removed that Urushi did not make, and a
file appears whole or not at all:

- `refuse_taken` looks before the work begins; a name that is taken needs `--overwrite`.
- `Part` is the hidden file beside the final one in which everything grows. `Part.commit` makes it
  the final one in one step; unless told to overwrite, it leaves a file alone that has appeared in
  the meantime.
- `remove_leftovers` removes the hidden files of processes that were killed. Those of living ones
  are locked, and stay.
"""

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from urushi.errors import TakenError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None

__all__ = ["Part", "refuse_taken", "remove_leftovers", "taken", "whole_file"]

_OURS = re.compile(r"\..{0,40}-[0-9a-f]{8}\.urushi\.(?:rows|part)(?:\.[a-z0-9]{1,12})?", re.DOTALL)


def taken(path: Path | str) -> str:
    """The sentence for a name that is taken."""
    return (
        f"'{path}' exists already and is left as it is: choose another name, or replace it with"
        " --overwrite."
    )


def refuse_taken(paths: Iterable[Path | str | None], overwrite: bool) -> None:
    """Refuses names that are taken, before any work; None stands for what is not written.

    Raises:
        TakenError: one exists, and nothing is to be overwritten.
    """
    for path in paths:
        if path is not None and not overwrite and os.path.lexists(path):
            raise TakenError(taken(path))


class Part:
    """A hidden file that grows beside the one it will become.

    It is locked as long as this process holds it, so that others can tell it from what a killed
    process left behind.

    Args:
        final: the file that it will become.
        ending: `part`, or `rows` for what is only needed on the way; `part.onnx` keeps a suffix
            that readers ask for.

    Attributes:
        path: where it is.

    Raises:
        OSError: the folder is missing, full or may not be written.
    """

    def __init__(self, final: Path, ending: str = "part") -> None:
        self.final = final
        # Cut, since the name of the final file may be as long as the system allows.
        stem = os.fsdecode(os.fsencode(final.stem)[:40])
        while True:
            self.path = final.with_name(f".{stem}-{secrets.token_hex(4)}.urushi.{ending}")
            self._held: BinaryIO | None = self.path.open("xb")
            # Between making and locking it another process may have taken it for a leftover.
            if _lock(self._held, wait=True) and os.fstat(self._held.fileno()).st_nlink == 0:
                self._held.close()
                continue
            return

    def commit(self, overwrite: bool) -> None:
        """Makes this the final file, in one step, once its bytes are on the disk.

        Raises:
            TakenError: the final file is there, and is not to be overwritten.
            OSError: the disk refuses.
        """
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        if overwrite:
            if self.final.exists():
                shutil.copymode(self.final, self.path)
            self._release()
            self.path.replace(self.final)
            return
        try:
            # Unlike a rename, a link never replaces a file that appeared in the meantime.
            os.link(self.path, self.final)
        except FileExistsError:
            raise TakenError(
                f"'{self.final}' appeared while it was being made and is left as it is: choose"
                " another name, or replace it with --overwrite."
            ) from None
        except OSError:
            # File systems without hard links, such as FAT.
            if os.path.lexists(self.final):
                raise
            self._release()
            self.path.rename(self.final)

    def discard(self) -> None:
        """Removes what was only needed on the way; after `commit` that is the second name."""
        self._release()
        self.path.unlink(missing_ok=True)

    def _release(self) -> None:
        if self._held is not None:
            with contextlib.suppress(OSError):
                self._held.close()
            self._held = None


@contextmanager
def whole_file(path: Path, *, overwrite: bool = False, ending: str = "part") -> Iterator[Path]:
    """Gives a hidden file to fill, which becomes `path` if the block ends well.

    Raises:
        TakenError: `path` exists, at the latest when the block ends.
        OSError: the disk refuses.
    """
    refuse_taken([path], overwrite)
    part = Part(path, ending)
    try:
        yield part.path
        part.commit(overwrite)
    finally:
        part.discard()


def remove_leftovers(folder: Path) -> int:
    """Removes the hidden files that killed processes left in a folder; returns how many.

    Files of processes that live are locked and stay; so does everything where files cannot be
    locked, and every file that is not named as `Part` names its own.
    """
    if fcntl is None:
        return 0
    removed = 0
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if _OURS.fullmatch(entry.name)]
    except OSError:
        return 0
    for path in found:
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            with path.open("rb") as file:
                if _lock(file, wait=False):
                    path.unlink()
                    removed += 1
    return removed


def _lock(file: BinaryIO, *, wait: bool) -> bool:
    """Takes the lock of an open file; False where another process has it, or none can be had."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
