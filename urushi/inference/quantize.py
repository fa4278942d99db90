"""Makes the int8 file of a model: post-training quantisation with NNCF.

NNCF measures, on crops of pictures, the range of what every convolution reads, and corrects the
biases for what rounding shifts. Only these numbers are kept; see `urushi.files.int8_file`.
"""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import JsonValue

from urushi.errors import EngineError, MissingExtraError
from urushi.files.int8_file import LayerRanges, int8_path, new_header, write_int8
from urushi.files.model import LoadedModel, read_model
from urushi.inference.calibration import Crops, calibration_crops
from urushi.inference.devices import is_installed
from urushi.inference.engines.base import Engine
from urushi.inference.engines.int8 import (
    ACTIVATION_LEVELS,
    WEIGHT_LEVELS,
    bias_of,
    convolutions,
    fold_constants,
)
from urushi.inference.engines.openvino_engine import (
    OpenVINOEngine,
    import_openvino,
    openvino_core,
    read_graph,
)

if TYPE_CHECKING:
    import openvino

__all__ = ["Int8Export", "export_int8"]

_CROP_SIDE = 128


class Int8Export(NamedTuple):
    """What `export_int8` made.

    Attributes:
        path: `NAME.int8`.
        layers: number of convolutions that are calculated in 8 bits.
        psnr_float32: of the degraded crops restored in float32, to the clean ones, in dB.
        psnr_int8: the same in int8.
        worst: the most that one of them loses, in dB.
    """

    path: Path
    layers: int
    psnr_float32: float
    psnr_int8: float
    worst: float


def export_int8(
    model_path: Path, clean: Path, *, crops: int = 64, side: int = _CROP_SIDE, seed: int = 0
) -> Int8Export:
    """Write the int8 file `NAME.int8` beside a model; one that is there is replaced.

    The graph is exported first where there is none.

    Args:
        model_path: `NAME.safetensors`.
        clean: a folder of good pictures; half of the crops are degraded.
        crops: number of crops, at least 2.
        side: of a crop in pixels; made a multiple of what the network needs.
        seed: of everything random.

    Raises:
        MissingExtraError: NNCF, or what the graph's export needs, is not installed.
        DataError: the folder has no picture that is large enough.
        FileFormatError: the model or its graph is not sound, or the target cannot be written.
        EngineError: the network has no convolutions that could be calculated in 8 bits.
    """
    if crops < 2 or side < 1:
        raise EngineError(f"{crops} crops of {side} pixels: expected at least 2 of at least 1")
    for package in ("nncf", "openvino", "torch"):
        if not is_installed(package):
            raise MissingExtraError(f"{package}, which making int8 needs,", "quantize")
    model = read_model(model_path)
    if model.graph is None:
        from urushi.inference.export import export_graph

        export_graph(model.path)
        model = read_model(model_path)
    exact = OpenVINOEngine(model)
    if exact.scale != 1:
        raise EngineError(
            f"{model.path} enlarges {exact.scale} times, and int8 is for networks that keep the "
            "size: use float32 or bf16"
        )
    side = -(-side // exact.size_multiple) * exact.size_multiple
    examples = calibration_crops(clean, count=crops, side=side, seed=seed)
    nncf = _import_nncf()
    layers = _measured(nncf, model, examples.inputs)
    facts: dict[str, JsonValue] = {
        "crops": crops, "side": side, "pictures": examples.pictures, "seed": seed,
    }  # fmt: skip
    header = new_header(model, facts, f"nncf {nncf.__version__}")
    # Tried under another name first, so that a good file is replaced by a good one only.
    target = int8_path(model.path)
    trial = replace(model, path=target.with_name(f".{target.stem}.{os.getpid()}.part.safetensors"))
    try:
        write_int8(int8_path(trial.path), layers, header)
        scores = [_psnr(e, examples) for e in (exact, OpenVINOEngine(trial, precision="int8"))]
    finally:
        int8_path(trial.path).unlink(missing_ok=True)
    float32, int8 = (round(float(found.mean()), 3) for found in scores)
    worst = round(float((scores[0] - scores[1]).max()), 3)
    facts |= {"psnr_float32": float32, "psnr_int8": int8, "worst": worst}
    write_int8(target, layers, header.model_copy(update={"calibration": facts}))
    return Int8Export(target, len(layers), float32, int8, worst)


def _measured(nncf: Any, model: LoadedModel, inputs: np.ndarray) -> dict[str, LayerRanges]:
    """Let NNCF quantise the network, and read the ranges it chose off the result."""
    graph, _ = read_graph(openvino_core(), model)
    fold_constants(graph)
    chosen = convolutions(graph)
    if not chosen:
        raise EngineError(
            f"{model.path}: a {model.header.backbone} has no convolutions between feature maps, "
            "which int8 is for: use float32 or bf16"
        )
    data = nncf.Dataset([image[None] for image in inputs])
    with _quiet(nncf):
        quantised = nncf.quantize(
            graph,
            data,
            subset_size=len(inputs),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=_kept_exact(nncf, graph, chosen),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # Half the codes of the weights stay unused. CPUs older than VNNI add two products
                # in 16 bits, which otherwise overflow, and would restore visibly worse.
                overflow_fix=nncf.OverflowFix.ENABLE,
                # Keeps the ranges of weights in the graph, instead of weights of 8 bits.
                backend_params={"compress_weights": False},
            ),
        )
    return {name: _ranges(node) for name, node in convolutions(quantised).items()}


