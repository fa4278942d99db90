"""Pictures from a pipe and into one: kept in a temporary folder, since decoding needs the whole.

`-` and `/dev/stdin` are this process's input, `-` and `/dev/stdout` its output; named pipes, and
what shells make of `<(command)`, are read likewise.
"""

import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from urushi.errors import TargetError, UnreadableError
from urushi.image import FORMATS
from urushi.image.formats.known import sniff
from urushi.inference.batch import BatchReport, FileResult
from urushi.inference.jobs import Job, suffix_of_format
from urushi.inference.naming import with_suffix

__all__ = ["Pipes", "check_pipes", "is_pipe", "is_stdout", "plan_pipes"]

_STDIN, _STDOUT = ("-", "/dev/stdin"), ("-", "/dev/stdout")


def is_stdout(output: str | None) -> bool:
    """Whether the restored picture goes into a pipe."""
    return output in _STDOUT


def is_pipe(source: str | Path) -> bool:
    """Whether a picture comes from a pipe, which can be read once."""
    if os.fspath(source) in _STDIN:
        return True
    try:
        return stat.S_ISFIFO(os.stat(source).st_mode)
    except (OSError, ValueError):
        return False


def check_pipes(sources: Sequence[str], output: str | None) -> None:
    """Refuses what pipes cannot hold, before anything is read from one.

    Raises:
        TargetError: several pictures cannot go into one pipe, or one from a pipe has no name that
            its result could be called after.
    """
    if is_stdout(output) and (len(sources) != 1 or _may_be_several(sources[0])):
        raise TargetError(
            "one picture can be written to standard output: give a folder to -o", usage=True
        )
    if output is None and any(is_pipe(source) for source in sources):
        raise TargetError(
            "a picture from a pipe needs a place to go to: give -o OUT, or -o -", usage=True
        )


def plan_pipes(
    jobs: Sequence[Job], sources: Sequence[str], output: str | None, format: str | None
) -> list[Job]:
    """Jobs that were planned as if pipes were files, with the names that they would have.

    Args:
        jobs: from `plan_batch`; empty where the output is a pipe.
        sources, output, format: as `Pipes` takes them.
    """
    check_pipes(sources, output)
    if is_stdout(output):
        source = Path(sources[0])
        suffix = None if format is None else suffix_of_format(format)
        return [Job(source, Path("-") / with_suffix(Path(source.name), suffix), overwrite=True)]
    return [_renamed(job, format) for job in jobs]


def _renamed(job: Job, format: str | None) -> Job:
    """With the name of a result that is called after a pipe; its format is not known before."""
    if not is_pipe(job.source) or job.target.stem != job.source.stem:
        return job
    suffix = ".*" if format is None else suffix_of_format(format)
    name = _name_of(os.fspath(job.source))
    return replace(job, target=job.target.with_name(f"{name}{suffix}"))


def _may_be_several(source: str) -> bool:
    pattern = glob.has_magic(source) and not os.path.lexists(source)
    return os.path.isdir(source) or (pattern and not is_pipe(source))


def _name_of(source: str) -> str:
    """What stands for a pipe in names of files."""
    return "stdin" if source in _STDIN else Path(source).name


class Pipes:
    """Stands in for pipes while pictures are restored; a context manager.

    Args:
        sources: as given.
        output: as given.
        format: suffix of the result; None keeps that of the source, which its content tells.

    Attributes:
        sources, output: files in their stead; the same where nothing is a pipe.

    Raises:
        UnreadableError: a pipe holds no picture.
        TargetError: several pictures cannot go into one pipe, or there is no room on the way.
    """

    def __init__(self, sources: Sequence[str], output: str | None, format: str | None) -> None:
        self._given: dict[Path, Path] = {}
        self._folder: Path | None = None
        self._result: Path | None = None
        check_pipes(sources, output)
        if is_stdout(output) and sys.stdout.isatty():
            raise TargetError("a picture would be written to the terminal: redirect it, or give -o")
        try:
            self.sources = [self._taken(source) for source in sources]
            self.output = self._prepared(format) if is_stdout(output) else output
        except BaseException:
            self._clear()
            raise

    def _taken(self, source: str) -> str:
        """The file in the stead of a source that is a pipe."""
        if source in _STDIN:
            return str(self._read(sys.stdin.buffer, source))
        if not is_pipe(source):
            return source
        with open(source, "rb") as file:
            return str(self._read(file, source))

    def _read(self, file: BinaryIO, source: str) -> Path:
        folder = self._own_folder()
        part = folder / "part"
        try:
            with part.open("wb") as copy:
                shutil.copyfileobj(file, copy)
            with part.open("rb") as copy:
                head = copy.read(64)
            format = sniff(head)
            if not head:
                raise UnreadableError(f"'{source}' is empty: pipe a picture into it.")
            if format is None:
                known = ", ".join(entry.title for entry in FORMATS.values())
                raise UnreadableError(f"'{source}' holds no picture in a known format ({known}).")
            whole = folder / f"{_name_of(source)}{FORMATS[format].suffixes[0]}"
            part.replace(whole)
        except OSError as error:
            raise UnreadableError(
                f"'{source}' cannot be kept in {folder} ({error.strerror or error}): free space "
                "there, or set TMPDIR."
            ) from error
        self._given[whole] = Path(source)
        return whole

    def _prepared(self, format: str | None) -> str:
        suffix = f".{format.lower().lstrip('.')}" if format else Path(self.sources[0]).suffix
        self._result = self._own_folder() / f"stdout{suffix or '.png'}"
        self._given[self._result] = Path("-")
        return str(self._result)

    def _own_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="urushi-"))
        return self._folder

    def told(self, result: FileResult) -> FileResult:
        """The result with the names that were given."""
        words = [result.message, *result.notes]
        for stand_in, given in self._given.items():
            words = [text.replace(str(stand_in), str(given)) for text in words]
        return replace(
            result,
            source=self._given.get(result.source, result.source),
            target=self._given.get(result.target, result.target),
            message=words[0],
            notes=tuple(words[1:]),
        )

    def given(self, path: Path) -> Path:
        """The name that was given for a file."""
        return self._given.get(path, path)

    def finish(self, report: BatchReport) -> None:
        """Hands the restored picture on, if it goes into a pipe and was restored.

        Raises:
            TargetError: the pipe, or the disk behind it, takes no more.
        """
        if self._result is None or report.count("restored") != 1:
            return
        try:
            with self._result.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            raise TargetError(
                f"the picture cannot be written to standard output ({error.strerror or error})"
            ) from error

    def _clear(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> "Pipes":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clear()
