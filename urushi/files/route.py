"""The route of a picture into weights: experts and guidance as arrays by name, without torch.

What `urushi.adapters.experts` and `urushi.adapters.guidance` do in torch is done here to arrays, so
that every engine runs the result. A gate cannot go into weights, for it stands beside a
normalisation; with one degradation vector it is, however, a constant for each channel, and that is
what an exported graph needs: see `Gate`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from urushi.errors import AdapterError
from urushi.files.adapter import LoadedAdapter, check_base
from urushi.files.fold import fold, folded_weights, with_weights
from urushi.files.folders import Arrays, UnfitError
from urushi.files.model import LoadedModel

__all__ = ["FoldedRoute", "Gate", "experts_of", "fold_route"]

EXPERTS, GUIDANCE = "experts", "guidance"
_erf = np.frompyfunc(math.erf, 1, 1)


@dataclass(frozen=True)
class Gate:
    """What a stage's feature map x becomes in front of its blocks: `x + gain * n(x) + offset`.

    Here n takes the mean from each pixel's channels and divides them by their deviation, with an
    epsilon of 1e-6 on the variance: a layer normalisation, without parameters of its own.

    Attributes:
        stage: dotted path of the stage in the backbone.
        gain, offset: `(c,)`, float32.
    """

    stage: str
    gain: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class FoldedRoute:
    """A base for the pictures of one route.

    Attributes:
        model: the base with the experts in its weights; the base itself where no expert acts.
        gates: of the guided stages, in the order of execution; empty without a vector.
    """

    model: LoadedModel
    gates: tuple[Gate, ...] = ()


def experts_of(adapter: LoadedAdapter) -> list[LoadedAdapter]:
    """Return the members of a joint form as adapters of their own, what they share as the last.

    They are at whole strength what `urushi.adapters.experts` mixes; the last one, if there is one,
    acts at strength 1 on every route. An adapter that is not joint is its only member.

    Raises:
        AdapterError: it does not say what its experts are.
    """
    if adapter.header.method != EXPERTS:
        return [adapter]
    config = adapter.header.config
    each, freeze = config.get("each"), config.get("freeze", "paper")
    if not isinstance(each, list) or not each:
        raise AdapterError(
            f"{adapter.path}: not a sound adapter of method {EXPERTS!r} (its settings do not state "
            "the experts): get it again, or train it again"
        )
    wanted: list[tuple[str, object]] = [
        (f"experts.{index}.", one) for index, one in enumerate(each)
    ]
    if freeze != "base":
        wanted.append(("shared.", {"method": "full"}))
    members = []
    for start, one in wanted:
        settings = dict(one) if isinstance(one, dict) else {}
        name = start.strip(".").rpartition(".")[2]
        header = adapter.header.model_copy(
            update={
                "method": str(settings.pop("method", "")),
                "config": settings,
                "name": f"{adapter.name} {name}",
            }
        )
        tensors = {
            key.removeprefix(start): tensor
            for key, tensor in adapter.tensors.items()
            if key.startswith(start)
        }
        path = adapter.path.with_name(f"{adapter.path.name}#{name}")
        members.append(LoadedAdapter(header, tensors, path))
    return members


def fold_route(
    model: LoadedModel,
    experts: LoadedAdapter | Sequence[LoadedAdapter],
    weights: Sequence[float | int],
    guidance: LoadedAdapter | None = None,
    vector: np.ndarray | None = None,
) -> FoldedRoute:
    """Put the experts of a route into the weights of their base, and its vector into gates.

    Args:
        model: the base of all of them.
        experts: one file for each expert, or the joint form of all.
        weights: of the experts; those with 0 are left out, and where all are 0 so is what they
            share.
        guidance: whose layers the experts may change, too.
        vector: the picture's degradation vector `(d,)`; None leaves the guidance out.

    Raises:
        AdapterError: an adapter belongs to another base, cannot be folded or is damaged; or the
            weights or the vector do not fit the adapters.
    """
    given = [experts] if isinstance(experts, LoadedAdapter) else list(experts)
    members, shared = _members(given)
    if len(weights) != len(members) or not all(map(math.isfinite, weights)):
        raise AdapterError(
            f"{len(members)} experts have the weights {list(weights)}, expected one number for each"
        )
    parts = [(e, w) for e, w in zip(members, weights, strict=True) if w]
    parts += [(one, 1.0) for one in shared if parts]
    if guidance is None:
        if vector is not None:
            raise AdapterError("a degradation vector is given, but no guidance")
        return FoldedRoute(fold(model, parts))
    for adapter in (guidance, *(part for part, _ in parts)):
        check_base(adapter, model)
    own, tuned = _guidance_parts(guidance)
    parts = tuned + parts
    changed = folded_weights(parts, {**model.tensors, **own})
    result = model
    if parts:
        of_base = {name: tensor for name, tensor in changed.items() if name not in own}
        result = with_weights(model, of_base, parts)
    if vector is None:
        return FoldedRoute(result)
    return FoldedRoute(result, _gates(guidance, {**own, **changed}, vector))


def _members(given: Sequence[LoadedAdapter]) -> tuple[list[LoadedAdapter], list[LoadedAdapter]]:
    """The experts, and what they share."""
    members: list[LoadedAdapter] = []
    shared: list[LoadedAdapter] = []
    for adapter in given:
        found = experts_of(adapter)
        if (
            adapter.header.method == EXPERTS
            and adapter.header.config.get("freeze", "paper") != "base"
        ):
            shared.append(found.pop())
        members += found
    return members, shared


def _guidance_parts(
    guidance: LoadedAdapter,
) -> tuple[dict[str, np.ndarray], list[tuple[LoadedAdapter, float]]]:
    """The guidance's own parameters as experts name them, and its deltas of the base."""
    if guidance.header.method != GUIDANCE:
        raise AdapterError(f"{guidance.path}: of method {guidance.header.method!r}, not guidance")
    own: dict[str, np.ndarray] = {}
    deltas: dict[str, np.ndarray] = {}
    for name, tensor in guidance.tensors.items():
        if name.startswith("value."):
            deltas[name] = tensor
        else:
            own[f"{GUIDANCE}.{name}"] = tensor
    if not deltas:
        return own, []
    header = guidance.header.model_copy(update={"method": "full", "config": {}})
    return own, [(replace(guidance, header=header, tensors=deltas), 1.0)]


