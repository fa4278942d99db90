"""What every engine offers, and what the choice among them is made from."""

from typing import Literal, Protocol, runtime_checkable

import numpy as np

from urushi.files.model import ModelHeader

__all__ = ["Engine", "Precision", "working_memory"]

Precision = Literal["float32", "bf16", "int8"]

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
# For a backbone whose configuration names no width: that of a network of width 64.
_DEFAULT_WIDTH = 64


@runtime_checkable
class Engine(Protocol):
    """Executes one network on batches of tiles.

    Attributes:
        name: `torch` or `openvino`.
        device: `cpu`, `cuda:0`, `xpu:0` or `mps`.
        precision: `float32`; `bf16` for bfloat16 arithmetic inside the network; `int8` for 8-bit
            convolutions.
        size_multiple: height and width of a batch must be multiples of this.
        bytes_per_pixel: approximate peak working memory per input pixel, in bytes; the tile size
            is chosen by it.
    """

    name: str
    device: str
    precision: Precision
    size_multiple: int
    bytes_per_pixel: float

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Restore a batch.

        Args:
            batch: `(B, 3, H, W)` float32 in `[0, 1]`, H and W multiples of `size_multiple`.

        Returns:
            `(B, 3, H, W)` float32, not clipped; an array of its own.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            EngineError: the engine failed otherwise.
        """
        ...

    def in_float32(self) -> "Engine":
        """Return an engine for the same network in plain float32; itself if it is one."""
        ...


def working_memory(header: ModelHeader, engine: str, precision: Precision) -> float:
    """Return the approximate peak working memory per input pixel, in bytes.

    In a U-shaped network the peak is at full resolution, where a handful of feature maps of
    `width` channels are alive at once; so it is proportional to `width`.
    """
    width = header.config.get("width")
    channels = width if isinstance(width, int) else _DEFAULT_WIDTH
    return channels * _BYTES_PER_WIDTH[engine, precision]
