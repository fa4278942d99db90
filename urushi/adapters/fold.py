"""Adapters into weights: the formulas of methods on the arrays of files, without torch.

What attached adapters do to a network of torch while it trains is done here to the arrays of a
model file, so that every engine runs the result at the speed of the plain network. A method without
a formula is a branch of its own, which weights cannot hold.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from urushi.adapters import for_weights
from urushi.adapters.method import UnfitError
from urushi.errors import AdapterError
from urushi.files.adapter import LoadedAdapter, check_base
from urushi.files.model import LoadedModel, ModelHeader, architecture_hash, weights_hash
from urushi.files.tensors import Named, Tensors, identity_of
from urushi.settings import parse_settings

__all__ = [
    "can_hold",
    "fold",
    "folded_deltas",
    "folded_weights",
    "is_foldable",
    "told",
    "with_weights",
]

# Of the arithmetic below; another number where it gives other weights.
FOLDING = 1


def can_hold(method: str, settings: Mapping[str, Any]) -> bool:
    """Tell whether weights can hold what an adapter of that method and those settings does."""
    entry = for_weights(method)
    return entry is not None and entry.foldable(settings)


def is_foldable(adapter: LoadedAdapter) -> bool:
    """Tell whether weights can hold what an adapter does."""
    return can_hold(adapter.header.method, adapter.header.config)


def told(adapter: LoadedAdapter, strength: float | int) -> str:
    """Return how people are told of an adapter in use: its file, and a strength that is not 1."""
    return adapter.path.name if strength == 1 else f"{adapter.path.name}:{strength:g}"


def fold(
    model: LoadedModel,
    adapters: Sequence[tuple[LoadedAdapter, float | int]],
    *,
    lazily: bool = False,
) -> LoadedModel:
    """Put adapters into the weights of the model they were made for.

    Args:
        model: their base.
        adapters: each with its strength: 1 is what it was trained for, 0 leaves the base as it is;
            what they add to a weight is summed.
        lazily: where all of it was read from files, calculate the weights when they are used first;
            unsound adapters are then told of there.

    Returns:
        A model with a weights hash of its own and `folded` filled in; its path and graph are those
        of the base. The base itself if there are no adapters.

    Raises:
        AdapterError: an adapter belongs to another base, cannot be folded, is damaged, or has a
            strength that is not finite.
    """
    if not adapters:
        return model
    for adapter, _ in adapters:
        check_base(adapter, model)
    identity = _identity(model, adapters) if lazily else None
    if identity is None:
        return with_weights(model, folded_weights(adapters, model.tensors), adapters)
    base = model.tensors
    tensors = Tensors(identity, lambda: {**base, **folded_weights(adapters, base)})
    return _described(model, adapters, tensors, identity)


def with_weights(
    model: LoadedModel,
    weights: Named,
    adapters: Sequence[tuple[LoadedAdapter, float | int]],
) -> LoadedModel:
    """Return a model with some weights replaced by what adapters make of them, as `fold` does."""
    tensors = {**model.tensors, **weights}
    return _described(model, adapters, tensors, weights_hash(tensors))


def _described(
    model: LoadedModel,
    adapters: Sequence[tuple[LoadedAdapter, float | int]],
    tensors: Named,
    named: str,
) -> LoadedModel:
    names = tuple(told(adapter, strength) for adapter, strength in adapters)
    header = _folded_header(model.header, [adapter for adapter, _ in adapters], names)
    header = header.model_copy(update={"weights_hash": named})
    return replace(model, header=header, tensors=tensors, folded=names)


def _identity(
    model: LoadedModel, adapters: Sequence[tuple[LoadedAdapter, float | int]]
) -> str | None:
    """What names weights with adapters in them, without calculating them; None where one of them
    is of no file, and so has nothing that names it."""
    parts: list[Any] = [FOLDING, architecture_hash(model.header), identity_of(model.tensors)]
    for adapter, strength in adapters:
        header, own = adapter.header, identity_of(adapter.tensors)
        parts.append(own and [own, header.method, header.config, float(strength)])
    if not all(parts):
        return None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def folded_weights(
    adapters: Sequence[tuple[LoadedAdapter, float | int]], base: Named
) -> dict[str, np.ndarray]:
    """Return the weights that adapters change, float32 by name, as they are with all of them.

    Args:
        adapters: each with its strength. That they belong to these weights is not checked.
        base: the weights.

    Raises:
        AdapterError: as for `fold`.
    """
    sums: dict[str, np.ndarray] = {}
    for adapter, strength in adapters:
        if not math.isfinite(strength):
            raise AdapterError(
                f"{adapter.path}: its strength is {strength}, expected a number such as 0.5"
            )
        for name, delta in folded_deltas(adapter, base).items():
            sums[name] = sums.get(name, base[name].astype(np.float64)) + strength * delta
    with np.errstate(over="ignore"):
        folded = {name: tensor.astype(np.float32) for name, tensor in sums.items()}
    for name, tensor in folded.items():
        if not np.isfinite(tensor).all():
            names = " and ".join(told(adapter, strength) for adapter, strength in adapters)
            raise AdapterError(
                f"{names}: the weight {name!r} becomes too large: choose a smaller strength"
            )
    return folded


def folded_deltas(adapter: LoadedAdapter, base: Named) -> dict[str, np.ndarray]:
    """Return what an adapter adds to the weights of its base at strength 1, float64, by name.

    Raises:
        AdapterError: its method cannot be folded, or its tensors are not those of its method on
            this base.
    """
    name, config = adapter.header.method, adapter.header.config
    method = for_weights(name)
    if method is None or method.deltas is None or not method.foldable(config):
        raise AdapterError(
            f"{adapter.path}: method {name!r} is a branch of its own, which weights cannot hold: "
            "use engine torch, which runs it attached"
        )
    try:
        settings = parse_settings(dict(config), method.settings, UnfitError, "settings")
        deltas = method.deltas(_grouped(adapter.own, method.groups), settings, base)
        for weight, delta in deltas.items():
            if weight not in base:
                raise UnfitError(f"it changes {weight!r}, which its base does not have")
            if delta.shape != base[weight].shape:
                raise UnfitError(
                    f"it changes {weight!r} by the shape {delta.shape}, which is "
                    f"{base[weight].shape}"
                )
    except UnfitError as error:
        raise AdapterError(
            f"{adapter.path}: not a sound adapter of method {name!r} ({error}): get it again, or "
            "train it again"
        ) from error
    return deltas


def _grouped(tensors: Named, known: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Tensors of a file by group, and by dotted names of the base; float64."""
    groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in known}
    for full, tensor in tensors.items():
        group, _, key = full.partition(".")
        if group not in groups or not key or "." in key or tensor.dtype == np.int64:
            raise UnfitError(f"unknown tensor {full!r}")
        groups[group][key.replace("/", ".")] = tensor.astype(np.float64)
    return groups


def _folded_header(
    base: ModelHeader, adapters: Sequence[LoadedAdapter], names: Sequence[str]
) -> ModelHeader:
    """What a model with adapters in its weights says about itself; the scores are not its own."""
    headers = [adapter.header for adapter in adapters]
    said = dict.fromkeys(t for t in (base.description, *(h.description for h in headers)) if t)
    degradations = [name for header in headers for name in header.degradations]
    return base.model_copy(
        update={
            "description": f"{' '.join(said)} (with {' and '.join(names)})".strip(),
            "degradations": list(dict.fromkeys([*base.degradations, *degradations])),
            "scores": {},
            "recipe": None,
            "licence": _joined([base.licence, *(h.licence for h in headers)]),
            "data": _joined([base.data, *(h.data for h in headers)]),
        }
    )


def _joined(texts: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))
