"""Restoring by itself: what a picture needs is read from it, and the experts for that are taken.

After LoRA-IR (arXiv 2410.15385): the router looks at the whole picture once, never at tiles; the
experts it names are folded into the weights of the base, which then runs at its plain speed.
"""

import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from urushi.errors import AdapterError
from urushi.files.all_in_one_file import AllInOne
from urushi.files.model import LoadedModel
from urushi.files.router_file import CLEAN
from urushi.image import AS_FOUND, DEFAULT_MAX_PIXELS, Samples, open_picture
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.arrays import colours_of
from urushi.inference.choice import Choice, PictureRestorer, Route, hinted
from urushi.inference.clip_folder import clip_beside
from urushi.inference.emptiness import Emptiness, is_empty
from urushi.inference.guard.damage import LOW_LIGHT, judged
from urushi.inference.guard.holding import guarded
from urushi.inference.guard.signs import Watcher, signs_of
from urushi.inference.guided import GuidedEngine, guided_restorer
from urushi.inference.hardware import MadeAnew, available_memory
from urushi.inference.in_turn import AUTO, NONE, RestorerInTurn, classes_of, in_order
from urushi.inference.members import find_base, find_members, read_members
from urushi.inference.option_names import check_names
from urushi.inference.probing import open_all_in_one_router
from urushi.inference.restorer import EngineOptions, OnProgress, Restorer
from urushi.inference.second_look import Views, kind_behind, mended
from urushi.inference.strength import FULL, Strength, as_strength, weakened
from urushi.inference.tiling import ReadRows
from urushi.inference.zoo import find_model
from urushi.routing.views import view_rows, views_of
from urushi.routing.wording import percent

__all__ = ["AUTO", "NONE", "AutoRestorer", "find_base", "with_strength"]

# All routes of one expert each, and the base. Each takes tens of megabytes, so that most are only
# kept where memory is plenty.
_KEPT, _KEPT_ANYWAY, _PLENTY = 10, 3, 2 << 30
OWN_OPTIONS = ("task", "k", "threshold", "quick", "guard", "strength", "kept")
# Routes are this coarse, since each has weights of its own to be made ready.
_STEPS = 8
# The base takes away rain as well, so it is held to noise only where rain is less likely than this.
_RAIN = 0.04
IN_FLOAT32 = (
    "int8 is measured for the base alone: with an expert this picture was restored in float32"
)


class _Latest(threading.local):
    """What was done with the picture that a thread restored last."""

    choice: Choice | None = None


