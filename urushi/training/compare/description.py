"""A comparison: a complete, validated description of what is set beside what, and on what.

Every combination of base, task, method, number of pairs and seed is a *cell*. Only what is compared
differs between cells: steps, patches, optimizer and data are those stated here, for all of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from urushi.adapters import METHODS
from urushi.errors import RecipeError, is_bare_name, nearest
from urushi.settings import Settings, names_file, parse_settings, read_settings, shown
from urushi.training.adaptation import DEFAULT_LEARNING_RATE, LEARNING_RATES
from urushi.training.recipe import RECIPES, LossSettings, PatchSettings

__all__ = [
    "ALWAYS",
    "COMPARISONS",
    "BaseSettings",
    "Comparison",
    "CompositeSettings",
    "MethodSettings",
    "RouteSettings",
    "TaskSettings",
    "Variant",
    "find_comparison",
    "load_comparison",
    "variants",
]

COMPARISONS = RECIPES / "compare"
# Beside every method: what was there before, and what no thrift would give.
ALWAYS = ("frozen", "full")

_Name = Annotated[str, Field(pattern=r"^[^/\x00-\x1f\x7f]+$")]


class BaseSettings(Settings):
    """A model that methods start from.

    Attributes:
        name: in tables and plots.
        model: model file, or name in the zoo.
        random: take the architecture of `model` alone, with random weights drawn from the seed of
            each cell.
    """

    name: _Name
    model: str
    random: bool = False


class CompositeSettings(Settings):
    """Pictures with several degradations at once, which nothing is learned from.

    Attributes:
        name: in tables and plots.
        of: names of the classes that are on them.
        validation: folder of clean pictures.
        degradation: what spoils them.
    """

    name: _Name
    of: Annotated[list[str], Field(min_length=2)]
    validation: str
    degradation: dict[str, Any]


class TaskSettings(Settings):
    """What is learned: pairs of pictures, clean ones and what spoils them, or classes of these.

    Folders are relative to the place of the data.

    Attributes:
        name: in tables and plots.
        pairs: holds a folder of inputs and one of targets.
        clean: folder of clean pictures, at any depth; goes with `degradation`.
        degradation: `{name: ..., ...}` as `urushi.degradations.create_degradation` takes it.
        validation: of the same kind as what is learned from, and none of its pictures.
        classes: tasks that are learned together, each patch being of one of them; their scores
            stand apart, and their mean is that of the task.
        composites: what is measured besides, where there are classes.
    """

    name: _Name
    pairs: str | None = None
    clean: str | None = None
    degradation: dict[str, Any] | None = None
    validation: str | None = None
    classes: list["TaskSettings"] = []
    composites: list[CompositeSettings] = []

    @model_validator(mode="after")
    def _one_kind(self) -> "TaskSettings":
        if self.classes:
            return self._of_classes()
        if (self.pairs is None) == (self.clean is None):
            raise ValueError("expected a folder in pairs or in clean, one of the two")
        if (self.clean is None) != (self.degradation is None):
            raise ValueError("expected a degradation with clean, and none with pairs")
        if self.validation is None:
            raise ValueError("validation is missing: it names what is measured")
        if self.composites:
            raise ValueError("composites has no effect without classes: leave it out")
        return self

    @property
    def names(self) -> list[str]:
        """What its mean is of: its classes, or itself."""
        return [one.name for one in self.classes] or [self.name]

    def _of_classes(self) -> "TaskSettings":
        for name in ("pairs", "clean", "degradation", "validation"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect beside classes, which state their own")
        names = [one.name for one in self.classes]
        if len(set(names)) < len(names) or any(one.classes for one in self.classes):
            raise ValueError("expected classes of different names that have no classes themselves")
        for composite in self.composites:
            if missing := set(composite.of) - set(names):
                raise ValueError(f"composite {composite.name} is of {min(missing)!r}, no class")
        return self


class RouteSettings(Settings):
    """By what a method acts that is told something of every patch and picture.

    Attributes:
        router: file of a router that knows the classes; `{seed}` in it stands for the cell's seed.
            It is frozen, and reads patches in training and whole pictures in measuring.
        by: what names the experts: the router; `oracle`, the class that a patch is of; `random`,
            any of them; null gives no experts.
        k: with `router`, experts of one picture at most.
        vector: what guides: the router's degradation vector; `constant`, zeros, which say nothing;
            null guides not.
    """

    router: str | None = None
    by: Literal["router", "oracle", "random"] | None = None
    k: Annotated[int, Field(ge=1)] = 1
    vector: Literal["router", "constant"] | None = None

    @model_validator(mode="after")
    def _has_effect(self) -> "RouteSettings":
        if self.by is None and self.vector is None:
            raise ValueError("expected what names experts in by, or what guides in vector")
        if (self.router is None) == (self.by == "router" or self.vector is not None):
            raise ValueError("router goes with by: router, or with a vector, whose length it has")
        if self.k != 1 and self.by != "router":
            raise ValueError("k has no effect without by: router")
        return self


class MethodSettings(Settings):
    """A method with its settings, which stand beside these keys.

    Attributes:
        method: an entry of `METHODS`.
        label: in tables and plots; null is the name of the method.
        learning_rate: the greatest; null is that of `urushi adapt` for the method.
        route: of `experts` and `guidance`, which are for tasks of several classes.
        settings: all other keys.
    """

    method: str
    label: _Name | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    route: RouteSettings | None = None
    settings: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        own = {key: value for key, value in content.items() if key in cls.model_fields}
        rest = {key: value for key, value in content.items() if key not in cls.model_fields}
        return {**own, "settings": {**own.get("settings", {}), **rest}}


class Comparison(PatchSettings):
    """A comparison, complete.

    Attributes:
        name: of its results.
        description: a sentence above them.
        base: model file or name in the zoo; or several, to compare what they were trained with.
        tasks: what is learned.
        methods: what is compared; `frozen` and `full` are added where they are missing.
        budgets: shares of the base's parameters, such as `7%`, each tried by every method that
            takes a budget and does not state one.
        pairs: numbers of pairs (or of clean pictures) to learn from. The fewer are among the more
            of the same seed. A task that does not have as many is left out there.
        seeds: of everything random: which pairs, which patches, first values of adapters.
        steps: optimizer steps of every cell.
        precision: arithmetic of training; measured is always in float32.
        loss: what is minimised.
        warmup: steps of linear warm-up; then the learning rate falls by half a cosine.
        clip: greatest norm of the gradient; null does not clip.
        ema: decay of the moving average of the weights, which is what is measured.
        save_memory: keep less for the way back and calculate it again.
        limit: pictures of each validation that are measured, spread evenly over their names; null
            takes all.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    base: str | Annotated[list[BaseSettings], Field(min_length=1)] = "base"
    tasks: Annotated[list[TaskSettings], Field(min_length=1)]
    methods: list[MethodSettings]
    budgets: list[str | float] = []
    pairs: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    steps: Annotated[int, Field(ge=1)]
    precision: Literal["float32", "bf16"] = "float32"
    loss: LossSettings = LossSettings(name="psnr", floor=1e-5)
    warmup: Annotated[int, Field(ge=0)] = 20
    clip: Annotated[float, Field(gt=0)] | None = 0.5
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98
    save_memory: bool = False
    limit: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _nothing_twice(self) -> "Comparison":
        named = {
            "tasks": [name for task in self.tasks for name in task.names],
            "base": [base.name for base in self.bases],
            "pairs": self.pairs,
            "seeds": self.seeds,
        }
        routed = {entry.method for entry in self.methods if entry.route is not None}
        if routed and not all(task.classes for task in self.tasks):
            raise ValueError(f"{min(routed)} has a route, which only tasks of classes have")
        for key, values in named.items():
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"{key} has {twice[0]!r} twice: each must be there once")
        return self

    @property
    def bases(self) -> list[BaseSettings]:
        """All bases, also where there is one."""
        if isinstance(self.base, str):
            return [BaseSettings(name=Path(self.base).stem or "base", model=self.base)]
        return self.base


