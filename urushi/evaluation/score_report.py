"""Scores for people and machines: a table, a JSON document, a contact sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.table import Table

from urushi.errors import DataError
from urushi.evaluation.benchmark import BenchmarkResult, PictureScore, Triplet
from urushi.evaluation.metrics import PSNR_CEILING
from urushi.evaluation.perceptual import METRICS
from urushi.version import __version__

__all__ = ["Gallery", "Report", "metric_table", "picture_table", "read_report", "score_table"]

Picture = Float32[np.ndarray, "_ _ 3"]


class Report(BaseModel):
    """The JSON document of an evaluation.

    Attributes:
        kind: what the document is.
        version: of its layout.
        urushi: version of the program that measured.
        results: one per benchmark.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", extra="ignore")

    kind: Literal["urushi-scores"] = "urushi-scores"
    version: Literal[1] = 1
    urushi: str = __version__
    results: tuple[BenchmarkResult, ...]

    def to_json(self) -> str:
        """The document as text; an infinite PSNR is the text "Infinity"."""
        return self.model_dump_json(indent=2)


def read_report(path: str | Path) -> Report:
    """Reads a document that :meth:`Report.to_json` wrote.

    Raises:
        DataError: the file cannot be read or is not such a document.
    """
    try:
        return Report.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a document of scores of version 1: make it with  urushi evaluate"
        ) from error


def score_table(results: Sequence[BenchmarkResult]) -> Table:
    """One row per benchmark: means before and after, for printing with rich."""
    table = Table(title="Scores: means over the pictures", title_justify="left")
    _columns(table, "benchmark", ("pictures", "protocol"), ("worse", "s/picture"))
    for result in results:
        means = result.means
        measured = len(result.pictures)
        count = str(measured) if measured == result.total else f"{measured} of {result.total}"
        table.add_row(
            result.benchmark,
            count,
            result.protocol,
            *_cells(means.psnr_input, means.psnr, means.ssim_input, means.ssim),
            "-" if means.psnr is None else str(result.worse),
            "-" if means.seconds is None else f"{means.seconds:.2f}",
        )
    return table


def picture_table(result: BenchmarkResult) -> Table:
    """One row per picture of a benchmark, for printing with rich."""
    table = Table(title=f"{result.title} ({result.protocol})", title_justify="left")
    further = list(result.means.metrics_input)
    sides = ("in",) if result.means.psnr is None else ("in", "out")
    _columns(
        table, "picture", ("size",), ("seconds", *(f"{n} {s}" for n in further for s in sides))
    )
    for row in result.pictures:
        values = {"in": row.metrics_input, "out": row.metrics}
        table.add_row(
            row.name,
            f"{row.width}x{row.height}",
            *_cells(row.psnr_input, row.psnr, row.ssim_input, row.ssim),
            "-" if row.seconds is None else f"{row.seconds:.2f}",
            *(_value(values[side].get(name)) for name in further for side in sides),
        )
    return table


def metric_table(results: Sequence[BenchmarkResult]) -> Table | None:
    """Metrics beside PSNR and SSIM, one row for each of a benchmark; None where there are none."""
    table = Table(title="Further metrics: means over the pictures", title_justify="left")
    for name, right in (("benchmark", 0), ("metric", 0), ("in", 1), ("out", 1), ("better", 0)):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for result in results:
        means = result.means
        for name, value in means.metrics_input.items():
            known = METRICS.get(name)
            cells = _value(value), _value(means.metrics.get(name))
            table.add_row(result.benchmark, name, *cells, known.better if known else "-")
    return table if table.row_count else None


def _value(value: float | None) -> str:
    """A value of a metric as text, of either range: up to 1, or up to 100."""
    return "-" if value is None else f"{value:.4f}" if abs(value) <= 1 else f"{value:.2f}"


def _columns(table: Table, first: str, before: Sequence[str], after: Sequence[str]) -> None:
    table.add_column(first, no_wrap=True)
    for name in (*before, "PSNR in", "PSNR out", "gain", "SSIM in", "SSIM out", *after):
        table.add_column(name, justify="right", no_wrap=True)


def _cells(
    psnr_input: float, psnr: float | None, ssim_input: float, ssim: float | None
) -> tuple[str, ...]:
    """Both PSNRs, their difference and both SSIMs as text."""
    # Pictures equal to their reference are infinite, or the ceiling in a mean: no gain to speak of.
    equal = max(psnr_input, psnr or 0.0) >= PSNR_CEILING
    gain = "-" if psnr is None or equal else f"{psnr - psnr_input:+.2f}"
    return (
        f"{psnr_input:.2f}",
        "-" if psnr is None else f"{psnr:.2f}",
        gain,
        f"{ssim_input:.4f}",
        "-" if ssim is None else f"{ssim:.4f}",
    )


class Gallery:
    """Collects pictures of an evaluation for a contact sheet; its memory does not grow with theirs.

    Of pictures larger than a cell the part is kept, in full resolution, where input and reference
    differ most. ``add`` fits ``on_picture`` of :func:`urushi.evaluation.benchmark.evaluate`.

    Args:
        rows: at most this many pictures, the first that come.
        cell_size: width and height of a picture on the sheet, in pixels.
    """

    def __init__(self, rows: int = 8, cell_size: tuple[int, int] = (320, 240)) -> None:
        assert rows > 0
        self._rows = rows
        self._cell_size = cell_size
        self._cells: list[list[tuple[Picture, str]]] = []

    def __len__(self) -> int:
        return len(self._cells)

    def add(self, done: int, total: int, row: PictureScore, pictures: Triplet) -> None:
        """Keeps the picture if there is room for it."""
        if len(self._cells) >= self._rows:
            return
        width, height = self._cell_size
        given = pictures.interpolated
        part = _most_different(given, pictures.reference, height, width)
        cells = [(given[part].copy(), f"{row.name}: input {row.psnr_input:.2f} dB")]
        if pictures.restored is not None:
            restored = np.clip(pictures.restored[part], 0.0, 1.0)
            cells.append((restored, f"restored {row.psnr:.2f} dB"))
        cells.append((pictures.reference[part].copy(), "reference"))
        self._cells.append(cells)

    def sheet(self, title: str | None = None) -> Picture:
        """The contact sheet, one row per picture: input, restored, reference.

        Raises:
            DataError: no picture was added.
        """
        from urushi.sheet import contact_sheet

        if not self._cells:
            raise DataError("there are no pictures for a contact sheet: evaluate some first")
        return contact_sheet(self._cells, cell_size=self._cell_size, title=title)


def _most_different(a: Picture, b: Picture, height: int, width: int) -> tuple[slice, slice]:
    """The window of at most that size in which the two pictures have the largest squared error."""
    height, width = min(height, a.shape[0]), min(width, a.shape[1])
    error = np.square(a - b).sum(axis=2, dtype=np.float64)
    sums = np.zeros((error.shape[0] + 1, error.shape[1] + 1))
    sums[1:, 1:] = error.cumsum(0).cumsum(1)
    windows = (sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]) + sums[
        :-height, :-width
    ]
    top, left = (int(i) for i in np.unravel_index(np.argmax(windows), windows.shape))
    return slice(top, top + height), slice(left, left + width)
