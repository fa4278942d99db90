"""A further expert for an all-in-one file: its router learns the new class, and forgets nothing.

The expert itself is an ordinary adaptation. Experts that are there keep their files, and the router
its encoder and the logits of its old classes, bit for bit; only one row is added to its classifier.
What is lost is what the new class draws away from old ones, and that is measured.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter, ValidationError

from urushi.errors import AdapterError
from urushi.files.adapter import LoadedAdapter, read_adapter
from urushi.files.all_in_one_file import AllInOne, Expert, member_of, read_all_in_one
from urushi.files.model import LoadedModel
from urushi.files.router_file import (
    CLEAN,
    ClassName,
    LoadedRouter,
    RouterHeader,
    RouterMemory,
    write_router,
)
from urushi.inference.auto import find_base
from urushi.inference.probing import open_all_in_one_router
from urushi.routing.decision import decide
from urushi.routing.extension import extended_tensors, fit_class
from urushi.routing.head import Reading
from urushi.routing.probe import standardise
from urushi.routing.running import PictureRouter
from urushi.training.examples import Examples
from urushi.training.router.router_examples import RouterExamples
from urushi.training.router.router_recipe import RouterRecipe

__all__ = ["Extension", "check_new_class", "extend_with"]

# How much more what an expert changes varies over all pictures than over those at hand.
_WIDER = 5.0


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
            f"{into.path} already has a class {name!r}: choose another name than "
            f"{', '.join(header.classes)}",
        )
    try:
        TypeAdapter(ClassName).validate_python(name)
    except ValidationError as error:
        raise AdapterError(
            f"{name!r} cannot name a class: use letters, digits, dashes and underscores", usage=True
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
    model: str | Path | None = None,
    data: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Extension:
    """Adds a trained expert to an all-in-one file, which is written anew, whole or not at all.

    Where the file tries its experts, the new one is tried as well, on the new pictures, on what
    they should become, and on that spoilt in the ways of the old classes.

    Args:
        path: the all-in-one file.
        name: of the new class.
        expert: the adapter file beside it.
        examples: what the expert was trained with; the router learns from their inputs.
        model: the base, where that is neither beside the file nor in the zoo.
        data: the place of the data that the router was trained with, for pictures of old classes
            that its file does not remember; None makes them from the examples' targets.
        seed: of which pictures are taken and how they are spoilt.
        device: of the router: `auto` or `cpu`.

    Raises:
        DataError: there are too few pictures.
        FileFormatError, AdapterError: a file is not sound, or the disk refuses.
    """
    before = read_all_in_one(path)
    blank = _with_class(before, name, read_adapter(expert))
    tries = before.router.header.evidence is not None
    reader = open_all_in_one_router(
        blank, find_base(blank, model), device=device, precision="bf16" if tries else "float32"
    )
    source = RouterExamples(examples, _recipe_of(before.router.header), data, seed, few=tries)
    seen = _seen(before.router, reader, source)
    learned = [*seen.new, *seen.mended, *(one for rows in seen.others.values() for one in rows)]
    centre, spread = _measures(learned)
    row, bias = fit_class(
        np.stack([_features(reading, centre, spread) for reading in learned]),
        np.stack([reading.logits[:-1] for reading in learned]),
        np.arange(len(learned)) < len(seen.new),
        before.router.header,
    )
    stored = _with_row(blank.router, row, bias, centre, spread)
    header = stored.header
    result = _measured(stored, seen)
    header = header.model_copy(
        update={"scores": {**header.scores, f"added {name}": result.describe()}}
    )
    tensors = {**stored.tensors, **_remembered(before.router, stored, seen.held)}
    header = write_router(path, tensors, header, stored.storage)
    return replace(result, header=header)


class _Seen(NamedTuple):
    """What is read from pictures; the logit of the new class is not fitted yet.

    Attributes:
        new, mended: of the new class, and what they should become, to learn from.
        others: of old classes, by name, to learn from.
        held: of the new class, not learned from.
        measured: of old classes, by name, not learned from.
        note: what the old pictures are.
    """

    new: list[Reading]
    mended: list[Reading]
    others: dict[str, list[Reading]]
    held: list[Reading]
    measured: dict[str, list[Reading]]
    note: str


def _seen(router: LoadedRouter, reader: PictureRouter, source: RouterExamples) -> _Seen:
    """Reads all pictures that there are, and remembers others."""
    pairs, held_pairs = source.learned(), source.held()
    new = [reader.read(picture) for picture, _ in pairs]
    mended = [reader.read(picture) for _, picture in pairs]
    held = [reader.read(picture) for picture, _ in held_pairs]
    made: dict[str, list[Reading]] = {}
    if router.memory is None or reader.evidence is not None:
        for label, picture in source.old():
            made.setdefault(label, []).append(reader.read(picture))
    note, known = source.note, made
    if router.memory is not None:
        note = "those it was measured by when it was trained, and the targets as clean ones"
        known = _memory(router, made, mended)
    others = {label: rows[::2] for label, rows in known.items()}
    measured = {label: rows[1::2] for label, rows in known.items()}
    if known is not made:
        # Half of what was made now is learned from, too: of the memory it is not known how the new
        # expert would change it, and what is put in its place says nothing of how that varies.
        for label, rows in made.items():
            others.setdefault(label, []).extend(rows[::2])
            measured.setdefault(label, []).extend(rows[1::2])
    measured.setdefault(CLEAN, []).extend(reader.read(picture) for _, picture in held_pairs)
    return _Seen(new, mended, others, held, measured, note)


def _memory(
    router: LoadedRouter, made: Mapping[str, Sequence[Reading]], mended: Sequence[Reading]
) -> dict[str, list[Reading]]:
    """What the router made of pictures that are no longer there, by class.

    What the new expert would change in them is drawn around what it changes on average in pictures
    of the same class that were made now. It varies far more over the pictures of all the world than
    over those of one user, who may have photographed one thing: hence so wide.
    """
    memory, classes = router.memory, router.header.classes
    assert memory is not None
    found: dict[str, list[Reading]] = {}
    rng = np.random.default_rng(0)
    there = [one for rows in (*made.values(), mended) for one in rows]
    wide = (
        _WIDER * np.std([one.own for one in there if one.own is not None], 0)
        if mended[0].own is not None
        else None
    )
    judged = itertools.repeat(None) if memory.logits is None else memory.logits
    for vector, truth, logits in zip(memory.vectors, memory.truths, judged, strict=False):
        label = classes[int(truth.argmax())] if truth.sum() == 1 else "several or unknown"
        if logits is None:
            logits = _head_logits(router, vector)
        own = None
        if wide is not None:
            like = [*made.get(label, []), *(mended if label == CLEAN else [])] or there
            own = np.stack([one.own for one in like if one.own is not None]).mean(0)
            own = (own + wide * rng.standard_normal(own.shape)).astype(np.float32)
        reading = Reading(np.append(logits, np.float32(0)), vector, own)
        found.setdefault(label, []).append(reading)
    return found


def _measures(readings: Sequence[Reading]) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Mean and deviation of what the new expert changes; None where it is not tried."""
    own = [reading.own[-1] for reading in readings if reading.own is not None]
    if not own:
        return None, None
    return np.mean(own, 0).astype(np.float32), (np.std(own, 0) + 1e-3).astype(np.float32)