def _gates(guidance: LoadedAdapter, tensors: Arrays, vector: np.ndarray) -> tuple[Gate, ...]:
    stages = guidance.header.config.get("stages")
    try:
        if not isinstance(stages, list) or not stages:
            raise UnfitError("its settings do not name the stages")
        inner = np.asarray(vector, np.float64)
        if inner.shape != (guidance.header.config.get("vector"),) or not np.isfinite(inner).all():
            raise AdapterError(
                f"{guidance.path}: the degradation vector has the shape {inner.shape} or is not "
                f"finite, expected {guidance.header.config.get('vector')} numbers of its router"
            )
        for layer in ("embed.0", "embed.2"):
            inner = _gelu(_linear(tensors, layer, inner))
        return tuple(_gate(tensors, index, str(name), inner) for index, name in enumerate(stages))
    except UnfitError as error:
        raise AdapterError(
            f"{guidance.path}: not a sound adapter of method {GUIDANCE!r} ({error}): get it again, "
            "or train it again"
        ) from error


def _gate(tensors: Arrays, index: int, stage: str, embedded: np.ndarray) -> Gate:
    start = f"stages.{index}"
    inner = _gelu(_linear(tensors, f"{start}.reduce", embedded))
    inner = _linear(tensors, f"{start}.expand", inner)
    inner = np.maximum(_linear(tensors, f"{start}.squeeze", inner), 0)
    opened = 1 / (1 + np.exp(-_linear(tensors, f"{start}.excite", inner)))
    gain = opened * _vector(tensors, f"{start}.beta", len(opened))
    weight = _vector(tensors, f"{start}.norm.weight", len(opened))
    bias = _vector(tensors, f"{start}.norm.bias", len(opened))
    return Gate(stage, (gain * weight).astype(np.float32), (gain * bias).astype(np.float32))


def _linear(tensors: Arrays, layer: str, x: np.ndarray) -> np.ndarray:
    weight = tensors.get(f"{GUIDANCE}.{layer}.weight")
    if weight is None or weight.ndim != 2 or weight.shape[1] != len(x):
        raise UnfitError(f"the weight of {layer!r} is missing or does not fit")
    bias = _vector(tensors, f"{layer}.bias", len(weight))
    return weight.astype(np.float64) @ x + bias


def _vector(tensors: Arrays, name: str, size: int) -> np.ndarray:
    found = tensors.get(f"{GUIDANCE}.{name}")
    if found is None or found.shape != (size,):
        raise UnfitError(f"{name!r} is missing or does not fit")
    return found.astype(np.float64)


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.asarray(_erf(x / math.sqrt(2)), np.float64))
