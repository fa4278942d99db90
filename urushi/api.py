"""The three uses of Urushi as functions: mend a picture, teach a base your pictures, keep that."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from urushi.errors import (
    AdapterError,
    DataError,
    EngineError,
    TakenError,
    UnreadableError,
    UrushiError,
)
from urushi.files.adapter import LoadedAdapter, read_adapter, storage_of, write_adapter
from urushi.image import read_picture, write_picture
from urushi.inference.adapted_weights import AdapterLike, listed, split_adapter
from urushi.inference.auto import OWN_OPTIONS, AutoRestorer, with_strength
from urushi.inference.batch import FileResult, plan_batch, run_batch
from urushi.inference.choice import PictureRestorer
from urushi.inference.hardware import require
from urushi.inference.in_turn import split_task
from urushi.inference.local_copies import LocalCopies
from urushi.inference.option_names import check_names
from urushi.inference.restorer import EngineOptions, Restorer
from urushi.inference.staged import Staged
from urushi.inference.strength import FULL, as_strength
from urushi.inference.zoo import find_adapter

if TYPE_CHECKING:
    from urushi.data.pairs import PairedFolder
    from urushi.training.progress import Progress

__all__ = ["Adapter", "adapt", "restore"]

PathLike = str | os.PathLike[str]
Side = PathLike | np.ndarray
Pairs = PathLike | tuple[PathLike, PathLike] | Iterable[tuple[Side, Side]]

logger = logging.getLogger(__name__)

AUTO = "auto"
MINUTES = 10.0
_CHOOSING = tuple(name for name in OWN_OPTIONS if name != "task")


@dataclass(frozen=True)
class Adapter(LoadedAdapter):
    """What was taught to a base: an adapter in memory, checked.

    `Restorer(adapters=[adapter])` and `restore(picture, adapters=[adapter])` use it.

    Attributes:
        header: what it says about itself: `method`, `base`, `recipe`, `scores`, `licence`, ...
        tensors: float32 arrays by name.
        path: the file that it was read from, or would be written to.
    """

    @classmethod
    def load(cls, path: PathLike) -> "Adapter":
        """Reads an adapter file, and checks all of it.

        Args:
            path: the file, its URL, or the name of one that ships, such as `haze`.

        Raises:
            FileFormatError: it is no sound adapter file of a version known here.
        """
        with LocalCopies(logger.info) as copies:
            here = copies.model(path) if isinstance(path, str) else None
            found = read_adapter(find_adapter(here or Path(path)))
        return cls(found.header, found.tensors, found.path)

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Writes the adapter into a file, whole or not at all; returns where it lies.

        Args:
            path: `NAME.safetensors`.
            overwrite: replace a file that is there.

        Raises:
            TakenError: a file is there, and is not to be replaced.
            FileFormatError: the name is another, or the disk refuses.
        """
        target = Path(path)
        if not overwrite and os.path.lexists(target):
            raise TakenError(_taken(target))
        write_adapter(target, self.tensors, self.header, storage_of(self))
        return target

    @classmethod
    def from_hub(cls, repository: str, *, revision: str | None = None) -> "Adapter":
        """Reads the adapter of a repository on the Hugging Face hub, and checks all of it.

        It is fetched once and then taken from the hub's cache.

        Args:
            repository: `owner/name`, as `push_to_hub` or `urushi push` made it.
            revision: branch, tag or commit; None for the main branch. A commit is the same for
                ever.

        Raises:
            FileFormatError: it cannot be had, or is no sound adapter.
            MissingExtraError: huggingface_hub is not installed.
        """
        from urushi.inference.hub_repository import pull

        return cls.load(pull(repository, revision=revision, newest=False).path)

    def push_to_hub(
        self,
        repository: str,
        *,
        base_model: str | None = None,
        licence: str = "",
        datasets: Iterable[str] = (),
        benchmarks: Mapping[str, str] | None = None,
        token: str | None = None,
        private: bool = False,
        overwrite: bool = False,
        message: str = "",
    ) -> str:
        """Puts the adapter on the Hugging Face hub, with a card, its scores and its hash.

        Args:
            repository: `owner/name`; made where it is missing.
            base_model: where its base lies on the hub, `owner/name`.
            licence: where the adapter states none; an SPDX identifier.
            datasets: names on the hub of what it learned from.
            benchmarks: by benchmark, the hub's name for its data, such as
                `{"kodak24-noise25": "owner/kodak"}`.
            token: that may write there; None for the one of `hf auth login`, or `$HF_TOKEN`.
            private: of a new repository.
            overwrite: also where the repository holds something of others.
            message: of the commit.

        Returns:
            The commit: `from_hub(repository, revision=...)` gives this very adapter.

        Raises:
            HubError: it states no licence, there is no token, or the hub refuses or does not
                answer.
            MissingExtraError: huggingface_hub is not installed.
        """
        from urushi.convert.hub_push import Facts, push

        facts = Facts(base_model, licence, tuple(datasets), dict(benchmarks or {}))
        with tempfile.TemporaryDirectory(prefix="urushi-push-") as folder:
            path = self.save(Path(folder) / self.path.with_suffix(".safetensors").name)
            made = push(
                path, repository, facts, token=token, private=private, overwrite=overwrite,
                message=message,
            )  # fmt: skip
        return made.revision


