"""Groups of options: a command takes them whole, and the command line shows their fields."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, get_type_hints

from urushi.app.options import (
    Adapters,
    Device,
    EngineName,
    MaybeModel,
    Overlap,
    Precision,
    Quick,
    Router,
    StrengthOf,
    StrengthOfChroma,
    StrengthOfLuma,
    Task,
    Threads,
    Threshold,
    Tile,
    TopK,
    check_choice,
    check_rule,
    choose_restorer,
)

if TYPE_CHECKING:
    from urushi.inference.choice import PictureRestorer
    from urushi.inference.local_copies import LocalCopies
    from urushi.inference.restorer import EngineOptions

__all__ = ["EngineGroup", "RestorerGroup", "StrengthGroup", "grouped"]

DEFAULT_OVERLAP = 16


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Lets a command take groups: dataclasses whose fields are options, with their defaults.

    The command line sees the fields in place of the parameter, in their order.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        group = parameter.annotation
        if is_dataclass(group):
            groups[name] = group
            hints = get_type_hints(group, include_extras=True)
            own = [(field.name, field.default, hints[field.name]) for field in fields(group)]
        else:
            own = [(name, parameter.default, group)]
        parameters += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
            for key, default, hint in own
        ]

    @wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        command(**given)

    run.__dict__["__signature__"] = inspect.Signature(parameters)
    return run


@dataclass(frozen=True, kw_only=True)
class EngineGroup:
    """What runs the network, and how."""

    engine: EngineName = "auto"
    device: Device = "auto"
    precision: Precision = "float32"
    tile: Tile = None
    overlap: Overlap = None
    threads: Threads = None

    def options(self) -> "EngineOptions":
        """What these say of every restorer."""
        overlap = self.overlap
        if overlap is None:
            tile = self.tile
            overlap = DEFAULT_OVERLAP if tile is None else min(DEFAULT_OVERLAP, tile // 2)
        return {
            "engine": self.engine,
            "device": self.device,
            "precision": self.precision,
            "tile": self.tile,
            "overlap": overlap,
            "threads": self.threads,
        }


@dataclass(frozen=True, kw_only=True)
class RestorerGroup:
    """Which network, which adapters, and what chooses among them."""

    model: MaybeModel = None
    adapter: Adapters = None
    task: Task = None
    router: Router = None
    top_k: TopK = None
    threshold: Threshold = None
    quick: Quick = False

    def local(self, copies: "LocalCopies") -> "RestorerGroup":
        """The same with copies of the files that URLs name."""
        return replace(
            self,
            model=copies.model(self.model),
            router=copies.model(self.router),
            adapter=copies.adapters(self.adapter),
        )

    def check(self, *, look: bool = False, default: bool = True) -> None:
        """Refuses options that contradict one another.

        Args:
            look: whether --look is given.
            default: as `restorer` takes it.
        """
        check_choice(self.router, self.task, self.adapter)
        stated = {
            "--look": look, "--top-k": self.top_k is not None,
            "--threshold": self.threshold is not None, "--quick": self.quick,
        }  # fmt: skip
        given = next((option for option, is_given in stated.items() if is_given), None)
        if given is not None:
            chosen = (self.model, self.router, self.task, self.adapter)
            check_rule(given, *chosen, default=default)

    def restorer(self, options: "EngineOptions", *, default: bool = True) -> "PictureRestorer":
        """What these ask for.

        Args:
            options: of the engine.
            default: choose where an all-in-one file ships and nothing else is asked for.
        """
        from urushi.inference.auto import AutoRestorer

        self.check(default=default)
        made = choose_restorer(
            self.model,
            self.router,
            self.task,
            options,
            self.adapter,
            default=default,
            quick=self.quick,
        )
        if self.top_k is not None or self.threshold is not None:
            assert isinstance(made, AutoRestorer), made  # `check` saw to it
            made.choose_by(1 if self.top_k is None else self.top_k, self.threshold)
        return made


@dataclass(frozen=True, kw_only=True)
class StrengthGroup:
    """How much of what is changed is kept."""

    strength: StrengthOf = 1.0
    luma: StrengthOfLuma = 1.0
    chroma: StrengthOfChroma = 1.0

    def applied_to(self, restorer: "PictureRestorer") -> "PictureRestorer":
        """The restorer with this strength."""
        from urushi.inference.auto import with_strength
        from urushi.inference.strength import Strength

        return with_strength(restorer, Strength(self.strength, self.luma, self.chroma))
