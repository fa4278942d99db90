"""What an all-in-one training learns from: the folders of its recipe, packed for all stages."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from urushi.data.data_sets import SCHEME, open_pairs, open_pictures
from urushi.data.pack import pack_pairs, pack_pictures
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.data.pairs import Pair
from urushi.degradations import create_rehaze, create_rerain, degradation_of
from urushi.errors import DataError
from urushi.evaluation.catalog import data_root
from urushi.files.router_file import CLEAN
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe
from urushi.training.all_in_one.class_batches import ClassBatches, ClassDraws
from urushi.training.batches import Batches, CleanBatches, DegradedBatches, PairBatches
from urushi.training.build import Stages, stage_sizes
from urushi.training.recipe import ClassSource, Origin, Recipe
from urushi.training.router.router_recipe import (
    ClassSettings,
    PictureOptions,
    PictureSettings,
    RouterOptions,
    RouterRecipe,
)
from urushi.training.router.router_training import RouterData

__all__ = [
    "AllInOneFiles",
    "class_stages",
    "pack_all_in_one",
    "router_recipe_of",
]

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class AllInOneFiles:
    """The packs of an all-in-one training.

    Attributes:
        clean: clean pictures that experts learn from.
        pairs: pairs of classes, by name.
        router: what the router learns from, and is measured by.
        folders: of the pictures of classes that the router learns from, relative to the data.
        notes: what was left out, a sentence each.
    """

    clean: PackedPictures
    pairs: Mapping[str, PackedPairs]
    router: RouterData
    folders: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def sha256(self, classes: Iterable[str]) -> str:
        """What some classes are trained on."""
        own = [f"{name}:{self.pairs[name].sha256}" for name in classes if name in self.pairs]
        return " ".join([self.clean.sha256, *own])


def pack_all_in_one(
    recipe: AllInOneRecipe,
    folder: Path,
    root: Path | str | None = None,
    on_progress: Tell | None = None,
) -> AllInOneFiles:
    """Packs all that a recipe names into a folder; what is packed there already stays.

    Args:
        recipe: names the folders.
        folder: where the packs go.
        root: the place of the data; `$URUSHI_DATA` if not given.
        on_progress: called after every picture with (done, total, name), pack by pack.

    Raises:
        DataError: a folder is missing, or has no pairs.
        DegradationError: what a class is spoilt by, or varied by, cannot be made.
    """
    _check_damage(recipe)
    data = data_root(root)
    packer = _Packer(folder, on_progress)
    patch = recipe.largest_patch
    sources = [path for name in recipe.data.clean for path in open_pictures(data, name)]
    clean = packer.pictures("clean", sources, patch)
    sources = [path for name in recipe.data.validation for path in open_pictures(data, name)]
    held = packer.pictures("clean-validation", sources, 16)
    pairs: dict[str, PackedPairs] = {}
    inputs: dict[str, list[Path]] = {}
    measured: dict[str, list[Path]] = {}
    targets: list[Path] = []
    folders: dict[str, list[Path]] = {}
    for name, plan in recipe.classes.items():
        found = _chosen(plan, data)
        if found:
            pairs[name] = packer.pairs(f"pairs-{name}", found, patch)
            inputs[name] = [pair.input for _, pair in found]
            targets += [pair.target for _, pair in found]
            folders[name] = [open_pairs(data, one).input_folder for one in plan.pairs]
        if plan.validation:
            measured[name] = [path for one in plan.validation for path in _inputs(data, one)]
    if CLEAN in recipe.classes and targets and recipe.router.targets:
        inputs[CLEAN] = targets
        folders[CLEAN] = [
            open_pairs(data, one).target_folder
            for plan in recipe.classes.values()
            for one in plan.pairs
        ]
    real, real_held = {}, {}
    if recipe.router.file is None:
        least = min(recipe.router.sides)
        real = {n: packer.pictures(f"router-{n}", f, least) for n, f in inputs.items()}
        real_held = {
            n: packer.pictures(f"router-validation-{n}", f, least) for n, f in measured.items()
        }
    named = {
        name: tuple(path.relative_to(data).as_posix() for path in paths)
        for name, paths in folders.items()
    }
    router = RouterData(clean, held, real, real_held)
    return AllInOneFiles(clean, pairs, router, named, tuple(packer.notes))


def _inputs(data: Path, name: str) -> list[Path]:
    """What shows the damage of pairs: their folder of inputs, or the inputs of a data set."""
    pairs = open_pairs(data, name)
    return [pair.input for pair in pairs] if name.startswith(SCHEME) else [pairs.input_folder]


def _check_damage(recipe: AllInOneRecipe) -> None:
    """Makes what spoils and varies each class: now, and not hours later, when it is its turn."""
    for plan in recipe.classes.values():
        for options in filter(None, (plan.degradation, plan.router_degradation, plan.scene)):
            degradation_of(options)
        if plan.rehaze is not None:
            create_rehaze(**plan.rehaze)
        if plan.rerain is not None:
            create_rerain(**plan.rerain)


def _chosen(plan: ClassSource, data: Path) -> list[tuple[str, Pair]]:
    """The pairs of a class, each with the name it is packed under.

    Raises:
        DataError: a folder is missing or has no pairs, a pair to be left out is in none, or none
            are left.
    """
    rows = [
        (f"{number}/{pair.name}", pair)
        for number, folder in enumerate(plan.pairs)
        for pair in open_pairs(data, folder)
    ]
    missing = set(plan.without) - {pair.name for _, pair in rows}
    if missing:
        raise DataError(f"{', '.join(plan.pairs)}: there is no pair named {min(missing)!r}")
    kept = [row for row in rows if row[1].name not in plan.without]
    if plan.pairs and not kept:
        raise DataError(f"{', '.join(plan.pairs)}: no pairs are left")
    return kept


def router_recipe_of(recipe: AllInOneRecipe, files: AllInOneFiles) -> RouterRecipe:
    """The recipe of the first stage."""
    own = recipe.router
    pictures = PictureSettings(clean=recipe.data.clean, **own.values_of(PictureOptions))
    classes = {
        name: ClassSettings(
            degradation=plan.router_degradation or plan.degradation,
            pictures=list(files.folders.get(name, ())),
            oversample=plan.oversample,
        )
        for name, plan in recipe.classes.items()
    }
    return RouterRecipe(
        **recipe.values_of(Origin),
        **own.values_of(RouterOptions),
        classes=classes,
        pictures=pictures,
        checkpoint_minutes=recipe.checkpoint_minutes,
    )


def class_stages(
    recipe: Recipe, files: AllInOneFiles, device: torch.device, rank: int, processes: int
) -> Stages:
    """The batches of a recipe that has classes.

    Raises:
        RecipeError: a batch cannot be shared by that many processes.
        DataError: no picture is large enough.
        DegradationError: a degradation is not valid, or makes pictures smaller.
    """
    packs = [files.clean, *(files.pairs[name] for name in recipe.classes if name in files.pairs)]
    # On an accelerator the pixels stay there; on a CPU the mapped files are as near.
    resident = {
        id(pack): None if device.type == "cpu" else pack.to_tensor(device) for pack in packs
    }
    turns = {name: _turn(source.final_share, recipe) for name, source in recipe.classes.items()}
    stages: Stages = []
    for start, patch, batch in _spans(recipe, processes, turns.values()):
        shared = (patch, batch, recipe.data.augment, recipe.seed, device)

        def cut(
            kind: type[Batches],
            pack: PackedPictures,
            shared: tuple[int, int, bool, int, torch.device] = shared,
            **own: Any,
        ) -> Batches:
            return kind(pack, *shared, resident[id(pack)], **own)

        draws = []
        for name, source in recipe.classes.items():
            made, real = _made(name, source, files, cut), _real(name, source, files, cut)
            share = 1.0 if start >= turns[name] else source.real
            draws.append(ClassDraws(made, real, share))
        stages.append((start, ClassBatches(draws, patch, batch, recipe.seed, rank, processes)))
    return stages


def _made(
    name: str, source: ClassSource, files: AllInOneFiles, cut: Callable[..., Batches]
) -> Batches | None:
    """Patches of a class that are made from clean ones, if it has any."""
    if source.degradation is None:
        return cut(CleanBatches, files.clean) if name == CLEAN else None
    degradation = degradation_of(source.degradation)
    if degradation.scale != 1:
        raise DataError(
            f"the class {name} makes pictures smaller, which no expert of this base can undo: "
            "leave it out"
        )
    scene = None if source.scene is None else degradation_of(source.scene)
    return cut(DegradedBatches, files.clean, degradation=degradation, scene=scene)


def _real(
    name: str, source: ClassSource, files: AllInOneFiles, cut: Callable[..., Batches]
) -> Batches | None:
    """Patches of a class that are from pairs, if it has any."""
    if not source.pairs:
        return None
    rehaze = None if source.rehaze is None else create_rehaze(**source.rehaze)
    rerain = None if source.rerain is None else create_rerain(**source.rerain)
    varied = rehaze or rerain
    elsewhere = varied is not None and varied.elsewhere
    scenes = cut(CleanBatches, files.clean) if elsewhere else None
    own = {"rehaze": rehaze, "rerain": rerain, "scenes": scenes, "level": source.level}
    return cut(PairBatches, files.pairs[name], **own)


def _turn(final_share: float, recipe: Recipe) -> int:
    """The step from which on a class is learnt from pairs alone; that of the end if never."""
    return round((1 - final_share) * recipe.schedule.steps)


def _spans(recipe: Recipe, processes: int, turns: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """First step, patch and batch of every stage; one more begins at each turn."""
    sizes = list(stage_sizes(recipe, processes))
    starts = {start for start, _, _ in sizes} | {t for t in turns if t < recipe.schedule.steps}
    for first in sorted(starts):
        _, patch, batch = next(size for size in reversed(sizes) if size[0] <= first)
        yield first, patch, batch


class _Packer:
    """Packs into one folder, each pack once."""

    def __init__(self, folder: Path, tell: Tell | None) -> None:
        self._folder, self._tell = folder, tell
        self.notes: list[str] = []

    def pictures(self, name: str, sources: list[Path], least: int) -> PackedPictures:
        target = self._target(name, [str(path) for path in sources], least)
        if not target.exists():
            done = pack_pictures(sources, target, min_side=least, on_progress=self._tell)
            self.notes += [f"left out of {name}: {reason}" for _, reason in done.skipped]
        return PackedPictures(target)

    def pairs(self, name: str, found: list[tuple[str, Pair]], least: int) -> PackedPairs:
        rows = [(packed, pair.input, pair.target) for packed, pair in found]
        target = self._target(name, [str(pair.input) for _, pair in found], least)
        if not target.exists():
            done = pack_pairs(rows, target, min_side=least, on_progress=self._tell)
            self.notes += [f"left out of {name}: {reason}" for _, reason in done.skipped]
        return PackedPairs(target)

    def _target(self, name: str, sources: list[str], least: int) -> Path:
        """The file of a pack: another one for other sources."""
        self._folder.mkdir(parents=True, exist_ok=True)
        told = hashlib.sha256("\n".join([str(least), *sources]).encode()).hexdigest()
        return self._folder / f"{name}-{told[:8]}.safetensors"
