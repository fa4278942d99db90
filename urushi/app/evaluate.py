"""`urushi evaluate`: how well pictures are restored."""

from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from urushi.app.benchmark_list import all_present, tell_catalog
from urushi.app.groups import EngineGroup, RestorerGroup, grouped
from urushi.app.options import (
    DataRoot,
    Inputs,
    Seed,
    Targets,
    check_rule,
    degradation_options,
    require,
    two_folders,
)
from urushi.app.output import (
    EXIT_FAILED,
    Output,
    complain,
    examples,
    name_as_given,
    printable,
)
from urushi.errors import DataError, TargetError, UrushiError
from urushi.names import counted
from urushi.writing import whole_file

if TYPE_CHECKING:
    from urushi.evaluation.benchmark import Benchmark, BenchmarkResult, PictureScore, Triplet
    from urushi.evaluation.routes import Routes, RoutesResult
    from urushi.evaluation.score_report import Gallery
    from urushi.inference.choice import PictureRestorer
    from urushi.inference.local_copies import LocalCopies

__all__ = ["EPILOG", "evaluate"]

EPILOG = examples(
    "urushi evaluate --list",
    "urushi evaluate --benchmark cbsd68-noise25 --data datasets/ --sheet sheet.png",
    "urushi evaluate --pairs mine/ --adapter mine.safetensors --json scores.json",
    "urushi evaluate --all --data datasets/ --router all-in-one.safetensors --confusion c.png",
    r"urushi evaluate --clean photos/ --degrade jpeg --set quality=\[10,10]",
    "urushi evaluate --all --data datasets/ --as-is --json -",
    "urushi evaluate --clean photos/ --metric detail --metric flip",
)


@dataclass(frozen=True, kw_only=True)
class PictureGroup:
    """What is measured on."""

    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark", "-b", metavar="NAME", help="One of --list, or a YAML file; repeatable."
        ),
    ] = None
    everything: Annotated[
        bool, typer.Option("--all", help="Every benchmark whose pictures are present.")
    ] = False
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", metavar="FOLDER", help="A folder of inputs and one of targets."),
    ] = None
    inputs: Inputs = None
    targets: Targets = None
    clean: Annotated[
        str | None,
        typer.Option("--clean", metavar="FOLDER", help="Clean pictures, with --degrade."),
    ] = None
    degrade: Annotated[
        str | None,
        typer.Option(
            "--degrade", metavar="NAME", help="The degradation to apply to the clean pictures."
        ),
    ] = None
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the degradation."),
    ] = None
    seed: Seed = 0
    data: DataRoot = None

    def check(self) -> None:
        """Refuses options that do not go together."""
        if self.degrade is None and self.values:
            raise typer.BadParameter("--set goes with --degrade.")
        if self.clean is None and self.degrade is not None:
            raise typer.BadParameter("--degrade goes with --clean FOLDER.")
        if self.everything and self.benchmarks:
            raise typer.BadParameter("give --all or --benchmark, not both.")

    def chosen(self, out: Output, copies: "LocalCopies") -> "list[Benchmark]":
        """The benchmarks that were named, and those that folders make."""
        from urushi.data.pairs import PairedFolder
        from urushi.evaluation.benchmark import clean_benchmark, find_benchmark, paired_benchmark

        names = all_present(out, self.data) if self.everything else self.benchmarks or []
        two = two_folders(copies.folder(self.inputs), copies.folder(self.targets))
        pairs, clean = copies.folder(self.pairs), copies.folder(self.clean)
        chosen = [find_benchmark(name) for name in names]
        for found in (None if pairs is None else PairedFolder(pairs), two):
            if found is not None:
                chosen.append(paired_benchmark(found.input_folder, found.target_folder))
        if self.degrade is not None:
            require(("torch",), "degrading clean pictures", "torch")
        if clean is not None:
            options = None
            if self.degrade is not None:
                options = degradation_options(self.degrade, self.values or [])
            chosen.append(clean_benchmark(clean, options, seed=self.seed))
        if any(benchmark.degradation is not None for benchmark in chosen):
            require(("torch",), "degrading clean pictures", "torch")
        if not chosen:
            raise typer.BadParameter(
                "name what to measure on: --benchmark, --all, --pairs, --inputs or --clean."
            )
        return chosen


