"""Restoring pictures: the object that users run, and that is evaluated."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from urushi.errors import EngineError, OutOfMemoryError
from urushi.files.model import LoadedModel, read_model
from urushi.image import Samples
from urushi.inference.adapted_weights import (
    AdapterLike,
    AppliedAdapter,
    apply_adapters,
    placed,
    standing_notes,
)
from urushi.inference.arrays import (
    WHITE,
    as_array,
    as_layers,
    enlarged_alpha,
)
from urushi.inference.beyond import Values
from urushi.inference.change_gate import finish_of
from urushi.inference.changed_light import leaves_detail
from urushi.inference.cutting import Cutting
from urushi.inference.engines import Engine, create_engine
from urushi.inference.hardware import MadeAnew
from urushi.inference.option_names import check_names, check_types
from urushi.inference.overview import joined
from urushi.inference.tile_attempts import TileAttempts
from urushi.inference.tile_runs import (
    LatestPicture,
    Picture,
    TilesInFlight,
    lanes_of,
)
from urushi.inference.tile_sizes import (
    WORTH_COMPILING,
    check_options,
    choose_tiles,
    overlap_of,
    sees_widely,
)
from urushi.inference.tiling import ReadRows, TilePlan, reader_of, stream_tiles
from urushi.inference.zoo import find_model

__all__ = ["EngineOptions", "Restorer"]

OnProgress = Callable[[int, int], None]


class EngineOptions(TypedDict, total=False):
    """What all restorers take alike; `Restorer` says what each means."""

    engine: str
    device: str
    precision: str
    tile: int | None
    overlap: int | None
    threads: int | None
    compile: bool
    memory_limit: int | None


class Restorer(MadeAnew):
    """Mends pictures of any size with one model on one engine.

    Several threads may share it; the engine serves them one after the other. Pickled or copied,
    it is what it was made from, paths and options, and is made ready anew by the first use there;
    a model or adapter that was given in memory travels with it. It does not work in a process that
    was forked after the first use of an engine, and says so.

    Its `adapters` are those in use, its `notes` sentences about the latest picture of the calling
    thread: what was done to it otherwise than asked.

    Args:
        model: name of a shipped model, path of a model file, or a model that is read already.
        adapters: adapter files made for that model, or pairs of a file and a strength from 0 to 2
            (1 is what it was trained for), each of them once; their effects add up. Most methods go
            into the weights and cost nothing; the others, such as AdaptIR, need the engine torch.
        engine: "auto", "torch" or "openvino".
        device: "auto", or one the engine knows, such as "cpu" or "cuda".
        precision: "float32"; "bf16" where the engine has it; "int8" where the model has it.
        tile: longest side of a tile in pixels; None chooses it from the memory there is and
            lets pictures through whole that fit.
        overlap: pixels that neighbouring tiles share at least, at most half a tile; None takes
            16, or half of a small tile.
        threads: threads of the engine; None leaves it the choice.
        compile: whether torch compiles the network first.
        memory_limit: bytes that the engine may work with at most; None takes half of what is
            free, up to 1 GiB on a CPU.

    Raises:
        UrushiError: the model, an adapter, the engine or an option cannot be used.
    """

    adapters: tuple[AppliedAdapter, ...]

    looks = False
    """No picture is looked at before: all are treated alike."""

    def __init__(
        self,
        model: str | Path | LoadedModel = "base",
        *,
        adapters: Sequence[AdapterLike] = (),
        engine: str = "auto",
        device: str = "auto",
        precision: str = "float32",
        tile: int | None = None,
        overlap: int | None = None,
        threads: int | None = None,
        compile: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "engine": engine, "device": device, "precision": precision, "threads": threads,
            "compile": compile,
        }  # fmt: skip
        told = {"tile": tile, "overlap": overlap, "memory_limit": memory_limit}
        check_types({**options, **told})
        tiles = {**told, "overlap": overlap_of(tile, overlap)}
        found = model if isinstance(model, LoadedModel) else find_model(model)
        self._make(found, adapters, options, tiles)
        base = found if isinstance(found, LoadedModel) else found.absolute()
        self._record(
            model=base, adapters=[placed(item) for item in adapters],
            options=options, tiles=tiles, hashes=self._hashes,
        )  # fmt: skip

    @classmethod
    def from_hub(
        cls,
        repository: str,
        *,
        file: str | None = None,
        revision: str | None = None,
        **options: Unpack[EngineOptions],
    ) -> "Restorer":
        """Restore with what lies on the Hugging Face hub, fetched once and taken from its cache.

        Args:
            repository: `owner/name`; what `urushi push` put there, a model or an adapter whose base
                ships or lies on the hub as well; or a model file, and beside it the graph that
                OpenVINO runs, if there is one.
            file: the model file, of a repository that was filled by hand.
            revision: branch, tag or commit; None for the main branch.
            options: as the class takes them.

        Raises:
            FileFormatError: the file cannot be had, or is no sound model file.
            MissingExtraError: huggingface_hub is not installed.
        """
        from urushi.inference.hub_repository import parts_of_restorer

        known = ("file", "revision", *EngineOptions.__annotations__)
        check_names(options, known, "Restorer.from_hub")
        model, adapters = parts_of_restorer(repository, file=file, revision=revision)
        return cls(model, adapters=adapters, **options)

    @classmethod
    def from_engine(
        cls,
        engine: Engine,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        memory_limit: int | None = None,
        adapters: Sequence[AppliedAdapter] = (),
    ) -> "Restorer":
        """Restore with an engine that exists already; the arguments are those of the class.

        Its adapters are only told of: they are in the engine.
        """
        restorer = cls.__new__(cls)
        shared = overlap_of(tile, overlap)
        tiles = {"tile": tile, "overlap": shared, "memory_limit": memory_limit}
        restorer._make(engine, adapters, {}, tiles)
        restorer._record(model=engine, adapters=adapters, options={}, tiles=tiles)
        return restorer

    def _make(
        self,
        model: Path | LoadedModel | Engine,
        adapters: Sequence[Any],
        options: dict[str, Any],
        tiles: dict[str, Any],
        hashes: tuple[str, ...] | None = None,
    ) -> None:
        check_options(**tiles)
        if not isinstance(model, Path | LoadedModel):
            self.adapters = tuple(adapters)
            self._set_up(model, **tiles)
            return
        loaded = model if isinstance(model, LoadedModel) else read_model(model)
        ready, applied, attached = apply_adapters(loaded, adapters)
        self.adapters = applied
        self._hashes = (
            loaded.header.weights_hash, *(item.adapter.header.tensors_hash for item in applied),
        )  # fmt: skip
        if hashes not in (None, self._hashes):
            files = ", ".join(str(p) for p in (loaded.path, *(i.adapter.path for i in applied)))
            raise EngineError(
                f"{files}: changed after this restorer was sent or copied: create a new one"
            )
        engine = create_engine(ready, adapters=attached, **options)
        self._set_up(engine, **tiles, wide=sees_widely(applied))
        self.standing = standing_notes(applied)

    def _set_up(
        self,
        engine: Engine,
        tile: int | None,
        overlap: int,
        memory_limit: int | None,
        *,
        wide: bool = False,
    ) -> None:
        sizes = choose_tiles(engine, tile, overlap, memory_limit, wide=wide)
        fixed = engine.fixed_patch is not None
        # Squares of a size of their own are no part of a whole.
        wide = wide and not fixed and engine.scale == 1
        self.engine = engine
        self._cutting = Cutting(sizes, engine.size_multiple, engine.scale, wide=wide)
        finish = finish_of(self.adapters, engine.size_multiple, fixed=fixed)
        self._tiles = TileAttempts(engine, self._cutting, finish)
        self._latest = LatestPicture()
        self.standing: tuple[str, ...] = ()
        """Notes that every picture gets."""

    @property
    def tile(self) -> int:
        """Longest side of a tile that was chosen, in pixels."""
        return self._cutting.sizes.tile

    @property
    def overlap(self) -> int:
        """Pixels that neighbouring tiles share at least."""
        return self._cutting.sizes.overlap

    @property
    def notes(self) -> list[str]:
        """Sentences about the latest picture of this thread; they go with the next one."""
        if self._latest.picture is None:
            self._latest.picture = Picture(self.engine)
        return self._latest.picture.notes

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
            "tile": self._cutting.tile,
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
        image = as_array(image)
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

    def for_file(
        self, path: Path, *, page: int | None, max_pixels: int | None, samples: Samples
    ) -> tuple["Restorer", None]:
        """Itself, whatever the picture is; see `urushi.inference.choice.PictureRestorer`."""
        return self, None

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
        large = width * height * plan.ratio >= WORTH_COMPILING
        picture = self._latest.picture = Picture(self.engine, large=large)
        picture.notes[:] = self.standing
        total = height * width

        def on_tile(finished: int) -> None:
            if on_progress is not None:
                on_progress(total * finished // plan.count, total)

        values = Values(read)
        stream = self._stream
        if self._cutting.reduction(height, width) > 1:
            stream = self._stream_in_light
        try:
            for rows, seen in stream(picture, values.read, plan, on_tile):
                yield values.clip(rows, seen)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"a row of {plan.rows.size} x {width} pixels does not fit into memory: "
                "give a smaller tile"
            ) from error

    def _stream(
        self, picture: Picture, read: ReadRows, plan: TilePlan, on_tile: Callable[[int], None]
    ) -> Iterator[tuple[np.ndarray, int]]:
        """Restored rows, and from how many rows of the picture they were made."""
        restore = partial(self._tiles.restore, picture)
        lanes = self._lanes(picture, plan)
        rows, done, band = plan.rows, 0, 0
        with contextlib.ExitStack() as held:
            options: dict[str, Any] = {}
            if lanes > 1:
                tried = TilesInFlight(lanes, self._tiles.attempt, restore, lambda: picture.engine)
                held.enter_context(tried)
                options = {"begin": tried.begin, "ahead": tried.ahead}
            for piece in stream_tiles(read, plan, restore, on_tile, self.scale, **options):
                while band + 1 < len(rows.starts) and rows.starts[band + 1] * self.scale <= done:
                    band += 1
                done += len(piece)
                yield piece, min(rows.starts[band] + rows.size, rows.length)

    def _stream_in_light(
        self, picture: Picture, read: ReadRows, plan: TilePlan, on_tile: Callable[[int], None]
    ) -> Iterator[tuple[np.ndarray, int]]:
        """The same where tiles alone would differ in brightness; see `overview`."""
        height, width = plan.rows.length, plan.columns.length
        factor, tiled = self._cutting.reduction(height, width), not leaves_detail(self.adapters)

        def restore_small(rows: np.ndarray) -> np.ndarray:
            whole = Picture(picture.engine)
            source, small = reader_of(rows), self._cutting.uncut(*rows.shape[:2])
            parts = [part for part, _ in self._stream(whole, source, small, lambda _: None)]
            if not tiled:
                on_tile(plan.count)
            return np.concatenate(parts)

        def restore(read: ReadRows) -> Iterator[np.ndarray]:
            for rows, _ in self._stream(picture, read, plan, on_tile):
                yield rows

        for rows in joined(read, width, height, factor, restore_small, restore, tiled=tiled):
            yield rows, height

    def _lanes(self, picture: Picture, plan: TilePlan) -> int:
        """How many tiles are restored at once: as many as the engine can and memory allows."""
        affordable = self._cutting.sizes.at_once // (plan.rows.size * plan.columns.size)
        return min(lanes_of(picture.engine), plan.count, affordable) if picture.large else 1

    def plan(self, height: int, width: int) -> TilePlan:
        """How a picture of this size is cut at present."""
        return self._cutting.plan(height, width)