class AutoRestorer(MadeAnew):
    """Mends pictures of any size with the experts that each of them needs.

    Engines of the last routes are kept, so that pictures of one route, one after another, have one
    made ready once. Threads are served one picture after the other; pickled or copied it is what
    it was made from, as `Restorer` is.

    Args:
        source: an all-in-one file: its path, its name in the zoo, or one that is read already; None
            takes the one that ships.
        model: its base, where that is neither beside the file nor in the zoo.
        task: `auto`; a class of the router, whose expert then mends every picture, or several,
            such as `haze+noise`, whose experts act one after the other
            (`urushi.inference.in_turn`); or `none`: the base alone.
        k: experts of one picture at most.
        threshold: the router abstains where it is less sure; None takes the file's.
        quick: decide by one look alone, also where the file says to try experts before, or to look
            again at what the first expert makes of a picture: sooner, and less often right.
        guard: hold what is done by itself to what damage there is (`urushi.inference.guard`).
        strength: how much of what is changed is kept, a number from 0 to 1 or a `Strength`; as
            one of these it may be set anew at any time.
        kept: engines that are kept ready, at least 1; at most 3 where memory is scarce.
        options: as `Restorer` takes them: engine, device, precision, tile, overlap, threads,
            compile, memory_limit. With precision int8 the base is calculated in 8 bits, and
            pictures that get an expert in float32, with a note. With the engine torch the router
            runs on torch as well; else on OpenVINO where it can.

    Raises:
        UrushiError: a file or an option cannot be used.
    """

    looks = True
    """Pictures are looked at before, so that each may need something else."""

    def __init__(
        self,
        source: str | Path | AllInOne | None = None,
        *,
        model: str | Path | LoadedModel | None = None,
        task: str = AUTO,
        k: int = 1,
        threshold: float | int | None = None,
        quick: bool = False,
        guard: bool = True,
        strength: Strength | float | int = FULL,
        kept: int = _KEPT,
        **options: Unpack[EngineOptions],
    ) -> None:
        assert kept >= 1, kept
        known = ("model", *OWN_OPTIONS, *EngineOptions.__annotations__)
        check_names(options, known, "AutoRestorer")
        made_from: dict[str, Any] = {
            "source": source if isinstance(source, AllInOne) else find_members(source),
            "model": model, "task": task, "k": k, "threshold": threshold, "quick": quick,
            "guard": guard, "strength": as_strength(strength), "kept": kept, "options": options,
        }  # fmt: skip
        self._make(**made_from)
        if not isinstance(source, AllInOne):
            made_from["source"] = made_from["source"].absolute()
        if isinstance(model, str | Path):
            made_from["model"] = find_model(model).absolute()
        self._record(**made_from, hashes=self._hashes())
        if options.get("tile") is not None or options.get("overlap") is not None:
            # What does not fit is told now, and not of each picture anew.
            self.restorer(Choice((), ""))

    def _make(
        self,
        source: Path | AllInOne,
        model: str | Path | LoadedModel | None,
        task: str,
        k: int,
        threshold: float | int | None,
        quick: bool,
        guard: bool,
        strength: Strength,
        kept: int,
        options: EngineOptions,
        hashes: tuple[str, ...] | None = None,
    ) -> None:
        self._turn = threading.RLock()
        self._latest = _Latest()
        self.members = read_members(source)
        header = self.members.router.header
        self.base = find_base(self.members, model)
        self.kept, self._options, self._guards = kept, options, guard
        self.strength, self._twice = strength, not quick
        self.choose_by(k, threshold)
        self._named = classes_of(task, self.members.path, self.members.experts)
        self.task = task
        if hashes not in (None, self._hashes()):
            raise AdapterError(
                f"{self.members.path}: it or its base or a member changed after this restorer was "
                "sent or copied: create a new one"
            )
        self._router = None
        if task == AUTO or self.members.guidance is not None:
            clip = clip_beside(self.members.path, header.encoder)
            # Who is told what to do reads the vector alone.
            quick = quick or task != AUTO
            self._router = open_all_in_one_router(
                self.members,
                self.base,
                quick=quick,
                clip=clip,
                engine=options.get("engine", "auto"),
                device=options.get("device", "auto"),
                threads=options.get("threads"),
            )
        self._ready: OrderedDict[Route, Restorer] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if "_waits" not in self.__dict__:
            rule = {"k": self.k, "threshold": self.threshold, "task": self.task}
            rule["strength"] = self.strength
            state["_made_from"] = {**self._made_from, **rule}
        return state

    def _hashes(self) -> tuple[str, ...]:
        members = [*self.members.experts.values(), *filter(None, [self.members.guidance])]
        inside = (member.adapter.header.tensors_hash for member in members)
        return (self.members.router.header.tensors_hash, self.base.header.weights_hash, *inside)

    @property
    def last(self) -> Choice | None:
        """What was done with the picture that this thread restored last by `restore`."""
        return self._latest.choice

    @property
    def classes(self) -> tuple[str, ...]:
        """What the router tells apart."""
        return self.members.router.header.classes

    @property
    def tasks(self) -> tuple[str, ...]:
        """The classes that have an expert."""
        return tuple(self.members.experts)

    # --- choosing ---

    def choose_by(self, k: int = 1, threshold: float | int | None = None) -> None:
        """Sets the rule that makes a route of what the router reads.

        Args:
            k: experts of one picture at most: the k likeliest, weighted by their probabilities.
            threshold: the router abstains where it is less sure; None takes the file's.

        Raises:
            AdapterError: one is out of range.
        """
        count = len(self.classes)
        if not 1 <= k <= count:
            raise AdapterError(
                f"k is {k}: expected a number of experts from 1 to {count}", usage=True
            )
        if threshold is not None and not 0 <= threshold <= 1:
            raise AdapterError(
                f"threshold is {threshold}: expected a probability from 0 to 1", usage=True
            )
        self.k, self.threshold = k, threshold

    def choose(self, image: np.ndarray) -> Choice:
        """What a picture needs.

        Args:
            image: as `Restorer.restore` takes it.

        Raises:
            PictureError, EngineError: see `urushi.routing.running.PictureRouter`.
        """
        if self._router is None:
            return self._told()
        colours = colours_of(image)
        views = views_of(colours, self._router.looks)
        with self._turn:
            pixels = colours.shape[0] * colours.shape[1]
            return self._chosen(views, pixels, is_empty(colours), signs_of(colours))

    def choose_rows(self, read: ReadRows, width: int, height: int) -> Choice:
        """The same for a picture that is read a few rows at a time; see `Restorer.restore_rows`."""
        if self._router is None:
            return self._told()
        emptiness = Emptiness(read)
        watcher = Watcher(emptiness.read, height, width)
        views = view_rows(watcher.read, self._router.looks, height, width)
        with self._turn:
            return self._chosen(views, height * width, emptiness.empty, watcher)

    def choose_file(
        self,
        path: Path,
        *,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        page: int | None = None,
        samples: Samples = AS_FOUND,
    ) -> Choice:
        """The same for a file, or one of its pages, in memory independent of the picture's height.

        Raises:
            PictureError: it cannot be read.
        """
        if self._router is None:
            return self._told()
        samples = samples._replace(in_use=True)
        with open_picture(path, max_pixels=max_pixels, page=page, samples=samples) as reader:
            return self.choose_rows(reader.read, reader.info.width, reader.info.height)

    def for_file(
        self,
        path: Path,
        *,
        page: int | None = None,
        max_pixels: int | None = DEFAULT_MAX_PIXELS,
        samples: Samples = AS_FOUND,
    ) -> tuple[Restorer, Choice | None]:
        """What restores a file, or one of its pages, and why; see `PictureRestorer.for_file`."""
        choice = self.choose_file(path, max_pixels=max_pixels, page=page, samples=samples)
        return self.restorer(choice), choice

    def _chosen(self, views: list[Views], pixels: int, empty: bool, watcher: Watcher) -> Choice:
        assert self._router is not None
        reading = self._router.read_views(views)
        vector = reading.vector if self.members.guidance is not None else None
        if self.task != AUTO:
            return replace(self._told(), vector=vector)
        if empty:
            return Choice((), "nothing is on it, so the base works alone", None, vector)
        decision = self._router.decide(reading, k=self.k, threshold=self.threshold)
        rounded = {name: round(_STEPS * w) / _STEPS for name, w in decision.weights.items()}
        named = [(name, weight) for name, weight in rounded.items() if weight > 0]
        route = tuple((n, w) for n, w in named if n in self.members.experts)
        reason = decision.reason
        if missing := [name for name, _ in named if name not in self.members.experts]:
            reason += f", but there is no expert for {' and '.join(missing)}"
            reason += "" if route else ", so the base works alone"
        choice = self._guarded(Choice(route, reason, decision, vector), watcher)
        return hinted(self._again(choice, views, pixels, watcher))

    def _again(self, choice: Choice, views: list[Views], pixels: int, watcher: Watcher) -> Choice:
        """The choice with a second expert, where a second look shows what that is for."""
        least = self.members.router.header.again
        whole = len(choice.route) == 1 and choice.route[0][1] == 1
        held = choice.guard is not None and choice.guard.told
        if least is None or not (self._twice and whole) or held:
            return choice
        assert self._router is not None
        assert choice.decision is not None
        first, decision = choice.route[0][0], choice.decision
        if decision.probabilities[first] < least:
            return choice
        seen = mended(views, self._of_route(choice.route, choice.vector), pixels)
        second = self._router.decide(self._router.read_views(seen))
        kind = kind_behind(second, first, least, self.members.experts)
        if kind is None:
            return replace(choice, second=second)
        sure = {first: decision.probabilities[first], kind: second.probabilities[kind]}
        order = in_order((first, kind))
        reason = ", then ".join(f"{name} ({percent(sure[name])})" for name in order)
        route = tuple((name, 1.0) for name in order)
        both = replace(choice, route=route, reason=reason, in_turn=True, second=second)
        return self._guarded(both, watcher)

    def _guarded(self, choice: Choice, watcher: Watcher) -> Choice:
        """The choice, less what the guard withholds."""
        if not self._guards:
            return choice
        seen = {} if choice.decision is None else choice.decision.probabilities
        clean = seen.get(CLEAN, 0) if choice.route or seen.get("rain", 0) < _RAIN else 0
        verdict = judged([n for n, _ in choice.route], watcher, clean, seen.get(LOW_LIGHT, 0))
        route = tuple((n, w) for n, w in choice.route if n not in verdict.withheld)
        reason, in_turn = verdict.reworded(choice.reason, route), choice.in_turn and len(route) > 1
        return replace(choice, route=route, reason=reason, in_turn=in_turn, guard=verdict.guard)

    def _told(self) -> Choice:
        if self.task == NONE:
            return Choice((), "the base alone, as told")
        route = tuple((name, 1.0) for name in self._named)
        told = f"{', then '.join(self._named)}, as told"
        return Choice(route, told, in_turn=len(route) > 1)

    # --- restoring ---

    def restorer(self, choice: Choice) -> Restorer:
        """What restores pictures of a route; made ready anew only where it is not kept.

        With guidance it is for the picture of this choice alone, until the next is asked for.
        """
        with self._turn:
            ready = self._unguarded(choice)
            return weakened(guarded(ready, choice.guard), self.strength)

    def _unguarded(self, choice: Choice) -> Restorer:
        if choice.guard is not None and choice.guard.strength == 0 and self._ready:
            # Nothing will run, so any will do.
            return next(reversed(self._ready.values()))
        if not choice.in_turn or len(choice.route) < 2:
            return self._of_route(choice.route, choice.vector)
        return RestorerInTurn([self._of_route((one,), choice.vector) for one in choice.route])

    def _of_route(self, route: Route, vector: np.ndarray | None) -> Restorer:
        ready = self._ready.pop(route, None)
        before = next(reversed(self._ready.values()), None)
        rest = getattr(before.engine, "rest", None) if before and before is not ready else None
        if rest is not None:
            rest()
        if ready is None:
            ready = self._made(route)
        self._ready[route] = ready
        while len(self._ready) > self._affordable():
            self._ready.popitem(last=False)
        if isinstance(ready.engine, GuidedEngine):
            ready.engine.guide(vector)
        return ready

    def _affordable(self) -> int:
        """How many engines are kept at present."""
        if self.kept <= _KEPT_ANYWAY or available_memory("cpu") >= _PLENTY:
            return self.kept
        return _KEPT_ANYWAY

    def restore(self, image: np.ndarray, on_progress: OnProgress | None = None) -> np.ndarray:
        """Restore a picture held in memory; see `Restorer.restore`. `last` tells what was seen."""
        with self._turn:
            choice = self._latest.choice = self.choose(image)
            return self.restorer(choice).restore(image, on_progress)

    def describe(self) -> dict[str, Any]:
        """What restores: as `Restorer.describe` for the base, and the router with its rule."""
        header = self.members.router.header
        # Whichever is ready: none is made ready for this alone.
        ready = next(reversed(self._ready.values()), None) or self.restorer(Choice((), ""))
        return {
            **ready.describe(),
            **({"precision": "int8"} if self._options.get("precision") == "int8" else {}),
            "adapters": [adapter.describe() for adapter in self.adapters],
            "router": self.members.router.name,
            "classes": list(self.classes),
            "task": self.task,
            "k": self.k,
            "tries": self._router is not None and self._router.evidence is not None,
            "threshold": header.threshold if self.threshold is None else self.threshold,
            **({} if self.strength == FULL else {"strength": self.strength.describe()}),
        }

    @property
    def adapters(self) -> tuple[AppliedAdapter, ...]:
        """All that may be used: the experts, and the guidance."""
        members = [*self.members.experts.values(), *filter(None, [self.members.guidance])]
        if self._named:
            members = [self.members.experts[name] for name in self._named]
            members += filter(None, [self.members.guidance])
        return tuple(AppliedAdapter(member.adapter, member.strength) for member in members)

    def _made(self, route: Route) -> Restorer:
        found = [(self.members.experts[name], weight) for name, weight in route]
        adapters = [(member.adapter, member.strength * weight) for member, weight in found]
        options, exact = self._options, _beside_int8(self._options)
        if (adapters or self.members.guidance is not None) and exact is not None:
            options = exact
        made = self._opened(adapters, options)
        if options is exact:
            made.standing = (*made.standing, IN_FLOAT32)
        return made

    def _opened(self, adapters: list[tuple[Any, float]], options: EngineOptions) -> Restorer:
        if self.members.guidance is None:
            return Restorer(self.base, adapters=adapters, **options)
        guidance = AppliedAdapter(self.members.guidance.adapter, self.members.guidance.strength)
        beside = [AppliedAdapter(*adapter) for adapter in adapters]
        return guided_restorer(self.base, guidance, beside, **options)


def with_strength(restorer: PictureRestorer, strength: Strength) -> PictureRestorer:
    """What restores with that strength; one that chooses is set to it.

    Raises:
        EngineError: it enlarges pictures; see `urushi.inference.strength`.
    """
    if isinstance(restorer, AutoRestorer):
        restorer.strength = strength
        return restorer
    assert isinstance(restorer, Restorer)
    return weakened(restorer, strength)


def _beside_int8(options: EngineOptions) -> EngineOptions | None:
    """Options for routes that int8 cannot run; None where it was not asked for."""
    if options.get("precision") != "int8":
        return None
    return {**options, "precision": "float32"}
