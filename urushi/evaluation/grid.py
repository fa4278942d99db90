"""Scores of ours beside published ones, one table for each setting of a paper.

Two scores share a column only if they are of the same pictures, the same colour space and the same
border. What is measured by another protocol, on a part of the pictures, or on pictures that are
made otherwise, has a column of its own beside; so has what nobody told.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from urushi.errors import DataError
from urushi.evaluation.benchmark import BenchmarkResult
from urushi.evaluation.catalog import BENCHMARKS, Benchmark
from urushi.evaluation.metrics import PROTOCOLS, named_protocol
from urushi.evaluation.papers import Paper, PaperSetting, PublishedTable, read_cell
from urushi.version import __version__

__all__ = ["Column", "Grid", "Measured", "Row", "SettingTable", "make_grid"]

NEEDS_DATA = "needs data"
_SPACES = {"rgb": "RGB", "y": "Y", "y-swapped": "Y, red and blue exchanged", "grey": "grey"}


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", extra="ignore")


class Column(_Document):
    """What all scores below one heading were computed on.

    Attributes:
        key: unique in the report: equal where, and only where, scores may be compared.
        benchmark: its name; empty of what can not be measured here.
        label: for people.
        space: colour space and border, or what is known of them.
        ours: a score of ours can stand there.
    """

    key: str
    benchmark: str
    label: str
    space: str
    ours: bool


class Score(_Document):
    """PSNR in dB, and SSIM where it is known."""

    psnr: float
    ssim: float | None = None


class Row(_Document):
    """The scores of one method from one source.

    Attributes:
        method: its name.
        ours: measured here.
        source: number of the source in its table; 0 of ours.
        scores: by the key of their column.
    """

    method: str
    ours: bool
    source: int
    scores: dict[str, Score]


class Source(_Document):
    """Where published scores stand, and how reliable that is."""

    source: str
    reliability: str


class SettingTable(_Document):
    """One setting of a paper.

    Attributes:
        paper, setting: names.
        title: what it is.
        note: what to mind.
        recipes: that train it here.
        columns, rows: the table; ours are the first rows.
        sources: of published scores; the first has number 1.
        missing: benchmarks of the setting without any score of ours.
    """

    paper: str
    setting: str
    title: str
    note: str
    recipes: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sources: tuple[Source, ...]
    missing: tuple[str, ...]


class Other(_Document):
    """A score on what belongs to no setting: ours, or one that a benchmark's description has."""

    benchmark: str
    title: str
    space: str
    pictures: str
    method: str
    ours: bool
    score: Score
    source: str = ""


class Grid(_Document):
    """The report.

    Attributes:
        kind, version: of the document.
        urushi: version of the program that made it.
        notes: of each paper, by its title.
        tables: all settings.
        others: scores that belong to none of them.
    """

    kind: Literal["urushi-report"] = "urushi-report"
    version: Literal[1] = 1
    urushi: str = __version__
    notes: dict[str, str]
    tables: tuple[SettingTable, ...]
    others: tuple[Other, ...]

    def to_json(self) -> str:
        """The document as text."""
        return self.model_dump_json(indent=2)


@dataclass(frozen=True)
class Measured:
    """A score of ours.

    Attributes:
        method: what it is called.
        result: of one benchmark.
    """

    method: str
    result: BenchmarkResult


def make_grid(papers: Iterable[Paper], measured: Sequence[Measured]) -> Grid:
    """Puts scores side by side.

    Args:
        papers: whose settings are wanted.
        measured: scores of ours; those without a restorer count as `input`.

    Raises:
        DataError: a paper names a benchmark that there is not.
    """
    chosen = list(papers)
    tables, used = [], set()
    for paper in chosen:
        for name, setting in paper.settings.items():
            tables.append(_Setting(paper, name, setting, measured).table())
            used |= set(setting.benchmarks)
    left = [one for one in measured if one.result.benchmark not in used]
    return Grid(
        notes={paper.title: paper.note for paper in chosen},
        tables=tuple(tables),
        others=tuple(_others(left)),
    )


def _benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise DataError(f"a paper names the benchmark {name!r}, which is not in the catalogue")
    return BENCHMARKS[name]


def _space(colour: str, crop: int) -> str:
    return f"{_SPACES[colour]}{f', {crop} pixels cut off' if crop else ''}"


def _own_column(name: str) -> Column:
    """The column of a benchmark as it is described."""
    benchmark = _benchmark(name)
    colour = PROTOCOLS[benchmark.protocol].colour
    return _column(benchmark, _space(colour, benchmark.crop_border), "")


def _column(benchmark: Benchmark, space: str, apart: str, ours: bool = True) -> Column:
    label = f"{benchmark.title}{f' ({apart})' if apart else ''}"
    # Two benchmarks of the same pictures that differ in their protocol alone have one identity.
    pictures = benchmark.data or benchmark.clean or benchmark.input or ""
    made = "" if benchmark.degradation is None else f"{benchmark.degradation}{benchmark.seed}"
    rounded = "8 bit" if made and benchmark.input_8bit else ""
    key = "|".join([pictures, made, rounded, ",".join(benchmark.only), space, apart])
    return Column(key=key, benchmark=benchmark.name, label=label, space=space, ours=ours)


