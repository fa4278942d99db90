"""Which files are restored into which: files, folders and patterns made into jobs.

Names are decided in `urushi.inference.naming`.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from urushi.errors import TargetError, UnreadableError
from urushi.image import (
    READ_SUFFIXES,
    SUPPORTED_SUFFIXES,
    foreign_name,
    is_picture_name,
    left_out_sentence,
)
from urushi.image.libvips import can_write
from urushi.inference.naming import (
    LOOK_NAME,
    Found,
    passed_over,
    real,
    results_among,
    target_names,
    with_suffix,
)
from urushi.inference.staged import Staged
from urushi.names import counted

__all__ = ["Job", "find_pictures", "plan_batch", "suffix_of_format"]


@dataclass(frozen=True)
class Job:
    """One file to restore.

    Attributes:
        source: the file to read.
        target: the file to write.
        overwrite: whether a target that is there is replaced; it is left alone otherwise.
        problem: why it cannot be done, if that is known beforehand.
        left: why it is left as it is, where nothing went wrong: it has the format asked for
            already, or seems to be what another picture has become.
    """

    source: Path
    target: Path
    overwrite: bool = False
    problem: str = ""
    left: str = ""


def plan_batch(
    sources: Sequence[str | Path],
    output: str | Path | None,
    *,
    format: str | None = None,
    overwrite: bool = False,
    staged: Staged | None = None,
) -> list[Job]:
    """Decide which files are restored into which.

    Folders are walked with their structure kept; hidden files, files whose suffix names no picture
    format, and sheets of `--look` are passed over there and in patterns; `passed_over` tells the
    pictures among those. A file that is named itself always becomes a job, and fails as one if it
    is no picture.

    Args:
        sources: files, folders, and patterns such as `photos/**/*.jpg`.
        output: a file name for a single file; otherwise a folder. None puts a single file
            beside its source, as `NAME_restored`.
        format: suffix of the targets; None keeps the sources' own.
        overwrite: replace targets that are there.
        staged: what stands in for stores among the sources and the output, which are its own.

    Returns:
        Jobs without duplicates, in the order of the sources.

    Raises:
        UnreadableError: there is nothing to restore.
        TargetError: the targets cannot be as asked, or one would replace a source.
    """
    suffix = None if format is None else suffix_of_format(format)
    folder = None if output is None else Path(output)
    items = find_pictures(sources, output, staged)
    if folder is None:
        targets = [_beside(items, suffix)]
    elif _is_file_name(output, items):
        targets = [_checked_file_name(folder, items, suffix)]
    else:
        if os.path.lexists(folder) and not folder.is_dir():
            raise TargetError(
                f"{folder} is a file, expected a folder for {counted(len(items), 'picture')}"
            )
        return _into_folder(folder, items, suffix, overwrite)
    jobs = [
        Job(item.source, target, overwrite, item.problem)
        for item, target in zip(items, targets, strict=True)
    ]
    _check_targets(jobs)
    return jobs


def find_pictures(
    sources: Sequence[str | Path], output: str | Path | None = None, staged: Staged | None = None
) -> list[Found]:
    """The files of `plan_batch`, each once, in the order of the sources.

    Args:
        sources: as for `plan_batch`.
        output: a folder that is not looked into where it lies within the sources.
        staged: as for `plan_batch`.

    Raises:
        UnreadableError: there is none.
    """
    folder = None if output is None else Path(output)
    found: dict[Path, Found] = {}
    for source in sources:
        listed = None if staged is None else staged.listed(source)
        for item in _find(source, folder) if listed is None else _outside(listed, folder):
            found.setdefault(Path(os.path.abspath(item.source)), item)
    if not found:
        of_store = None if staged is None else staged.foreign
        left_out = left_out_sentence(passed_over(sources, output, of_store))
        raise UnreadableError(
            f"no pictures in {', '.join(map(str, sources)) or 'an empty list'}: "
            + (left_out or f"name files of a known format ({', '.join(READ_SUFFIXES)})")
        )
    return list(found.values())


def _into_folder(
    folder: Path, items: list[Found], suffix: str | None, overwrite: bool
) -> list[Job]:
    """Jobs into a folder, which may be the one that the pictures lie in."""
    made = results_among(folder, items, suffix)
    fresh = [item for item in items if item.source not in made]
    targets = target_names(folder, fresh, suffix)
    named = {item.source: target for item, target in zip(fresh, targets, strict=True)}
    # What was only taken for a result may be a picture of its own.
    taken = {real(source) for source in made}
    jobs = []
    for item in items:
        if item.source in made:
            left = _made_from(item.source, made[item.source])
            jobs.append(Job(item.source, item.source, left=left))
            continue
        job = Job(item.source, named[item.source], overwrite, item.problem)
        if real(job.target) in taken:
            job = replace(job, left=_may_be_original(job))
        jobs.append(job)
    own = [job for job in jobs if job.source not in made]
    if not overwrite and not all(_replaces_itself(job) for job in own):
        # One that has the format already is no reason to restore none of the others.
        jobs = [
            replace(job, left=_itself(job))
            if not (job.left or job.problem) and _replaces_itself(job)
            else job
            for job in jobs
        ]
    _check_targets([job for job in jobs if not job.left])
    return jobs


def _replaces_itself(job: Job) -> bool:
    return os.path.normcase(real(job.target)) == os.path.normcase(real(job.source))


def _itself(job: Job) -> str:
    return f"{job.source} would replace itself: choose another output, or give --overwrite"


def _made_from(source: Path, other: Path) -> str:
    return (
        f"{source}: taken for what {other} became, so it is not restored again: another output "
        "folder restores both"
    )


def _may_be_original(job: Job) -> str:
    return (
        f"{job.target}: lies among the pictures to restore and may be one of its own, so it is not "
        f"replaced by the restored {job.source.name}: choose another output"
    )


def _find(source: str | Path, output: Path | None) -> Iterator[Found]:
    path = Path(source)
    if path.is_dir():
        yield from _walk(path, path, output)
    elif not os.path.lexists(path) and glob.has_magic(str(source)):
        yield from _match(str(source), output)
    else:
        yield Found(path, Path(path.name), named=True)


def _outside(items: list[Found], output: Path | None) -> Iterator[Found]:
    """Those of a store's files that are not in the output folder."""
    for item in items:
        base = item.source.parents[len(item.inside.parts) - 1]
        if item.named or not _inside(item.source, output, base):
            yield item


