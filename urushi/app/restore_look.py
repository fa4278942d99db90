"""`urushi restore --look`: what would be done, and nothing restored; with -o, on a sheet, too."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from urushi.app.output import EXIT_FAILED, Output, complain, printable, time_text
from urushi.errors import TakenError, UrushiError
from urushi.termination import exit_code
from urushi.writing import taken

if TYPE_CHECKING:
    from urushi.inference.auto import AutoRestorer
    from urushi.inference.choice import PictureRestorer
    from urushi.inference.look import Looked, Looking
    from urushi.inference.look_sheet import LookSheets
    from urushi.inference.naming import Found
    from urushi.inference.picture_files import FileOptions
    from urushi.inference.pipes import Pipes
    from urushi.inference.staged import Staged
    from urushi.inference.suggestions import Suggestion

__all__ = ["look_at_all", "refuse_with_look"]


def refuse_with_look(given: Mapping[str, bool], task: str | None) -> None:
    """Refuses options that mean nothing where nothing is restored.

    Args:
        given: options, and whether they are given.
        task: of `--task`.
    """
    why = {
        "-o -": "--look writes a sheet: give -o NAME.jpg instead of -o -.",
        "--dry-run": "--dry-run looks at no picture, and --look does: leave one out.",
        "--compare": "--compare shows results, and --look makes none: leave one out.",
    }
    for option, sentence in why.items():
        if given[option]:
            raise typer.BadParameter(sentence)
    if task not in (None, "auto"):
        raise typer.BadParameter(
            f"--look shows what is seen, and --task {task} says it: leave one out."
        )


@dataclass
class _Seen:
    """What a look at a batch gave; pictures without their small versions."""

    rows: "list[Looked]" = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def failed(self) -> "list[Looked]":
        return [row for row in self.rows if row.choice is None]

    @property
    def suggestions(self) -> "list[Suggestion]":
        from urushi.inference.suggestions import suggestions_of

        return suggestions_of((row.source, row.choice) for row in self.rows)

    def to_json(self, sheets: list[Path], left_out: list[Path]) -> dict[str, Any]:
        """All of it for machines."""
        return {
            "look": True,
            "looked_at": len(self.rows) - len(self.failed),
            "failed": len(self.failed),
            "interrupted": self.interrupted,
            "seconds": round(self.seconds, 3),
            "suggestions": [suggestion.describe() for suggestion in self.suggestions],
            "sheets": [str(sheet) for sheet in sheets],
            "files": [row.describe() for row in self.rows],
            "left_out": [str(one) for one in left_out],
        }


def look_at_all(
    out: Output,
    restorer: "PictureRestorer",
    staged: "Staged",
    options: "FileOptions",
    format: str | None,
    overwrite: bool,
    left_out: list[Path],
) -> None:
    """Looks at pictures and tells what would be done; draws sheets where they have a place.

    Args:
        out: where it is told.
        restorer: what chooses.
        staged: the sources and the output.
        options: how files are read.
        format: of what they would become.
        overwrite: as given.
        left_out: pictures that are passed over.
    """
    from urushi.inference.auto import AutoRestorer
    from urushi.inference.jobs import find_pictures, suffix_of_format
    from urushi.inference.look import Looking
    from urushi.inference.look_sheet import LookSheets, sheet_path
    from urushi.inference.naming import LOOK_NAME
    from urushi.inference.pipes import Pipes

    assert isinstance(restorer, AutoRestorer), restorer  # `RestorerGroup.check` saw to it
    output = staged.output
    path, named = (None, False) if output is None else sheet_path(output)
    shown = str(path or LOOK_NAME)
    with staged, Pipes(staged.sources, shown, None) as pipes, out.progress() as progress:
        items = find_pictures(pipes.sources, None if named else output, staged)
        suffix = None if format is None else suffix_of_format(format)
        if path is not None and not overwrite and staged.sends([path]) and staged.exists(path):
            raise TakenError(taken(path))
        sheets = LookSheets(path, items, overwrite=overwrite, named=named)
        bar = progress.add_task("pictures", total=len(sheets.items))

        def on_file(name: str, done: int) -> None:
            progress.update(bar, description=printable(name), completed=done)

        staged.begin(item.source for item in sheets.items)
        seen = _look(out, restorer, sheets, Looking(options, suffix), pipes, staged, on_file)
        for sheet in sheets.written:
            staged.send(sheet, overwrite=overwrite)
    _tell(out, seen, sheets.written)
    if left_out and not out.quiet:
        from urushi.image import left_out_sentence

        complain(f"note: {left_out_sentence(left_out)}")
    if out.json:
        out.document(seen.to_json(sheets.written, left_out))
    if seen.interrupted:
        raise typer.Exit(exit_code())
    if seen.failed:
        raise typer.Exit(EXIT_FAILED)


def _look(
    out: Output,
    restorer: "AutoRestorer",
    sheets: "LookSheets",
    reading: "Looking",
    pipes: "Pipes",
    staged: "Staged",
    on_file: Callable[[str, int], None],
) -> _Seen:
    """Looks at one file after another; what was seen before an interruption is drawn, too."""
    seen = _Seen()
    begin = time.perf_counter()
    try:
        for index, item in enumerate(sheets.items):
            on_file(item.source.name, index)
            for row in _looked(restorer, item, reading, staged):
                row = _as_given(row, pipes, staged)
                sheets.add(row)
                seen.rows.append(replace(row, small=None))
                where = str(row.source) + ("" if row.page is None else f", page {row.page + 1}")
                what = "cannot be read" if row.choice is None else row.choice.reason
                out.say(f"[{index + 1}/{len(sheets.items)}] {where}: {what}")
    except KeyboardInterrupt:
        seen.interrupted = True
    sheets.finish()
    seen.seconds = time.perf_counter() - begin
    return seen


def _looked(
    restorer: "AutoRestorer", item: "Found", reading: "Looking", staged: "Staged"
) -> "Iterator[Looked]":
    """Looks at one file, which is fetched for that if it lies in a store."""
    from urushi.inference.look import Looked, look_at

    try:
        staged.bring(item.source)
        yield from look_at(restorer, item, reading)
    except UrushiError as error:
        yield Looked(item.source, str(item.inside), message=str(error))
    finally:
        staged.drop(item.source)


def _as_given(row: "Looked", pipes: "Pipes", staged: "Staged") -> "Looked":
    """With the name that was given for what came from a pipe or a store."""
    notes = (*row.notes, *staged.notes(row.source))
    row = replace(
        row, message=staged.told(row.message), notes=tuple(staged.told(note) for note in notes)
    )
    given = pipes.given(row.source)
    if given == row.source:
        return row
    old, new = str(row.source), str(given)
    notes = tuple(note.replace(old, new) for note in row.notes)
    return replace(row, source=given, name=new, message=row.message.replace(old, new), notes=notes)


def _tell(out: Output, seen: _Seen, written: list[Path]) -> None:
    from urushi.inference.look_sheet import kind_done

    well = [row for row in seen.rows if row.choice is not None]
    kinds = Counter(kind_done(row.choice) for row in well).most_common()
    counts = ", ".join(f"{kind} {number}" for kind, number in kinds)
    said = f"{len(well)} looked at" + (f", {len(seen.failed)} failed" if seen.failed else "")
    out.say(f"{said} in {time_text(seen.seconds)}" + (f": {counts}" if counts else ""))
    for suggestion in seen.suggestions:
        out.say(suggestion.sentence(restored=False))
    if written:
        others = f" and {len(written) - 1} more beside it" if len(written) > 1 else ""
        out.say(f"sheet: {written[0]}{others}; nothing was restored")
    elif well:
        out.say("nothing was restored; -o NAME.jpg draws a sheet of this")
    for row in seen.rows:
        for note in () if out.quiet else row.notes:
            complain(f"note: {note if row.source.name in note else f'{row.source}: {note}'}")
        if row.message:
            named = row.source.name in row.message
            complain(f"failed: {row.message if named else f'{row.source}: {row.message}'}")
    if seen.interrupted:
        complain("interrupted: this is what was looked at before")