def _measured_column(result: BenchmarkResult) -> Column | None:
    """The column of a score of ours; None where its benchmark is not in the catalogue."""
    if result.benchmark not in BENCHMARKS:
        return None
    benchmark = BENCHMARKS[result.benchmark]
    name, _, cut = result.protocol.partition("-crop")
    protocol = named_protocol(name, int(cut or 0))
    counted, wanted = len(result.pictures), benchmark.pictures or result.total
    apart = "" if counted == result.total == wanted else f"{counted} of {wanted} pictures"
    own = PROTOCOLS[benchmark.protocol]
    if name != own.name and protocol.colour == own.colour:
        apart = ", ".join(filter(None, [apart, f"by {name}"]))  # rounded otherwise, or another SSIM
    if result.title != benchmark.title:
        apart = f"{result.title}; {counted} pictures"
    return _column(benchmark, _space(protocol.colour, protocol.crop_border), apart)


def _score(result: BenchmarkResult) -> Score:
    means = result.means
    if means.psnr is None:
        return Score(psnr=means.psnr_input, ssim=means.ssim_input)
    return Score(psnr=means.psnr, ssim=means.ssim)


class _Setting:
    """Gathers the columns and rows of one setting."""

    def __init__(
        self, paper: Paper, name: str, setting: PaperSetting, measured: Sequence[Measured]
    ) -> None:
        self.paper, self.name, self.setting = paper, name, setting
        self.columns: dict[str, Column] = {}
        for benchmark in setting.benchmarks:
            self._add(_own_column(benchmark))
        self.rows: list[Row] = []
        self.found: set[str] = set()
        self._ours(measured)

    def _add(self, column: Column) -> str:
        self.columns.setdefault(column.key, column)
        return column.key

    def _ours(self, measured: Sequence[Measured]) -> None:
        scores: dict[str, dict[str, Score]] = {}
        wanted = {self._pictures(name) for name in self.setting.benchmarks}
        for one in measured:
            column = _measured_column(one.result)
            if column is None or self._pictures(column.benchmark) not in wanted:
                continue
            scores.setdefault(one.method, {})[self._add(column)] = _score(one.result)
            self.found.add(one.result.benchmark)
        for method, own in scores.items():
            self.rows.append(Row(method=method, ours=True, source=0, scores=own))

    def _pictures(self, name: str) -> str:
        return _column(_benchmark(name), "", "").key

    def table(self) -> SettingTable:
        sources: list[Source] = []
        for table in self.setting.tables:
            sources.append(Source(source=table.source, reliability=table.reliability))
            self._published(table, len(sources))
        return SettingTable(
            paper=self.paper.name,
            setting=self.name,
            title=self.setting.title,
            note=self.setting.note,
            recipes=tuple(self.setting.recipes),
            columns=tuple(self._ordered()),
            rows=tuple(self.rows),
            sources=tuple(sources),
            missing=tuple(n for n in self.setting.benchmarks if n not in self.found),
        )

    def _published(self, table: PublishedTable, number: int) -> None:
        told = table.told if table.colour is None else _space(table.colour, table.crop)
        keys = []
        for heading, name in table.columns.items():
            if name is None:
                same = "|".join([heading, *filter(None, table.columns.values()), told, table.data])
                column = Column(key=same, benchmark="", label=heading, space=told, ours=False)
            else:
                exact = table.colour is not None and not table.data
                column = _column(_benchmark(name), told, table.data, ours=exact)
            keys.append(self._add(column))
        for method, text in table.rows.items():
            cells = [read_cell(cell) for cell in text.split()]
            scores = {
                key: Score(psnr=cell[0], ssim=cell[1])
                for key, cell in zip(keys, cells, strict=True)
                if cell is not None
            }
            if scores:
                self.rows.append(Row(method=method, ours=False, source=number, scores=scores))
        self._average(table, keys)

    def _average(self, table: PublishedTable, keys: Sequence[str]) -> None:
        """Ours below the average of a table, where every one of its columns has a score of ours."""
        named = [k for k, name in zip(keys, table.columns.values(), strict=True) if name]
        below = [k for k, h in zip(keys, table.columns, strict=True) if h == "average"]
        for index, row in enumerate(self.rows):
            if below and row.ours and all(key in row.scores for key in named):
                own = [row.scores[key] for key in named]
                ssim = [score.ssim for score in own if score.ssim is not None]
                mean = Score(
                    psnr=float(np.mean([score.psnr for score in own])),
                    ssim=float(np.mean(ssim)) if len(ssim) == len(own) else None,
                )
                self.rows[index] = row.model_copy(update={"scores": {**row.scores, below[0]: mean}})

    def _ordered(self) -> Iterable[Column]:
        """Columns of the same pictures beside one another; what is of no benchmark comes last."""
        order: Mapping[str, int] = {}
        for column in self.columns.values():
            place = self._pictures(column.benchmark) if column.benchmark else "~"
            order = {**order, place: order.get(place, len(order))}
        return sorted(
            self.columns.values(),
            key=lambda c: (
                not c.benchmark,
                order[self._pictures(c.benchmark)] if c.benchmark else 0,
            ),
        )


def _others(measured: Sequence[Measured]) -> Iterable[Other]:
    told = set()
    for one in sorted(measured, key=lambda one: one.result.benchmark):
        result, column = one.result, _measured_column(one.result)
        space = result.protocol if column is None else column.space
        counted = len(result.pictures)
        whole = counted == result.total
        yield Other(
            benchmark=result.benchmark,
            title=result.title,
            space=space,
            pictures=f"{counted}" if whole else f"{counted} of {result.total}",
            method=one.method,
            ours=True,
            score=_score(result),
        )
        for other in result.published if result.benchmark not in told else ():
            yield Other(
                benchmark=result.benchmark,
                title=result.title,
                space=space,
                pictures=f"{counted}",
                method=other.method,
                ours=False,
                score=Score(psnr=other.psnr),
                source=other.source,
            )
        told.add(result.benchmark)