@overload
def restore(
    picture: np.ndarray,
    target: None = None,
    *,
    task: str = AUTO,
    model: str | Path | None = None,
    adapters: Iterable[AdapterLike] = (),
    **options: Any,
) -> np.ndarray: ...


@overload
def restore(
    picture: PathLike,
    target: None = None,
    *,
    task: str = AUTO,
    model: str | Path | None = None,
    adapters: Iterable[AdapterLike] = (),
    **options: Any,
) -> np.ndarray: ...


@overload
def restore(
    picture: PathLike,
    target: PathLike,
    *,
    task: str = AUTO,
    model: str | Path | None = None,
    adapters: Iterable[AdapterLike] = (),
    overwrite: bool = False,
    **options: Any,
) -> FileResult: ...


def restore(
    picture: np.ndarray | PathLike,
    target: PathLike | None = None,
    *,
    task: str = AUTO,
    model: str | Path | None = None,
    adapters: Iterable[AdapterLike] = (),
    overwrite: bool = False,
    **options: Any,
) -> np.ndarray | FileResult:
    """Mends one picture, as `urushi restore` does.

    What restores is made ready at the first call and kept for the next ones, unless `model` or
    `adapters` are given: for many pictures make a `Restorer` or an `AutoRestorer` once. Files may
    be URLs, as they may for the command.

    Args:
        picture: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` of uint8, uint16 or floats in
            [0, 1], sRGB; or a file.
        target: where the restored file goes: profile, metadata, alpha and depth are kept.
        task: `auto` reads from the picture what it needs; `none` takes the base alone; the name of
            a class, such as `haze`, takes its expert; several, such as `haze+noise`, take theirs
            one after the other, what came last undone first.
        model: a model file, or the name of one that ships, which then works without a router.
        adapters: adapters of that model: files, names, `Adapter`s, or pairs of one and a strength
            from 0 to 2, such as `("haze", 0.5)`; each of them once.
        overwrite: replace a target that is there.
        options: as `Restorer` takes them: engine, device, precision, tile, threads, ...; `strength`
            as `AutoRestorer` takes it; and without `model` and `adapters` its `k`, `threshold`,
            `quick` and `guard`.

    Returns:
        An array like `picture`; `(H, W, 3)` float32 for a file without a target; for a file with
        one the result, whose `choice` tells what was seen and whose `notes` tell what did not come
        through unharmed. Where files are URLs, its `source` and `target` are the names here under
        which they were restored, and are gone.

    Raises:
        UrushiError: the picture cannot be restored; `TakenError` where the target is there.
    """
    used = listed(adapters)
    split_task(task)
    if task != AUTO and (model is not None or used):
        raise AdapterError(
            f"task is {task!r}, and a model or adapters are given, which need none: leave one out",
            usage=True,
        )
    with LocalCopies(logger.info) as copies:
        near = copies.model(model) if isinstance(model, str) else model
        restorer = _restorer(task, near, [_near(adapter, copies) for adapter in used], options)
        if isinstance(picture, str | os.PathLike):
            source = os.fspath(picture)
            if target is not None:
                return _restored_file(restorer, source, os.fspath(target), overwrite)
            return restorer.restore(read_picture(copies.picture(source)))
    if target is not None:
        raise UnreadableError(
            f"the picture is an array, and {os.fspath(target)!r} a file, which takes its format "
            "and metadata from another: use  urushi.write_picture"
        )
    return restorer.restore(picture)


def _near(adapter: AdapterLike, copies: LocalCopies) -> AdapterLike:
    """An adapter, of which a copy lies here where a URL names it."""
    named, strength = split_adapter(adapter)
    return (copies.model(named) or named if isinstance(named, str) else named), strength


def _restored_file(
    restorer: PictureRestorer, source: str, target: str, overwrite: bool
) -> FileResult:
    """What became of one file."""
    with Staged([source], target) as staged:
        jobs = plan_batch(staged.sources, staged.output, overwrite=overwrite, staged=staged)
        (result,) = run_batch(restorer, jobs, staged=staged).results
        if result.status == "skipped":
            raise TakenError(_taken(result.target))
        if result.status == "failed":
            raise UrushiError(result.message)
        return replace(result, notes=tuple(staged.told(note) for note in result.notes))


def _taken(path: Path) -> str:
    return f"{path}: exists already: choose another name, or replace it with overwrite=True"