def _features(
    reading: Reading, centre: np.ndarray | None, spread: np.ndarray | None
) -> Float[np.ndarray, " d"]:
    """What the row of a new class is fitted on."""
    if reading.own is None or centre is None or spread is None:
        return reading.vector
    return np.concatenate([reading.vector, standardise(reading.own[-1], centre, spread)])


def _head_logits(router: LoadedRouter, vector: np.ndarray) -> Float[np.ndarray, " n"]:
    """What the head of a router says where this is its degradation vector."""
    weight, bias = (router.tensors[f"head.classifier.{name}"] for name in ("weight", "bias"))
    return ((weight * vector).sum(1) + bias).astype(np.float32)


def _own_logit(stored: LoadedRouter, reading: Reading) -> np.float32:
    """The logit of the class that was added last."""
    logit = _head_logits(stored, reading.vector)[-1]
    if reading.own is not None:
        own = stored.part("evidence")
        centre, spread = own["own_centre"][-1], own["own_spread"][-1]
        known = standardise(reading.own[-1], centre, spread)
        logit = logit + (own["own_weight"][-1] * known).sum()
    return np.float32(logit)


def _remembered(
    router: LoadedRouter, stored: LoadedRouter, held: Sequence[Reading]
) -> dict[str, np.ndarray]:
    """The memory with pictures of the new class, none of which was learned from.

    Args:
        router: as it was, with its memory.
        stored: with the new class.
        held: what is read from pictures of that.
    """
    if router.memory is None:
        return {}
    vectors, truths, logits = router.memory
    before = np.concatenate([truths, np.zeros((len(truths), 1), truths.dtype)], 1)
    own = np.zeros((len(held), before.shape[1]), truths.dtype)
    own[:, -1] = 1
    if logits is not None:
        # What the new expert would change in the old ones is not known.
        old = np.array([[_head_logits(stored, vector)[-1]] for vector in vectors])
        new = np.stack([np.append(one.logits[:-1], _own_logit(stored, one)) for one in held])
        logits = np.concatenate([np.concatenate([logits, old], 1), new]).astype(np.float32)
    vectors = np.concatenate([vectors, np.stack([reading.vector for reading in held])])
    return RouterMemory(vectors, np.concatenate([before, own]), logits).tensors


