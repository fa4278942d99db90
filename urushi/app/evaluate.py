"""`urushi evaluate`: how well pictures are restored."""

from collections.abc import Sequence
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from urushi.app.options import (
    Adapters,
    DataRoot,
    Device,
    EngineName,
    Inputs,
    MaybeModel,
    Overlap,
    Precision,
    Quick,
    Router,
    Seed,
    Targets,
    Task,
    Threads,
    Threshold,
    Tile,
    TopK,
    choose_by,
    choose_restorer,
    degradation_options,
    engine_options,
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
from urushi.writing import whole_file

__all__ = [
    "EPILOG",
    "all_present",
    "evaluate",
    "tell_catalog",
]


_NAMED = 8


def all_present(out: Output, root: str | None) -> list[str]:
    """The benchmarks whose pictures are there."""
    from urushi.evaluation.benchmark import BENCHMARKS
    from urushi.evaluation.catalog import data_root

    folder = data_root(root)
    found = _count_pictures(root)
    missing = [name for name, count in found.items() if count is None]
    if len(missing) == len(BENCHMARKS):
        raise DataError(f"no benchmark's pictures are in {folder}: see  urushi evaluate --list")
    if missing:
        named, more = missing[:_NAMED], len(missing) - _NAMED
        rest = f" and {more} more, see  urushi evaluate --list" if more > 0 else ""
        out.say(f"left out, pictures are missing: {', '.join(named)}{rest}")
    return [name for name in found if name not in missing]


def _count_pictures(root: str | None) -> dict[str, int | None]:
    """How many pictures of each benchmark are there; None where some are missing."""
    from urushi.evaluation.benchmark import BENCHMARKS

    found: dict[str, int | None] = {}
    for name, benchmark in BENCHMARKS.items():
        try:
            found[name] = len(benchmark.samples(root))
        except DataError:
            found[name] = None
    return found


def tell_catalog(out: Output, root: str | None) -> None:
    from urushi.evaluation.benchmark import BENCHMARKS

    found = _count_pictures(root)
    if out.json:
        listed = BENCHMARKS.items()
        out.document([{**b.model_dump(mode="json"), "found": found[name]} for name, b in listed])
        return
    table = Table(title="Benchmarks", title_justify="left")
    for column in ("name", "what it measures", "pictures", "here", "protocol", "licence"):
        table.add_column(column, overflow="fold")
    for name, benchmark in BENCHMARKS.items():
        here = found[name]
        cells = (
            name,
            benchmark.title,
            benchmark.pictures or "-",
            "-" if here is None else here,
            benchmark.protocol,
            benchmark.licence,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.show(table)


if TYPE_CHECKING:
    from urushi.data.pairs import PairedFolder
    from urushi.evaluation.benchmark import Benchmark, BenchmarkResult, PictureScore, Triplet
    from urushi.evaluation.report import Gallery
    from urushi.evaluation.routes import Routes, RoutesResult
    from urushi.inference.choice import PictureRestorer


EPILOG = examples(
    "urushi evaluate --list",
    "urushi evaluate --benchmark cbsd68-noise25 --data datasets/ --sheet sheet.png",
    "urushi evaluate --pairs mine/ --adapter mine.safetensors --json scores.json",
    "urushi evaluate --all --data datasets/ --router all-in-one.safetensors --confusion c.png",
    r"urushi evaluate --clean photos/ --degrade jpeg --set quality=\[10,10]",
    "urushi evaluate --all --data datasets/ --as-is --json -",
)


def evaluate(
    benchmarks: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark", "-b", metavar="NAME", help="One of --list, or a YAML file; repeatable."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every benchmark whose pictures are present.")
    ] = False,
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", metavar="FOLDER", help="A folder of inputs and one of targets."),
    ] = None,
    inputs: Inputs = None,
    targets: Targets = None,
    clean: Annotated[
        str | None,
        typer.Option("--clean", metavar="FOLDER", help="Clean pictures, with --degrade."),
    ] = None,
    degrade: Annotated[
        str | None,
        typer.Option(
            "--degrade", metavar="NAME", help="The degradation to apply to the clean pictures."
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the degradation."),
    ] = None,
    seed: Seed = 0,
    data: DataRoot = None,
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Score the inputs, and restore nothing.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, metavar="N", help="At most this many pictures of each benchmark."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", metavar="NAME", help="Instead of the benchmark's own."),
    ] = None,
    sheet: Annotated[
        str | None,
        typer.Option(
            "--sheet",
            metavar="FILE",
            help="Write a contact sheet: input, restored, reference. With several benchmarks, one "
            "sheet each, named after it.",
        ),
    ] = None,
    json: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the scores as JSON; - is stdout."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace --json, --sheet and --confusion FILEs there."),
    ] = False,
    per_picture: Annotated[
        bool, typer.Option("--per-picture", help="Show the score of every picture.")
    ] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List the known benchmarks.")] = False,
    model: MaybeModel = None,
    adapter: Adapters = None,
    task: Task = None,
    router: Router = None,
    top_k: TopK = None,
    threshold: Threshold = None,
    quick: Quick = False,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="CLASS",
            help="With a router: the pictures' degradation, where their name does not say.",
        ),
    ] = None,
    confusion: Annotated[
        str | None,
        typer.Option(
            "--confusion", metavar="FILE", help="With a router: draw the confusion matrix."
        ),
    ] = None,
    engine: EngineName = "auto",
    device: Device = "auto",
    precision: Precision = "float32",
    tile: Tile = None,
    overlap: Overlap = None,
    threads: Threads = None,
) -> None:
    """Measure on benchmarks or on pictures of your own, here or by URL, and show a table."""
    out = Output(json=json == "-")
    if list_all:
        tell_catalog(out, data)
        return
    if degrade is None and values:
        raise typer.BadParameter("--set goes with --degrade.")
    if clean is None and degrade is not None:
        raise typer.BadParameter("--degrade goes with --clean FOLDER.")
    if as_is and (adapter or task or router):
        given = "--adapter" if adapter else "--task" if task else "--router"
        raise typer.BadParameter(f"{given} has no effect with --as-is: leave one out.")
    chooses = task == "auto" or (router is not None and task is None)
    if as_is and (top_k is not None or threshold is not None or quick):
        raise typer.BadParameter("--top-k, --threshold and --quick have no effect with --as-is.")
    if (kind or confusion) and not chooses:
        given = "--kind" if kind else "--confusion"
        raise typer.BadParameter(f"{given} goes with --router FILE, or --task auto.")
    if everything and benchmarks:
        raise typer.BadParameter("give --all or --benchmark, not both.")
    from urushi.inference.local_copies import LocalCopies

    with LocalCopies(out.say) as copies:
        name_as_given(copies.told)
        drawn = copies.target(confusion)
        if drawn is not None:
            from urushi.evaluation.plots import check_plot_target

            check_plot_target(drawn)
        scores = None if json == "-" else copies.target(json)
        copies.refuse_taken([drawn, scores], overwrite)
        names = all_present(out, data) if everything else benchmarks or []
        two = two_folders(copies.folder(inputs), copies.folder(targets))
        folders = copies.folder(pairs), two, copies.folder(clean)
        chosen = _choose(names, *folders, degrade, values or [], seed)
        if not chosen:
            raise typer.BadParameter(
                "name what to measure on: --benchmark, --all, --pairs, --inputs or --clean."
            )
        whole = copies.target(sheet)
        sheets = [None if whole is None else _sheet_path(whole, one, chosen) for one in chosen]
        copies.refuse_taken(sheets, overwrite)
        restorer = None
        if not as_is:
            restorer = choose_restorer(
                copies.model(model),
                copies.model(router),
                task,
                engine_options(engine, device, precision, tile, overlap, threads),
                copies.adapters(adapter),
                default=False,
                quick=quick,
            )
            choose_by(restorer, top_k, threshold, quick)
        run = _Run(out, restorer, data, limit, protocol, kind, overwrite)
        for benchmark, path in zip(chosen, sheets, strict=True):
            run.measure(benchmark, path)
        _tell(out, run.results, run.routes, "-" if json == "-" else scores, per_picture, overwrite)
        if drawn is not None and run.routes:
            _draw_confusion(out, run, drawn)
        copies.send_all(overwrite=overwrite)
    if run.failed:
        complain("\n".join(run.failed))
        raise typer.Exit(EXIT_FAILED)