@dataclass(frozen=True, kw_only=True)
class MeasureGroup:
    """How it is measured."""

    as_is: Annotated[
        bool, typer.Option("--as-is", help="Score the inputs, and restore nothing.")
    ] = False
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, metavar="N", help="At most this many pictures of each benchmark."
        ),
    ] = None
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", metavar="NAME", help="Instead of the benchmark's own."),
    ] = None
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Beside PSNR and SSIM: ssimulacra2, flip, piqe or detail, the share of fine "
            "detail kept; repeatable.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ReportGroup:
    """What is written."""

    sheet: Annotated[
        str | None,
        typer.Option(
            "--sheet",
            metavar="FILE",
            help="Write a contact sheet: input, restored, reference. With several benchmarks, one "
            "sheet each, named after it.",
        ),
    ] = None
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the scores as JSON; - is stdout."),
    ] = None
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace --json, --sheet and --confusion FILEs there."),
    ] = False
    per_picture: Annotated[
        bool, typer.Option("--per-picture", help="Show the score of every picture.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class RouteGroup:
    """What is told of a router's choices."""

    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="CLASS",
            help="With a router: the pictures' degradation, where their name does not say.",
        ),
    ] = None
    confusion: Annotated[
        str | None,
        typer.Option(
            "--confusion", metavar="FILE", help="With a router: draw the confusion matrix."
        ),
    ] = None


def _check_usage(measure: MeasureGroup, by: RestorerGroup, routes: RouteGroup) -> None:
    """Refuses options that have no effect."""
    if measure.as_is and (by.adapter or by.task or by.router):
        given = "--adapter" if by.adapter else "--task" if by.task else "--router"
        raise typer.BadParameter(f"{given} has no effect with --as-is: leave one out.")
    if measure.as_is and (by.top_k is not None or by.threshold is not None or by.quick):
        raise typer.BadParameter("--top-k, --threshold and --quick have no effect with --as-is.")
    by.check(default=False)
    if routes.kind or routes.confusion:
        given = "--kind" if routes.kind else "--confusion"
        check_rule(given, by.model, by.router, by.task, by.adapter, default=False)


@grouped
def evaluate(
    *,
    pictures: PictureGroup,
    measure: MeasureGroup,
    report: ReportGroup,
    list_all: Annotated[bool, typer.Option("--list", help="List the known benchmarks.")] = False,
    by: RestorerGroup,
    routes: RouteGroup,
    engine: EngineGroup,
) -> None:
    """Measure on benchmarks or on pictures of your own, here or by URL, and show a table."""
    to_stdout = report.json == "-"
    out = Output(json=to_stdout)
    if list_all:
        tell_catalog(out, pictures.data)
        return
    pictures.check()
    _check_usage(measure, by, routes)
    from urushi.evaluation.metrics import named_protocol
    from urushi.evaluation.perceptual import named_metrics
    from urushi.image.target import format_to_write
    from urushi.inference.local_copies import LocalCopies

    metrics = list(named_metrics(measure.metric or []))
    if measure.protocol is not None:
        named_protocol(measure.protocol)
    if report.sheet is not None:
        format_to_write(Path(report.sheet))
    with LocalCopies(out.say) as copies:
        name_as_given(copies.told)
        drawn = copies.target(routes.confusion)
        if drawn is not None:
            from urushi.evaluation.plots import check_plot_target

            check_plot_target(drawn)
        scores = None if to_stdout else copies.target(report.json)
        copies.refuse_taken([drawn, scores], report.overwrite)
        chosen = pictures.chosen(out, copies)
        sheets = _sheet_paths(copies.target(report.sheet), chosen)
        copies.refuse_taken(sheets, report.overwrite)
        restorer = None
        if not measure.as_is:
            restorer = by.local(copies).restorer(engine.options(), default=False)
        run = _Run(out, restorer, pictures.data, measure, routes.kind, report.overwrite, metrics)
        for benchmark, path in zip(chosen, sheets, strict=True):
            run.measure(benchmark, path)
        _tell(out, run, report.per_picture)
        if report.json is not None:
            _write_scores(out, run, scores, report.overwrite)
        if drawn is not None and run.routes:
            _draw_confusion(out, run, drawn)
        copies.send_all(overwrite=report.overwrite)
    if run.failed:
        complain("\n".join(run.failed))
        raise typer.Exit(EXIT_FAILED)


def _sheet_paths(sheet: Path | None, chosen: "Sequence[Benchmark]") -> list[Path | None]:
    """A sheet for each benchmark: the one that is named, or several called after it."""
    if sheet is None or len(chosen) == 1:
        return [sheet] * len(chosen)
    return [sheet.with_name(f"{sheet.stem}_{one.name}{sheet.suffix}") for one in chosen]


