"""`urushi report`: scores of ours beside published ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urushi.app.options import Json
from urushi.app.output import Output, examples
from urushi.errors import DataError, TargetError
from urushi.writing import refuse_taken, whole_file

if TYPE_CHECKING:
    from urushi.evaluation.grid import Measured

__all__ = ["EPILOG", "report"]

EPILOG = examples(
    "urushi report",
    "urushi report scores.json --paper lora-ir",
    "urushi report scores/ -o report.html -o report.md -o report.json",
)
_FORMATS = (".md", ".html", ".json")


def report(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RESULTS",
            help="Files that  urushi evaluate --json  wrote, or folders of them.",
            show_default=False,
        ),
    ] = None,
    paper: Annotated[
        list[str] | None,
        typer.Option("--paper", metavar="NAME", help="This paper alone; repeatable."),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write a .md, .html or .json file; repeatable."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILEs there.")] = False,
    json: Json = False,
) -> None:
    """Print scores of ours beside those of papers, each on its own data, crop and colour space."""
    from urushi.evaluation.grid import make_grid
    from urushi.evaluation.grid_pages import to_html, to_markdown
    from urushi.evaluation.papers import PAPERS, find_paper

    targets = output or []
    for target in targets:
        if target.suffix not in _FORMATS:
            raise typer.BadParameter(f"{target} must end in {', '.join(_FORMATS)}.")
    refuse_taken(targets, overwrite)
    grid = make_grid([find_paper(name) for name in paper or PAPERS], _measured(results or []))
    out = Output(json=json)
    makers = {".md": to_markdown, ".html": to_html, ".json": lambda grid: grid.to_json() + "\n"}
    for target in targets:
        try:
            with whole_file(target, overwrite=overwrite) as part:
                part.write_text(makers[target.suffix](grid), encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise TargetError(f"{target} cannot be written ({reason}): choose another") from error
        out.say(f"report: {target}")
    if json:
        out.text(grid.to_json())
    elif not targets:
        out.text(to_markdown(grid))


def _measured(paths: list[Path]) -> "list[Measured]":
    """All scores, each called as its file is."""
    from urushi.evaluation.grid import Measured
    from urushi.evaluation.report import read_report

    found = []
    for path in paths:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        read = 0
        for file in files:
            try:
                document = read_report(file)
            except DataError:
                if path.is_dir():
                    continue  # other documents may lie there
                raise
            read += 1
            for result in document.results:
                method = file.stem if result.restorer else f"{file.stem}, inputs as they are"
                found.append(Measured(method, result))
        if path.is_dir() and not read:
            raise DataError(f"{path} holds no scores: make some with  urushi evaluate --json FILE")
    return found
