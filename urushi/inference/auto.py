"""Restoring by itself: what a picture needs is read from it, and the experts for that are taken.

After LoRA-IR (arXiv 2410.15385): the router looks at the whole picture once, never at tiles; the
experts it names are folded into the weights of the base, which then runs at its plain speed.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from urushi.errors import AdapterError, nearest
from urushi.files.all_in_one_file import AllInOne, beside, read_all_in_one
from urushi.files.model import LoadedModel, read_model
from urushi.image import AS_FOUND, DEFAULT_MAX_PIXELS, Samples, open_picture
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.arrays import as_array
from urushi.inference.choice import Choice, PictureRestorer, Route, hinted
from urushi.inference.clip_folder import clip_beside
from urushi.inference.emptiness import Emptiness, is_empty
from urushi.inference.guard.damage import judged
from urushi.inference.guard.holding import guarded
from urushi.inference.guard.signs import Watcher, signs_of
from urushi.inference.guided import GuidedEngine, guided_restorer
from urushi.inference.hardware import MadeAnew, available_memory
from urushi.inference.probing import open_all_in_one_router
from urushi.inference.restorer import EngineOptions, OnProgress, Restorer
from urushi.inference.strength import FULL, Strength, weakened
from urushi.inference.tiling import ReadRows
from urushi.inference.zoo import ZOO, find_all_in_one, find_model, zoo_experts
from urushi.routing.head import Reading

__all__ = ["AUTO", "NONE", "AutoRestorer", "find_base", "with_strength"]

AUTO, NONE = "auto", "none"
# All routes of one expert each, and the base. Each takes tens of megabytes, so that most are only
# kept where memory is plenty.
_KEPT, _KEPT_ANYWAY, _PLENTY = 10, 3, 2 << 30
# Routes are this coarse, since each has weights of its own to be made ready.
_STEPS = 8
IN_FLOAT32 = (
    "int8 is measured for the base alone: with an expert this picture was restored in float32"
)


def find_base(all_in_one: AllInOne, model: str | Path | LoadedModel | None = None) -> LoadedModel:
    """The base of an all-in-one file: the model given, or the one of its name beside it or shipped.

    Raises:
        FileFormatError: there is none, or it is not sound.
        AdapterError: it is another one than the members were made for.
    """
    if model is None:
        name = f"{all_in_one.base.name}.safetensors"
        # The name is from a file of anybody: it never leads out of these two folders.
        plain = name == Path(name).name and "\\" not in name
        near = plain and (all_in_one.path.parent / name).is_file()
        shipped = plain and (ZOO / name).is_file()
        if near:
            model = beside(all_in_one.path, name)
        elif shipped:
            model = ZOO / name
        else:
            raise AdapterError(
                f"{all_in_one.path}: its base {all_in_one.base.name!r:.80} is neither next to it "
                "nor in the zoo: give it with --model"
            )
    loaded = model if isinstance(model, LoadedModel) else read_model(find_model(model))
    all_in_one.check_model(loaded)
    return loaded


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
        task: `auto`, a class of the router, whose expert then mends every picture, or `none`: the
            base alone.
        k: experts of one picture at most.
        threshold: the router abstains where it is less sure; None takes the file's.
        quick: decide by a look alone, also where the file says to try experts before: sooner, and
            less often right.
        guard: hold what is done by itself to what damage there is (`urushi.inference.guard`).
        strength: how much of what is changed is kept; it may be set anew at any time.
        kept: engines that are kept ready, at least 1; at most 3 where memory is scarce.
        options: as `Restorer` takes them: engine, device, precision, tile, overlap, threads,
            compile, memory_limit. With precision int8 the base is calculated in 8 bits, and
            pictures that get an expert in float32, with a note.

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
        strength: Strength = FULL,
        kept: int = _KEPT,
        **options: Unpack[EngineOptions],
    ) -> None:
        assert kept >= 1, kept
        made_from: dict[str, Any] = {
            "source": source if isinstance(source, AllInOne) else _found(source), "model": model,
            "task": task, "k": k, "threshold": threshold, "quick": quick, "guard": guard,
            "strength": strength, "kept": kept, "options": options,
        }  # fmt: skip
        self._make(**made_from)
        if not isinstance(source, AllInOne):
            made_from["source"] = made_from["source"].absolute()
        if isinstance(model, str | Path):
            made_from["model"] = find_model(model).absolute()
        self._record(**made_from, hashes=self._hashes())

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
        self.members = _read(source)
        header = self.members.router.header
        self.base = find_base(self.members, model)
        self.kept, self._options, self._guards = kept, options, guard
        self.strength = strength
        self.choose_by(k, threshold)
        self._check_task(task)
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
            raise AdapterError(f"k is {k}: expected a number of experts from 1 to {count}")
        if threshold is not None and not 0 <= threshold <= 1:
            raise AdapterError(f"threshold is {threshold}: expected a probability from 0 to 1")
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
        colours = _floats(image)
        with self._turn:
            reading = self._router.read(colours)
            return self._chosen(reading, is_empty(colours), signs_of(colours))

    def choose_rows(self, read: ReadRows, width: int, height: int) -> Choice:
        """The same for a picture that is read a few rows at a time; see `Restorer.restore_rows`."""
        if self._router is None:
            return self._told()
        emptiness = Emptiness(read)
        watcher = Watcher(emptiness.read, height, width)
        with self._turn:
            reading = self._router.read_rows(watcher.read, height, width)
            return self._chosen(reading, emptiness.empty, watcher)

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

    def _chosen(self, reading: Reading, empty: bool, watcher: Watcher) -> Choice:
        vector = reading.vector if self.members.guidance is not None else None
        if self.task != AUTO:
            return replace(self._told(), vector=vector)
        if empty:
            return Choice((), "nothing is on it, so the base works alone", None, vector)
        assert self._router is not None
        decision = self._router.decide(reading, k=self.k, threshold=self.threshold)
        rounded = {name: round(_STEPS * w) / _STEPS for name, w in decision.weights.items()}
        named = [(name, weight) for name, weight in rounded.items() if weight > 0]
        route = tuple((n, w) for n, w in named if n in self.members.experts)
        reason = decision.reason
        if missing := [name for name, _ in named if name not in self.members.experts]:
            reason += f", but there is no expert for {' and '.join(missing)}"
            reason += "" if route else ", so the base works alone"
        return hinted(self._guarded(Choice(route, reason, decision, vector), watcher))

    def _guarded(self, choice: Choice, watcher: Watcher) -> Choice:
        """The choice, less what the guard withholds."""
        if not self._guards:
            return choice
        verdict = judged([name for name, _ in choice.route], watcher)
        route = tuple((n, w) for n, w in choice.route if n not in verdict.withheld)
        reason = verdict.reworded(choice.reason, route)
        return replace(choice, route=route, reason=reason, guard=verdict.guard)

    def _told(self) -> Choice:
        if self.task == NONE:
            return Choice((), "the base alone, as told")
        return Choice(((self.task, 1.0),), f"{self.task}, as told")

    def _check_task(self, task: str) -> None:
        if task in (AUTO, NONE, *self.members.experts):
            return
        known = ", ".join((AUTO, NONE, *self.members.experts))
        hint = nearest(task, self.members.experts)
        if self.members.path == find_all_in_one() and task in zoo_experts():
            hint = f", which the router does not know: --adapter {task} asks for it by its name"
        raise AdapterError(f"task is {task!r}{hint}: {self.members.path.name} has {known}")

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
        ready = self._ready.pop(choice.route, None)
        before = next(reversed(self._ready.values()), None)
        rest = getattr(before.engine, "rest", None) if before and before is not ready else None
        if rest is not None:
            rest()
        if ready is None:
            ready = self._made(choice.route)
        self._ready[choice.route] = ready
        while len(self._ready) > self._affordable():
            self._ready.popitem(last=False)
        if isinstance(ready.engine, GuidedEngine):
            ready.engine.guide(choice.vector)
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
        if self.task not in (AUTO, NONE):
            members = [self.members.experts[self.task], *filter(None, [self.members.guidance])]
        return tuple(AppliedAdapter(member.adapter, member.strength) for member in members)

    def _made(self, route: Route) -> Restorer:
        found = [(self.members.experts[name], weight) for name, weight in route]
        adapters = [(member.adapter, member.strength * weight) for member, weight in found]
        options, exact = self._options, _beside_int8(self._options)
        if (adapters or self.members.guidance is not None) and exact is not None:
            options = exact
        made = self._opened(adapters, options)
        if options is exact:
            made.standing = (IN_FLOAT32,)
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


def _read(source: Path | AllInOne) -> AllInOne:
    # Of the experts, those that are chosen are read.
    return source if isinstance(source, AllInOne) else read_all_in_one(source, lazily=True)


def _found(source: str | Path | None) -> Path:
    path = find_all_in_one(source)
    if path is None:
        raise AdapterError(
            "no all-in-one file ships with this installation: give one, or train one with  "
            "urushi train all-in-one-cpu"
        )
    return path


_WHITES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "uint8": lambda image: image.astype(np.float32) / 255,
    "uint16": lambda image: image.astype(np.float32) / 65535,
}


def _floats(image: np.ndarray) -> np.ndarray:
    """The colours of a picture as the router takes them; it refuses what is none."""
    image = as_array(image)
    if image.ndim not in (2, 3):
        return image
    colours = image[..., :3] if image.ndim == 3 and image.shape[2] == 4 else image
    return _WHITES.get(colours.dtype.name, lambda picture: picture)(colours)