def _choose(
    names: Sequence[str],
    pairs: Path | None,
    two: "PairedFolder | None",
    clean: Path | None,
    degrade: str | None,
    values: Sequence[str],
    seed: int,
) -> "list[Benchmark]":
    from urushi.data.pairs import PairedFolder
    from urushi.evaluation.benchmark import clean_benchmark, find_benchmark, paired_benchmark

    chosen = [find_benchmark(name) for name in names]
    for found in (None if pairs is None else PairedFolder(pairs), two):
        if found is None:
            continue
        chosen.append(paired_benchmark(found.input_folder, found.target_folder))
    if degrade is not None:
        require(("torch",), "degrading clean pictures", "torch")
    if clean is not None:
        options = None if degrade is None else degradation_options(degrade, values)
        chosen.append(clean_benchmark(clean, options, seed=seed))
    if any(benchmark.degradation is not None for benchmark in chosen):
        require(("torch",), "degrading clean pictures", "torch")
    return chosen


def _sheet_path(sheet: Path, benchmark: "Benchmark", chosen: "Sequence[Benchmark]") -> Path:
    if len(chosen) == 1:
        return sheet
    return sheet.with_name(f"{sheet.stem}_{benchmark.name}{sheet.suffix}")


class _Run:
    """One evaluation: benchmarks one after another; one that fails does not stop the others."""

    def __init__(
        self,
        out: Output,
        restorer: "PictureRestorer | None",
        root: str | None,
        limit: int | None,
        protocol: str | None,
        kind: str | None = None,
        overwrite: bool = False,
    ) -> None:
        from urushi.inference.auto import AUTO, AutoRestorer

        self._out, self._restorer = out, restorer
        self._root, self._limit, self._protocol = root, limit, protocol
        self._kind, self._overwrite = kind, overwrite
        self.chooser: AutoRestorer | None = None
        if isinstance(restorer, AutoRestorer) and restorer.task == AUTO:
            self.chooser = restorer
            restorer.kept = len(restorer.tasks) + 2  # every route is taken again and again
        self.results: list[BenchmarkResult] = []
        self.routes: list[RoutesResult] = []
        self.failed: list[str] = []

    def measure(self, benchmark: "Benchmark", sheet: Path | None) -> None:
        from urushi.evaluation.benchmark import evaluate as measure
        from urushi.evaluation.report import Gallery

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
            self._out.say(f"measured {benchmark.name}: {len(result.pictures)} pictures")
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


def _tell(
    out: Output,
    results: "Sequence[BenchmarkResult]",
    routes: "Sequence[RoutesResult]",
    json: "Path | Literal['-'] | None",
    per_picture: bool,
    overwrite: bool,
) -> None:
    from urushi.evaluation.report import Report, picture_table, score_table

    if results:
        for result in results if per_picture else ():
            out.show(picture_table(result))
        out.show(score_table(results))
        for result in results:
            for other in result.published:
                out.say(f"{result.benchmark}: {other.method} {other.psnr:.2f} dB ({other.source})")
            if result.note:
                out.say(f"{result.benchmark}: {result.note}")
    if routes:
        from urushi.evaluation.routes import routes_table

        out.show(routes_table(routes))
    if json is None:
        return
    document = Report(results=tuple(results)).to_json()
    if routes:
        content = loads(document)
        content["routes"] = [loads(result.model_dump_json()) for result in routes]
        document = dumps(content, indent=2)
    if json == "-":
        out.text(document)
        return
    try:
        with whole_file(Path(json), overwrite=overwrite) as part:
            part.write_text(document + "\n", encoding="utf-8")
    except OSError as error:
        raise TargetError(f"{json} cannot be written ({error.strerror}): choose another") from error
    out.say(f"scores: {json}")