@dataclass(frozen=True)
class Variant:
    """One row of the comparison: a method with all its settings.

    Attributes:
        label: unique in the comparison.
        method: an entry of `METHODS`.
        config: `{"method": ..., ...}` as `urushi.adapters.create_adapter` takes it.
        resolved: all settings, defaults included.
        learning_rate: the greatest.
        route: by what it acts, if it is told anything.
    """

    label: str
    method: str
    config: dict[str, Any]
    resolved: Settings
    learning_rate: float
    route: RouteSettings | None = None


def variants(comparison: Comparison, source: str = "the comparison") -> list[Variant]:
    """What is compared: `frozen` first, then as stated, `full` last if it is not stated.

    Args:
        comparison: its methods and budgets.
        source: named in messages.

    Raises:
        RecipeError: a method or one of its settings is unknown, a label stands twice, or no method
            takes a budget.
    """
    stated = list(comparison.methods)
    for method in reversed(ALWAYS):
        if method not in [entry.method for entry in stated]:
            stated.append(MethodSettings(method=method))
    stated.sort(key=lambda entry: entry.method != "frozen")
    found: list[Variant] = []
    budgeted = False
    for entry in stated:
        takes = _takes_budget(entry, source) and "budget" not in entry.settings
        budgeted |= takes
        for budget in comparison.budgets if takes and comparison.budgets else [None]:
            found.append(_variant(entry, budget, len(comparison.budgets) > 1, source))
    if comparison.budgets and not budgeted:
        raise RecipeError(
            f"{source}: budgets has no effect, no method takes one, or all state theirs: leave "
            "it out, or add colora"
        )
    labels = [variant.label for variant in found]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise RecipeError(
            f"{source}: two methods are called {twice[0]!r}: give each a label of its own"
        )
    return found


