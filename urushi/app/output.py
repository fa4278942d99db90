"""What commands write: lines and tables for people, progress, JSON for machines.

Results go to stdout, complaints to stderr. With `--json` stdout carries one JSON document and
nothing else. Colours and moving bars appear on a terminal only.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from urushi.remote import redacted

__all__ = [
    "EXIT_FAILED",
    "EXIT_USAGE",
    "EXIT_WELL",
    "Output",
    "complain",
    "examples",
    "name_as_given",
    "printable",
    "refusal",
    "shown_as_given",
    "size_text",
    "time_text",
]

EXIT_WELL = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

# Names of files, and what files say about themselves, may hold anything, even orders to a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HALF = re.compile(r"[\ud800-\udfff]+")
_WIDEST = 240


def printable(text: object) -> str:
    """The text with control characters written out, and a sign for bytes that are no characters.

    Names of files may be any bytes; Python gives halves of characters for those that its locale
    does not know. Under `LC_ALL=C` that is every letter beyond ASCII, which then is UTF-8 mostly.
    """
    shown = _HALF.sub(lambda match: _decoded(match.group()), shown_as_given(text))
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], shown)


def shown_as_given(text: object) -> str:
    """The text with what stands in for URLs named as it was given, and without their secrets."""
    return redacted(_given[-1](str(text)))


_given: list[Callable[[str], str]] = [str]


def name_as_given(told: Callable[[str], str]) -> None:
    """From now on everything that is written for people and machines goes through this.

    Args:
        told: replaces paths that stand in for what was given.
    """
    _given[-1] = told


def _decoded(halves: str) -> str:
    try:
        return halves.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # halves that stand for no bytes
        return "\N{REPLACEMENT CHARACTER}" * len(halves)


def complain(sentence: object) -> None:
    """Writes one sentence to stderr."""
    _line(Console(stderr=True), printable(sentence))


def examples(*lines: str) -> str:
    """An epilog for `--help`: examples, one to a line, and what the exit codes mean."""
    codes = (
        "Exit codes: 0 all is well, 1 something failed (stderr says what), 2 wrong usage, "
        "130 interrupted, 143 terminated."
    )
    return "\n\n".join(["[bold]Examples[/bold]", *lines, codes])


def size_text(size: int | float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def time_text(seconds: int | float) -> str:
    """A duration for people: `0.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Output:
    """Where one command writes.

    Args:
        json: stdout is for a JSON document; people read stderr.
        quiet: say nothing but complaints.
        stdout_taken: stdout is for something else, such as a picture; people read stderr.
    """

    def __init__(
        self, *, json: bool = False, quiet: bool = False, stdout_taken: bool = False
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.console = Console(stderr=json or stdout_taken, highlight=False, emoji=False)
        self.live = self.console.is_terminal and not quiet

    def say(self, text: object = "") -> None:
        """Writes a line for people."""
        if not self.quiet:
            _line(self.console, printable(text))

    def show(self, table: Table) -> None:
        """Writes a table for people; as wide as it needs where there is no terminal."""
        if self.quiet:
            return
        wide = (
            self.console if self.console.is_terminal else Console(stderr=self.json, width=_WIDEST)
        )
        with _told():
            wide.print(table)

    def rows(self, rows: Sequence[tuple[str, object]]) -> None:
        """Writes names and values in two columns."""
        if not self.console.is_terminal:
            widest = max(len(name) for name, _ in rows)
            for name, value in rows:
                # Lines of a value stand below one another.
                lines = str(value).replace("\n", "\n" + " " * (widest + 2))
                self.say(f"{name:{widest}}  {lines}")
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, style="bold")
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(Text(printable(name)), Text(printable(value)))
        self.show(table)

    def document(self, content: Any) -> None:
        """Writes the JSON document; infinite and undefined numbers become null."""
        self.text(json.dumps(_plain(content), indent=2))

    def text(self, text: str) -> None:
        """Writes a document for machines to stdout."""
        with _told():
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def progress(self, *columns: ProgressColumn) -> Progress:
        """A moving display; shows nothing where there is no terminal."""
        shown = columns or (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
        )
        return Progress(*shown, console=self.console, disable=not self.live, transient=True)


def _line(console: Console, text: str) -> None:
    encoding = console.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    with _told():
        console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
        console.file.flush()


# Why stdout or stderr takes nothing more.
_refused: list[str] = []


@contextmanager
def _told() -> Iterator[None]:
    """Lets the work go on where what is said of it finds no room; `refusal` tells that in the end.

    A reader that has gone away, such as `head`, is left to click, which ends the command.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _refused.append(error.strerror or str(error))
        # What is held back for it would be tried again, and fail again, when the process ends.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
                continue
            _to_nowhere(stream)


def _to_nowhere(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def refusal() -> str:
    """Why not all that was said since the last call could be written; empty if it could."""
    found = _refused[0].lower() if _refused else ""
    _refused.clear()
    return found


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and (content != content or abs(content) == float("inf")):
        return None
    if content is None or isinstance(content, bool | int | float):
        return content
    return shown_as_given(content)
