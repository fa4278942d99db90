"""Weights that trainers keep as a product of others, made plain.

Weight normalisation keeps a direction v and a length g (Salimans and Kingma 2016), spectral
normalisation a weight and estimates u and v of its first singular vectors (Miyato et al. 2018),
pruning a weight and a mask. Each is under the names that torch.nn.utils gives it, of which there
are older and newer ones.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from urushi.backbones.checkpoint_leaves import Parts, holds_numbers

__all__ = ["Folded", "folded"]

# `weight_g`, or `in_proj_weight_orig`: other names with such endings belong to networks.
_OLD = re.compile(r"((?:\w+_)?(?:weight|bias)(?:_\w+?)?)_(g|v|u|orig|mask)")
_NEW = "parametrizations"
_WEIGHT, _SPECTRAL, _PRUNING = "weight normalisation", "spectral normalisation", "pruning"


class Folded(NamedTuple):
    """Tensors, some of them computed.

    Attributes:
        weights: all of them, each where the first of its parts stood.
        how: of the computed ones, by `id`: what they were kept in.
        refused: of those that could not be computed, by the `id` of each part: why.
    """

    weights: dict[Parts, Tensor]
    how: dict[int, str]
    refused: dict[int, str]


def folded(weights: Mapping[Parts, Tensor]) -> Folded:
    """Put plain weights in the places of those that are kept in parts."""
    bundles: dict[Parts, dict[str, Parts]] = {}
    for parts in weights:
        if (part := _part_of(parts)) is not None:
            bundles.setdefault(part[0], {})[part[1]] = parts
    made, computed = Folded({}, {}, {}), {}
    for name, bundle in bundles.items():
        tensors = {end: weights[parts] for end, parts in bundle.items()}
        how, weight = _computed(tensors, weights.get(name))
        if weight is not None:
            made.how[id(weight)] = how
            computed.update(dict.fromkeys((*bundle.values(), name), (name, weight)))
        elif how:
            made.refused.update((id(tensor), how) for tensor in tensors.values())
    for parts, tensor in weights.items():
        name, weight = computed.get(parts, (parts, tensor))
        made.weights[name] = weight
    return made


def _part_of(parts: Parts) -> tuple[Parts, str] | None:
    """The name of the weight that a tensor is a part of, and which part."""
    for depth in (3, 4):
        if len(parts) >= depth and parts[-depth] == _NEW:
            return (*parts[:-depth], parts[1 - depth]), ".".join(parts[2 - depth :])
    old = _OLD.fullmatch(parts[-1])
    return None if old is None else ((*parts[:-1], old[1]), old[2])


def _computed(found: Mapping[str, Tensor], stored: Tensor | None) -> tuple[str, Tensor | None]:
    """How a weight is kept, and the weight; "" for parts that are not those of one."""
    ends = found.keys()
    if ends == {"g", "v"}:
        how, weight = _WEIGHT, _of_length(found["g"], found["v"])
    elif ends == {"original0", "original1"}:
        how, weight = _WEIGHT, _of_length(found["original0"], found["original1"])
    elif ends == {"orig", "u", "v"}:
        how, weight = _SPECTRAL, _of_norm_1(found["orig"], found["u"], found["v"])
    elif ends == {"original", "0._u", "0._v"}:
        how, weight = _SPECTRAL, _of_norm_1(found["original"], found["0._u"], found["0._v"])
    elif ends == {"orig", "u"}:
        # As torch stored it before 1.1: with the weight that was in use beside it.
        how, weight = f"{_SPECTRAL} without its v", stored
    elif ends == {"orig", "mask"}:
        how, weight = _PRUNING, _masked(found["orig"], found["mask"])
    else:
        new = [end for end in ends if end.startswith("original")]
        return ("a parametrization that is unknown here" if new else ""), None
    return how if weight is not None else f"{how} whose parts do not go together", weight


def _of_length(length: Tensor, direction: Tensor) -> Tensor | None:
    """g v / |v|, with a length for each entry of one axis, or one length for all."""
    shapes = zip(length.shape, direction.shape, strict=False)
    fits = length.ndim in (0, direction.ndim) and all(g in (1, v) for g, v in shapes)
    if not fits or not _are_numbers(length, direction):
        return None
    length, direction = _whole(length), _whole(direction)
    # An axis of one entry has the same length, summed over or not.
    axes = [axis for axis in range(length.ndim) if length.shape[axis] == 1]
    if length.ndim and not axes:
        return direction * (length / direction.abs())
    norm = torch.linalg.vector_norm(direction, dim=axes or None, keepdim=bool(length.ndim))
    return direction * (length / norm)


def _of_norm_1(weight: Tensor, left: Tensor, right: Tensor) -> Tensor | None:
    """W / (u' W v), with W as a matrix that has an axis of the weight as its rows.

    Which axis that is, nothing says. Of two that fit, u and v are singular vectors of one.
    """
    if not _are_numbers(weight, left, right) or left.ndim != 1 or right.ndim != 1:
        return None
    weight, left, right = _whole(weight), _whole(left), _whole(right)
    rows = [axis for axis in range(weight.ndim) if weight.shape[axis] == len(left)]
    if not rows or math.prod(weight.shape) != len(left) * len(right):
        return None
    sigmas = [left @ (weight.movedim(axis, 0).reshape(len(left), -1) @ right) for axis in rows]
    return weight / max(sigmas)


def _masked(weight: Tensor, mask: Tensor) -> Tensor | None:
    if weight.shape != mask.shape or not _are_numbers(weight, mask):
        return None
    return _whole(weight) * mask.to(_whole(weight).dtype)


def _are_numbers(*tensors: Tensor) -> bool:
    return all(holds_numbers(tensor) and not tensor.is_complex() for tensor in tensors)


def _whole(tensor: Tensor) -> Tensor:
    """In no less than float32, in which torch computes them."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
