"""Which network a released checkpoint is of, from the names and shapes of its tensors alone."""

from collections.abc import Mapping

from torch import Tensor

from urushi.backbones import BACKBONES, RestorationNetwork
from urushi.backbones.likeness import likenesses
from urushi.backbones.released import build_released, read_configuration
from urushi.errors import BackboneError

__all__ = ["recognise"]

# Below this share of equal names a guess would tell nothing.
_LEAST_LIKENESS = 0.25


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
