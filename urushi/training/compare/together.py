"""Cells that learn several degradations together: which experts act, and what is measured.

LoRA-IR (arXiv 2410.15385) draws a class for every patch, and mixes experts by what a frozen router
reads from it. Its controls are here as well: the right expert, any expert, and guidance by a vector
that says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from urushi.adapters.experts import top_weights
from urushi.data.pack import PackSummary, pack_pairs, pack_pictures
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.degradations import degradation_of
from urushi.errors import DataError, RecipeError
from urushi.evaluation.benchmark import PictureScore, evaluate
from urushi.files.adapter import LoadedAdapter
from urushi.files.model import LoadedModel
from urushi.files.router_file import read_router
from urushi.inference.adapted_weights import AppliedAdapter
from urushi.inference.engines.torch_engine import TorchEngine
from urushi.inference.hardware import choose_device
from urushi.inference.restorer import Restorer
from urushi.routing.router import Router, load_router
from urushi.training.all_in_one.class_batches import ChangedBatches, ClassBatches, ClassDraws
from urushi.training.batches import Batch, Batches, DegradedBatches, PairBatches, step_generator
from urushi.training.build import Material, Stages, build_network
from urushi.training.compare.cell_plan import Cell
from urushi.training.compare.description import RouteSettings
from urushi.training.compare.task_files import Example
from urushi.training.recipe import Recipe

__all__ = ["SteeredRestorer", "Steering", "class_material", "pack_examples", "scores_of_parts"]


def pack_examples(examples: Sequence[Example], path: Path, least: int) -> PackedPictures:
    """Packs pairs, or clean pictures, that a cell learns from.

    Raises:
        DataError: one of them cannot be used.
    """
    summary: PackSummary
    paired = examples[0][2] is not None
    if paired:
        rows = [(name, one, other) for name, one, other in examples if other]
        summary = pack_pairs(rows, path, min_side=least, overwrite=True)
    else:
        pictures = [one for _, one, _ in examples]
        summary = pack_pictures(pictures, path, min_side=least, overwrite=True)
    if summary.skipped:
        raise DataError(
            f"a picture of the task cannot be used: {summary.skipped[0][1]}: every cell needs the "
            "number of pictures it states"
        )
    return PackedPairs(path) if paired else PackedPictures(path)


class Steering:
    """What a network is told of patches and pictures, beside them.

    Args:
        settings: by what.
        classes: of the task, in the order of the experts.
        seed: of what is drawn at random.

    Raises:
        RecipeError: the router does not know a class.
        FileFormatError: the router cannot be read.
    """

    def __init__(self, settings: RouteSettings, classes: Sequence[str], seed: int) -> None:
        self._settings, self._count, self._seed = settings, len(classes), seed
        self._router: Router | None = None
        self._columns: list[int] = []
        if settings.router is None:
            return
        stored = read_router(Path(settings.router))
        known = stored.header.classes
        if missing := [name for name in classes if name not in known]:
            raise RecipeError(
                f"the router {settings.router} does not know {missing[0]!r}, only "
                f"{', '.join(known)}: train one for the classes of this task"
            )
        self._router = load_router(stored)
        self._columns = [known.index(name) for name in classes]

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor, turn: int) -> dict[str, Tensor]:
        """Weights of experts, and degradation vectors, as a network takes them.

        Args:
            images: `(B, 3, H, W)` in [0, 1].
            labels: `(B, n)`, 1 at the class of each.
            turn: number of the step or of the picture, for what is drawn at random.
        """
        by, side = self._settings.by, {}
        read = None
        if self._router is not None:
            read = self._router.to(images.device).read(images)
        if by == "oracle":
            side["weights"] = labels.float()
        elif by == "random":
            generator = step_generator(self._seed + 3, turn)
            drawn = torch.randint(self._count, (len(images),), generator=generator)
            side["weights"] = F.one_hot(drawn, self._count).float().to(images.device)
        elif by == "router":
            assert read is not None
            side["weights"] = top_weights(read.logits.float()[:, self._columns], self._settings.k)
        if self._settings.vector == "router":
            assert read is not None
            side["vector"] = read.vector.float()
        elif self._settings.vector == "constant":
            assert read is not None
            side["vector"] = torch.zeros_like(read.vector).float()
        return side


@dataclass(frozen=True)
class _SteeredBatches(ChangedBatches):
    """Batches with what `Steering` tells of them."""

    steering: Steering

    def __call__(self, step: int) -> Batch:
        batch = self.inner(step)
        return batch._replace(**self.steering(batch.degraded, batch.applied, step))


def class_material(cell: Cell, recipe: Recipe, folder: Path) -> Material:
    """What a cell of several classes is trained on.

    Args:
        cell: with classes.
        recipe: of the training.
        folder: where packs go.

    Raises:
        DataError: a picture cannot be used.
        RecipeError, FileFormatError: see `Steering`.
    """
    packs: dict[str, PackedPictures] = {}
    for index, part in enumerate(cell.classes):
        start = f"{part.name}/"
        own = [one for one in cell.examples if one[0].startswith(start)]
        packs[part.name] = pack_examples(
            own, folder / f"pack-{index}.safetensors", recipe.data.patch
        )
    steering = None
    if cell.route is not None:
        steering = Steering(cell.route, [part.name for part in cell.classes], recipe.seed)

    def stages(device: torch.device, rank: int, processes: int) -> Stages:
        data = recipe.data
        shared = (data.patch, data.batch, data.augment, recipe.seed, device, None, rank, processes)
        draws = []
        for part in cell.classes:
            made: Batches
            if part.degradation is None:
                made = PairBatches(packs[part.name], *shared)
            else:
                degradation = degradation_of(part.degradation)
                made = DegradedBatches(packs[part.name], *shared, degradation=degradation)
            draws.append(ClassDraws(made, None))
        inner = ClassBatches(draws, data.patch, data.batch, recipe.seed, rank, processes)
        return [(0, inner if steering is None else _SteeredBatches(inner, steering))]

    sha256 = " ".join(pack.sha256 for pack in packs.values())
    return Material(sha256, lambda begun: build_network(recipe, begun=begun), stages)


class SteeredRestorer:
    """Restores a picture by an adapter that acts by a route or a vector; see `Restorer`.

    Args:
        model: the base.
        adapter: of method `experts` or `guidance`.
        steering: reads whole pictures.
        device: as `Restorer` takes it.
    """

    def __init__(
        self, model: LoadedModel, adapter: LoadedAdapter, steering: Steering, device: str
    ) -> None:
        engine = TorchEngine(
            model, device=choose_device(device), adapters=(AppliedAdapter(adapter, 1.0),)
        )
        network: Any = engine._forward
        self._side: dict[str, Tensor] = {}
        engine._forward = lambda image: network(image, **self._side)
        self._device = torch.device(engine.device)
        self._restorer = Restorer.from_engine(engine)
        self._steering, self._turn = steering, 0
        self.labels: Tensor | None = None
        self.weights: Sequence[float] | None = None
        """The route of every picture, instead of what the steering says."""

    def restore(self, image: np.ndarray, /) -> np.ndarray:
        """Restores a picture; `labels` tells its class."""
        assert self.labels is not None
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        tensor = tensor.to(self._device)
        self._side = self._steering(tensor, self.labels.to(self._device), self._turn)
        self._turn += 1
        if self.weights is not None:
            self._side["weights"] = torch.tensor([self.weights], device=self._device)
        return self._restorer.restore(image)


def scores_of_parts(
    cell: Cell, restorer: Restorer | SteeredRestorer
) -> dict[str, tuple[PictureScore, ...]]:
    """Scores of every class of a cell, and of every composite.

    A composite that is restored by experts has several: `NAME, routed`, as told by the route of the
    cell; `NAME, both`, all experts of its classes in equal parts; `NAME, CLASS`, one of them alone.
    """
    found: dict[str, tuple[PictureScore, ...]] = {}
    count = len(cell.classes)

    def measured(name: str, benchmark: Any, labels: Tensor, weights: Any = None) -> None:
        if isinstance(restorer, SteeredRestorer):
            restorer.labels, restorer.weights = labels[None], weights
        found[name] = evaluate(restorer, benchmark, limit=cell.limit).pictures

    names = [part.name for part in cell.classes]
    for index, part in enumerate(cell.classes):
        measured(part.name, part.validation, F.one_hot(torch.tensor(index), count))
    mixed = isinstance(restorer, SteeredRestorer) and cell.method == "experts"
    for composite in cell.composites:
        own = F.one_hot(torch.tensor([names.index(name) for name in composite.of]), count)
        if not mixed:
            measured(composite.name, composite.validation, own.sum(0))
            continue
        together = own.float().mean(0)
        for said, weights in _ways(composite.of, own.float(), together).items():
            measured(f"{composite.name}, {said}", composite.validation, together, weights)
    return found


def _ways(of: Sequence[str], own: Tensor, together: Tensor) -> Mapping[str, list[float] | None]:
    alone = {name: row.tolist() for name, row in zip(of, own, strict=True)}
    return {"routed": None, "both": together.tolist(), **alone}