def _restorer(
    task: str, model: str | Path | None, adapters: list[AdapterLike], options: Mapping[str, Any]
) -> PictureRestorer:
    known = ("task", "model", "adapters", "overwrite", *_CHOOSING, *EngineOptions.__annotations__)
    check_names(options, known, "restore")
    if model is not None or adapters:
        own = dict(options)
        strength = as_strength(own.pop("strength", FULL))
        if chooses := next((name for name in own if name in _CHOOSING), None):
            raise EngineError(
                f"{chooses} is for what is chosen, and a model or adapters are given, which leave "
                "nothing to choose: leave one out",
                usage=True,
            )
        made = Restorer("base" if model is None else model, adapters=adapters, **own)
        return with_strength(made, strength)
    return _kept(task, tuple(sorted(options.items())))


@lru_cache(maxsize=2)
def _kept(task: str, options: tuple[tuple[str, Any], ...]) -> AutoRestorer:
    return AutoRestorer(task=task, **dict(options))


def adapt(
    pairs: Pairs,
    *,
    model: str | Path = "base",
    method: str = "colora",
    budget: str | None = None,
    settings: Mapping[str, Any] | None = None,
    minutes: float | int | None = None,
    steps: int | None = None,
    align: bool = False,
    seed: int = 0,
    device: str = "auto",
    on_progress: "Callable[[Progress], None] | None" = None,
) -> Adapter:
    """Teaches a base your own kind of bad pictures, as `urushi adapt` does.

    Some pairs are set aside to measure by: the adapter is the best of the way, and its
    `header.scores["validation"]` tells PSNR with the base alone and with the adapter.

    Args:
        pairs: a folder that holds a folder of inputs and one of targets; two such folders; or
            pairs of a bad picture and a good one, files or arrays as `restore` takes them.
        model: what is adapted: a model file, or the name of one that ships.
        method: how; `urushi.adapters.METHODS` has them.
        budget: trained parameters relative to those of the model, such as `7%`; for colora.
        settings: of the method.
        minutes: to train at most; 10 where neither is given.
        steps: to train at most, in place of `minutes`.
        align: cut pairs that are shifted against each other to what both show.
        seed: of everything random.
        device: `auto`, the best there is, or `cpu`.
        on_progress: told of the training after every step.

    Raises:
        DataError: there are too few pairs, or their sizes differ.
        AdapterError: the method cannot be had, or no adapter was better than the base.
        MissingExtraError: torch or accelerate is not installed.
        KeyboardInterrupt: it was interrupted.
    """
    require(("torch", "accelerate", "tensorboard"), "adapting", "train")
    from urushi.training.adaptation import Adaptation, adaptation_recipe, prefers_bf16
    from urushi.training.examples import pair_examples
    from urushi.training.method_choice import choose_method

    if minutes is not None and steps is not None:
        raise AdapterError(
            "minutes and steps are given, expected one of them: leave one out", usage=True
        )
    adapter = choose_method(method, model, settings or {}, budget)
    with tempfile.TemporaryDirectory(prefix="urushi-adapt-") as folder:
        run = Path(folder)
        examples = pair_examples(found_pairs(pairs, run / "given"), run, align=align)
        limit = MINUTES if minutes is None and steps is None else minutes
        recipe = adaptation_recipe(
            "adapter", str(model), adapter, examples,
            minutes=limit, steps=steps, seed=seed, bf16=prefers_bf16(device),
        )  # fmt: skip
        adaptation = Adaptation(recipe, examples, run / "adapter.safetensors", run)
        adaptation.measure_base("cpu" if device == "cpu" else "auto")
        adaptation.train_to_the_end(device=device, on_progress=on_progress)
        return Adapter.load(adaptation.target)


def found_pairs(pairs: Any, folder: Path) -> "Path | PairedFolder":
    """The folders of the pairs; those that lie in none are put into `folder`.

    Raises:
        DataError: something is no pair.
    """
    from urushi.data.pairs import PairedFolder

    if isinstance(pairs, str | os.PathLike):
        return Path(pairs)
    given = list(pairs)
    if isinstance(pairs, tuple) and len(given) == 2:
        first, second = given
        if isinstance(first, str | os.PathLike) and isinstance(second, str | os.PathLike):
            return PairedFolder.from_folders(Path(first), Path(second))
    for side in ("input", "target"):
        (folder / side).mkdir(parents=True)
    for number, pair in enumerate(given):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DataError(
                f"pair {number} is {pair!r:.80}, expected a bad picture and a good one: two files "
                "or two arrays"
            )
        for side, picture in zip(("input", "target"), pair, strict=True):
            _put(picture, folder / side, f"{number:05}")
    return folder


def _put(picture: Any, folder: Path, name: str) -> None:
    """Puts one side of a pair into a folder."""
    if not isinstance(picture, np.ndarray):
        path = Path(picture)
        if not path.is_file():
            raise DataError(f"{path}: no such picture: pairs are of files that are there")
        shutil.copyfile(path, folder / f"{name}{path.suffix}")
        return
    from urushi.inference.arrays import WHITE, as_array, as_layers

    image = as_array(picture)
    colours = as_layers(image)[..., :3].astype(np.float32) / WHITE[image.dtype.name]
    pixels = np.broadcast_to(colours, (*colours.shape[:2], 3))
    write_picture(folder / f"{name}.png", np.ascontiguousarray(pixels))
