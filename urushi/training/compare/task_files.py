"""What the tasks of a comparison are learned from and measured by: their files."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from urushi.data.data_sets import SCHEME, open_pairs
from urushi.data.pairs import PairedFolder, find_pictures
from urushi.errors import DataError
from urushi.evaluation.catalog import (
    Benchmark,
    clean_benchmark,
    paired_benchmark,
    part_benchmark,
)
from urushi.training.compare.description import TaskSettings

__all__ = [
    "ClassPart",
    "Composite",
    "Digests",
    "Example",
    "TaskFiles",
    "nested_subset",
    "read_task",
]

# Name, input and target of a pair; of a clean picture the last is None.
Example = tuple[str, Path, Path | None]


class Digests:
    """Hashes of files' contents, each file read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def __call__(self, path: Path) -> str:
        """The hash of a file.

        Raises:
            DataError: it cannot be read.
        """
        if path not in self._known:
            try:
                content = path.read_bytes()
            except OSError as error:
                raise DataError(
                    f"{path} cannot be read ({error.strerror or error}): name a file that can"
                ) from error
            self._known[path] = hashlib.sha256(content).hexdigest()
        return self._known[path]


class ClassPart(BaseModel):
    """A degradation that is learned together with others.

    Attributes:
        name: of the class.
        degradation: of clean pictures; None where there are pairs.
        validation: what is measured on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    degradation: dict[str, Any] | None
    validation: Benchmark


class Composite(BaseModel):
    """Pictures with several degradations at once; see `CompositeSettings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    of: tuple[str, ...]
    validation: Benchmark


@dataclass(frozen=True)
class TaskFiles:
    """A task with its files.

    Attributes:
        settings: the task.
        examples: all there are to learn from, by name; of a class, `CLASS/NAME`.
        validation: what is measured on; None where there are classes, which have their own.
        facts: what a measurement depends on, as JSON values.
        classes: the parts that are learned together.
        composites: what is measured besides.
    """

    settings: TaskSettings
    examples: dict[str, Example]
    validation: Benchmark | None
    facts: dict[str, Any]
    classes: "tuple[TaskFiles, ...]" = ()
    composites: "tuple[Composite, ...]" = ()

    @property
    def parts(self) -> tuple[ClassPart, ...]:
        """What is learned together, as a cell states it."""
        return tuple(
            ClassPart(
                name=part.settings.name,
                degradation=part.settings.degradation,
                validation=part.validation,
            )
            for part in self.classes
            if part.validation is not None
        )

    @property
    def count(self) -> int:
        """How many there are to learn from, of the class that has least."""
        return min((part.count for part in self.classes), default=len(self.examples))

    def chosen(self, count: int, seed: int) -> list[Example]:
        """Some of the examples, of every class as many; see `nested_subset`."""
        if not self.classes:
            return [self.examples[n] for n in nested_subset(list(self.examples), count, seed)]
        return [
            (f"{part.settings.name}/{name}", degraded, clean)
            for part in self.classes
            for name, degraded, clean in part.chosen(count, seed)
        ]


def nested_subset(names: list[str], count: int, seed: int) -> list[str]:
    """Some of the names, sorted; those of a smaller `count` are among them.

    Args:
        names: to choose from; their order does not matter.
        count: how many, at most as many as there are.
        seed: another one chooses others.
    """
    ordered = sorted(names)
    order = np.random.default_rng(seed).permutation(len(ordered))
    return sorted(ordered[index] for index in order[:count])


def read_task(task: TaskSettings, root: Path, digest: Callable[[Path], str]) -> TaskFiles:
    """Finds the files of a task.

    Args:
        task: its folders.
        root: what they are relative to.
        digest: hash of a file's content.

    Raises:
        DataError: a folder is missing or empty, its pairs do not match, or a picture is learned
            from and measured by.
        DegradationError: the degradation does not exist or does not take these values.
    """
    if task.classes:
        return _read_classes(task, root, digest)
    assert task.validation is not None
    held_folder = root / task.validation
    examples: dict[str, Example]
    if task.pairs is not None:
        held = _paired(root, task.validation)
        examples = {p.name: (p.name, p.input, p.target) for p in _paired(root, task.pairs)}
        measured = [path for pair in held for path in (pair.input, pair.target)]
        if task.validation.startswith(SCHEME):
            validation = part_benchmark(task.validation, root)
        else:
            validation = paired_benchmark(held.input_folder, held.target_folder)
    else:
        assert task.clean is not None
        folder = root / task.clean
        names = {path: path.relative_to(folder).as_posix() for path in find_pictures(folder)}
        examples = {name: (name, path, None) for path, name in names.items()}
        measured = find_pictures(held_folder)
        validation = clean_benchmark(held_folder, task.degradation)
    samples = validation.samples()
    held_digests = {digest(path) for path in measured}
    for name, *paths in examples.values():
        if any(path and digest(path) in held_digests for path in paths):
            raise DataError(
                f"task {task.name}: {name} is used both for training and for measuring: take it "
                "out of "
                f"{task.validation}"
            )
    facts = {
        "protocol": validation.protocol,
        "degradation": task.degradation,
        "names": [sample.name for sample in samples],
        "files": sorted(held_digests),
    }
    return TaskFiles(task, examples, validation, facts)


def _read_classes(task: TaskSettings, root: Path, digest: Callable[[Path], str]) -> TaskFiles:
    parts = tuple(read_task(one, root, digest) for one in task.classes)
    facts = {part.settings.name: part.facts for part in parts}
    learned = {digest(p) for part in parts for _, *ps in part.examples.values() for p in ps if p}
    composites = []
    for one in task.composites:
        folder = root / one.validation
        held = {digest(path) for path in find_pictures(folder)}
        if learned & held:
            raise DataError(
                f"composite {one.name}: a picture of {folder} is learned from, too: take it out"
            )
        benchmark = clean_benchmark(folder, one.degradation)
        composites.append(Composite(name=one.name, of=tuple(one.of), validation=benchmark))
        facts[one.name] = {"degradation": one.degradation, "of": one.of, "files": sorted(held)}
    return TaskFiles(task, {}, None, facts, parts, tuple(composites))


def _paired(root: Path, folder: str) -> PairedFolder:
    found = open_pairs(root, folder)
    if found.problems or not found.pairs:
        reason = found.problems[0] if found.problems else "there are none"
        raise DataError(
            f"the pairs of {folder} do not match: {reason}; find all such with  urushi data check"
        )
    return found
