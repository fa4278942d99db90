"""What every engine offers, and what the choice among them is made from."""

import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from urushi.errors import EngineError
from urushi.files.model import LoadedModel, ModelHeader

__all__ = [
    "SMALLEST_TILE",
    "Engine",
    "Precision",
    "lanes_on",
    "picture_channels",
    "runs_when_small",
    "smallest_side",
    "working_memory",
]

Precision = Literal["float32", "bf16", "int8"]

# No tile is made smaller for want of memory, in pixels.
SMALLEST_TILE = 64

# Peak working memory in bytes per input pixel and per channel of width: growth of the resident
# set on NAFNets of width 16 and 32 with a tile of 640 pixels, the larger of both (see
# `working_memory`).
_BYTES_PER_WIDTH = {
    ("torch", "float32"): 74.0,
    ("torch", "bf16"): 52.0,
    ("openvino", "float32"): 32.0,
    ("openvino", "bf16"): 22.0,
    ("openvino", "int8"): 31.0,  # where the rest is float32; 22 where it is bf16
}
# By backbone, the entry of its configuration that its memory is proportional to, and how much more
# each channel of that costs than one of a NAFNet: from networks of the released widths with tiles
# of 144 to 288 pixels, in torch. Attention in windows is what costs.
_WIDTHS = {
    "nafnet": ("width", 1.0),
    "restormer": ("dim", 2.6),
    "swinir": ("embed_dim", 1.5),
    "edt": ("embed_dim", 1.5),
    "ipt": ("n_feats", 2.3),
}
# An EDT that keeps the size works at a fraction of it, and its memory is that of its ends.
_EDT_ENDS = ("num_feat", 1.4)
# The default width where a configuration names none.
_DEFAULT_WIDTHS = {"dim": 48, "embed_dim": 180, "n_feats": 64, "num_feat": 32}
_UNKNOWN_WIDTH = 64
_LARGEST_WIDTH = 1 << 16
_CHANNELS = ("img_channel", "inp_channels", "in_chans")


@runtime_checkable
class Engine(Protocol):
    """Executes one network on batches of tiles.

    Attributes:
        name: `torch` or `openvino`.
        device: `cpu`, `cuda:0`, `xpu:0` or `mps`.
        precision: `float32`; `bf16` for bfloat16 arithmetic inside the network; `int8` for 8-bit
            convolutions.
        size_multiple: height and width of a batch must be multiples of this.
        scale: sides of the result divided by those of the batch; 1 but for super-resolution.
        fixed_patch: side in pixels of the only tiles that make sense, or None.
        bytes_per_pixel: approximate peak working memory per input pixel, in bytes; the tile size
            is chosen by it.
    """

    name: str
    device: str
    precision: Precision
    size_multiple: int
    scale: int
    fixed_patch: int | None
    bytes_per_pixel: float

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Restore a batch.

        Args:
            batch: `(B, 3, H, W)` float32 in `[0, 1]`, H and W multiples of `size_multiple`.

        Returns:
            `(B, 3, scale H, scale W)` float32, not clipped; an array of its own.

        Several threads may call this, and are served one after the other.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            EngineError: the engine failed otherwise, or the process was forked after its first use.
        """
        ...

    def in_float32(self) -> "Engine":
        """Return an engine for the same network in plain float32; itself if it is one."""
        ...


def working_memory(header: ModelHeader, engine: str, precision: Precision) -> float:
    """Return the approximate peak working memory per input pixel, in bytes.

    The peak is at full resolution, where a handful of feature maps of so many channels as the
    configuration says are alive at once; so it is proportional to their number.
    """
    key, cost = _WIDTHS.get(header.backbone, ("width", 1.0))
    if header.backbone == "edt" and not _enlarges(header) and header.config.get("downsample", True):
        key, cost = _EDT_ENDS
    width = header.config.get(key)
    channels = _DEFAULT_WIDTHS.get(key, _UNKNOWN_WIDTH)
    if isinstance(width, int) and 0 < width <= _LARGEST_WIDTH:
        channels = width
    return channels * cost * _BYTES_PER_WIDTH[engine, precision]


def lanes_on(threads: int) -> int:
    """Return how many batches at once keep so many threads of a CPU busy.

    A few, because each needs memory of its own, and all with as many threads.
    """
    return next((count for count in (2, 3) if threads % count == 0), 1)


def smallest_side(engine: Engine) -> int:
    """Return the side of the smallest tile that memory is asked for, in pixels."""
    multiple = engine.size_multiple
    return engine.fixed_patch or math.ceil(SMALLEST_TILE / multiple) * multiple


def runs_when_small(engine: Engine, batch: np.ndarray, run: Callable[[np.ndarray], object]) -> bool:
    """Tell whether an engine that failed on a batch runs a small one: then the size was too much.

    Libraries have many words for memory that runs out, some of which do not mention it: "No
    suitable implementations found" is what OpenVINO says on some processors.

    Args:
        engine: that failed.
        batch: what it failed on.
        run: runs a batch, and raises whatever the library does.
    """
    side = smallest_side(engine)
    if batch.shape[0] * batch.shape[2] * batch.shape[3] <= side * side:
        return False
    try:
        run(np.zeros((1, batch.shape[1], side, side), np.float32))
    except (RuntimeError, MemoryError):
        return False
    return True


def _enlarges(header: ModelHeader) -> bool:
    """Whether the head of an EDT that is in use is one for super-resolution."""
    heads = header.config.get("heads")
    first = heads[0] if isinstance(heads, list) and heads else "sr_x2"
    return str(header.config.get("head") or first).startswith("sr_")


def picture_channels(model: LoadedModel) -> int:
    """Return what a network takes: 3 for colour, or 1 for grey, which is given each colour alone.

    Raises:
        EngineError: it takes something else, such as both pictures of a dual-pixel sensor.
    """
    config = model.header.config
    channels = next((config[key] for key in _CHANNELS if key in config), 3)
    if channels in (1, 3):
        return int(channels)
    raise EngineError(
        f"{model.path}: this network takes pictures of {channels!r:.40} channels, and those that "
        "are restored have 3: use a network for plain pictures"
    )
