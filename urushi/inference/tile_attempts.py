"""Tiles of one restorer, in float32 and in smaller pieces where they cannot be had otherwise."""

import logging
from functools import partial

import numpy as np

from urushi.errors import EngineError, OutOfMemoryError
from urushi.inference.changed_light import Finish
from urushi.inference.cutting import Cutting
from urushi.inference.engines import Engine
from urushi.inference.tile_runs import Picture, run_beside_others, run_checked, run_once
from urushi.inference.tiling import reader_of, stream_tiles

__all__ = ["TileAttempts"]

logger = logging.getLogger(__name__)


class TileAttempts:
    """Restores single tiles, and does what can be done where that fails.

    Args:
        engine: what runs the network.
        cutting: how pictures are cut; it learns where memory runs out.
        finish: what is done to each tile behind the network; None for nothing.
    """

    def __init__(self, engine: Engine, cutting: Cutting, finish: Finish | None) -> None:
        self._engine, self._cutting, self.finish = engine, cutting, finish
        self._float32: Engine | None = None

    def attempt(self, tile: np.ndarray, engine: Engine) -> np.ndarray | None:
        """What `restore` gives if nothing is amiss with this engine, and else None."""
        if not self._cutting.fits(max(tile.shape[1:])):
            return None
        return run_beside_others(tile, engine, self.finish)

    def restore(self, picture: Picture, tile: np.ndarray) -> np.ndarray:
        """`(3, h, w)` -> the restored one, in smaller pieces where memory does not suffice."""
        longest = max(tile.shape[1:])
        if self._cutting.fits(longest):
            try:
                return run_checked(tile, partial(self._run_usable, picture))
            except (OutOfMemoryError, MemoryError) as error:
                self._shrink(longest, error)
        # Cut this tile alone: the rows of tiles above it are finished and stay as they are.
        assert self._cutting.longest is not None
        read = reader_of(tile.transpose(1, 2, 0))
        plan = self._cutting.into(tile.shape[1], tile.shape[2], self._cutting.longest)
        restore = partial(self.restore, picture)
        pieces = list(stream_tiles(read, plan, restore, scale=self._engine.scale))
        return np.concatenate(pieces).transpose(2, 0, 1)

    def _shrink(self, longest: int, error: Exception) -> None:
        if not self._cutting.shrink(longest):
            raise OutOfMemoryError(
                f"not even a tile of {longest} pixels fits into the memory of "
                f"{self._engine.device}: close other programs, or choose another device"
            ) from error
        logger.warning(
            "%s ran out of memory with a tile of %d pixels, going on with %d",
            self._engine.device,
            longest,
            self._cutting.longest,
        )

    def _run_usable(self, picture: Picture, tile: np.ndarray) -> np.ndarray:
        """The result of the engine, or of float32 where that is not usable."""
        engine = picture.engine
        restored, problem = run_once(tile, engine, large=picture.large, finish=self.finish)
        if problem and engine.precision != "float32":
            picture.notes.append(
                f"{engine.precision} gave {problem}: from there on this picture was restored in "
                "float32"
            )
        if problem and engine is self._engine:
            if self._float32 is None:
                self._float32 = self._engine.in_float32()
            engine = picture.engine = self._float32
            logger.warning("%s gave %s, trying float32", self._engine.name, problem)
            restored, problem = run_once(tile, engine, large=picture.large, finish=self.finish)
        if problem:
            raise EngineError(
                f"{self._engine.name} on {self._engine.device} gave {problem} even in float32: "
                "try another engine or device, adapters at a lesser strength, or another model"
            )
        return restored
