"""`urushi restore --dry-run`: what would be done, and how much memory that would take."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from urushi.app.output import Output, complain, size_text

if TYPE_CHECKING:
    from urushi.inference.estimate import Memory, Restoring
    from urushi.inference.jobs import Job
    from urushi.inference.restorer import EngineOptions
    from urushi.inference.staged import Staged

__all__ = ["restoring_of", "tell_plan"]


def tell_plan(
    out: Output,
    jobs: "list[Job]",
    left_out: list[Path],
    restoring: "Restoring | None",
    staged: "Staged",
) -> None:
    """Says what would become of each file, and the memory that the largest would take.

    Args:
        out: what is written to.
        jobs: the plan.
        left_out: pictures that are passed over.
        restoring: what would restore; None where nothing is told of its memory.
        staged: what stands in for stores, whose pictures are not looked into for this.
    """
    rows: list[dict[str, Any]] = []
    largest: tuple[Memory, str] | None = None
    for job in jobs:
        what = _fate(job, staged)
        row = {"source": str(job.source), "target": str(job.target), "would": what, "memory": None}
        found = _memory(job, restoring) if what == "restore" and restoring is not None else None
        if found is not None:
            memory, sides = found
            row["memory"] = memory._asdict()
            if largest is None or memory > largest[0]:
                largest = memory, f"{job.source} of {sides[0]} x {sides[1]} pixels"
        rows.append(row)
        out.say(f"would {what} {job.source} -> {job.target}")
    if largest is not None:
        out.say(f"memory: {_told(largest[0])}, for {largest[1]}")
    if out.json:
        names = [str(path) for path in left_out]
        most = None if largest is None else largest[0]._asdict()
        out.document({"dry_run": True, "files": rows, "left_out": names, "memory": most})
    if left_out and not out.quiet:
        from urushi.image import left_out_sentence

        complain(f"note: {left_out_sentence(left_out)}")


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
    from urushi.inference.adapted_weights import parse_adapter
    from urushi.inference.estimate import Restoring, members_of
    from urushi.inference.in_turn import split_task
    from urushi.inference.zoo import find_adapter, find_all_in_one, find_model

    shipped = find_all_in_one()
    asked = router is not None or task not in (None, "none")
    if adapters or not (asked or (shipped is not None and model is None and task is None)):
        files = [find_adapter(parse_adapter(text)[0]) for text in adapters or ()]
        mends = [read_adapter_header(file).degradations for file in files]
        return Restoring.of_files(find_model(model or "base"), mends, **options)
    file = find_all_in_one(router)
    if file is None:
        return None
    base, experts, stages = members_of(file)
    chosen = task in (None, "auto")
    names = split_task(task or "auto")
    named = experts if chosen else {name: experts[name] for name in names if name in experts}
    found = base if model is None else find_model(model)
    stages = stages if chosen else (max(len(named), 1),)
    return Restoring.of_files(found, named.values(), chosen=chosen, stages=stages, **options)


def _fate(job: "Job", staged: "Staged") -> str:
    if job.problem:
        return "fail"
    if job.made_from is not None or (not job.overwrite and staged.exists(job.target)):
        return "skip"
    return "restore"


def _memory(job: "Job", restoring: "Restoring") -> "tuple[Memory, tuple[int, int]] | None":
    from urushi.inference.estimate import estimate_memory, size_of

    sides = size_of(job.source)
    return None if sides is None else (estimate_memory(restoring, *sides), sides)


def _told(memory: "Memory") -> str:
    told = f"about {size_text(memory.usual)}"
    if memory.most > memory.usual:
        told += f", or {size_text(memory.most)} where an expert needs large tiles"
    return told
