"""What would become of a file, as far as it can be told without restoring: for `--dry-run`."""

import os
from pathlib import Path

from urushi.errors import TargetError, UrushiError
from urushi.image import inspect_picture
from urushi.image.page_choice import taken_pages
from urushi.image.target import Target, lay_out
from urushi.inference.batch import Status, fate_of
from urushi.inference.jobs import Job
from urushi.inference.picture_files import FileOptions, check_format
from urushi.inference.pipes import is_pipe, is_stdout
from urushi.inference.staged import Staged

__all__ = ["foretold"]


def foretold(job: Job, staged: Staged, options: FileOptions) -> tuple[Status, str]:
    """How a job would end, and the sentence about it; empty where it would be restored.

    Headers are read and nothing is written. What lies in a store or comes from a pipe is not looked
    into, and what only the pixels tell, such as the early end of a file, is not known yet.
    """
    status, message = fate_of(job, staged)
    if status != "restored":
        return status, message
    try:
        _check(job, staged, options)
    except UrushiError as error:
        return "failed", str(error)
    return "restored", ""


def _check(job: Job, staged: Staged, options: FileOptions) -> None:
    """Raises what the real run would raise."""
    if staged.place_of(job.source) is not None or is_pipe(job.source):
        return
    info = inspect_picture(job.source, max_pixels=options.checked_limit)
    check_format(job.source, job.target, options)
    taken = taken_pages(info, job.target, options.taken, options.max_pixels)
    first = info
    if taken.numbers[0]:
        first = inspect_picture(job.source, max_pixels=options.max_pixels, page=taken.numbers[0])
    if staged.sends([job.target]) or is_stdout(os.fspath(job.target.parent)):
        return
    if not _folder_of(job.target).is_dir():
        _check_folder_to_make(job.target.parent)
        return
    target = Target(job.target, first, job.overwrite, len(taken.numbers))
    lay_out(target, first, first.width, first.height, None)
    if not _writable(_folder_of(job.target)):
        raise target.failure("permission denied")


def _folder_of(target: Path) -> Path:
    """Where the file lies in the end; a link is followed."""
    return Path(os.path.realpath(target)).parent


def _check_folder_to_make(folder: Path) -> None:
    """Raises `TargetError` where a folder that is missing cannot be made."""
    above = next((one for one in folder.absolute().parents if os.path.lexists(one)), None)
    if os.path.lexists(folder) or above is None or not above.is_dir():
        why = "Not a directory"
    elif _writable(above):
        return
    else:
        why = "Permission denied"
    raise TargetError(f"{folder} cannot be created ({why}): choose a writable folder")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)
