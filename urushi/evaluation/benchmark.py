"""Measuring a restorer on a benchmark.

What is measured is the object that users run, through its ``restore``: tiles, engine and precision
included.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, computed_field

from urushi.errors import DataError
from urushi.evaluation.catalog import (
    BENCHMARKS,
    Benchmark,
    Published,
    Sample,
    clean_benchmark,
    find_benchmark,
    paired_benchmark,
)
from urushi.evaluation.metrics import Protocol as ScoreProtocol
from urushi.evaluation.metrics import mean_psnr, named_protocol, score
from urushi.evaluation.perceptual import Metric, measure, named_metrics
from urushi.image.enlarge import enlarge

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "BenchmarkResult",
    "Means",
    "PictureScore",
    "Restores",
    "Triplet",
    "clean_benchmark",
    "evaluate",
    "find_benchmark",
    "paired_benchmark",
]

Picture = Float32[np.ndarray, "_ _ 3"]


@runtime_checkable
class Restores(Protocol):
    """Anything that restores a picture, RGB float32 ``(H, W, 3)`` in [0, 1], or enlarges it."""

    def restore(self, image: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Triplet:
    """The pictures of one sample; ``restored`` is None where nothing was restored."""

    input: Picture
    restored: Picture | None
    reference: Picture

    @property
    def interpolated(self) -> Picture:
        """The input, enlarged bicubically to the reference's size where that is larger."""
        scale = len(self.reference) // len(self.input)
        return self.input if scale == 1 else enlarge(self.input, scale).clip(0.0, 1.0)


class _Document(BaseModel):
    # An infinite PSNR is written as the text "Infinity", since JSON has no such number.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", extra="ignore")


class PictureScore(_Document):
    """One picture: dB and SSIM of the input and, if something was restored, of the result.

    The size is that of the reference; a smaller input is enlarged bicubically for its score.
    ``seconds`` is the wall-clock time of ``restore``, without reading the file and scoring.
    ``metrics_input`` and ``metrics`` are further metrics of both by name; one that has no value
    for a picture is missing there.
    """

    name: str
    width: int
    height: int
    psnr_input: float
    ssim_input: float
    psnr: float | None = None
    ssim: float | None = None
    seconds: float | None = None
    metrics_input: dict[str, float] = {}
    metrics: dict[str, float] = {}


class Means(_Document):
    """Means over the pictures; see :func:`urushi.evaluation.metrics.mean_psnr` for infinite dB.

    Those of further metrics are over the pictures that have a value.
    """

    psnr_input: float
    ssim_input: float
    psnr: float | None
    ssim: float | None
    seconds: float | None
    metrics_input: dict[str, float] = {}
    metrics: dict[str, float] = {}


class BenchmarkResult(_Document):
    """The scores of one benchmark.

    Attributes:
        benchmark: its name.
        title: what it measures.
        protocol: how, the name of a protocol and its border.
        total: pictures the benchmark has; ``len(pictures)`` were measured.
        pictures: one row each, sorted by name.
        restorer: what restored, as it describes itself; empty for the inputs as they are.
        note: what to mind about the benchmark.
        published: scores of others; empty where not all pictures were measured, or by another
            protocol.
    """

    benchmark: str
    title: str
    protocol: str
    total: int
    pictures: tuple[PictureScore, ...]
    restorer: dict[str, Any] = {}
    note: str = ""
    published: tuple[Published, ...] = ()

    @computed_field
    @property
    def means(self) -> Means:
        """Means over ``pictures``."""
        rows = self.pictures
        psnr = [row.psnr for row in rows if row.psnr is not None]
        ssim = [row.ssim for row in rows if row.ssim is not None]
        seconds = [row.seconds for row in rows if row.seconds is not None]
        return Means(
            psnr_input=mean_psnr([row.psnr_input for row in rows]),
            ssim_input=float(np.mean([row.ssim_input for row in rows])),
            psnr=mean_psnr(psnr) if psnr else None,
            ssim=float(np.mean(ssim)) if ssim else None,
            seconds=float(np.mean(seconds)) if seconds else None,
            metrics_input=_means_by_name([row.metrics_input for row in rows]),
            metrics=_means_by_name([row.metrics for row in rows]),
        )

    @computed_field
    @property
    def worse(self) -> int:
        """How many pictures have a lower PSNR than their input."""
        return sum(row.psnr is not None and row.psnr < row.psnr_input for row in self.pictures)

    def to_json(self) -> str:
        """The result as a JSON text."""
        return self.model_dump_json(indent=2)


