"""What each method adds to the weights of its base, calculated from the tensors of its file.

`FOLDERS` is the table, by method. Each entry gets the tensors of an adapter, its settings and the
weights of the base, and returns deltas in float64 by the names of the weights. Nothing in a file is
trusted: whatever does not fit is an `UnfitError`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from urushi.files.low_rank import Layout, Scaling, product_scale
from urushi.files.tensors import Named

__all__ = ["FOLDERS", "Arrays", "Settings", "UnfitError", "can_hold"]

Arrays = Named
Settings = Mapping[str, JsonValue]


class UnfitError(Exception):
    """The tensors of an adapter are not those its method has on this base; says which."""


def _groups(tensors: Arrays, *known: str) -> list[dict[str, np.ndarray]]:
    """Tensors sorted by the part of the adapter they belong to, by dotted names of the base."""
    groups: dict[str, dict[str, np.ndarray]] = {name: {} for name in known}
    for full, tensor in tensors.items():
        group, _, key = full.partition(".")
        if group not in groups or not key or "." in key or tensor.dtype == np.int64:
            raise UnfitError(f"unknown tensor {full!r}")
        groups[group][key.replace("/", ".")] = tensor.astype(np.float64)
    return list(groups.values())


class _LowRankFacts(BaseModel):
    """Those settings of a low-rank adapter that folding needs."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    layout: Layout = "flat"
    scaling: Scaling = "alpha/r"
    alpha: Annotated[float, Field(gt=0)] | None = None


def _low_rank(tensors: Arrays, settings: Settings, base: Arrays) -> dict[str, np.ndarray]:
    """`scale * view(up @ down)`, and whole deltas; see `urushi.adapters.low_rank`."""
    try:
        facts = _LowRankFacts.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise UnfitError(f"setting {first['loc'][0]}: {first['msg'].lower()}") from error
    down, up, value = _groups(tensors, "down", "up", "value")
    if unpaired := sorted(down.keys() ^ up.keys()):
        raise UnfitError(f"one of the two factors for {unpaired[0]!r} is missing")
    if twice := sorted(down.keys() & value.keys()):
        raise UnfitError(f"{twice[0]!r} has factors and a whole delta")
    deltas = dict(value)
    for name, first in down.items():
        if name not in base:
            raise UnfitError(f"it changes {name!r}, which its base does not have")
        shape, second = base[name].shape, up[name]
        expected = _factor_shapes(shape, first.shape, second.shape, facts.layout)
        if (first.shape, second.shape) != expected:
            raise UnfitError(
                f"factors of shape {first.shape} and {second.shape} do not make {name!r} of shape "
                f"{shape}"
            )
        rank = len(first) if facts.layout == "flat" else len(first) // _kernel(shape)
        scale = product_scale(facts.scaling, facts.alpha, rank)
        deltas[name] = scale * (second @ first).reshape(shape)
    return deltas


def _factor_shapes(
    shape: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...], layout: Layout
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of `down` and `up` for a weight, with the rank, and the groups, that they show."""
    if len(shape) < 2 or len(down) != 2 or len(up) != 2:
        raise UnfitError(f"factors of shape {down} and {up} for a weight of shape {shape}")
    if layout == "flat":
        return (down[0], math.prod(shape[1:])), (shape[0], down[0])
    kernel = _kernel(shape)
    rank = max(down[0] // kernel, 1) * kernel
    # The weight alone does not tell how many groups a convolution has: `up` does.
    groups = max(shape[0] * kernel // up[0], 1)
    return (rank, shape[1] * groups * kernel), (shape[0] // groups * kernel, rank)


def _kernel(shape: tuple[int, ...]) -> int:
    return shape[-1] if len(shape) == 4 else 1


def _whole(tensors: Arrays, settings: Settings, base: Arrays) -> dict[str, np.ndarray]:
    """Deltas of whole parameters; see `urushi.adapters.partial`."""
    (value,) = _groups(tensors, "value")
    return value


def _scale_shift(tensors: Arrays, settings: Settings, base: Arrays) -> dict[str, np.ndarray]:
    """A gain of weight and bias and an offset of the bias; see `urushi.adapters.scale_shift`."""
    gain, shift = _groups(tensors, "gain", "shift")
    if alone := sorted(shift.keys() - gain.keys()):
        raise UnfitError(f"an offset of {alone[0]!r} without a gain")
    deltas = {}
    for module, factors in gain.items():
        weight, bias = base.get(f"{module}.weight"), base.get(f"{module}.bias")
        if weight is None or factors.shape != weight.shape[:1]:
            raise UnfitError(f"a gain of shape {factors.shape} for {module!r}")
        if (bias is not None) != (module in shift):
            raise UnfitError(f"the offset of {module!r} is missing, or one too many")
        deltas[f"{module}.weight"] = weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
        if bias is not None:
            if shift[module].shape != bias.shape:
                raise UnfitError(f"an offset of shape {shift[module].shape} for {module!r}")
            deltas[f"{module}.bias"] = bias * factors + shift[module]
    return deltas


def _factors(tensors: Arrays, settings: Settings, base: Arrays) -> dict[str, np.ndarray]:
    """`scale * rows @ core @ columns^T` for each block; see `urushi.adapters.factor`."""
    rows, columns, core = _groups(tensors, "rows", "columns", "core")
    scale = settings.get("scale", 1.0)
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise UnfitError(f"setting scale: {scale!r} is no number")
    deltas = {}
    for name, blocks in core.items():
        if name not in base or blocks.ndim != 4:
            raise UnfitError(f"a core of shape {blocks.shape} for {name!r}")
        shape, (down, across, rank, _) = base[name].shape, blocks.shape
        height, breadth = shape[0] // down, math.prod(shape[1:]) // across
        left, right = rows.get(str(height)), columns.get(str(breadth))
        if left is None or right is None or blocks.shape[3] != rank:
            raise UnfitError(f"a core of shape {blocks.shape}, without factors, for {name!r}")
        if left.shape != (height, rank) or right.shape != (breadth, rank):
            raise UnfitError(f"factors of shape {left.shape} and {right.shape} for {name!r}")
        if (down * height, across * breadth) != (shape[0], math.prod(shape[1:])):
            raise UnfitError(f"a core of shape {blocks.shape} for {name!r} of shape {shape}")
        # (down, across, height, breadth) -> (down, height, across, breadth)
        delta = (left @ blocks @ right.T).transpose(0, 2, 1, 3)
        deltas[name] = scale * delta.reshape(shape)
    return deltas


# A new method that weights can hold gets its line here; a test compares with `METHODS`.
FOLDERS: Mapping[str, Callable[[Arrays, Settings, Arrays], dict[str, np.ndarray]]] = {
    "lora": _low_rank,
    "colora": _low_rank,
    "fact": _factors,
    "ssf": _scale_shift,
    "bitfit": _whole,
    "norm": _whole,
    "decoder": _whole,
    "full": _whole,
    "frozen": _whole,
}


def can_hold(method: str, settings: Settings) -> bool:
    """Tell whether weights can hold what an adapter of that method and those settings does."""
    # Offsets of layers without a bias are added to feature maps.
    return method in FOLDERS and not (method == "ssf" and settings.get("offsets") == "all")