def _with_class(before: AllInOne, name: str, expert: LoadedAdapter) -> AllInOne:
    """The file with a class that it does not know yet: a row of zeros."""
    router, header = before.router, before.router.header
    tensors = {k: v for k, v in router.tensors.items() if not k.startswith("memory.")}
    width = tensors["head.classifier.weight"].shape[1]
    tensors = extended_tensors(tensors, np.zeros(width), 0.0)
    facts = header.evidence
    if facts is not None:
        facts = facts.model_copy(update={"own": (*facts.own, name)})
        for part, value in (("centre", 0), ("spread", 1), ("weight", 0)):
            key, row = f"evidence.own_{part}", np.full((1, facts.each), value, np.float32)
            tensors[key] = np.concatenate([tensors[key], row]) if key in tensors else row
    header = header.model_copy(
        update={
            "classes": (*header.classes, name),
            "added": (*header.added, name),
            "experts": {**header.experts, name: member_of(expert)},
            "evidence": facts,
        }
    )
    experts = {**before.experts, name: Expert(expert, 1.0)}
    return replace(before, router=replace(router, header=header, tensors=tensors), experts=experts)


def _with_row(
    blank: LoadedRouter,
    row: Float[np.ndarray, " d"],
    bias: float,
    centre: np.ndarray | None,
    spread: np.ndarray | None,
) -> LoadedRouter:
    """The router with what was fitted in the place of zeros."""
    tensors = {name: tensor.copy() for name, tensor in blank.tensors.items()}
    width = tensors["head.classifier.weight"].shape[1]
    tensors["head.classifier.weight"][-1] = row[:width]
    tensors["head.classifier.bias"][-1] = bias
    if centre is not None and spread is not None:
        parts = {"centre": centre, "spread": spread, "weight": row[width:]}
        for part, values in parts.items():
            tensors[f"evidence.own_{part}"][-1] = values
    if blank.storage == "float16":
        tensors = {n: t.astype(np.float16).astype(np.float32) for n, t in tensors.items()}
    return replace(blank, tensors=tensors)


def _measured(stored: LoadedRouter, seen: _Seen) -> Extension:
    """What the extended router says of pictures that were not learned from."""
    header = stored.header
    name = header.classes[-1]

    def goes_there(reading: Reading) -> bool:
        logits = np.append(reading.logits[:-1], _own_logit(stored, reading))
        return decide(logits, header).weights[name] > 0

    by_class = {label: [goes_there(one) for one in rows] for label, rows in seen.measured.items()}
    moved = [there for rows in by_class.values() for there in rows]
    return Extension(
        header,
        len(seen.held),
        float(np.mean([goes_there(reading) for reading in seen.held])),
        len(moved),
        float(np.mean(moved)) if moved else 0.0,
        {label: float(np.mean(rows)) for label, rows in by_class.items() if rows},
        seen.note,
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
