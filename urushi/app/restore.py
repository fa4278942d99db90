"""`urushi restore`: pictures in, mended pictures out."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TaskID

from urushi.app.cluster import ClusterGroup
from urushi.app.dry_run import restoring_of, tell_plan
from urushi.app.groups import EngineGroup, RestorerGroup, StrengthGroup, grouped
from urushi.app.options import Json, Linear, Quality, White
from urushi.app.output import (
    EXIT_FAILED,
    Output,
    complain,
    examples,
    name_as_given,
    printable,
    time_text,
)
from urushi.app.restore_look import look_at_all, refuse_with_look
from urushi.app.restore_summary import outdated, skipped_why, tell_summary
from urushi.errors import UrushiError
from urushi.termination import exit_code

if TYPE_CHECKING:
    from urushi.inference.batch import BatchReport, Event, FileResult, Job
    from urushi.inference.choice import PictureRestorer
    from urushi.inference.picture_files import FileOptions
    from urushi.inference.staged import Staged

__all__ = ["EPILOG", "restore"]

EPILOG = examples(
    "urushi restore photo.jpg",
    "urushi restore photo.jpg -o mended.png",
    "urushi restore photos/ -o mended/ --compare",
    "urushi restore photos/ -o mended/ --task haze",
    "urushi restore photos/ -o mended/ --router all-in-one.safetensors --top-k 2",
    "urushi restore photos/ -o mended/ --adapter mine.safetensors",
    "urushi restore photo.jpg --strength 0.7 --chroma 0.5",
    "urushi restore 'scans/**/*.tif' -o mended/ --format png",
    "urushi restore s3://scans/in/ -o s3://scans/mended/",
    "urushi restore photos/ --look",
    "urushi restore photos/ -o mended/ --dry-run",
    "urushi restore scans/ -o mended/ --cluster ray",
    "urushi restore - -o - --format png < photo.jpg > mended.png",
)


@dataclass(frozen=True, kw_only=True)
class FileGroup:
    """How pictures are read and written."""

    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="png, jpg, tif, webp, avif; default: each picture's own.",
        ),
    ] = None
    quality: Quality = None
    strip_metadata: Annotated[
        bool, typer.Option("--strip-metadata", help="Leave out EXIF and XMP.")
    ] = False
    pages: Annotated[
        str | None,
        typer.Option(
            "--pages",
            metavar="first|all|N|N-M",
            help="For files with several pages; default: all pages of a TIFF into a TIFF, else "
            "the first.",
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Restore again what exists already.")
    ] = False
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Write before/after sheets to OUT/compare/ as well."),
    ] = False
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels",
            min=0,
            metavar="N",
            help="Refuse larger pictures; 0 for no limit. Default: about a thousand million.",
        ),
    ] = None
    white: White = None
    linear: Linear = None

    def options(self) -> "FileOptions":
        """The same, checked."""
        from urushi.image import DEFAULT_MAX_PIXELS, Samples
        from urushi.inference.picture_files import FileOptions

        samples = Samples(self.white, self.linear).checked()
        limit = DEFAULT_MAX_PIXELS if self.max_pixels is None else self.max_pixels or None
        return FileOptions(limit, self.pages, samples, self.strip_metadata, self.quality)

    def plan(self, sources: Sequence[str], output: str | None, staged: "Staged") -> "list[Job]":
        """What becomes of each picture."""
        from urushi.inference.batch import plan_batch

        return plan_batch(
            sources, output, format=self.format, overwrite=self.overwrite, staged=staged
        )


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCES",
        help="Pictures, folders or quoted patterns, here or by URL (s3://, gs://, https://); "
        "- reads stdin.",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="A folder, here or in a store (s3://OUT/); or, for one picture, a file name, or - "
        "for stdout. One picture without it becomes NAME_restored beside its source. With "
        "--look: the sheet, NAME.jpg or NAME.png, or its folder.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Show what would be done and how much memory it takes, and do nothing.",
    ),
]
Look = Annotated[
    bool,
    typer.Option(
        "--look",
        help="Restore nothing: tell what the router sees in each picture, how sure it is, and "
        "what would be done. With -o NAME.jpg or a folder it is drawn on a sheet, too.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Report failures only.")]


@grouped
def restore(
    sources: Sources,
    output: Target = None,
    *,
    by: RestorerGroup,
    strength: StrengthGroup,
    engine: EngineGroup,
    files: FileGroup,
    dry_run: DryRun = False,
    look: Look = False,
    cluster: ClusterGroup,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Restore pictures. Finished ones are skipped, and a failure does not stop the others.

    Pictures, the output, models and adapters may be URLs of object stores (s3://, gs://) or, to
    read, of web servers (https://).
    """
    from urushi.inference.batch import run_batch
    from urushi.inference.local_copies import LocalCopies
    from urushi.inference.naming import passed_over
    from urushi.inference.pipes import is_stdout, plan_pipes
    from urushi.inference.staged import Staged

    piped = is_stdout(output)
    options = files.options()
    if look:
        refuse_with_look({"--dry-run": dry_run, "--compare": files.compare, "-o -": piped}, by.task)
    by.check(look=look)
    cluster.check({"--look": look, "--dry-run": dry_run, "-o -": piped, "-": "-" in sources})
    if cluster.cluster is not None and output is None:
        raise typer.BadParameter("--cluster restores into a folder: give -o FOLDER.")
    if piped and (json or files.compare):
        raise typer.BadParameter("-o - writes a picture to stdout: leave out --json and --compare.")
    out = Output(json=json, quiet=quiet, stdout_taken=piped)
    staged, copies = Staged(sources, output), LocalCopies(out.say)
    name_as_given(lambda text: copies.told(staged.told(text)))
    by, how = by.local(copies), engine.options()
    left_out = passed_over(staged.sources, None if look else staged.output, staged.foreign)
    if dry_run:
        jobs = [] if piped else files.plan(staged.sources, staged.output, staged)
        jobs = plan_pipes(jobs, staged.sources, staged.output, files.format)
        restoring = restoring_of(by.model, by.router, by.task, by.adapter, how)
        tell_plan(out, jobs, left_out, restoring, staged, options)
        return
    run = run_batch
    if cluster.cluster is not None and staged.output is not None:
        run = cluster.runner(out, staged.output, device=engine.device, threads=engine.threads)
        how["device"] = "cpu"  # workers make it ready anew, for what they have
    restorer = strength.applied_to(by.restorer(how))
    if engine.precision == "int8" and getattr(restorer, "task", "none") != "none":
        out.say("int8 is for the base alone: pictures that get an expert are restored in float32")
    if look:
        look_at_all(out, restorer, staged, options, files.format, files.overwrite, left_out)
        return
    report, sheets = _restore_all(out, restorer, staged, files, options, run)
    _tell(out, report, restorer, sheets, left_out)


