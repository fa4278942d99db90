"""How much memory restoring a picture will take, told before anything is done.

The rule: what the interpreter and its libraries take (`RUNTIME`), what the engine works with for
the pixels of one tile (`SHARE_OF_WORKING` of `urushi.inference.engines.base.working_memory`), and
the rows of one line of tiles, which are held as wide as the picture (`BYTES_PER_PIXEL_OF_ROWS`).
Height does not matter beyond that. `benchmarks/memory.py` compares it with what processes took.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Unpack, cast

import numpy as np

from urushi.errors import EngineError, UrushiError
from urushi.files.adapter import read_adapter_header
from urushi.files.all_in_one_file import beside
from urushi.files.model import ModelHeader, graph_path, read_header
from urushi.files.router_file import read_router_header
from urushi.image import inspect_picture
from urushi.inference.engines.base import Engine, Precision, lanes_on, working_memory
from urushi.inference.hardware import choose_device, is_installed
from urushi.inference.overview import reduction
from urushi.inference.restorer import EngineOptions
from urushi.inference.tile_sizes import (
    LOCAL,
    WORTH_COMPILING,
    check_options,
    choose_tiles,
    overlap_of,
    too_small,
)
from urushi.inference.tiling import plan_tiles
from urushi.inference.zoo import ZOO

__all__ = [
    "BYTES_PER_PIXEL_OF_ROWS",
    "RUNTIME",
    "SHARE_OF_WORKING",
    "Memory",
    "Restoring",
    "estimate_memory",
    "members_of",
    "multiple_of",
    "size_of",
]

RUNTIME = {"openvino": 290_000_000, "torch": 380_000_000}
"""Bytes of a process that is ready: Python, libraries, router and network, and what compiling
them leaves behind."""

BYTES_PER_PIXEL_OF_ROWS = 60
"""Of a line of tiles as wide as the picture, read, summed up, finished and written: some five
pictures in float32."""

SHARE_OF_WORKING = 0.7
"""Of `working_memory`, by which tiles are chosen such that even the largest fits: what processes
took."""

SHARE_OF_FURTHER = 0.75
"""Of what one tile takes, for each that is restored at the same time."""

# Both sides of a tile are multiples of what a network asks for; where its header does not say it,
# of the least that any does, so that no tile is refused that the network takes.
_LEAST_MULTIPLE = 8
_MOST_LEVELS = 12


class Memory(NamedTuple):
    """Bytes at the peak, the runtime included.

    Attributes:
        usual: with what most pictures get.
        most: with what takes the largest tiles of what may be chosen; `usual` where it is known.
    """

    usual: int
    most: int


@dataclass(frozen=True)
class Restoring:
    """What restores, as far as memory is concerned.

    Attributes:
        header: of the base.
        engine, precision, tile, overlap: as `Restorer` takes them, the engine decided.
        wide: whether what acts takes large tiles; None where that is decided by the picture.
        stages: how many may act one after the other; the usual number first.
    """

    header: ModelHeader
    engine: str = "openvino"
    precision: Precision = "float32"
    tile: int | None = None
    overlap: int = 16
    wide: bool | None = False
    stages: tuple[int, ...] = (1,)

    @classmethod
    def of_files(
        cls,
        model: Path,
        degradations: Iterable[Sequence[str]] = (),
        *,
        chosen: bool = False,
        stages: tuple[int, ...] = (1,),
        **options: Unpack[EngineOptions],
    ) -> "Restoring | None":
        """What restores with the files of a model and of adapters, whose tensors are not read.

        Args:
            model: of the base.
            degradations: what each of the adapters was trained to mend.
            chosen: whether one of the adapters is chosen by what is on a picture, or none.
            stages: see `Restoring`.
            options: as `Restorer` takes them.

        Returns:
            None where an accelerator would restore, whose memory is another.

        Raises:
            UrushiError: a file or an option cannot be used.
        """
        header, device = read_header(model), options.get("device", "auto")
        engine, tile = options.get("engine", "auto"), options.get("tile")
        overlap = overlap_of(tile, options.get("overlap"))
        check_options(tile, overlap, options.get("memory_limit"))
        if tile is not None and tile < multiple_of(header):
            raise EngineError(too_small(tile, multiple_of(header)), usage=True)
        precision = cast(Precision, options.get("precision", "float32"))
        graph = graph_path(model).is_file() and is_installed("openvino")
        if choose_device("cpu" if engine == "openvino" else device) != "cpu":
            return None
        if engine == "auto":
            engine = "openvino" if graph else "torch"
        if precision == "bf16" and engine == "openvino":
            precision = "float32"  # which takes more, and is what a processor without it takes
        widely = [not LOCAL.issuperset(named or [""]) for named in degradations]
        wide = any(widely)
        undecided = None if chosen and wide else wide
        made = cls(header, engine, precision, tile, overlap, undecided, stages)
        for large in {False, wide}:
            choose_tiles(_Told(made), tile, overlap, options.get("memory_limit"), wide=large)
        return made


def estimate_memory(restoring: Restoring, width: int, height: int) -> Memory:
    """Estimate the peak of a process that restores a picture.

    Args:
        restoring: what restores.
        width, height: of the picture, in pixels.

    Raises:
        EngineError: the tile does not fit the network.
    """
    both = [False, True] if restoring.wide is None else [restoring.wide]
    found = [
        _peak(restoring, width, height, wide, stages)
        for stages in restoring.stages
        for wide in both
    ]
    return Memory(found[0], max(found))


def _peak(restoring: Restoring, width: int, height: int, wide: bool, stages: int) -> int:
    engine = _Told(restoring)
    own = (restoring.tile, restoring.overlap, None)
    tile, overlap, _, whole, at_once = choose_tiles(engine, *own, wide=wide)
    multiple = engine.size_multiple
    sides = [-(-side // multiple) * multiple for side in (height, width)]
    if sides[0] * sides[1] <= whole:
        tile = max(*sides, tile)
    overlap = min(overlap, tile // 2)
    plan = plan_tiles(height, width, tile=tile, overlap=overlap, multiple=multiple)
    tile_pixels = plan.rows.size * plan.columns.size
    if wide:  # the small version that leads the tiles, or all of a small picture, is one
        factor = reduction(width, height, max(at_once, 1))
        tile_pixels = max(tile_pixels, -(-width // factor) * -(-height // factor))
    tiles = 1.0
    if restoring.engine == "openvino" and plan.count > 1 and width * height >= WORTH_COMPILING:
        lanes = min(lanes_on(os.cpu_count() or 1), at_once // tile_pixels, plan.count)
        tiles += SHARE_OF_FURTHER * max(lanes - 1, 0)
    of_tile = tiles * tile_pixels * engine.bytes_per_pixel * SHARE_OF_WORKING
    of_rows = stages * plan.rows.size * width * BYTES_PER_PIXEL_OF_ROWS
    if plan.count > 1:
        of_tile *= stages  # where a picture is one tile, the first is done before the next begins
    return int(RUNTIME[restoring.engine] + of_tile + of_rows)


class _Told:
    """An engine as tiles are chosen by it; it runs nothing."""

    def __init__(self, restoring: Restoring) -> None:
        self.name, self.device = restoring.engine, "cpu"
        self.precision: Precision = restoring.precision
        self.size_multiple, self.scale = multiple_of(restoring.header), 1
        self.fixed_patch: int | None = None
        self.bytes_per_pixel = working_memory(restoring.header, self.name, self.precision)

    def run(self, batch: np.ndarray) -> np.ndarray:
        raise EngineError(f"{self.name} only describes an engine and runs nothing")

    def in_float32(self) -> Engine:
        return self


def multiple_of(header: ModelHeader) -> int:
    """What both sides of a tile of this network are multiples of, in pixels, from its header."""
    levels = header.config.get("enc_blk_nums")
    if header.backbone == "nafnet" and isinstance(levels, list) and len(levels) <= _MOST_LEVELS:
        return 2 ** len(levels)
    return _LEAST_MULTIPLE


def members_of(router: Path) -> tuple[Path, dict[str, list[str]], tuple[int, ...]]:
    """The base of an all-in-one file, what each of its experts mends, by class, and how many of
    them may act one after the other where it chooses; from headers.

    Raises:
        UrushiError: a file cannot be used.
    """
    header = read_router_header(router)
    named = "" if header.base is None else f"{header.base.name}.safetensors"
    near = router.parent / Path(named).name
    mends = {
        name: read_adapter_header(beside(router, member.file)).degradations
        for name, member in header.experts.items()
    }
    base = near if near.is_file() else ZOO / Path(named).name
    return base, mends, (1,) if header.again is None else (1, 2)


def size_of(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture; None where its file says nothing of that."""
    try:
        info = inspect_picture(path)
    except UrushiError:
        return None
    return info.width, info.height
