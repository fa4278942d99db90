"""Scores of ours beside published ones, one table for each setting of a paper.

Two scores share a column only if they are of the same pictures, the same colour space and the same
border. What is measured by another protocol, on a part of the pictures, or on pictures that are
made otherwise, has a column of its own beside; so has what nobody told. Ours are scores of
`urushi evaluate`, or means over the seeds of a comparison.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from urushi.errors import DataError
from urushi.evaluation.benchmark import BenchmarkResult
from urushi.evaluation.catalog import BENCHMARKS, Benchmark, Published
from urushi.evaluation.metrics import PROTOCOLS, named_protocol
from urushi.evaluation.papers import Paper, PaperSetting, PublishedTable, read_cell
from urushi.version import __version__

__all__ = ["Column", "Grid", "Measured", "Row", "Score", "Scored", "SettingTable", "make_grid"]

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
        ours: a score of ours is wanted there.
    """

    key: str
    benchmark: str
    label: str
    space: str
    ours: bool


class Score(_Document):
    """PSNR in dB, SSIM where it is known, and the PSNR's standard deviation over several seeds."""

    psnr: float
    ssim: float | None = None
    deviation: float | None = None


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
class Scored:
    """A score of ours, and what it was computed on.

    Attributes:
        method: what it is called.
        benchmark: its name; one that is not in the catalogue belongs to no setting.
        title: what is measured.
        protocol: how, the name of a protocol and its border; empty where it is not known.
        counted, total: pictures that were measured, and that there are; None where not known.
        score: the mean.
        published: of others on the same pictures.
    """

    method: str
    benchmark: str
    title: str
    protocol: str
    counted: int | None
    total: int | None
    score: Score
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A result of an evaluation.

    Attributes:
        method: what it is called.
        result: of one benchmark.
    """

    method: str
    result: BenchmarkResult

    def scored(self) -> Scored:
        """The mean over its pictures; without a restorer, of the inputs as they are."""
        one, means = self.result, self.result.means
        if means.psnr is None:
            score = Score(psnr=means.psnr_input, ssim=means.ssim_input)
        else:
            score = Score(psnr=means.psnr, ssim=means.ssim)
        return Scored(
            method=self.method,
            benchmark=one.benchmark,
            title=one.title,
            protocol=one.protocol,
            counted=len(one.pictures),
            total=one.total,
            score=score,
            published=tuple(one.published),
        )


def make_grid(
    papers: Iterable[Paper], measured: Sequence[Measured | Scored], *, whole: bool = True
) -> Grid:
    """Puts scores side by side.

    Args:
        papers: whose settings are wanted.
        measured: scores of ours.
        whole: also settings without any score of ours, which say what is missing.

    Raises:
        DataError: a paper names a benchmark that there is not, or a method has two different
            scores on the same pictures.
    """
    chosen = list(papers)
    scores = [one.scored() if isinstance(one, Measured) else one for one in measured]
    tables, used = [], set()
    for paper in chosen:
        for name, setting in paper.settings.items():
            table = _Setting(paper, name, setting, scores).table()
            if whole or any(row.ours for row in table.rows):
                tables.append(table)
                used |= set(setting.benchmarks)
    left = [one for one in scores if one.benchmark not in used]
    shown = {table.paper for table in tables}
    return Grid(
        notes={paper.title: paper.note for paper in chosen if paper.name in shown},
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


def _measured_column(one: Scored) -> Column | None:
    """The column of a score of ours; None where its benchmark is not in the catalogue."""
    if one.benchmark not in BENCHMARKS or not one.protocol:
        return None
    benchmark = BENCHMARKS[one.benchmark]
    name, _, cut = one.protocol.partition("-crop")
    protocol = named_protocol(name, int(cut or 0))
    apart = "" if one.counted == one.total == (benchmark.pictures or one.total) else _some(one)
    own = PROTOCOLS[benchmark.protocol]
    if name != own.name and protocol.colour == own.colour:
        apart = ", ".join(filter(None, [apart, f"by {name}"]))  # rounded otherwise, or another SSIM
    if one.title != benchmark.title:
        apart = f"{one.title}; {one.counted} pictures"
    space = _space(protocol.colour, protocol.crop_border)
    return _column(benchmark, space, apart, ours=not apart)


def _some(one: Scored) -> str:
    """How many of its pictures a score is of."""
    if one.counted is None:
        return "number of pictures not told"
    wanted = one.total
    if one.benchmark in BENCHMARKS:
        wanted = BENCHMARKS[one.benchmark].pictures or wanted
    return f"{one.counted} of {wanted} pictures"


class _Setting:
    """Gathers the columns and rows of one setting."""

    def __init__(
        self, paper: Paper, name: str, setting: PaperSetting, measured: Sequence[Scored]
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

    def _ours(self, measured: Sequence[Scored]) -> None:
        scores: dict[str, dict[str, Score]] = {}
        wanted = {self._pictures(name) for name in self.setting.benchmarks}
        for one in measured:
            column = _measured_column(one)
            if column is None or self._pictures(column.benchmark) not in wanted:
                continue
            own, key = scores.setdefault(one.method, {}), self._add(column)
            if abs(own.setdefault(key, one.score).psnr - one.score.psnr) > 0.005:
                raise DataError(
                    f"{one.method} has two different scores on {one.benchmark}, "
                    f"{own[key].psnr:.2f} and {one.score.psnr:.2f} dB: name one of the two files "
                    "otherwise, or report them apart"
                )
            self.found.add(one.benchmark)
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


def _others(measured: Sequence[Scored]) -> Iterable[Other]:
    told = set()
    for one in sorted(measured, key=lambda one: one.benchmark):
        column = _measured_column(one)
        space = (one.protocol or "not told") if column is None else column.space
        pictures = "not told" if one.counted is None else f"{one.counted}"
        if one.counted is not None and one.counted != one.total is not None:
            pictures = f"{one.counted} of {one.total}"
        shared = {"benchmark": one.benchmark, "title": one.title, "space": space}
        yield Other(**shared, pictures=pictures, method=one.method, ours=True, score=one.score)
        for other in one.published if one.benchmark not in told else ():
            yield Other(
                **shared,
                pictures=f"{one.counted}",
                method=other.method,
                ours=False,
                score=Score(psnr=other.psnr),
                source=other.source,
            )
        told.add(one.benchmark)