def _restore_all(
    out: Output,
    restorer: "PictureRestorer",
    staged: "Staged",
    files: FileGroup,
    options: "FileOptions",
    run: "Callable[..., BatchReport]",
) -> "tuple[BatchReport, dict[Path, str] | None]":
    """Restores all pictures, and writes sheets; None where nobody asked for any."""
    from urushi.inference.pipes import Pipes

    sheets = None
    with (
        staged,
        Pipes(staged.sources, staged.output, files.format) as pipes,
        out.progress() as progress,
    ):
        jobs = files.plan(pipes.sources, pipes.output, staged)
        teller = _Teller(out, progress, len(jobs), pipes.told)
        report = run(restorer, jobs, on_event=teller, options=options, staged=staged)
        if files.compare:
            sheets = _write_sheets(jobs, report, pipes.output, options, files.overwrite, staged)
        report = replace(report, results=[pipes.told(result) for result in report.results])
        pipes.finish(report)
    return report, sheets


def _tell(
    out: Output,
    report: "BatchReport",
    restorer: "PictureRestorer",
    sheets: dict[Path, str] | None,
    left_out: list[Path],
) -> None:
    """Says what became of all pictures, as sentences or as JSON, and in the exit code."""
    older = outdated(restorer, report)
    tell_summary(out, report, restorer, older, sheets or {})
    _tell_left_out(out, left_out)
    if out.json:
        facts: dict[str, Any] = {
            "restorer": report.restorer or restorer.describe(),
            "outdated": [str(path) for path in older],
            "left_out": [str(path) for path in left_out],
        }
        if sheets is not None:
            facts["sheets"] = {str(path): problem or None for path, problem in sheets.items()}
        out.document({**report.to_json(), **facts})
    if report.interrupted:
        complain("interrupted: the same command goes on where it was stopped")
        raise typer.Exit(exit_code())
    if not report.ok or any((sheets or {}).values()):
        raise typer.Exit(EXIT_FAILED)


