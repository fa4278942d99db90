"""What `urushi restore` says when it is done: how many pictures became what, and why."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from urushi.app.output import Output, complain, time_text
from urushi.names import counted

if TYPE_CHECKING:
    from urushi.inference.batch import BatchReport, FileResult
    from urushi.inference.choice import PictureRestorer

__all__ = ["outdated", "skipped_why", "tell_summary"]


def outdated(restorer: "PictureRestorer", report: "BatchReport") -> list[Path]:
    """Targets that were skipped although an adapter in use is younger, so did not make them.

    What made a target is not written into it, so more than this cannot be told.
    """
    found = []
    for result in report.results:
        if result.status == "skipped" and (not skipped_why(result) or _AMONG in result.message):
            try:
                age = os.lstat(result.target).st_mtime_ns
                files = [item.adapter.path for item in restorer.adapters]
                if any(path.stat().st_mtime_ns > age for path in files):
                    found.append(result.target)
            except OSError:
                continue  # gone meanwhile
    return found


def skipped_why(result: "FileResult") -> str:
    """The reason of one that was skipped, other than that its target is there already."""
    if not any(words in result.message for words in _REASONS):
        return ""
    return result.message.removeprefix(f"{result.source}: ").removeprefix(f"{result.source} ")


_AMONG = "may be one of its own"
# Of `urushi.inference.jobs`, by words of the sentence there -> of one, of several.
_REASONS = {
    "would replace itself": (
        "1 skipped picture has the format asked for and would replace itself: choose another "
        "output, or give --overwrite",
        "{} skipped pictures have the format asked for and would replace themselves: choose "
        "another output, or give --overwrite",
    ),
    "taken for what": (
        "1 skipped picture is taken for what another beside it became: another output folder "
        "restores both",
        "{} skipped pictures are taken for what others beside them became: another output folder "
        "restores all",
    ),
    _AMONG: (
        "1 skipped picture would replace one among the sources, which may be its result or one "
        "of its own: choose another output",
        "{} skipped pictures would replace others among the sources, which may be their results "
        "or some of their own: choose another output",
    ),
}


def _tell_skipped(out: Output, report: "BatchReport") -> None:
    """Why pictures were skipped: how many for which reason, and the way out."""
    skipped = [result for result in report.results if result.status == "skipped"]
    counts = {words: sum(words in result.message for result in skipped) for words in _REASONS}
    there = len(skipped) - sum(counts.values())
    if there == len(skipped) > 1:
        out.say("skipped are those whose target exists: --overwrite restores them again")
    elif there == 1:
        out.say("1 was skipped because its target exists: --overwrite restores it again")
    elif there:
        out.say(
            f"{there} were skipped because their targets exist: --overwrite restores them again"
        )
    for words, count in counts.items():
        if count:
            out.say(_REASONS[words][count > 1].format(count))


def tell_summary(
    out: Output,
    report: "BatchReport",
    restorer: "PictureRestorer",
    older: list[Path],
    sheets: dict[Path, str],
) -> None:
    """Says how many pictures became what, and in one line each what a user may want to know.

    Args:
        out: where it is said.
        report: of the batch.
        restorer: what restored.
        older: from `outdated`.
        sheets: as they were written -> why one is missing, empty if it is not.
    """
    counts = {
        "restored": report.count("restored"),
        "skipped": report.count("skipped"),
        "failed": report.count("failed"),
    }
    said = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    used = report.restorer or restorer.describe()
    how = f"{used['engine']} on {used['device']}, {used['precision']}"
    if "router" in used:
        how += f", {used['router']} with task {used['task']}"
    elif restorer.adapters:
        how += f", with {' and '.join(adapter.told for adapter in restorer.adapters)}"
    out.say(f"{said or 'nothing done'} in {time_text(report.seconds)} ({how})")
    _tell_skipped(out, report)
    if older:
        which = counted(len(older), "skipped picture is", "skipped pictures are")
        out.say(f"{which} older than an adapter in use, so not restored with it")
    for suggestion in report.suggestions:
        out.say(suggestion.sentence(restored=True))
    made = [path for path, problem in sheets.items() if not problem]
    if made:
        where = made[0] if len(made) == 1 else f"{len(made)} in {os.path.commonpath(made)}"
        out.say(f"before/after sheets: {where}")
    for result in report.results:
        for note in () if out.quiet else result.notes:
            complain(f"note: {_with_name(result.source, note)}")
        if result.status == "failed":
            complain(f"failed: {_with_name(result.source, result.message)}")
    for path, problem in sheets.items():
        if problem:
            complain(f"no sheet {path}: {problem}")


def _with_name(source: Path, message: str) -> str:
    return message if source.name in message else f"{source}: {message}"
