"""Metrics beside PSNR and SSIM: SSIMULACRA2, FLIP, PIQE, and the share of fine detail kept.

`METRICS` is the table. All of them take whole pictures, RGB `(H, W, 3)` in [0, 1], clipped;
protocols and their borders do not matter to them. Two are packages of the extra `metrics`; `piqe`,
written from its paper, and `detail`, which is ours, need nothing.

Sources: Sneyers et al., SSIMULACRA 2, github.com/cloudinary/ssimulacra2 (package `ssimulacra2`);
Andersson et al., "FLIP: A Difference Evaluator for Alternating Images", HPG 2020 (package
`flip-evaluator`, of the authors); of PIQE see `urushi.evaluation.piqe`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from urushi.errors import DataError, MissingExtraError, nearest
from urushi.evaluation.metrics import filtered
from urushi.evaluation.piqe import BLOCK, piqe_of_luma

__all__ = [
    "METRICS",
    "Metric",
    "detail_kept",
    "flip",
    "measure",
    "named_metrics",
    "piqe",
    "ssimulacra2",
]

Picture = Float[np.ndarray, "_ _ 3"]

_GREY = np.array([0.299, 0.587, 0.114])
# Blocks of the measure of detail, in pixels; a reference whose detail has less than the error of
# rounding to 8 bits in its root of the mean square has none.
_BLOCK, _LEAST_DETAIL = 8, 0.5 / 255


@dataclass(frozen=True)
class Metric:
    """A metric by which `urushi evaluate` can score pictures.

    Args:
        title: what it tells, for people.
        better: which values are better.
        best: value of a picture equal to its reference; None without a reference.
        least: pixels that both sides must have.
        score: called with a picture and its reference; None where the metric has no value.
        package: module that it needs, of the extra `metrics`; empty for none.
    """

    title: str
    better: Literal["higher", "lower"]
    best: float | None
    least: int
    score: Callable[[Picture, Picture], float | None]
    package: str = ""


def ssimulacra2(picture: Picture, reference: Picture) -> float:
    """SSIMULACRA2: how visible the differences are, mostly those of compression.

    Both are rounded to 8 bits, which the package reads. Its authors call 90 hard to tell from the
    reference at a glance, 70 high, 50 medium and 30 low quality; below 0 it is worse than that.

    Args:
        picture: RGB in [0, 1]; values outside are clipped.
        reference: the picture it should equal, same size.

    Returns:
        At most 100, which is a picture equal to its reference; without a lower limit.

    Raises:
        DataError: the sizes differ, a side has fewer than 8 pixels, or a value is not finite.
        MissingExtraError: the package is not installed.
    """
    _check("ssimulacra2", picture, reference)
    compute = _package("ssimulacra2", "ssimulacra2").compute_ssimulacra2
    return float(compute(_png(reference), _png(picture)))


def flip(picture: Picture, reference: Picture) -> float:
    """FLIP: how much differs when one picture is put in place of the other, the mean of its map.

    For displays of usual range ("LDR") from where a degree of sight has 67 pixels, as the authors
    have it: 0.7 m from a screen of 0.7 m and 3840 pixels.

    Returns:
        0 to 1; 0 is a picture equal to its reference.

    Raises:
        DataError, MissingExtraError: as `ssimulacra2`; any size will do.
    """
    _check("flip", picture, reference)
    evaluate = _package("flip_evaluator", "flip").evaluate
    both = [np.ascontiguousarray(np.clip(p, 0.0, 1.0), np.float32) for p in (reference, picture)]
    _, mean, _ = evaluate(*both, "LDR", applyMagma=False)
    return float(mean)


def piqe(picture: Picture) -> float:
    """PIQE: how much noise and blockiness is where there is structure, without a reference.

    Of luma in 8 bits, in blocks of 16 pixels; a picture without any structure has 100 by the
    definition. Below 20 is called excellent, 20 to 40 good, to 60 fair, to 80 poor.

    Returns:
        0 to 100; lower is better.

    Raises:
        DataError: a side has fewer than 16 pixels, or a value is not finite.
    """
    _check("piqe", picture, picture)
    return piqe_of_luma(np.rint(np.clip(picture.astype(np.float64), 0.0, 1.0) @ _GREY * 255))


def detail_kept(picture: Picture, reference: Picture) -> float | None:
    """The share of a clean picture's fine detail that is still there; the definition is ours.

    Fine detail h is luma less its Gaussian blur of sigma 1.5 pixels. In each block of 8x8 pixels
    the product of both pictures' detail says how much of the reference's is there, from nothing
    (0) to all of it: `sum min(max(<h, h_ref>, 0), <h_ref, h_ref>) / sum <h_ref, h_ref>`, summed
    over the blocks. Smoothing lowers it, as does detail at another place; sharpening and noise do
    not raise it above 1. On clean pictures that went through a restorer it tells how much the
    restorer took away; where the reference is noisy, its noise counts as detail.

    Returns:
        0 to 1; 1 is a picture equal to its reference. None where the reference has no fine detail.

    Raises:
        DataError: as `ssimulacra2`.
    """
    _check("detail", picture, reference)
    own, wanted = _fine(picture), _fine(reference)
    there = _block_sums(wanted * wanted)
    if there.sum() < wanted.size * _LEAST_DETAIL**2:
        return None
    kept = np.clip(_block_sums(own * wanted), 0.0, there)
    return float(kept.sum() / there.sum())


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "ssimulacra2": Metric(
            "visible differences", "higher", 100.0, 8, ssimulacra2, "ssimulacra2"
        ),
        "flip": Metric(
            "differences when flipping between both", "lower", 0.0, 1, flip, "flip_evaluator"
        ),
        "piqe": Metric(
            "noise and blockiness, without a reference",
            "lower",
            None,
            BLOCK,
            lambda picture, _: piqe(picture),
        ),
        "detail": Metric("share of fine detail kept", "higher", 1.0, _BLOCK, detail_kept),
    }
)


def named_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """The metrics of those names, each once, with what they need at hand.

    Raises:
        DataError: there is no such metric.
        MissingExtraError: its package is not installed.
    """
    found: dict[str, Metric] = {}
    for name in names:
        if name not in METRICS:
            hint = nearest(name, METRICS)
            raise DataError(
                f"there is no metric {name!r}{hint}: known are {', '.join(METRICS)}", usage=True
            )
        metric = METRICS[name]
        if metric.package:
            _package(metric.package, name)
        found[name] = metric
    return found


def measure(
    metrics: Mapping[str, Metric], picture: Picture, reference: Picture, name: str = ""
) -> dict[str, float]:
    """The values of a picture by the names of metrics; one without a value is left out.

    Args:
        metrics: as `named_metrics` gives them.
        picture: RGB in [0, 1]; values outside are clipped.
        reference: the picture it should equal, same size.
        name: of the picture, for messages.

    Raises:
        DataError: a metric does not take the picture.
    """
    found: dict[str, float] = {}
    for key, metric in metrics.items():
        try:
            value = metric.score(picture, reference)
        except DataError as error:
            raise DataError(f"{name}: {error}" if name else str(error)) from error
        if value is not None:
            found[key] = value
    return found


def _check(name: str, picture: Picture, reference: Picture) -> None:
    if picture.shape != reference.shape:
        (h, w), (rh, rw) = picture.shape[:2], reference.shape[:2]
        raise DataError(
            f"a picture of {w}x{h} pixels cannot be compared with a reference of {rw}x{rh}: "
            "both must have the same size"
        )
    least, (height, width) = METRICS[name].least, picture.shape[:2]
    if min(height, width) < least:
        raise DataError(
            f"the metric {name} needs at least {least}x{least} pixels, and the picture has "
            f"{width}x{height}: use larger pictures, or leave {name} out"
        )
    if not (np.isfinite(picture).all() and np.isfinite(reference).all()):
        raise DataError("a picture holds values that are not finite numbers: it cannot be scored")


def _package(module: str, metric: str) -> Any:
    """The module of a package.

    Raises:
        MissingExtraError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{_DISTRIBUTIONS[module]}, which the metric {metric} needs,", "metrics"
        ) from error


_DISTRIBUTIONS = {
    "ssimulacra2": "ssimulacra2",
    "flip_evaluator": "flip-evaluator",
}


def _png(picture: Picture) -> BytesIO:
    """A picture as the package reads it, in memory; not compressed much, as it is read at once."""
    from PIL import Image

    pixels: UInt8[np.ndarray, "_ _ 3"] = np.rint(np.clip(picture, 0.0, 1.0) * 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    file.seek(0)
    return file


def _fine(picture: Picture) -> Float[np.ndarray, "_ _"]:
    luma = np.clip(picture.astype(np.float64), 0.0, 1.0) @ _GREY
    blurred = filtered(filtered(luma, 0, pad=True, even=False), 1, pad=True, even=False)
    return luma - blurred


def _block_sums(plane: Float[np.ndarray, "_ _"]) -> Float[np.ndarray, "_ _"]:
    """Sums over blocks; those at the right and the bottom may be smaller."""
    for axis in (0, 1):
        plane = np.add.reduceat(plane, np.arange(0, plane.shape[axis], _BLOCK), axis=axis)
    return plane