def _tell_left_out(out: Output, left_out: list[Path]) -> None:
    from urushi.image import left_out_sentence

    if left_out and not out.quiet:
        complain(f"note: {left_out_sentence(left_out)}")


class _Teller:
    """Shows how a batch goes: bars on a terminal, a line for each picture elsewhere."""

    def __init__(
        self,
        out: Output,
        progress: Progress,
        total: int,
        told: "Callable[[FileResult], FileResult]",
    ) -> None:
        self._out, self._progress, self._told = out, progress, told
        self._all: TaskID | None = None
        if total > 1:
            self._all = progress.add_task("pictures", total=total)
        self._one = progress.add_task("", total=None)

    def __call__(self, event: "Event") -> None:
        name = printable(event.job.source.name)
        self._progress.update(
            self._one, description=name, completed=event.done, total=event.pixels or None
        )
        result = event.result
        if self._all is not None:
            part = event.done / event.pixels if event.pixels else 0.0
            done = event.index + (1.0 if result is not None else part)
            self._progress.update(
                self._all,
                completed=done,
                description=f"{event.index + 1} of {event.total}",
            )
        if result is None:
            return
        result = self._told(result)
        line = f"[{event.index + 1}/{event.total}] {result.status} {result.source}"
        if result.status == "restored":
            line += f" -> {result.target} ({result.pixels / 1e6:.1f} megapixels, "
            line += f"{time_text(result.seconds)})"
        if result.choice is not None:
            line += f": {result.choice.reason}"
        elif result.status == "skipped" and (why := skipped_why(result)):
            line += f": {why}"
        # On a terminal the bars tell of what went well, but not of what was seen.
        if result.choice is not None or result.status == "failed" or not self._out.live:
            self._out.say(line)


def _write_sheets(
    jobs: "list[Job]",
    report: "BatchReport",
    output: str | None,
    options: "FileOptions",
    overwrite: bool,
    staged: "Staged",
) -> dict[Path, str]:
    """Sheets of all pictures that are there now -> why one is missing, empty if it is not."""
    from urushi.inference.before_after import sheet_paths, write_before_after

    sheets: dict[Path, str] = {}
    paths = sheet_paths(jobs, None if output is None else Path(output))
    for result, path in zip(report.results, paths, strict=False):
        if result.status == "failed" or (result.status == "skipped" and staged.exists(path)):
            continue
        try:
            if os.path.realpath(result.source) == os.path.realpath(result.target):
                raise UrushiError(
                    f"{result.source} was overwritten by its own result: no sheet can be made"
                )
            with staged.at_hand(result.source, result.target):
                write_before_after(
                    result.source,
                    result.target,
                    path,
                    max_pixels=options.max_pixels,
                    page=options.first_page,
                    samples=options.samples,
                    overwrite=overwrite,
                )
            staged.send(path, overwrite=overwrite)
            sheets[path] = ""
        except UrushiError as error:
            sheets[path] = str(error)
    return sheets
