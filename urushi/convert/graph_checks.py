"""What exports share: what must be installed, how a graph is checked, and what is kept quiet."""

import logging
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from urushi.errors import MissingExtraError
from urushi.inference.engines.base import Engine
from urushi.inference.hardware import is_installed

if TYPE_CHECKING:
    import onnx

    from urushi.inference.engines.torch_engine import TorchEngine

__all__ = [
    "ROUNDING",
    "TOLERANCE",
    "Agreement",
    "import_onnxruntime",
    "longest_side",
    "quiet",
    "require_exporting",
    "trim",
]

# Largest difference from torch, relative to the largest value of the result.
TOLERANCE = 1e-4
# The same for networks that amplify rounding, in multiples of what float32 is off in torch.
ROUNDING = 8
# What checking may take, in bytes.
_MEMORY = 1 << 30


def require_exporting() -> None:
    """Raise `MissingExtraError` unless the packages are there that exporting needs."""
    for package in ("torch", "onnx", "onnxscript", "openvino"):
        if not is_installed(package):
            raise MissingExtraError(f"{package}, which exporting needs,", "export")


def import_onnxruntime() -> Any:
    """Import ONNX Runtime such that it cannot report to anyone.

    From version 1.29 on it writes an identifier into the user's home when it is imported, and sends
    events to its makers, unless this variable is there before that.
    """
    if "onnxruntime" not in sys.modules:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


class Agreement:
    """Tells whether an engine's results are torch's, but for rounding.

    Args:
        reference: the network in torch, float32.
    """

    def __init__(self, reference: "TorchEngine") -> None:
        self._reference = reference
        self._rounding: float | None = None

    def holds(self, result: np.ndarray, expected: np.ndarray) -> bool:
        """Tell whether `result` is `expected`, as this network can be reproduced in float32."""
        if result.shape != expected.shape:
            return False
        error = np.abs(result - expected).max()
        if error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            return True
        if self._rounding is None:
            # Looked at only where it is needed: float64 takes twice the memory.
            side = self._reference.size_multiple
            images = np.random.default_rng(1).random((1, 3, 2 * side, 3 * side), dtype=np.float32)
            self._rounding = self._reference.rounding(images)
        return bool(error <= ROUNDING * self._rounding)


def longest_side(engine: Engine, most: int, rows: int | None = None) -> int:
    """How long a picture is at most that checks a graph: some networks cost much.

    Args:
        engine: runs the network.
        most: what is enough.
        rows: the picture's height; None is for squares.

    Returns:
        At least 3, in units of the network's `size_multiple`.
    """
    if engine.fixed_patch is not None:
        return 3
    affordable = _MEMORY / engine.bytes_per_pixel / engine.size_multiple**2
    side = math.isqrt(int(affordable)) if rows is None else int(affordable) // rows
    return max(3, min(most, side))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch's exporter says about its own insides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def trim(graph: "onnx.ModelProto") -> None:
    """Drop the notes that the exporter leaves on every node: source lines of this machine."""
    parts = [*graph.graph.node, *graph.graph.input, *graph.graph.output, graph.graph, graph]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.graph.ClearField("value_info")
