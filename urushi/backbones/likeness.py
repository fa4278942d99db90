"""How much the names of tensors are like those of each known network."""

import re
from collections.abc import Iterable
from functools import cache

from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.claims import without_memory

__all__ = ["Likeness", "likenesses"]

Likeness = tuple[str, float]
"""A backbone, and how much the names of tensors are like its own, from 0 to 1."""


def likenesses(names: Iterable[str]) -> list[Likeness]:
    """How much the names are like those of each backbone, the likest first."""
    found = {_kind_of(name) for name in names}
    shares = [
        (backbone, 2 * len(found & kinds) / (len(found) + len(kinds)))
        for backbone, kinds in _kinds().items()
    ]
    return sorted(shares, key=lambda share: -share[1])


@cache
def _kinds() -> dict[str, set[str]]:
    """Names of the tensors of each backbone's example, numbers left out."""
    kinds = {}
    with without_memory():
        for backbone, entry in BACKBONES.items():
            names = create_backbone(backbone, entry.example).state_dict()
            kinds[backbone] = {_kind_of(name) for name in names}
    return kinds


def _kind_of(name: str) -> str:
    return re.sub(r"\d+", "#", name.replace("in_proj_weight", "in_proj.weight"))
