"""`urushi restore --look`: what would be done, on a sheet, and nothing restored."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from urushi.app.output import EXIT_FAILED, Output, complain, printable, time_text
from urushi.errors import TakenError, UrushiError
from urushi.termination import exit_code
from urushi.writing import taken

if TYPE_CHECKING:
    from urushi.image import Samples
    from urushi.image.page_choice import Pages
    from urushi.inference.auto import AutoRestorer
    from urushi.inference.look import Looked, Reading
    from urushi.inference.look_sheet import LookSheets
    from urushi.inference.naming import Found
    from urushi.inference.pipes import Pipes
    from urushi.inference.restorer import Restorer
    from urushi.inference.staged import Staged
    from urushi.inference.suggestions import Suggestion

__all__ = ["look_at_all", "reading_of", "refuse_with_look"]


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


def reading_of(
    max_pixels: int | None, pages: "Pages | None", samples: "Samples", format: str | None
) -> "Reading":
    """How files are read, from options."""
    from urushi.inference.jobs import suffix_of_format
    from urushi.inference.look import Reading

    suffix = None if format is None else suffix_of_format(format)
    return Reading(max_pixels, pages, samples, suffix)


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


def look_at_all(
    out: Output,
    restorer: "AutoRestorer | Restorer",
    staged: "Staged",
    reading: "Reading",
    overwrite: bool,
    left_out: list[Path],
) -> None:
    """Looks at pictures, draws them on sheets, and tells what would be done.

    Args:
        out: where it is told.
        restorer: what chooses; one that does not is refused.
        staged: the sources and the output.
        reading: how files are read.
        overwrite: as given.
        left_out: pictures that are passed over.
    """
    from urushi.inference.auto import AutoRestorer
    from urushi.inference.jobs import find_pictures
    from urushi.inference.look_sheet import LookSheets, sheet_path
    from urushi.inference.pipes import Pipes

    if not isinstance(restorer, AutoRestorer):
        raise typer.BadParameter("--look is for a router: give --router FILE, too.")
    path, named = sheet_path(staged.output)
    with staged, Pipes(staged.sources, str(path), None) as pipes, out.progress() as progress:
        items = find_pictures(pipes.sources, None if named else staged.output, staged)
        if not overwrite and staged.place_of(path) is not None and staged.exists(path):
            raise TakenError(taken(path))
        sheets = LookSheets(path, items, overwrite=overwrite, named=named)
        bar = progress.add_task("pictures", total=len(sheets.items))

        def on_file(name: str, done: int) -> None:
            progress.update(bar, description=printable(name), completed=done)

        staged.begin(item.source for item in sheets.items)
        seen = _look(out, restorer, sheets, reading, pipes, staged, on_file)
        for sheet in sheets.written:
            staged.send(sheet, overwrite=overwrite)
    _tell(out, seen, sheets.written)
    if left_out and not out.quiet:
        from urushi.image import left_out_sentence

        complain(f"note: {left_out_sentence(left_out)}")
    if out.json:
        out.document(
            {
                "look": True,
                "looked_at": len(seen.rows) - len(seen.failed),
                "failed": len(seen.failed),
                "interrupted": seen.interrupted,
                "seconds": round(seen.seconds, 3),
                "suggestions": [suggestion.describe() for suggestion in seen.suggestions],
                "sheets": [str(sheet) for sheet in sheets.written],
                "files": [row.describe() for row in seen.rows],
                "left_out": [str(one) for one in left_out],
            }
        )
    if seen.interrupted:
        raise typer.Exit(exit_code())
    if seen.failed:
        raise typer.Exit(EXIT_FAILED)


def _look(
    out: Output,
    restorer: "AutoRestorer",
    sheets: "LookSheets",
    reading: "Reading",
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
    restorer: "AutoRestorer", item: "Found", reading: "Reading", staged: "Staged"
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
    for row in seen.rows:
        for note in () if out.quiet else row.notes:
            complain(f"note: {note if row.source.name in note else f'{row.source}: {note}'}")
        if row.message:
            named = row.source.name in row.message
            complain(f"failed: {row.message if named else f'{row.source}: {row.message}'}")
    if seen.interrupted:
        complain("interrupted: the sheet shows what was looked at before")