def _takes_budget(entry: MethodSettings, source: str) -> bool:
    method = METHODS.find(entry.method, RecipeError, f"{source}: ")
    return "budget" in method.settings.model_fields


def _variant(
    entry: MethodSettings, budget: str | float | None, several: bool, source: str
) -> Variant:
    settings = dict(entry.settings)
    label = entry.label or entry.method
    if budget is not None:
        settings["budget"] = budget
        said = budget if isinstance(budget, str) else f"{100 * budget:g}%"
        label = f"{label} {said}" if several else label
    made = parse_settings(
        settings, METHODS[entry.method].settings, RecipeError, f"{source}: method {entry.method}"
    )
    return Variant(
        label=label,
        method=entry.method,
        config={"method": entry.method, **settings},
        resolved=made,
        learning_rate=entry.learning_rate
        or LEARNING_RATES.get(entry.method, DEFAULT_LEARNING_RATE),
        route=entry.route,
    )


def find_comparison(name: Path | str) -> Path:
    """The file of a comparison given by path, or by the name of one that comes with Urushi.

    Raises:
        RecipeError: there is neither.
    """
    path = Path(name)
    if names_file(path):
        return path
    shipped = COMPARISONS / f"{name}.yaml"
    if path.suffix == "" and names_file(shipped):
        return shipped
    names = [file.stem for file in sorted(COMPARISONS.glob("*.yaml"))]
    raise RecipeError(
        f"there is no comparison {shown(str(name))}{nearest(str(name), names)}: expected a YAML "
        f"file, or one of {', '.join(names)}",
        usage=is_bare_name(str(name)),
    )


def load_comparison(name: Path | str, overrides: Iterable[str] = ()) -> Comparison:
    """Reads and validates a comparison, which may state `extends: NAME`; see `load_recipe`.

    Args:
        name: a YAML file, or a comparison that comes with Urushi.
        overrides: `a.b=value` texts.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong; names the key.
    """
    path = find_comparison(name)
    comparison = read_settings(path, Comparison, RecipeError, overrides, find_comparison)
    variants(comparison, str(path))
    return comparison
