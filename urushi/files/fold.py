"""Adapters into weights: arithmetic on arrays by name, without torch.

What `urushi.adapters` does to a network of torch while it trains is done here to the arrays of a
model file, so that every engine runs the result at the speed of the plain network. A method that is
not in `FOLDERS` is a branch of its own, which weights cannot hold.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from urushi.errors import AdapterError
from urushi.files.adapter import LoadedAdapter, check_base
from urushi.files.folders import FOLDERS, Arrays, UnfitError, can_hold
from urushi.files.model import LoadedModel, ModelHeader, weights_hash

__all__ = [
    "FOLDERS",
    "fold",
    "folded_deltas",
    "folded_weights",
    "is_foldable",
    "told",
    "with_weights",
]


def is_foldable(adapter: LoadedAdapter) -> bool:
    """Tell whether weights can hold what an adapter does."""
    return can_hold(adapter.header.method, adapter.header.config)


def told(adapter: LoadedAdapter, strength: float | int) -> str:
    """Return how people are told of an adapter in use: its file, and a strength that is not 1."""
    return adapter.path.name if strength == 1 else f"{adapter.path.name}:{strength:g}"


def fold(model: LoadedModel, adapters: Sequence[tuple[LoadedAdapter, float | int]]) -> LoadedModel:
    """Put adapters into the weights of the model they were made for.

    Args:
        model: their base.
        adapters: each with its strength: 1 is what it was trained for, 0 leaves the base as it is;
            what they add to a weight is summed.

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
    return with_weights(model, folded_weights(adapters, model.tensors), adapters)


def with_weights(
    model: LoadedModel,
    weights: Arrays,
    adapters: Sequence[tuple[LoadedAdapter, float | int]],
) -> LoadedModel:
    """Return a model with some weights replaced by what adapters make of them, as `fold` does."""
    tensors = {**model.tensors, **weights}
    names = tuple(told(adapter, strength) for adapter, strength in adapters)
    header = _folded_header(model.header, [adapter for adapter, _ in adapters], names)
    header = header.model_copy(update={"weights_hash": weights_hash(tensors)})
    return replace(model, header=header, tensors=tensors, folded=names)


def folded_weights(
    adapters: Sequence[tuple[LoadedAdapter, float | int]], base: Arrays
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


def folded_deltas(adapter: LoadedAdapter, base: Arrays) -> dict[str, np.ndarray]:
    """Return what an adapter adds to the weights of its base at strength 1, float64, by name.

    Raises:
        AdapterError: its method cannot be folded, or its tensors are not those of its method on
            this base.
    """
    method = adapter.header.method
    if method not in FOLDERS:
        raise AdapterError(
            f"{adapter.path}: method {method!r} is a branch of its own, which weights cannot hold: "
            "use engine torch, which runs it attached"
        )
    try:
        deltas = FOLDERS[method](adapter.tensors, adapter.header.config, base)
        for name, delta in deltas.items():
            if name not in base:
                raise UnfitError(f"it changes {name!r}, which its base does not have")
            if delta.shape != base[name].shape:
                raise UnfitError(
                    f"it changes {name!r} by the shape {delta.shape}, which is {base[name].shape}"
                )
    except UnfitError as error:
        raise AdapterError(
            f"{adapter.path}: not a sound adapter of method {method!r} ({error}): get it again, or "
            "train it again"
        ) from error
    return deltas


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
