"""The cells of a comparison: their files, what each is trained on, and what names it."""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from urushi.adapters import ParameterReport, attach, create_adapter
from urushi.adapters.contribution_profile import locate_profile
from urushi.errors import AdapterError, RecipeError
from urushi.evaluation.catalog import Benchmark
from urushi.files.model import LoadedModel, architecture_hash, read_model
from urushi.inference.zoo import find_model
from urushi.names import counted
from urushi.settings import Settings
from urushi.training.compare.description import (
    BaseSettings,
    Comparison,
    RouteSettings,
    Variant,
    variants,
)
from urushi.training.compare.task_files import (
    ClassPart,
    Composite,
    Digests,
    TaskFiles,
    read_task,
)
from urushi.training.profile_tasks import build_model
from urushi.training.recipe import (
    ClassSource,
    DataSettings,
    OptimizerSettings,
    PatchSettings,
    Recipe,
    ScheduleSettings,
    ValidationSettings,
)

__all__ = ["Cell", "Plan", "make_plan"]

# Part of every identity: raised when a cell of the same terms would come out differently, as when a
# default of `Recipe` that is not among them changes.
VERSION = 1
_TERMS = {
    "steps", "patch", "batch", "augment", "precision", "loss", "warmup", "clip", "ema",
    "save_memory",
}  # fmt: skip

# Settings that every identity states, whatever their values. One that came later is stated only
# where it differs from its default: what was finished before keeps its name.
_ALWAYS_STATED = _TERMS | {
    "active", "alpha", "batch_norm", "beta", "branches", "budget", "by", "channel_reduction",
    "constant_norm", "count", "damaged", "decoder", "delta", "dense", "depthwise", "each", "empty",
    "expert", "experts", "fft_norm", "floor", "freeze", "frequency", "gate_reduction", "gates",
    "grid", "hidden", "initial", "inverted", "k", "kernel", "layers", "layout", "learn_scale",
    "local_bias", "map", "min_rank", "name", "norm", "offsets", "other_weights", "parameters",
    "profile", "quadratic_rank", "rank", "ranks", "reach", "rectify", "reduction", "router",
    "scale", "scale_layer", "scaling", "seed", "shared", "sites", "smallest", "spread", "stages",
    "tokens", "tune", "tuned", "up_bias", "variant", "vector",
}  # fmt: skip


