"""`urushi report`: scores of ours, of evaluations and comparisons, beside published ones."""

from json import loads as parse_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urushi.app.options import Json
from urushi.app.output import Output, examples
from urushi.errors import DataError, TargetError
from urushi.writing import refuse_taken, whole_file

if TYPE_CHECKING:
    from urushi.evaluation.grid import Measured, Scored

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
            help="Files of  urushi evaluate --json, comparison.json of  urushi compare, folders.",
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
    """Print scores of ours beside those of papers, each on its own data, crop and colour space.

    Of single files only the settings that they have scores for are printed, unless --paper asks for
    those of a paper; of folders all, with what is missing.
    """
    from urushi.evaluation.grid import make_grid
    from urushi.evaluation.grid_pages import to_html, to_markdown
    from urushi.evaluation.papers import PAPERS, find_paper

    targets = output or []
    for target in targets:
        if target.suffix not in _FORMATS:
            raise typer.BadParameter(f"{target} must end in {', '.join(_FORMATS)}.")
    refuse_taken(targets, overwrite)
    given = results or []
    whole = bool(paper) or not given or any(path.is_dir() for path in given)
    papers = [find_paper(name) for name in paper or PAPERS]
    grid = make_grid(papers, _scores(given), whole=whole)
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


def _scores(paths: list[Path]) -> "list[Measured | Scored]":
    """All scores, each called as its file is."""
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
        elif inside := [file for file in sorted(path.rglob("*.json")) if _kind(file) in _READERS]:
            files += inside
        else:
            raise DataError(f"{path} holds no scores: make some with  urushi evaluate --json FILE")
    files = list(dict.fromkeys(files))
    stems = [file.stem for file in files]
    found = []
    for file in files:
        name = file.stem if stems.count(file.stem) == 1 else f"{file.parent.name}/{file.stem}"
        found += _READERS.get(_kind(file), _of_evaluation)(file, name)
    return found


def _kind(path: Path) -> str:
    """What a document says it is; empty where it says nothing."""
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return ""
    return str(content.get("kind", "")) if isinstance(content, dict) else ""


def _of_evaluation(path: Path, name: str) -> "list[Measured]":
    from urushi.evaluation.grid import Measured
    from urushi.evaluation.score_report import read_report

    return [
        Measured(name if result.restorer else f"{name}, inputs as they are", result)
        for result in read_report(path).results
    ]


def _of_comparison(path: Path, _name: str) -> "list[Scored]":
    from urushi.training.compare.scores import read_summary, scores_of

    return scores_of(read_summary(path))


_READERS = {"urushi-scores": _of_evaluation, "urushi-comparison": _of_comparison}
