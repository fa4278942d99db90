"""The manifest of a restored folder: a row for each picture, as JSON lines.

Rows are only ever added, and those that are added together are written at once. Of several rows on
one picture the last one counts. A line that was cut off, because a machine went down, is passed
over.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from urushi.cluster.plan import Ended
from urushi.errors import TargetError
from urushi.inference.jobs import Job
from urushi.version import __version__

__all__ = ["NAME", "Manifest", "row_of"]

NAME = "manifest.jsonl"
"""Of the file in an output folder."""


class Manifest:
    """The manifest of an output folder.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME
        self._begun = False

    def rows(self) -> dict[str, dict[str, Any]]:
        """The last row on each picture, by its target.

        Raises:
            TargetError: it is there and cannot be read.
        """
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise TargetError(f"{self.path} cannot be read ({error.strerror or error})") from error
        return {row["target"]: row for row in _rows_in(lines)}

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Adds rows; they are on the disk when this returns.

        Raises:
            TargetError: the disk refuses.
        """
        if not rows:
            return
        # Names of files that are no characters are written out, and read back, as halves of some.
        content = "".join(f"{json.dumps(row)}\n" for row in rows).encode("ascii")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                if not self._begun and _is_cut_off(self.path):
                    content = b"\n" + content
                file.write(content)
                os.fsync(file.fileno())
        except OSError as error:
            raise TargetError(
                f"{self.path} cannot be written ({error.strerror or error}): make room there, and "
                "run the same command again"
            ) from error
        self._begun = True

    def name_of(self, target: Path) -> str:
        """What rows call a target: its place in the folder."""
        if not target.is_relative_to(self.folder):
            return str(target)
        return target.relative_to(self.folder).as_posix()


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


def row_of(ended: Ended, job: Job, name: str) -> dict[str, Any]:
    """The row of a picture.

    Args:
        ended: what became of it.
        job: as it was planned.
        name: of its target in the folder.
    """
    result = ended.result
    return {
        "source": str(job.source),
        "target": name,
        "status": result.status,
        "message": result.message,
        "router": None if result.choice is None else result.choice.describe(),
        "restorer": ended.restorer,
        "notes": list(result.notes),
        "pixels": result.pixels,
        "seconds": round(result.seconds, 3),
        "source_bytes": ended.source_bytes,
        "bytes": ended.bytes,
        "sha256": ended.sha256,
        "worker": ended.worker,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "urushi": __version__,
    }
