"""A further expert for an all-in-one file: its router learns the new class, and forgets nothing.

The expert itself is an ordinary adaptation. Experts that are there keep their files, and the router
its encoder and the logits of its old classes, bit for bit; only one row is added to its classifier.
What is lost is what the new class draws away from old ones, and that is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from urushi.errors import AdapterError
from urushi.files.adapter import read_adapter
from urushi.files.all_in_one import AllInOne, member_of, read_all_in_one
from urushi.files.model import LoadedModel
from urushi.files.router import (
    CLEAN,
    ClassName,
    LoadedRouter,
    RouterHeader,
    RouterMemory,
    write_router,
)
from urushi.inference.router import open_router
from urushi.routing.extension import extended_tensors, fit_class
from urushi.routing.head import Reading
from urushi.routing.running import PictureRouter
from urushi.training.examples import Examples
from urushi.training.router_examples import RouterExamples
from urushi.training.router_recipe import RouterRecipe

__all__ = ["Extension", "check_new_class", "extend_with"]


@dataclass(frozen=True)
class Extension:
    """What came of it.

    Attributes:
        header: of the all-in-one file as it is now.
        pictures: of the new class that were not learned from.
        recognised: share of them that now go to the new class.
        old_pictures: of old classes that were not learned from.
        moved: share of those that now go to the new class.
        moved_by_class: the same by class.
        note: what the old pictures were.
    """

    header: RouterHeader
    pictures: int
    recognised: float
    old_pictures: int
    moved: float
    moved_by_class: Mapping[str, float]
    note: str

    def describe(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "pictures": self.pictures,
            "recognised": self.recognised,
            "old_pictures": self.old_pictures,
            "moved": self.moved,
            "moved_by_class": dict(self.moved_by_class),
            "note": self.note,
        }


def check_new_class(into: AllInOne, name: str, model: LoadedModel) -> None:
    """Looks whether a class can be added, before anything is trained.

    Raises:
        AdapterError: the name is taken or cannot be one, or the file has guidance.
    """
    header = into.router.header
    if name in header.classes or name == CLEAN:
        raise AdapterError(
            f"{into.path} has a class {name!r} already: choose another name than "
            f"{', '.join(header.classes)}"
        )
    try:
        TypeAdapter(ClassName).validate_python(name)
    except ValidationError as error:
        raise AdapterError(
            f"{name!r} cannot name a class: use letters, digits, dashes and underscores"
        ) from error
    if into.guidance is not None:
        raise AdapterError(
            f"{into.path} has guidance, with which a new expert must be trained: add the class to "
            "the recipe, and train with  urushi train"
        )
    into.check_model(model)


def extend_with(
    path: Path,
    name: str,
    expert: Path,
    examples: Examples,
    *,
    data: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Extension:
    """Adds a trained expert to an all-in-one file, which is written anew, whole or not at all.

    Args:
        path: the all-in-one file.
        name: of the new class.
        expert: the adapter file beside it.
        examples: what the expert was trained with; the router learns from their inputs.
        data: the place of the data that the router was trained with, for pictures of old classes
            where its file remembers none; None makes them from the examples' targets.
        seed: of which pictures are taken and how they are spoilt.
        device: of the router: `auto` or `cpu`.

    Raises:
        DataError: there are too few pictures.
        FileFormatError, AdapterError: a file is not sound, or the disk refuses.
    """
    before = read_all_in_one(path)
    old = open_router(before.router, device=device)
    source = RouterExamples(examples, _recipe_of(before.router.header), data, seed)
    pairs, held_pairs = source.learned(), source.held()
    learned = [old.read(picture) for picture, _ in pairs]
    mended = [old.read(picture) for _, picture in pairs]
    held = [old.read(picture) for picture, _ in held_pairs]
    others, note = _others(before.router, old, source)
    halves = {label: (rows[::2], rows[1::2]) for label, rows in others.items()}
    readings = [*learned, *mended, *(reading for rows, _ in halves.values() for reading in rows)]
    measured = {label: rows for label, (_, rows) in halves.items()}
    measured.setdefault(CLEAN, []).extend(old.read(picture) for _, picture in held_pairs)
    row, bias = fit_class(
        np.stack([reading.vector for reading in readings]),
        np.stack([reading.logits for reading in readings]),
        np.arange(len(readings)) < len(learned),
        before.router.header,
    )
    stored = _extended(before.router, name, row, bias, expert)
    now = PictureRouter(stored, old.engine)
    result = _measured(now, stored.header, name, held, measured, note)
    header = result.header.model_copy(
        update={"scores": {**result.header.scores, f"added {name}": result.describe()}}
    )
    tensors = {**stored.tensors, **_remembered(before.router, held)}
    header = write_router(path, tensors, header, stored.storage)
    return replace(result, header=header)


def _others(
    router: LoadedRouter, old: PictureRouter, source: RouterExamples
) -> tuple[dict[str, list[Reading]], str]:
    """What the router makes of pictures of old classes, by name, and a clause that says which."""
    others: dict[str, list[Reading]] = {}
    memory = router.memory
    if memory is None:
        note = source.note
        for label, picture in source.old():
            others.setdefault(label, []).append(old.read(picture))
    else:
        note = "those it was measured by when it was trained, and the targets as clean ones"
        for vector, truth in zip(memory.vectors, memory.truths, strict=True):
            alone = truth.sum() == 1
            label = router.header.classes[int(truth.argmax())] if alone else "several or unknown"
            others.setdefault(label, []).append(_reading(router, vector))
    return others, note


def _reading(router: LoadedRouter, vector: np.ndarray) -> Reading:
    """What a router says where this is its degradation vector."""
    weight, bias = (router.tensors[f"head.classifier.{name}"] for name in ("weight", "bias"))
    return Reading((weight * vector).sum(1) + bias, vector)


def _remembered(router: LoadedRouter, held: Sequence[Reading]) -> dict[str, np.ndarray]:
    """The memory with pictures of the new class, none of which was learned from."""
    if router.memory is None:
        return {}
    vectors, truths = router.memory
    before = np.concatenate([truths, np.zeros((len(truths), 1), truths.dtype)], 1)
    own = np.zeros((len(held), before.shape[1]), truths.dtype)
    own[:, -1] = 1
    new = np.stack([reading.vector for reading in held])
    return RouterMemory(np.concatenate([vectors, new]), np.concatenate([before, own])).tensors


def _extended(
    router: LoadedRouter, name: str, row: np.ndarray, bias: float, expert: Path
) -> LoadedRouter:
    header = router.header
    member = member_of(read_adapter(expert))
    header = header.model_copy(
        update={
            "classes": (*header.classes, name),
            "added": (*header.added, name),
            "experts": {**header.experts, name: member},
        }
    )
    tensors = extended_tensors(router.tensors, row, bias)
    if router.storage == "float16":
        tensors = {n: t.astype(np.float16).astype(np.float32) for n, t in tensors.items()}
    return replace(router, header=header, tensors=tensors)


def _measured(
    now: PictureRouter,
    header: RouterHeader,
    name: str,
    held: Sequence[Reading],
    others: Mapping[str, Sequence[Reading]],
    note: str,
) -> Extension:
    """What the extended head says of pictures that were not learned from.

    Args:
        now: the router with the new class.
        header: its header.
        name: of the new class.
        held: of pictures of it.
        others: of pictures of old classes, by name.
        note: see `Extension`.
    """

    def goes_there(reading: Reading) -> bool:
        own = _reading(now.stored, reading.vector).logits[-1]
        decision = now.decide(Reading(np.append(reading.logits, own), reading.vector))
        return decision.weights[name] > 0

    by_class = {label: [goes_there(one) for one in rows] for label, rows in others.items()}
    moved = [there for rows in by_class.values() for there in rows]
    return Extension(
        header,
        len(held),
        float(np.mean([goes_there(reading) for reading in held])),
        len(moved),
        float(np.mean(moved)) if moved else 0.0,
        {label: float(np.mean(rows)) for label, rows in by_class.items()},
        note,
    )


def _recipe_of(header: RouterHeader) -> RouterRecipe | None:
    """What a router was trained by; None where its file does not say."""
    stated = dict(header.recipe or {})
    if stated.get("mode") == "single":
        stated.pop("most", None)  # written out, it would count as an option without effect
    try:
        return RouterRecipe.model_validate(stated)
    except ValidationError:
        return None
