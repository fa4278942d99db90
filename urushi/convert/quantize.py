"""Makes the int8 file of a model: post-training quantisation with NNCF.

NNCF measures, on crops of pictures, the range of what every convolution reads, and corrects the
biases for what rounding shifts. Only these numbers are kept; see `urushi.files.int8_file`.
"""

import contextlib
import inspect
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
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from pydantic import JsonValue

from urushi.data.pack import read_8bit
from urushi.data.pairs import find_pictures
from urushi.errors import DataError, EngineError, MissingExtraError, PictureError
from urushi.files.int8_file import LayerRanges, int8_path, new_header, write_int8
from urushi.files.model import LoadedModel, read_model
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
from urushi.inference.hardware import is_installed
from urushi.names import counted

__all__ = [
    "Crops",
    "Int8Export",
    "calibration_crops",
    "export_int8",
]

if TYPE_CHECKING:
    from urushi.degradations import Degradation


# What bad pictures suffer from most. A network's feature maps are largest on bad pictures: ranges
# from clean ones alone cut them off; docs/log.md has the numbers.
_COMMON = {
    "name": "chain",
    "order": "random",
    "count": [1, 2],
    "steps": [
        {"name": "gaussian_noise", "sigma_255": [0, 50], "weight": 2},
        {"name": "jpeg", "quality": [10, 90]},
    ],
}
# Of so many crops one is a page.
_PAGES = 8
_WORDS = "Sphinx of black quartz judge my vow 0123456789 (12.5 %) Lacquer & gold = 380 EUR"


class Crops(NamedTuple):
    """Inputs for a network and what should come out.

    Attributes:
        clean: `(N, 3, side, side)` float32 in [0, 1]; one of eight is a page of text and lines.
        inputs: the same; the first half as they are, the second half degraded: one by noise and
            JPEG, the next by a degradation of the table, each in its turn.
        pictures: number of pictures they were cut from.
    """

    clean: Float[np.ndarray, "n 3 side side"]
    inputs: Float[np.ndarray, "n 3 side side"]
    pictures: int


def calibration_crops(folder: Path, *, count: int, side: int, seed: int) -> Crops:
    """Cut crops at random out of the pictures of a folder, as evenly as their number allows.

    Args:
        folder: clean pictures, at any depth; unreadable and too small ones are passed over.
        count: number of crops, at least 2.
        side: of a crop, in pixels.
        seed: of everything random; the same gives the same crops.

    Raises:
        DataError: there is no such folder, or no picture in it is large enough.
    """
    paths = find_pictures(folder)
    rng = np.random.default_rng(seed)
    crops: list[np.ndarray] = []
    used = 0
    for path in (paths[i] for i in rng.permutation(len(paths))):
        if used == count:
            break
        pixels = _read(path)
        if pixels is None or min(pixels.shape[:2]) < side:
            continue
        used += 1
        # As many of each as are needed if all those to come are large enough, too.
        share = -(-count // min(count, len(paths)))
        crops += [_cut(pixels, side, rng) for _ in range(share)]
    if not crops:
        raise DataError(
            f"no picture in {folder} has at least {side} x {side} pixels: name a folder of clean "
            "pictures"
        )
    # Where pictures were passed over there may be too few: then some serve twice.
    chosen = np.stack([crops[i % len(crops)] for i in range(count)])
    for index in range(_PAGES // 2, count, _PAGES):
        chosen[index] = _page(side, rng)
    clean = chosen.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    half = count // 2
    return Crops(clean, np.concatenate([clean[:half], _degraded(clean[half:], seed)]), used)


def _read(path: Path) -> np.ndarray | None:
    try:
        return read_8bit(path)
    except PictureError:
        return None


def _cut(pixels: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    top, left = (int(rng.integers(length - side + 1)) for length in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def _page(side: int, rng: np.random.Generator) -> np.ndarray:
    """A page with text, rules and a chart, dark on light or light on dark, `(side, side, 3)`."""
    paper, ink = (int(v) for v in rng.integers([200, 0], [256, 60]))
    if rng.random() < 0.25:
        paper, ink = ink, paper
    page = Image.new("RGB", (side, side), (paper,) * 3)
    draw = ImageDraw.Draw(page)
    top = int(rng.integers(-8, 4))
    while top < side:
        size = int(rng.choice((9, 11, 14, 22)))
        start, colour = int(rng.integers(len(_WORDS) // 2)), (ink,) * 3
        if rng.random() < 0.2:
            colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        if rng.random() < 0.15:
            for offset in range(0, size, 2 * int(rng.integers(1, 4))):
                draw.line((0, top + offset, side, top + offset), fill=colour)
        else:
            font = ImageFont.load_default(size)
            draw.text((int(rng.integers(-9, 9)), top), _WORDS[start:], fill=colour, font=font)
        top += int(size * 1.3)
    return np.asarray(page)


def _can_restore(degradation: type) -> bool:
    """Whether it can bring what it made smaller back to its size."""
    return "restore_size" in inspect.signature(degradation).parameters


def _degraded(images: np.ndarray, seed: int) -> np.ndarray:
    """`(N, 3, h, w)` -> the same made worse, rounded to 8 bits."""
    from urushi.degradations import DEGRADATIONS, create_degradation

    common, worse = create_degradation(**_COMMON), []
    rare = [
        create_degradation(name, **({"restore_size": True} if _can_restore(entry) else {}))
        for name, entry in DEGRADATIONS.items()
    ]
    # Without those that make pictures smaller, which is another network's task.
    rare = [one for one in rare if _apply(one, images[0], seed).shape == images[0].shape]
    for index, image in enumerate(images):
        degradation = rare[index // 2 % len(rare)] if index % 2 else common
        # Each with a seed of its own, so that a crop does not depend on how many there are.
        worse.append(_apply(degradation, image, seed * 100_003 + index))
    return np.rint(np.stack(worse) * 255).astype(np.float32) / np.float32(255)


def _apply(degradation: "Degradation", image: np.ndarray, seed: int) -> np.ndarray:
    import torch

    parameters = degradation.sample((1, *image.shape), torch.Generator().manual_seed(seed))
    return degradation.apply(torch.from_numpy(image[None]), parameters).clamp(0, 1).numpy()[0]


if TYPE_CHECKING:
    import openvino


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
        raise EngineError(
            f"{counted(crops, 'crop')} of {side} pixels: expected at least 2 of at least 1",
            usage=True,
        )
    for package in ("nncf", "openvino", "torch"):
        if not is_installed(package):
            raise MissingExtraError(f"{package}, which making int8 needs,", "quantize")
    model = read_model(model_path)
    if model.graph is None:
        from urushi.convert.graphs import export_graph

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
