"""What the settings of an EDT may be."""

import re
from collections.abc import Sequence

from urushi.errors import BackboneError
from urushi.names import counted

__all__ = [
    "CONNECTIONS",
    "UPSAMPLERS",
    "check_connection",
    "check_heads",
    "check_sizes",
    "scale_of",
]

UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect")
CONNECTIONS = ("1conv", "3conv")


def scale_of(head: str) -> int:
    """How much a head of that name enlarges."""
    return int(head[-1]) if head.startswith("sr_") else 1


def check_sizes(
    num_feat: int,
    embed_dim: int,
    depths: Sequence[int],
    num_heads: Sequence[int] | None,
    window_size: Sequence[int],
    head_depth: int,
) -> None:
    """Refuse sizes that an EDT cannot have.

    Raises:
        BackboneError: names what was expected.
    """
    if min(num_feat, embed_dim, head_depth, *depths, *window_size) < 1 or not depths:
        raise BackboneError(
            f"num_feat {num_feat}, embed_dim {embed_dim}, depths {list(depths)}, window_size "
            f"{list(window_size)}, head_depth {head_depth}: each must be positive, and one group "
            "is needed at least"
        )
    if len(window_size) != 2:
        raise BackboneError(f"window_size is {list(window_size)}: expected height and width")
    if num_heads is None or len(num_heads) != len(depths):
        raise BackboneError(
            f"num_heads is {num_heads}: one number for each of {counted(len(depths), 'group')} "
            "was expected, "
            "with which the network was trained"
        )
    for heads in num_heads:
        if heads < 1 or embed_dim % (2 * heads):
            raise BackboneError(
                f"num_heads {heads} does not divide half of embed_dim {embed_dim}, which is what "
                "the windows of one direction have"
            )


def check_heads(heads: Sequence[str], head: str | None, upsampler: str) -> None:
    """Refuse names of heads that are unknown, and unknown ways to enlarge.

    Raises:
        BackboneError: names what was expected.
    """
    known = ", ".join(heads)
    if not heads or len(set(heads)) < len(heads):
        raise BackboneError(f"heads are [{known}]: at least one is needed, each name once")
    for name in heads:
        if not re.fullmatch(r"sr_x[234]|d[nr]_\w+", name):
            raise BackboneError(
                f"head {name!r} is unknown: names are sr_x2, sr_x3, sr_x4, dn_... and dr_..., such "
                "as dn_g15 or dr_L"
            )
    if head is not None and head not in heads:
        raise BackboneError(f"head {head!r} is unknown: this network has {known}")
    if upsampler not in UPSAMPLERS:
        raise BackboneError(
            f"upsampler {upsampler!r} is unknown: expected {' or '.join(UPSAMPLERS)}"
        )


def check_connection(connection: str, embed_dim: int) -> None:
    """Refuse unknown ends of the body.

    Raises:
        BackboneError: names what was expected.
    """
    if connection not in CONNECTIONS or (connection == "3conv" and embed_dim < 4):
        raise BackboneError(
            f"resi_connection is {connection!r:.40} with embed_dim {embed_dim}: expected "
            f"{' or '.join(CONNECTIONS)}, the latter with embed_dim 4 at least"
        )