class _Run:
    """One evaluation: benchmarks one after another; one that fails does not stop the others."""

    def __init__(
        self,
        out: Output,
        restorer: "PictureRestorer | None",
        root: str | None,
        how: MeasureGroup,
        kind: str | None,
        overwrite: bool,
        metrics: Sequence[str],
    ) -> None:
        from urushi.inference.auto import AUTO, AutoRestorer

        self._out, self._restorer = out, restorer
        self._root, self._limit, self._protocol = root, how.limit, how.protocol
        self._kind, self._overwrite = kind, overwrite
        self._metrics = metrics
        self.chooser: AutoRestorer | None = None
        if isinstance(restorer, AutoRestorer) and restorer.task == AUTO:
            self.chooser = restorer
            restorer.kept = len(restorer.tasks) + 2  # every route is taken again and again
        self.results: list[BenchmarkResult] = []
        self.routes: list[RoutesResult] = []
        self.failed: list[str] = []

    def measure(self, benchmark: "Benchmark", sheet: Path | None) -> None:
        from urushi.evaluation.benchmark import evaluate as measure
        from urushi.evaluation.score_report import Gallery

        gallery = None if sheet is None else Gallery()
        routes = None
        with self._out.progress() as progress:
            task = progress.add_task(printable(benchmark.name), total=None)

            def tell(done: int, total: int, row: "PictureScore", pictures: "Triplet") -> None:
                progress.update(task, completed=done, total=total)
                if gallery is not None:
                    gallery.add(done, total, row, pictures)
                if routes is not None:
                    routes(done, total, row, pictures)

            try:
                routes = self._routes(benchmark)
                result = measure(
                    self._restorer,
                    benchmark,
                    root=self._root,
                    limit=self._limit,
                    protocol=self._protocol,
                    metrics=self._metrics,
                    on_picture=tell,
                )
                if gallery is not None and sheet is not None:
                    self._write_sheet(gallery, result, sheet)
            except UrushiError as error:
                named = benchmark.name in str(error)
                self.failed.append(str(error) if named else f"{benchmark.name}: {error}")
                return
        self.results.append(result)
        if routes is not None:
            self.routes.append(routes.result())
        if not self._out.live:
            self._out.say(f"measured {benchmark.name}: {counted(len(result.pictures), 'picture')}")
        if sheet is not None:
            self._out.say(f"contact sheet: {sheet}")

    def _routes(self, benchmark: "Benchmark") -> "Routes | None":
        """What looks at the other routes, where the restorer chooses."""
        if self.chooser is None:
            return None
        from urushi.evaluation.routes import Routes, class_of

        try:
            kind = class_of(benchmark, self.chooser.classes, self._kind)
        except DataError as reason:
            if self._kind is not None:
                raise
            self._out.say(f"the automatic route alone: {reason} (--kind)")
            return None
        return Routes(self.chooser, benchmark, kind, self._protocol)

    def _write_sheet(self, gallery: "Gallery", result: "BenchmarkResult", sheet: Path) -> None:
        from urushi.image import write_picture

        write_picture(sheet, gallery.sheet(result.title), overwrite=self._overwrite)


def _draw_confusion(out: Output, run: _Run, path: Path) -> None:
    from urushi.evaluation.confusion import draw_confusion
    from urushi.evaluation.routes import routes_confusion

    assert run.chooser is not None
    classes = run.chooser.classes
    name = run.chooser.members.router.name
    draw_confusion(routes_confusion(run.routes, classes), classes, path, title=name)
    out.say(f"what was taken for what: {path}")


def _tell(out: Output, run: _Run, per_picture: bool) -> None:
    from urushi.evaluation.score_report import metric_table, picture_table, score_table

    if run.results:
        for result in run.results if per_picture else ():
            out.show(picture_table(result))
        out.show(score_table(run.results))
        further = metric_table(run.results)
        if further is not None:
            out.show(further)
        for result in run.results:
            for other in result.published:
                out.say(f"{result.benchmark}: {other.method} {other.psnr:.2f} dB ({other.source})")
            if result.note:
                out.say(f"{result.benchmark}: {result.note}")
    if run.routes:
        from urushi.evaluation.routes import routes_table

        out.show(routes_table(run.routes))


def _write_scores(out: Output, run: _Run, file: Path | None, overwrite: bool) -> None:
    """Writes what was measured as JSON; to stdout where there is no file."""
    from urushi.evaluation.score_report import Report

    document = Report(results=tuple(run.results)).to_json()
    if run.routes:
        content = loads(document)
        content["routes"] = [loads(result.model_dump_json()) for result in run.routes]
        document = dumps(content, indent=2)
    if file is None:
        out.text(document)
        return
    try:
        with whole_file(file, overwrite=overwrite) as part:
            part.write_text(document + "\n", encoding="utf-8")
    except OSError as error:
        raise TargetError(f"{file} cannot be written ({error.strerror}): choose another") from error
    out.say(f"scores: {file}")