class Cell(BaseModel):
    """One training and its measurement.

    Attributes:
        base, task, label: names of the base, the task, and the method with its settings.
        method: an entry of `METHODS`.
        pairs: how many are learned from; None where nothing is trained.
        seed: of everything random; None where nothing is.
        recipe: of the training.
        random: the weights of the base are drawn from the seed.
        examples: name, input and target of each pair; of clean pictures the last is None.
        validation: what is measured on; None where there are classes, which have their own.
        classes: what is learned together, in the order of the experts.
        composites: what is measured besides.
        route: by what the method acts, if it is told anything.
        limit: pictures of it that are measured, spread evenly; None takes all.
        identity: everything its result depends on, but for the machine.
        hash: of `identity`.
        parameters: trained ones; None where the method does not go onto the base.
        problem: why it cannot be run; empty where it can.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    task: str
    label: str
    method: str
    pairs: int | None
    seed: int | None
    recipe: Recipe
    random: bool
    examples: tuple[tuple[str, Path, Path | None], ...]
    validation: Benchmark | None
    classes: tuple[ClassPart, ...] = ()
    composites: tuple[Composite, ...] = ()
    route: RouteSettings | None = None
    limit: int | None = None
    identity: dict[str, Any]
    hash: str
    parameters: int | None
    problem: str = ""

    @property
    def title(self) -> str:
        """The cell for people."""
        words = [self.base, self.task, self.label]
        words += [counted(self.pairs, "pair")] if self.pairs is not None else []
        words += [f"seed {self.seed}"] if self.seed is not None else []
        return ", ".join(words)

    def matches(self, patterns: list[str]) -> bool:
        """Whether a pattern is for its task, its label, `task/label` or `base/task/label`."""
        names = [self.task, self.label, f"{self.task}/{self.label}"]
        names.append(f"{self.base}/{self.task}/{self.label}")
        return not patterns or any(fnmatchcase(n, p) for n in names for p in patterns)


@dataclass(frozen=True)
class Plan:
    """All cells, in the order in which they are run.

    A whole grid of the first seed comes first, from the fewest pairs to the most: whenever it is
    interrupted, what is finished can be compared.

    Attributes:
        comparison: what they are of.
        cells: one for every combination there is data for.
        notes: what was left out, a sentence each.
    """

    comparison: Comparison
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]

    def only(self, patterns: list[str]) -> list[Cell]:
        """The cells that patterns name, see `Cell.matches`, and `frozen` of their tasks.

        Raises:
            RecipeError: a pattern names none.
        """
        for pattern in patterns:
            if not any(cell.matches([pattern]) for cell in self.cells):
                tasks = dict.fromkeys(cell.task for cell in self.cells)
                labels = dict.fromkeys(cell.label for cell in self.cells)
                raise RecipeError(
                    f"{pattern!r} names no cell: expected TASK/METHOD, of the tasks "
                    f"{', '.join(tasks)} and the methods {', '.join(labels)}",
                    usage=True,
                )
        wanted = {(c.base, c.task) for c in self.cells if c.matches(patterns)}
        return [
            cell
            for cell in self.cells
            if cell.matches(patterns)
            or (cell.method == "frozen" and (cell.base, cell.task) in wanted)
        ]


def make_plan(comparison: Comparison, root: Path) -> Plan:
    """Looks through bases and data.

    Args:
        comparison: what to do.
        root: what the folders of the tasks are relative to.

    Raises:
        RecipeError: a method or setting is unknown.
        FileFormatError: a base cannot be read.
        DataError: a folder is missing, its pairs do not match, or pictures are learned from and
            measured by.
    """
    planner = _Planner(comparison, root)
    cells = (*planner.frozen(), *planner.trained())
    return Plan(comparison, cells, tuple(planner.notes))


@dataclass
class _Base:
    """A base with what is known of its file, and what each variant trains of it, or why not."""

    settings: BaseSettings
    model: LoadedModel
    reports: dict[str, ParameterReport | str]

    def facts(self, seed: int | None) -> dict[str, Any]:
        architecture = architecture_hash(self.model.header)
        if self.settings.random:
            return {"architecture": architecture, "random": seed}
        return {"architecture": architecture, "weights": self.model.header.weights_hash}


@dataclass
class _Planner:
    comparison: Comparison
    root: Path
    notes: list[str] = field(default_factory=list)
    _digest: Digests = field(default_factory=Digests)

    def __post_init__(self) -> None:
        self.variants = variants(self.comparison)
        self.bases = [self._read_base(base) for base in self.comparison.bases]
        self.tasks = [read_task(task, self.root, self._digest) for task in self.comparison.tasks]
        for task in self.tasks:
            missing = [n for n in self.comparison.pairs if n > task.count]
            if missing:
                said = ", ".join(map(str, missing))
                self.notes.append(
                    f"{task.settings.name} has {counted(task.count, 'pair')}: left out at {said}"
                )

    def frozen(self) -> list[Cell]:
        """Cells without training: one for a base and task, or for each seed of random weights."""
        return [
            self._cell(base, task, variant, None, seed)
            for base in self.bases
            for seed in (self.comparison.seeds if base.settings.random else [None])
            for task in self.tasks
            for variant in self.variants
            if variant.method == "frozen"
        ]

    def trained(self) -> list[Cell]:
        """All other cells."""
        return [
            self._cell(base, task, variant, count, seed)
            for seed in self.comparison.seeds
            for count in sorted(self.comparison.pairs)
            for task in self.tasks
            if count <= task.count
            for base in self.bases
            for variant in self.variants
            if variant.method != "frozen"
        ]

    def _cell(
        self, base: _Base, task: TaskFiles, variant: Variant, count: int | None, seed: int | None
    ) -> Cell:
        chosen = [] if count is None else task.chosen(count, seed or 0)
        route = None if count is None else _of_seed(variant.route, seed)
        recipe = self._recipe(base, task, variant, seed or 0)
        identity = {
            "version": VERSION,
            "base": base.facts(seed),
            "method": self._method_facts(variant, base),
            "validation": task.facts,
        }
        if route is not None:
            identity["route"] = _stated(route, set(type(route).model_fields) - {"router"})
            if route.router is not None:
                identity["route"]["router"] = self._digest(Path(route.router))
        if self.comparison.limit is not None:
            identity["limit"] = self.comparison.limit
        if count is not None:
            terms = _stated(self.comparison, _TERMS)
            terms |= {"seed": seed, "learning_rate": variant.learning_rate}
            files = [[n, *(self._digest(path) for path in paths if path)] for n, *paths in chosen]
            identity |= {"examples": files, "training": terms}
        report = base.reports[variant.label]
        fits = isinstance(report, ParameterReport)
        return Cell(
            base=base.settings.name,
            task=task.settings.name,
            label=variant.label,
            method=variant.method,
            pairs=count,
            seed=seed,
            recipe=recipe,
            random=base.settings.random,
            examples=tuple(chosen),
            validation=task.validation,
            classes=task.parts,
            composites=task.composites,
            route=route,
            limit=self.comparison.limit,
            identity=identity,
            hash=_hash(identity),
            parameters=report.trainable if fits else None,
            problem="" if fits else report,
        )

    def _recipe(self, base: _Base, task: TaskFiles, variant: Variant, seed: int) -> Recipe:
        plan, degradation = self.comparison, task.settings.degradation
        sources = {
            f"class-{index}": ClassSource(
                degradation=part.settings.degradation,
                pairs=["."] if part.settings.degradation is None else [],
            )
            for index, part in enumerate(task.classes)
        }
        here = "pairs" if degradation is None and not sources else "pictures"
        return Recipe(
            name=plan.name,
            start=str(base.model.path.resolve()),
            adapter=variant.config,
            save_memory=plan.save_memory,
            data=DataSettings.model_validate({here: ["."], **plan.values_of(PatchSettings)}),
            degradation=degradation,
            classes=sources,
            seed=seed,
            loss=plan.loss,
            optimizer=OptimizerSettings(learning_rate=variant.learning_rate, clip=plan.clip),
            schedule=ScheduleSettings(steps=plan.steps, warmup=plan.warmup),
            ema=plan.ema,
            precision=plan.precision,
            validation=ValidationSettings(every=plan.steps),
        )

    def _method_facts(self, variant: Variant, base: _Base) -> dict[str, Any]:
        """Method and settings, see `_stated`; of a profile its content, not its place."""
        facts = {"method": variant.method, **_stated(variant.resolved)}
        if isinstance(base.reports[variant.label], str):
            return facts
        facts = locate_profile(facts, base.model.path)
        if isinstance(facts.get("profile"), str):
            facts["profile"] = self._digest(Path(facts["profile"]))
        return facts

    def _read_base(self, settings: BaseSettings) -> _Base:
        model = read_model(find_model(settings.model))
        return _Base(settings, model, {v.label: _report(model, v) for v in self.variants})


def _report(model: LoadedModel, variant: Variant) -> ParameterReport | str:
    """What a variant trains of a base, or why it cannot go onto it."""
    network = build_model(model)
    try:
        config = locate_profile(variant.config, model.path)
        return attach(network, create_adapter(network, config)).report()
    except AdapterError as error:
        return str(error)


def _of_seed(route: RouteSettings | None, seed: int | None) -> RouteSettings | None:
    if route is None or route.router is None:
        return route
    return route.model_copy(update={"router": route.router.replace("{seed}", str(seed or 0))})


def _stated(settings: Settings, names: Collection[str] | None = None) -> dict[str, Any]:
    """What settings say, as JSON values; of `names` alone where they are given.

    Defaults are included, but for fields that there were not always.
    """
    values, stated = settings.model_dump(mode="json"), {}
    for name, field_of in type(settings).model_fields.items():
        value = getattr(settings, name)
        is_default = value == field_of.get_default(call_default_factory=True, validated_data={})
        if (names is None or name in names) and (name in _ALWAYS_STATED or not is_default):
            stated[name] = _stated(value) if isinstance(value, Settings) else values[name]
    return stated


def _hash(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]