def _kept_exact(nncf: Any, graph: "openvino.Model", chosen: Mapping[str, Any]) -> Any:
    """Everything but the chosen convolutions, as NNCF wants to be told."""
    names = {node.get_friendly_name() for node in chosen.values()}
    others = [n for n in graph.get_ordered_ops() if n.get_friendly_name() not in names]
    kinds = {n.get_type_name() for n in others} - {"Constant", "Parameter", "Result"}
    exact = [n.get_friendly_name() for n in others if n.get_type_name() == "Convolution"]
    return nncf.IgnoredScope(names=exact, types=sorted(kinds - {"Convolution"}), validate=False)


def _ranges(convolution: Any) -> LayerRanges:
    activation = _bounds(convolution.input_value(0).get_node(), ACTIVATION_LEVELS)
    weight = _bounds(convolution.input_value(1).get_node(), WEIGHT_LEVELS)
    channels = convolution.input_value(1).get_shape()[0]
    bias = bias_of(convolution)
    return LayerRanges(
        activation.reshape(2),
        np.broadcast_to(weight.reshape(2, -1), (2, channels)),
        None if bias is None else np.asarray(bias.data, np.float32).reshape(-1),
    )


def _bounds(node: Any, levels: int) -> np.ndarray:
    """Lowest and highest value of a `FakeQuantize` that gives values of its input's range."""
    assert node.get_type_name() == "FakeQuantize", node
    assert node.get_attributes()["levels"] == levels
    low, high, low_out, high_out = (
        np.asarray(node.input_value(i).get_node().data, np.float32) for i in range(1, 5)
    )
    assert np.array_equal(low, low_out)
    assert np.array_equal(high, high_out)
    return np.stack([low, high])


def _psnr(engine: Engine, crops: Crops) -> np.ndarray:
    """For each of the degraded crops the PSNR to the clean one, rounded to 8 bits, in dB."""
    half = len(crops.inputs) // 2
    scores = []
    for clean, worse in zip(crops.clean[half:], crops.inputs[half:], strict=True):
        restored = np.rint(np.clip(engine.run(worse[None])[0], 0, 1) * 255) / 255
        error = float(np.square(restored - clean, dtype=np.float64).mean())
        scores.append(-10 * np.log10(max(error, 1e-10)))
    return np.array(scores)


def _import_nncf() -> Any:
    """Import NNCF such that it cannot report to anyone; see `import_openvino`."""
    import_openvino()
    if "nncf" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]
    import nncf

    return nncf


@contextlib.contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Silence NNCF's bars, which it draws on stdout, and its notes."""
    logger = logging.getLogger("nncf")
    level = logger.level
    nncf.set_log_level(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        nncf.set_log_level(level)
