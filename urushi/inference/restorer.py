"""Restoring pictures: the object that users run, and that is evaluated."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from urushi.errors import EngineError, OutOfMemoryError, PictureError
from urushi.files.model import LoadedModel, read_model
from urushi.inference.adapters import AdapterLike, AppliedAdapter, apply_adapters
from urushi.inference.arrays import WHITE, as_layers, enlarged_alpha
from urushi.inference.beyond import mend_beyond, reaches_beyond
from urushi.inference.engines import Engine, create_engine
from urushi.inference.memory import available_memory
from urushi.inference.tiling import ReadRows, TilePlan, plan_tiles, stream_tiles
from urushi.inference.zoo import find_model

__all__ = ["Restorer"]

OnProgress = Callable[[int, int], None]

logger = logging.getLogger(__name__)

SMALLEST_TILE = 64
# Of what has been calculated and waits for the tiles below, where a network enlarges.
MOST_WAITING = 1 << 28


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


# Larger tiles repeat fewer pixels, but leave the caches of a CPU; docs/log.md has the numbers.
ON_CPU = Limits(tile=384, whole=1 << 20, memory=1 << 30)
ON_ACCELERATOR = Limits(tile=1024, whole=1 << 22, memory=8 << 30)

# What needs no more of a picture than what is near. Whatever else an adapter mends, such as haze or
# low light, hangs on the picture as a whole: small tiles would each be given a light of its own.
LOCAL = frozenset({"noise", "jpeg", "blur", "rain", "snow", "raindrop"})
WIDE_TILE, WIDE_OVERLAP = 1024, 256


def sees_widely(adapters: Sequence[AppliedAdapter]) -> bool:
    """Whether adapters are better off with large tiles: those of damage that is not local."""
    return any(not LOCAL.issuperset(a.adapter.header.degradations or [""]) for a in adapters)


class Restorer:
    """Mends pictures of any size with one model on one engine.

    Not for use by several threads at once. Its `adapters` are those in use, its `notes` sentences
    about the latest picture: what was done to it otherwise than asked.

    Args:
        model: name of a shipped model, path of a model file, or a model that is read already.
        adapters: adapter files made for that model, or pairs of a file and a strength (1 is what it
            was trained for); their effects add up. Most methods go into the weights and cost
            nothing; the others, such as AdaptIR, need the engine torch.
        engine: "auto", "torch" or "openvino".
        device: "auto", or one the engine knows, such as "cpu" or "cuda".
        precision: "float32"; "bf16" where the engine has it; "int8" where the model has it.
        tile: longest side of a tile in pixels; None chooses it from the memory there is and
            lets pictures through whole that fit.
        overlap: pixels that neighbouring tiles share at least; at most half a tile.
        threads: threads of the engine; None leaves it the choice.
        compile: whether torch compiles the network first.
        memory_limit: bytes that the engine may work with at most; None takes half of what is
            free, up to 1 GiB on a CPU.

    Raises:
        UrushiError: the model, an adapter, the engine or an option cannot be used.
    """

    adapters: tuple[AppliedAdapter, ...]
    notes: list[str]

    def __init__(
        self,
        model: str | Path | LoadedModel = "base",
        *,
        adapters: Sequence[AdapterLike] = (),
        engine: str = "auto",
        device: str = "auto",
        precision: str = "float32",
        tile: int | None = None,
        overlap: int = 16,
        threads: int | None = None,
        compile: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        _check_options(tile, overlap, memory_limit)
        loaded = model if isinstance(model, LoadedModel) else read_model(find_model(model))
        ready_model, applied, attached = apply_adapters(loaded, adapters)
        ready = create_engine(
            ready_model,
            engine=engine,
            device=device,
            precision=precision,
            threads=threads,
            compile=compile,
            adapters=attached,
        )
        self.adapters = applied
        self._set_up(ready, tile, overlap, memory_limit, wide=sees_widely(applied))

    @classmethod
    def from_engine(
        cls,
        engine: Engine,
        *,
        tile: int | None = None,
        overlap: int = 16,
        memory_limit: int | None = None,
    ) -> "Restorer":
        """Restore with an engine that exists already; the arguments are those of the class."""
        _check_options(tile, overlap, memory_limit)
        restorer = cls.__new__(cls)
        restorer.adapters = ()
        restorer._set_up(engine, tile, overlap, memory_limit)
        return restorer

    def _set_up(
        self,
        engine: Engine,
        tile: int | None,
        overlap: int,
        memory_limit: int | None,
        *,
        wide: bool = False,
    ) -> None:
        multiple = engine.size_multiple
        if engine.fixed_patch is not None:
            tile = _fixed_tile(engine.fixed_patch, tile, overlap)
        self.engine = engine
        self.notes = []
        self.overlap = overlap
        self._active = engine
        self._float32: Engine | None = None
        self._smallest = engine.fixed_patch or math.ceil(SMALLEST_TILE / multiple) * multiple
        # Pictures of at most so many pixels are not cut at all.
        self._whole = 0
        if tile is None:
            limits = ON_CPU if engine.device.lower() == "cpu" else ON_ACCELERATOR
            if wide:
                limits = limits._replace(tile=max(limits.tile, WIDE_TILE))
            if memory_limit is None:
                memory_limit = min(available_memory(engine.device) // 2, limits.memory)
            affordable = int(memory_limit / engine.bytes_per_pixel)
            self._whole = min(affordable, limits.whole)
            tile = min(math.isqrt(affordable), limits.tile)
            # Steps of 64, so that the result does not depend on every byte that is free.
            tile = max(tile // 64 * 64, self._smallest)
            if 2 * overlap > tile:
                tile = _tile_for(overlap, affordable, engine.device, multiple)
            if wide:
                self.overlap = overlap = max(overlap, min(WIDE_OVERLAP, tile // 4))
        if tile < multiple:
            raise EngineError(f"tile is {tile} pixels, this network needs at least {multiple}")
        self.tile = max(tile // multiple, 1) * multiple
        # Set when memory ran out: no tile may be longer from then on.
        self._shrunk: int | None = None

    @property
    def scale(self) -> int:
        """Sides of a restored picture divided by those of what it was; 1 keeps the size."""
        return self.engine.scale

    def describe(self) -> dict[str, Any]:
        """What restores: engine, device, precision, the tiles in pixels, and the adapters.

        Where the network enlarges, `scale` says how much.
        """
        facts = {} if self.scale == 1 else {"scale": self.scale}
        return {
            "engine": self.engine.name,
            "device": self.engine.device,
            "precision": self.engine.precision,
            "tile": self.tile if self._shrunk is None else min(self.tile, self._shrunk),
            "overlap": self.overlap,
            "adapters": [adapter.describe() for adapter in self.adapters],
            **facts,
        }

    def restore(self, image: np.ndarray, on_progress: OnProgress | None = None) -> np.ndarray:
        """Restore a picture held in memory.

        Args:
            image: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)`; uint8, uint16, or float32
                or float64, nominally in [0, 1]. RGB, encoded as sRGB is; colours outside sRGB
                and lights brighter than white lie beyond, and come back there. A fourth channel
                is alpha and comes back untouched, or enlarged where the network enlarges.
            on_progress: called with finished and total pixels as the work goes on.

        Returns:
            The restored picture with the dtype of `image` and its shape, both sides `scale` times
            as long; within [0, 1] if `image` is, and else within its values.

        Raises:
            PictureError: another shape, dtype or range, or values that are not finite.
            EngineError: the engine gives no usable result, even in float32.
            OutOfMemoryError: even the smallest tile does not fit.
        """
        layers = as_layers(image)
        height, width = layers.shape[:2]
        white = np.float32(WHITE[image.dtype.name])
        position = 0

        def read(count: int) -> np.ndarray:
            nonlocal position
            rows = layers[position : position + count, :, :3].astype(np.float32) / white
            position += len(rows)
            return np.broadcast_to(rows, (*rows.shape[:2], 3))

        colours = min(layers.shape[2], 3)
        scale = self.scale
        result = np.empty((scale * height, scale * width, layers.shape[2]), layers.dtype)
        if layers.shape[2] > colours:
            result[:, :, colours:] = enlarged_alpha(layers[:, :, colours:], scale)
        top = 0
        for rows in self.restore_rows(read, width, height, on_progress):
            if colours == 1:
                rows = rows.mean(axis=2, keepdims=True)
            if image.dtype.kind == "u":
                rows = np.rint(rows * white)
            result[top : top + len(rows), :, :colours] = rows
            top += len(rows)
        return result.reshape(*result.shape[:2], *image.shape[2:])

    def restore_rows(
        self, read: ReadRows, width: int, height: int, on_progress: OnProgress | None = None
    ) -> Iterator[np.ndarray]:
        """Restore a picture that streams through, in memory independent of its height.

        Args:
            read: gives the next rows, at most as many as asked for: `(n, W, 3)` float32 RGB,
                nominally in [0, 1], n 0 at the end. Colours outside sRGB, and lights brighter
                than white, leave that range and come back outside of it.
            width: columns of the picture, in pixels.
            height: rows of the picture, in pixels.
            on_progress: called with finished and total pixels as the work goes on.

        Yields:
            Restored rows in order: `(n, scale W, 3)` float32, `scale` times `height` of them in
            all. They lie in [0, 1] for pictures that do, and within the values of others.

        Raises:
            UrushiError: as `restore`, and whatever `read` raises.
        """
        plan = self.plan(height, width)
        self._active = self.engine
        self.notes.clear()
        total = height * width

        def on_tile(finished: int) -> None:
            if on_progress is not None:
                on_progress(total * finished // plan.count, total)

        low, high = 0.0, 1.0

        def read_bounds(count: int) -> np.ndarray:
            nonlocal low, high
            rows = read(count)
            if rows.size:
                # No number: told when its tile is restored.
                low, high = min(low, float(rows.min())), max(high, float(rows.max()))
            return rows

        try:
            for rows in stream_tiles(read_bounds, plan, self._restore_tile, on_tile, self.scale):
                yield np.clip(rows, low, high, out=rows)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"a row of {plan.rows.size} x {width} pixels does not fit into memory: "
                "give a smaller tile"
            ) from error

    def plan(self, height: int, width: int) -> TilePlan:
        """How a picture of this size is cut at present."""
        multiple = self.engine.size_multiple
        sides = [math.ceil(side / multiple) * multiple for side in (height, width)]
        tile = self.tile
        if sides[0] * sides[1] <= self._whole:
            tile = max(*sides, tile)
        if self._shrunk is not None:
            tile = min(tile, self._shrunk)
        return self._plan(height, width, tile)

    def _plan(self, height: int, width: int, tile: int) -> TilePlan:
        multiple = self.engine.size_multiple
        overlap = min(self.overlap, tile // 2)
        tallest = None
        if self.scale > 1:
            # Rows of the result are many times as long as those of the picture.
            tallest = max(MOST_WAITING // (12 * self.scale**2 * width), 2 * overlap, self._smallest)
        return plan_tiles(
            height, width, tile=tile, overlap=overlap, multiple=multiple, tallest=tallest
        )

    def _restore_tile(self, tile: np.ndarray) -> np.ndarray:
        """`(3, h, w)` -> the restored one, in smaller pieces where memory does not suffice."""
        longest = max(tile.shape[1:])
        if self._shrunk is None or longest <= self._shrunk:
            try:
                return self._run_checked(tile)
            except (OutOfMemoryError, MemoryError) as error:
                self._shrink(longest, error)
        # Cut this tile alone: the rows of tiles above it are finished and stay as they are.
        assert self._shrunk is not None
        rows = tile.transpose(1, 2, 0)
        position = 0

        def read(count: int) -> np.ndarray:
            nonlocal position
            position += count
            return rows[position - count : position]

        plan = self._plan(tile.shape[1], tile.shape[2], self._shrunk)
        pieces = list(stream_tiles(read, plan, self._restore_tile, scale=self.scale))
        return np.concatenate(pieces).transpose(2, 0, 1)

    def _shrink(self, longest: int, error: Exception) -> None:
        if longest <= self._smallest:
            raise OutOfMemoryError(
                f"not even a tile of {longest} pixels fits into the memory of "
                f"{self.engine.device}: close other programs, or choose another device"
            ) from error
        multiple = self.engine.size_multiple
        self._shrunk = max(longest // 2 // multiple * multiple, self._smallest)
        logger.warning(
            "%s ran out of memory with a tile of %d pixels, going on with %d",
            self.engine.device,
            longest,
            self._shrunk,
        )

    def _run_checked(self, tile: np.ndarray) -> np.ndarray:
        """Run the engine on a tile that it can make something of, within [0, 1] or beyond."""
        if not np.isfinite(tile).all():
            raise PictureError(
                "the picture holds NaN or infinite values, expected numbers in [0, 1]: "
                "replace them first"
            )
        if reaches_beyond(tile):
            return mend_beyond(tile, self._run_usable)
        return self._run_usable(tile)

    def _run_usable(self, tile: np.ndarray) -> np.ndarray:
        """The result of the engine, or of float32 where that is not usable."""
        restored, problem = self._run(tile)
        if problem and self._active is self.engine:
            if self._float32 is None:
                self._float32 = self.engine.in_float32()
            self._active = self._float32
            logger.warning("%s gave %s, trying float32", self.engine.name, problem)
            restored, problem = self._run(tile)
        if problem:
            raise EngineError(
                f"{self.engine.name} on {self.engine.device} gave {problem} even in float32: "
                "try another engine or device, or another model"
            )
        return restored

    def _run(self, tile: np.ndarray) -> tuple[np.ndarray, str]:
        """The result and what is wrong with it, if anything."""
        restored = self._active.run(tile[None])[0]
        low, high = restored.min(axis=(1, 2)), restored.max(axis=(1, 2))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return restored, "NaN or infinite values"
        if (low == high).all() and np.ptp(tile, axis=(1, 2)).any():
            return restored, "a single flat colour"
        return restored, ""


def _check_options(tile: int | None, overlap: int, memory_limit: int | None) -> None:
    if tile is not None and tile < 1:
        raise EngineError(f"tile is {tile} pixels, expected at least 1")
    if overlap < 0 or (tile is not None and overlap > tile // 2):
        most = "" if tile is None else f" to {tile // 2}, half of the tile"
        raise EngineError(f"overlap is {overlap} pixels, expected 0{most or ' or more'}")
    if memory_limit is not None and memory_limit <= 0:
        raise EngineError(f"memory_limit is {memory_limit} bytes, expected more than 0")


def _tile_for(overlap: int, affordable: int, device: str, multiple: int) -> int:
    """The tile that a wide overlap needs, where memory allows so large a one."""
    most = math.isqrt(affordable) // 2
    if overlap > most:
        raise EngineError(
            f"overlap is {overlap} pixels, and the memory for {device} allows {most}: give a "
            "smaller one, or a tile or memory limit of your own"
        )
    return math.ceil(2 * overlap / multiple) * multiple


def _fixed_tile(patch: int, tile: int | None, overlap: int) -> int:
    """The tile of a network that restores squares of one side alone."""
    if tile not in (None, patch):
        raise EngineError(
            f"tile is {tile} pixels, but this network restores squares of {patch} pixels, each by "
            "itself: leave tile out"
        )
    if overlap > patch // 2:
        raise EngineError(
            f"overlap is {overlap} pixels, expected 0 to {patch // 2}, half of the squares that "
            "this network restores"
        )
    return patch