def _match(pattern: str, output: Path | None) -> Iterator[Found]:
    base = Path()
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        base /= part
    for hit in sorted(glob.glob(pattern, recursive=True)):
        path = Path(hit)
        if _inside(path, output, base):
            continue
        if path.is_dir():
            # `**` lists every folder on its way, and their files on their own.
            if "**" not in pattern:
                yield from _walk(path, base, output)
        elif is_picture_name(path) and not _is_look_sheet(path):
            yield Found(path, path.relative_to(base), named=False)


def _walk(folder: Path, base: Path, output: Path | None) -> Iterator[Found]:
    problems: list[OSError] = []
    for root, folders, files in os.walk(folder, onerror=problems.append):
        here = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not _inside(here / name, output, base)
        )
        for name in sorted(files):
            path = here / name
            if is_picture_name(path) and not _is_look_sheet(path):
                yield Found(path, path.relative_to(base), named=False)
    for error in problems:
        path = Path(error.filename)
        message = f"{path}: the folder cannot be read ({error.strerror})"
        yield Found(path, path.relative_to(base), named=False, problem=message)


def _inside(path: Path, output: Path | None, base: Path) -> bool:
    """Whether `path` belongs to an output folder that lies within the sources."""
    if output is None:
        return False
    target, root = real(output), real(base)
    lies_within = target != root and target.is_relative_to(root)
    return lies_within and real(path).is_relative_to(target)


def suffix_of_format(format: str) -> str:
    """The suffix of files of a format.

    Raises:
        TargetError: it is not written, or not by what is installed here.
    """
    suffix = "." + format.lower().lstrip(".")
    if suffix not in SUPPORTED_SUFFIXES:
        known_to_be = suffix in READ_SUFFIXES or foreign_name(f"a{suffix}")
        what = "is not written" if known_to_be else "is unknown"
    elif not can_write(SUPPORTED_SUFFIXES[suffix]):
        what = "is not written by the libvips that is installed"
    else:
        return suffix
    known = ", ".join(end[1:] for end, name in SUPPORTED_SUFFIXES.items() if can_write(name))
    usage = suffix not in SUPPORTED_SUFFIXES
    raise TargetError(f"format {format!r} {what}, expected one of {known}", usage=usage)


def _beside(items: list[Found], suffix: str | None) -> Path:
    if len(items) > 1 or not items[0].named:
        need = counted(len(items), "picture needs", "pictures need")
        raise TargetError(f"{need} a folder to go to: give --output FOLDER", usage=True)
    source = items[0].source
    return with_suffix(source.with_name(f"{source.stem}_restored{source.suffix}"), suffix)


def _is_file_name(output: str | Path | None, items: list[Found]) -> bool:
    text = os.fspath(output or "")
    if Path(text).is_dir() or text.endswith(("/", os.sep)):
        return False
    suffix = Path(text).suffix
    if suffix.lower() in SUPPORTED_SUFFIXES:
        if len(items) > 1 or not items[0].named:
            raise TargetError(
                f"{text} is a file name, expected a folder for the pictures", usage=True
            )
        return True
    if suffix and len(items) == 1 and items[0].named:
        raise TargetError(
            f"{text}: {suffix} names no format that is written, expected one of "
            f"{', '.join(SUPPORTED_SUFFIXES)}, or an existing folder",
            usage=True,
        )
    return False


def _checked_file_name(target: Path, items: list[Found], suffix: str | None) -> Path:
    if (
        suffix is not None
        and SUPPORTED_SUFFIXES[target.suffix.lower()] != SUPPORTED_SUFFIXES[suffix]
    ):
        raise TargetError(
            f"{target}: its suffix contradicts the format {suffix[1:]}: give one only", usage=True
        )
    return target


def _check_targets(jobs: list[Job]) -> None:
    """No two jobs write one file, and none writes what another, or itself unasked, reads."""
    sources = {os.path.normcase(real(job.source)): job for job in jobs}
    writers: dict[str, Job] = {}
    for job in jobs:
        key = os.path.normcase(real(job.target))
        if key in writers:
            raise TargetError(
                f"{writers[key].source} and {job.source} would both become {job.target}: "
                "restore them into different folders"
            )
        writers[key] = job
        read_by = sources.get(key)
        if read_by is job and not (job.overwrite or job.problem):
            raise TargetError(_itself(job))
        if read_by is not None and read_by is not job:
            raise TargetError(
                f"{job.source} would replace {job.target}, which is an input as well: choose "
                "another output"
            )


def _is_look_sheet(path: Path) -> bool:
    if not path.name.startswith(Path(LOOK_NAME).stem):
        return False
    from urushi.inference.look_sheet import is_look_sheet  # which brings Pillow's drawing

    return is_look_sheet(path)
