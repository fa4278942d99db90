"""What commands write: lines and tables for people, progress, JSON for machines.

Results go to stdout, complaints to stderr. With `--json` stdout carries one JSON document and
nothing else. Colours and moving bars appear on a terminal only.
"""

import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

__all__ = [
    "EXIT_FAILED",
    "EXIT_USAGE",
    "EXIT_WELL",
    "Output",
    "complain",
    "examples",
    "printable",
    "size_text",
    "time_text",
]

EXIT_WELL = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

# Names of files, and what files say about themselves, may hold anything, even orders to a terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_WIDEST = 240


def printable(text: object) -> str:
    """The text with control characters, and halves of characters, written out."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], str(text))


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
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.console = Console(stderr=json, highlight=False, emoji=False)
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
        text = json.dumps(_finite(content), indent=2, default=str)
        sys.stdout.write(text + "\n")

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
    console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and (content != content or abs(content) == float("inf")):
        return None
    return content
