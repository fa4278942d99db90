"""The manifest of a restored folder: a row for each picture, as JSON lines.

Rows are only ever added, and those that are added together are written at once. Of several rows on
one picture the last one counts. A line that was cut off, because a machine went down, is passed
over. In a folder it is one file; in a store, where nothing is added to a file, a folder of some.
"""

import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from urushi.cluster.plan import Ended
from urushi.errors import TargetError
from urushi.remote import Place, fetch, list_below, put
from urushi.version import __version__

__all__ = ["FOLDER", "NAME", "Manifest", "row_of"]

NAME, FOLDER = "manifest.jsonl", "manifest"
"""Of the file in an output folder, and of the folder in a store."""

# Rows wait so long for others, to become one file of a store.
_MOST_ROWS, _LONGEST_SECONDS = 1000, 30.0


class Manifest:
    """The manifest of an output folder.

    Args:
        folder: where targets lie.
        place: of the store that the folder stands in for; None for a local one.
    """

    def __init__(self, folder: Path, place: Place | None = None) -> None:
        self.folder = folder
        self._path = folder / NAME
        self._parts = None if place is None else place / f"{FOLDER}/"
        self._waiting: list[bytes] = []
        self._since = time.monotonic()
        self._begun = ""
        self._count = 0

    def __str__(self) -> str:
        return str(self._parts or self._path)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The last row on each picture, by its target.

        Raises:
            TargetError: it is there and cannot be read.
            UnreadableError: as that, of a store.
        """
        lines = self._local_lines() if self._parts is None else self._lines_of(self._parts)
        return {row["target"]: row for row in _rows_in(lines)}

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds rows; in a folder they are on the disk when this returns.

        Raises:
            TargetError: the disk or the store refuses.
        """
        # Names of files that are no characters are written out, and read back, as halves of some.
        self._waiting += [f"{json.dumps(row)}\n".encode("ascii") for row in rows]
        late = time.monotonic() - self._since > _LONGEST_SECONDS
        if self._parts is None or late or len(self._waiting) >= _MOST_ROWS:
            self.finish()

    def finish(self) -> None:
        """Writes what waits.

        Raises:
            TargetError: the disk or the store refuses.
        """
        self._since = time.monotonic()
        if not self._waiting:
            return
        content = b"".join(self._waiting)
        if self._parts is None:
            self._append(content)
        else:
            self._put(content, self._parts)
        self._waiting = []

    def name_of(self, target: Path) -> str:
        """What rows call a target: its place in the folder."""
        if not target.is_relative_to(self.folder):
            return str(target)
        return target.relative_to(self.folder).as_posix()

    def _local_lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TargetError(f"{self._path} cannot be read ({error.strerror or error})") from error

    def _lines_of(self, parts: Place) -> Iterator[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder, NAME)
            for entry in list_below(parts):
                fetch(entry.place, here, entry)
                yield from here.read_bytes().splitlines()

    def _append(self, content: bytes) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                if not self._begun and _is_cut_off(self._path):
                    content = b"\n" + content
                file.write(content)
                os.fsync(file.fileno())
        except OSError as error:
            raise TargetError(
                f"{self._path} cannot be written ({error.strerror or error}): make room there, and "
                "run the same command again"
            ) from error
        self._begun = self._begun or NAME

    def _put(self, content: bytes, parts: Place) -> None:
        if not self._begun:
            # In the order of their names, later ones are read later.
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            self._begun = f"{stamp}-{secrets.token_hex(4)}"
        self._count += 1
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder, NAME)
            here.write_bytes(content)
            put(here, parts / f"{self._begun}-{self._count:06}.jsonl")


def _rows_in(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # cut off
        if isinstance(row, dict) and "target" in row:
            yield row


def _is_cut_off(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def row_of(ended: Ended, source: str, name: str, told: Callable[[str], str]) -> dict[str, Any]:
    """The row of a picture.

    Args:
        ended: what became of it.
        source: as it was asked for.
        name: of its target in the folder.
        told: puts sentences into the words of who asked.
    """
    result = ended.result
    return {
        "source": source,
        "target": name,
        "status": result.status,
        "message": told(result.message),
        "router": None if result.choice is None else result.choice.describe(),
        "restorer": ended.restorer,
        "notes": [told(note) for note in result.notes],
        "pixels": result.pixels,
        "seconds": round(result.seconds, 3),
        "source_bytes": ended.source_bytes,
        "bytes": ended.bytes,
        "sha256": ended.sha256,
        "worker": ended.worker,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "urushi": __version__,
    }
