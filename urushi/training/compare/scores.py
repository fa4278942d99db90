"""What a comparison measured, as scores that a report sets beside published ones."""

from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from urushi.errors import DataError
from urushi.evaluation.catalog import BENCHMARKS, Benchmark
from urushi.evaluation.grid import Score, Scored
from urushi.names import counted
from urushi.training.compare.description import Comparison
from urushi.training.compare.summary import MEAN, Row, Summary

__all__ = ["read_summary", "scores_of"]


def read_summary(path: Path) -> Summary:
    """Reads a document that `Summary.to_json` wrote.

    Raises:
        DataError: the file cannot be read or is not such a document.
    """
    try:
        return Summary.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a document of a comparison of version 1: make it with  urushi compare"
        ) from error


def scores_of(summary: Summary) -> list[Scored]:
    """The mean over seeds of every method on every task, the means over tasks left out.

    A task counts as a benchmark of the catalogue where its validation is of the same pictures,
    degraded alike.
    """
    names = {name: _like(*measured) for name, measured in _measured(summary.comparison).items()}
    several = len(summary.comparison.bases) > 1
    found = []
    for row in summary.rows:
        if row.task == MEAN:
            continue
        name = names.get(row.task, "")
        found.append(
            Scored(
                method=_method(summary.comparison.name, row, several),
                benchmark=name or row.task,
                title=BENCHMARKS[name].title if name else f"task of {summary.comparison.name}",
                protocol=row.protocol,
                counted=row.pictures,
                total=row.total,
                score=Score(psnr=row.psnr.mean, ssim=row.ssim.mean, deviation=row.psnr.deviation),
            )
        )
    return found


def _method(comparison: str, row: Row, several: bool) -> str:
    label = f"{row.base}: {row.label}" if several else row.label
    facts = [] if row.pairs is None else [counted(row.pairs, "pair")]
    facts += [f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}"] if row.seeds else []
    return f"{comparison}: {', '.join([label, *facts])}"


def _measured(comparison: Comparison) -> dict[str, tuple[str, bool, dict[str, Any] | None]]:
    """Validation of each task or class, whether it is of pairs, and its degradation."""
    found = {}
    for task in comparison.tasks:
        for one in task.classes or [task]:
            assert one.validation is not None
            found[one.name] = (one.validation, one.pairs is not None, one.degradation)
    return found


def _like(folder: str, paired: bool, degradation: dict[str, Any] | None) -> str:
    """The benchmark with these pictures, one of the same protocol first; empty if there is none."""
    same = [
        benchmark
        for benchmark in BENCHMARKS.values()
        if not benchmark.only
        and benchmark.degradation == degradation
        and (degradation is None or (benchmark.seed == 0 and benchmark.input_8bit))
        and folder in _folders(benchmark, paired)
    ]
    plain = Benchmark.model_fields["protocol"].default
    same.sort(key=lambda one: (one.protocol != plain, one.crop_border))
    return same[0].name if same else ""


def _folders(benchmark: Benchmark, paired: bool) -> set[str | None]:
    if not paired:
        return {benchmark.clean}
    sides = (benchmark.input, benchmark.target)
    above = {str(PurePosixPath(side).parent) for side in sides if side is not None}
    return {benchmark.data, *(above if len(above) == 1 else ())} - {None}
