"""`urushi restore --dry-run`: what would be done, and how much memory that would take."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from urushi.app.options import check_choice
from urushi.app.output import EXIT_FAILED, Output, complain, size_text

if TYPE_CHECKING:
    from urushi.inference.estimate import Memory, Restoring
    from urushi.inference.jobs import Job
    from urushi.inference.picture_files import FileOptions
    from urushi.inference.restorer import EngineOptions
    from urushi.inference.staged import Staged

__all__ = ["restoring_of", "tell_plan"]

_WOULD = {"restored": "restore", "skipped": "skip", "failed": "fail"}


def tell_plan(
    out: Output,
    jobs: "list[Job]",
    left_out: list[Path],
    restoring: "Restoring | None",
    staged: "Staged",
    options: "FileOptions",
) -> None:
    """Says what would become of each file, and the memory that the largest would take.

    Ends the command as the real run would end it, where something is known to fail.

    Args:
        out: what is written to.
        jobs: the plan.
        left_out: pictures that are passed over.
        restoring: what would restore; None where nothing is told of its memory.
        staged: what stands in for stores, whose pictures are not looked into for this.
        options: how files would be read and written.
    """
    from urushi.inference.foretold import foretold
    from urushi.inference.pipes import is_stdout

    rows: list[dict[str, Any]] = []
    largest: tuple[Memory, str] | None = None
    for job in jobs:
        status, why = foretold(job, staged, options)
        what = _WOULD[status]
        target = "-" if is_stdout(str(job.target.parent)) else str(job.target)
        row = {
            "source": str(job.source), "target": target, "would": what, "message": why,
            "memory": None,
        }  # fmt: skip
        found = _memory(job, restoring) if what == "restore" and restoring is not None else None
        if found is not None:
            memory, sides = found
            row["memory"] = memory._asdict()
            if largest is None or memory > largest[0]:
                largest = memory, f"{job.source} of {sides[0]} x {sides[1]} pixels"
        rows.append(row)
        said = why.removeprefix(f"{job.target}: ").removeprefix(f"{job.source}: ")
        said = said.removeprefix(f"{job.source} ")
        line = f"would {what} {job.source} -> {target}" + (f": {said}" if said else "")
        if out.quiet and what == "fail":
            complain(line)
        out.say(line)
    if largest is not None:
        out.say(f"memory: {_told(largest[0])}, for {largest[1]}")
    if out.json:
        names = [str(path) for path in left_out]
        most = None if largest is None else largest[0]._asdict()
        out.document({"dry_run": True, "files": rows, "left_out": names, "memory": most})
    if left_out and not out.quiet:
        from urushi.image import left_out_sentence

        complain(f"note: {left_out_sentence(left_out)}")
    if any(row["would"] == "fail" for row in rows):
        raise typer.Exit(EXIT_FAILED)


def restoring_of(
    model: str | None,
    router: str | None,
    task: str | None,
    adapters: Sequence[str] | None,
    options: "EngineOptions",
) -> "Restoring | None":
    """What these options restore with, from what its files say of themselves.

    Raises:
        UrushiError: a file or an option cannot be used.
    """
    from urushi.files.adapter import read_adapter_header
    from urushi.inference.adapted_weights import adapter_file, check_apart
    from urushi.inference.estimate import Restoring, members_of
    from urushi.inference.in_turn import AUTO, classes_of
    from urushi.inference.zoo import find_all_in_one, find_model

    check_choice(router, task, adapters)
    shipped = find_all_in_one()
    asked = router is not None or task not in (None, "none")
    if adapters or not (asked or (shipped is not None and model is None and task is None)):
        files = [adapter_file(_checked(text)) for text in adapters or ()]
        headers = [read_adapter_header(file) for file in files]
        check_apart(zip((file.name for file in files), headers, strict=True))
        mends = [header.degradations for header in headers]
        return Restoring.of_files(find_model(model or "base"), mends, **options)
    file = find_all_in_one(router)
    if file is None:
        return None
    base, experts, stages = members_of(file)
    names = classes_of(AUTO if task is None else task, file, experts)
    chosen = task in (None, AUTO)
    named = experts if chosen else {name: experts[name] for name in names}
    found = base if model is None else find_model(model)
    stages = stages if chosen else (max(len(named), 1),)
    return Restoring.of_files(found, named.values(), chosen=chosen, stages=stages, **options)


def _checked(adapter: str) -> str:
    """The file of `FILE:STRENGTH`, whose strength is one."""
    from urushi.inference.adapted_weights import check_strength, parse_adapter

    file, strength = parse_adapter(adapter)
    check_strength(strength, file)
    return file


def _memory(job: "Job", restoring: "Restoring") -> "tuple[Memory, tuple[int, int]] | None":
    from urushi.inference.estimate import estimate_memory, size_of

    sides = size_of(job.source)
    return None if sides is None else (estimate_memory(restoring, *sides), sides)


def _told(memory: "Memory") -> str:
    told = f"about {size_text(memory.usual)}"
    if memory.most > memory.usual:
        told += f", or {size_text(memory.most)} where an expert needs large tiles"
    return told