OnPicture = Callable[[int, int, PictureScore, Triplet], None]


def evaluate(
    restorer: Restores | None,
    benchmark: Benchmark | str,
    *,
    root: str | Path | None = None,
    limit: int | None = None,
    protocol: str | None = None,
    metrics: Sequence[str] = (),
    on_picture: OnPicture | None = None,
) -> BenchmarkResult:
    """Scores a restorer on a benchmark, one picture in memory at a time.

    Args:
        restorer: what is measured; None scores the inputs as they are.
        benchmark: a benchmark, or the name of one.
        root: folder of the data sets; ``$URUSHI_DATA`` if not given.
        limit: measures this many pictures, spread evenly over the sorted names; all if not given.
        protocol: used instead of the benchmark's own.
        metrics: names of `urushi.evaluation.perceptual.METRICS`, beside PSNR and SSIM.
        on_picture: called after each picture with (done, number to do, its scores, the pictures).

    Raises:
        DataError: the data is missing or does not match, a restored picture has another size, a
            metric is unknown or does not take a picture.
        MissingExtraError: the package of a metric is not installed.
        UrushiError: a picture cannot be read or restored.
    """
    if isinstance(benchmark, str):
        benchmark = find_benchmark(benchmark)
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}: expected a number of pictures, 1 or more", usage=True)
    how = named_protocol(protocol or benchmark.protocol, benchmark.crop_border)
    further = named_metrics(metrics)
    samples = benchmark.samples(root)
    chosen = samples if limit is None else _spread(samples, limit)
    rows = []
    for done, sample in enumerate(chosen, start=1):
        row, triplet = _measure(restorer, sample, how, further)
        rows.append(row)
        if on_picture is not None:
            on_picture(done, len(chosen), row, triplet)
    comparable = len(chosen) == len(samples) and how.name == benchmark.protocol
    return BenchmarkResult(
        benchmark=benchmark.name,
        title=benchmark.title,
        protocol=how.name,
        total=len(samples),
        pictures=tuple(rows),
        restorer=_description(restorer),
        note=benchmark.note,
        published=tuple(benchmark.published) if comparable else (),
    )


def _measure(
    restorer: Restores | None,
    sample: Sample,
    protocol: ScoreProtocol,
    further: Mapping[str, Metric],
) -> tuple[PictureScore, Triplet]:
    degraded, reference = sample.load()
    given = Triplet(degraded, None, reference).interpolated
    before = score(given, reference, protocol)
    height, width = reference.shape[:2]
    row = PictureScore(
        name=sample.name,
        width=width,
        height=height,
        psnr_input=before.psnr,
        ssim_input=before.ssim,
        metrics_input=measure(further, given, reference, sample.name),
    )
    if restorer is None:
        return row, Triplet(degraded, None, reference)
    start = time.perf_counter()
    restored = restorer.restore(degraded)
    seconds = time.perf_counter() - start
    if restored.shape != reference.shape:
        scale = height // degraded.shape[0]
        wanted = "keep the size" if scale == 1 else f"enlarge by {scale}"
        raise DataError(
            f"{sample.name} of {degraded.shape[1]}x{degraded.shape[0]} pixels was restored to "
            f"{restored.shape[1]}x{restored.shape[0]}: only networks that {wanted} can be "
            "measured on this benchmark"
        )
    after = score(restored, reference, protocol)
    row = row.model_copy(
        update={
            "psnr": after.psnr,
            "ssim": after.ssim,
            "seconds": seconds,
            "metrics": measure(further, restored, reference, sample.name),
        }
    )
    return row, Triplet(degraded, restored, reference)


def _means_by_name(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _spread(samples: list[Sample], limit: int) -> list[Sample]:
    """At most ``limit`` samples at even distances, the first one among them."""
    count = min(limit, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def _description(restorer: Restores | None) -> dict[str, Any]:
    """What the restorer says about itself in its ``describe``, if it has one."""
    describe = getattr(restorer, "describe", None)
    said = describe() if callable(describe) else {}
    return dict(said) if isinstance(said, Mapping) else {}
