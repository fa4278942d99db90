"""Networks of the authors' released layouts: told by their tensors, and built with them."""

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

from urushi.backbones import BACKBONES, RestorationNetwork, create_backbone
from urushi.backbones.claims import check_claims, compare_shapes, without_memory
from urushi.errors import BackboneError
from urushi.names import counted

__all__ = [
    "Likeness",
    "build_released",
    "kind_of",
    "known_kinds",
    "likenesses",
    "load_strictly",
    "read_configuration",
    "recognise",
    "settings_of",
]

# Below this share of equal names a guess would tell nothing.
_LEAST_LIKENESS = 0.25

Likeness = tuple[str, float]
"""A backbone, and how much the names of tensors are like its own, from 0 to 1."""


def recognise(
    state: dict[str, Tensor], source: str, options: Mapping[str, object] | None = None
) -> tuple[str, dict[str, object], RestorationNetwork]:
    """Finds out what network the tensors are of, and builds it with them.

    Args:
        state: tensors by their released names.
        source: what messages call them.
        options: configuration that tensors cannot tell.

    Returns:
        An entry of `BACKBONES`, the whole configuration, and the network.

    Raises:
        BackboneError: they are of no backbone; names the one that is nearest, and what is wrong.
    """
    order = likenesses(state)
    reasons: dict[str, str] = {}
    for backbone, _ in order:
        try:
            config = read_configuration(state, backbone)
        except BackboneError as error:
            reasons[backbone] = str(error)
            continue
        _check_settings(backbone, options or {}, source)
        config = {**config, **(options or {})}
        told = f"{source}, read as {backbone},"
        return backbone, config, build_released(state, backbone, config, told)
    nearest, likeness = order[0]
    if likeness < _LEAST_LIKENESS:
        raise BackboneError(
            f"{source} is no checkpoint of a known network: none of {', '.join(BACKBONES)} has "
            f"tensors with names such as {min(state)[:100]!r}"
        )
    raise BackboneError(
        f"{source} is no checkpoint of a known network; nearest is {nearest}, with {likeness:.0%} "
        f"of the names in common, but {reasons[nearest]}"
    )


def settings_of(backbone: str) -> tuple[str, ...] | None:
    """The settings of a backbone; None for one that takes any."""
    taken = inspect.signature(BACKBONES[backbone].build).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        return None
    return tuple(parameter.name for parameter in taken)


def _check_settings(backbone: str, options: Iterable[str], source: str) -> None:
    known = settings_of(backbone)
    for name in options:
        if known is not None and name not in known:
            raise BackboneError(
                f"{source}, read as {backbone}, takes no setting {name!r:.80}: it takes "
                f"{', '.join(known)}"
            )


def build_released(
    state: dict[str, Tensor],
    backbone: str,
    config: Mapping[str, object],
    source: str,
    options: Mapping[str, object] | None = None,
) -> RestorationNetwork:
    """Builds a network from tensors by their released names.

    Args:
        state: the tensors.
        backbone: an entry of `BACKBONES`.
        config: of `read_configuration`.
        source: what messages call the tensors.
        options: configuration that tensors cannot tell.

    Raises:
        BackboneError: tensors are missing, left over or of the wrong shape.
    """
    try:
        translated = BACKBONES[backbone].from_released(state)
    except (IndexError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise _misshapen(backbone) from error
    whole = {**config, **(options or {})}
    shapes = {name: tuple(tensor.shape) for name, tensor in translated.items()}
    check_claims(backbone, whole, shapes, source)
    network = create_backbone(backbone, whole)
    network.load_state_dict(translated)
    return network


def read_configuration(state: dict[str, Tensor], backbone: str) -> dict[str, Any]:
    """Reads the configuration of a network off its tensors.

    Raises:
        BackboneError: the tensors are not those of such a network.
    """
    for name in state:
        # Depths are read off the numbers in names, and the network is built as deep.
        if any(int(number[:9]) >= len(state) + 16 for number in _numbers(name)):
            raise BackboneError(
                f"the tensor {name[:200]!r} has a number in its name that a file of "
                f"{counted(len(state), 'tensor')} cannot need: the file is damaged, get it again"
            )
    try:
        return BACKBONES[backbone].configuration_of(state)
    except (IndexError, KeyError, ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        raise _misshapen(backbone) from error


def _numbers(name: str) -> list[str]:
    return [part for part in name.split(".") if part.isascii() and part.isdecimal()]


def _misshapen(backbone: str) -> BackboneError:
    return BackboneError(
        f"a tensor that tells the sizes of a {backbone} has not the number of axes that it has in "
        "one: the file is damaged or of another network"
    )


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads `state` into `network`; nothing is loaded unless every name and shape agrees.

    Raises:
        BackboneError: names the first tensor that is missing, left over or misshapen.
    """
    compare_shapes(network, {n: tuple(t.shape) for n, t in state.items()}, source)
    network.load_state_dict(state)


def likenesses(names: Iterable[str]) -> list[Likeness]:
    """How much the names are like those of each backbone, the likest first."""
    found = {kind_of(name) for name in names}
    shares = [
        (backbone, 2 * len(found & kinds) / (len(found) + len(kinds)))
        for backbone, kinds in known_kinds().items()
    ]
    return sorted(shares, key=lambda share: -share[1])


@cache
def known_kinds() -> dict[str, set[str]]:
    """Names of the tensors of each backbone's example, numbers left out."""
    kinds = {}
    with without_memory():
        for backbone, entry in BACKBONES.items():
            names = create_backbone(backbone, entry.example).state_dict()
            kinds[backbone] = {kind_of(name) for name in names}
    return kinds


def kind_of(name: str) -> str:
    """A tensor's name, numbers left out."""
    return re.sub(r"\d+", "#", name.replace("in_proj_weight", "in_proj.weight"))
