"""How large tiles are: what is chosen where nothing is told, and what may be told."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from urushi.errors import EngineError
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.base import Engine, smallest_side
from urushi.inference.hardware import available_memory

__all__ = [
    "ON_ACCELERATOR",
    "ON_CPU",
    "WIDE_OVERLAP",
    "WIDE_TILE",
    "WORTH_COMPILING",
    "Limits",
    "TileSizes",
    "check_options",
    "choose_tiles",
    "overlap_of",
    "sees_widely",
    "too_small",
]


class Limits(NamedTuple):
    """What is chosen at most where nothing is told.

    Attributes:
        tile: longest side of a tile, in pixels.
        whole: pixels of a picture that is not cut.
        memory: what the engine works with, in bytes.
    """

    tile: int
    whole: int
    memory: int


# A network made for one size is faster by about a tenth, and making it takes as long as restoring
# half a megapixel: it pays for pictures of so many pixels.
WORTH_COMPILING = 5 << 20
# Larger tiles repeat fewer pixels, but leave the caches of a CPU; docs/log.md has the numbers.
ON_CPU = Limits(tile=288, whole=1 << 20, memory=1 << 30)
ON_ACCELERATOR = Limits(tile=1024, whole=1 << 22, memory=8 << 30)

# What needs no more of a picture than what is near. Whatever else an adapter mends, such as haze or
# low light, hangs on the picture as a whole: small tiles would each be given a light of its own.
LOCAL = frozenset({"noise", "jpeg", "blur", "rain", "snow", "raindrop", "film damage"})
WIDE_TILE, WIDE_OVERLAP = 1024, 256
USUAL_OVERLAP = 16


def sees_widely(adapters: Sequence[AppliedAdapter]) -> bool:
    """Whether adapters are better off with large tiles: those of damage that is not local."""
    return any(not LOCAL.issuperset(a.adapter.header.degradations or [""]) for a in adapters)


def check_options(tile: int | None, overlap: int, memory_limit: int | None) -> None:
    """Refuse numbers that cannot be; see `Restorer`."""
    if tile is not None and tile < 1:
        raise EngineError(f"tile is {tile} pixels, expected at least 1", usage=True)
    if overlap < 0 or (tile is not None and overlap > tile // 2):
        most = "" if tile is None else f" to {tile // 2}, half of the tile"
        raise EngineError(
            f"overlap is {overlap} pixels, expected 0{most or ' or more'}", usage=True
        )
    if memory_limit is not None and memory_limit <= 0:
        raise EngineError(f"memory_limit is {memory_limit} bytes, expected more than 0", usage=True)


def overlap_of(tile: int | None, overlap: int | None = None) -> int:
    """What neighbouring tiles share where it is not told: 16 pixels, or half of a small tile."""
    if overlap is not None or tile is None:
        return USUAL_OVERLAP if overlap is None else overlap
    return min(USUAL_OVERLAP, max(tile, 0) // 2)


def too_small(tile: int, multiple: int) -> str:
    """The sentence on a tile that is smaller than a network's least."""
    return f"tile is {tile} pixels, this network needs at least {multiple}"


class TileSizes(NamedTuple):
    """What was chosen, in pixels.

    Attributes:
        tile: longest side of a tile.
        overlap: what neighbours share.
        smallest: no tile is made smaller where memory runs out.
        whole: pictures of at most so many pixels are not cut at all.
        at_once: tiles that are restored at the same time have at most so many together.
    """

    tile: int
    overlap: int
    smallest: int
    whole: int
    at_once: int


def choose_tiles(
    engine: Engine,
    tile: int | None,
    overlap: int,
    memory_limit: int | None,
    *,
    wide: bool = False,
) -> TileSizes:
    """Choose what is not told by the memory there is.

    Args:
        engine: what restores.
        tile, overlap, memory_limit: as `Restorer` takes them.
        wide: whether large tiles are better; see `sees_widely`.

    Raises:
        EngineError: the tile does not fit the network.
    """
    multiple, whole = engine.size_multiple, 0
    if engine.fixed_patch is not None:
        tile = _fixed_tile(engine.fixed_patch, tile, overlap)
    smallest = smallest_side(engine)
    limits = ON_CPU if engine.device.lower() == "cpu" else ON_ACCELERATOR
    if memory_limit is None:
        memory_limit = min(available_memory(engine.device) // 2, limits.memory)
    affordable = int(memory_limit / engine.bytes_per_pixel)
    if tile is None:
        if wide:
            limits = limits._replace(tile=max(limits.tile, WIDE_TILE))
        whole = min(affordable, limits.whole)
        tile = min(math.isqrt(affordable), limits.tile)
        # Steps of 32, so that the result does not depend on every byte that is free.
        tile = max(tile // 32 * 32, smallest)
        if 2 * overlap > tile:
            tile = _tile_for(overlap, affordable, engine.device, multiple)
        if wide:
            overlap = max(overlap, min(WIDE_OVERLAP, tile // 4))
    if tile < multiple:
        raise EngineError(too_small(tile, multiple), usage=True)
    return TileSizes(max(tile // multiple, 1) * multiple, overlap, smallest, whole, affordable)


def _tile_for(overlap: int, affordable: int, device: str, multiple: int) -> int:
    """The tile that a wide overlap needs, where memory allows so large a one."""
    most = math.isqrt(affordable) // 2
    if overlap > most:
        raise EngineError(
            f"overlap is {overlap} pixels, and the memory for {device} allows {most}: give a "
            "smaller one, or a tile or memory limit of your own",
        )
    return math.ceil(2 * overlap / multiple) * multiple


def _fixed_tile(patch: int, tile: int | None, overlap: int) -> int:
    """The tile of a network that restores squares of one side alone."""
    if tile not in (None, patch):
        raise EngineError(
            f"tile is {tile} pixels, but this network restores separate squares of {patch} "
            "pixels: leave tile out",
            usage=True,
        )
    if overlap > patch // 2:
        raise EngineError(
            f"overlap is {overlap} pixels, expected 0 to {patch // 2}, half of the squares that "
            "this network restores",
            usage=True,
        )
    return patch
