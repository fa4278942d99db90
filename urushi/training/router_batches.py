"""Batches for a router: whole pictures with their classes, each a function of seed and step."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional as F

from urushi.data.pack import PackedPictures
from urushi.degradations import Degradation, create_degradation
from urushi.errors import DataError, RecipeError
from urushi.files.router import CLEAN
from urushi.training.batches import Batch, Batches, Rows, step_generator
from urushi.training.router_recipe import RouterRecipe

__all__ = ["RouterBatches", "router_batches"]

# Compression lies on a grid of so many pixels, which may begin anywhere in a picture.
_GRID = 8


@dataclass(frozen=True)
class _Drawn(Batches):
    """Pictures as they are in a pack."""

    def _make(
        self, crops: object, symmetry: Tensor, generator: torch.Generator, rows: Rows
    ) -> Batch:
        raise AssertionError("only its crops are used")


@dataclass(frozen=True)
class _Labelled(Batches):
    """Pictures of one side with their classes, as many of each.

    `clean` of the batch is what was drawn, `applied` its classes.

    Args:
        degradations: of each class in the order of the logits; None has none.
        real: packs of pictures that are of a class already, by its index.
        clean: index of the class of clean pictures, or None.
        most: degradations of one picture at most.
        real_share: of the pictures of a class that has a pack and a degradation.
        reduce: factor by which clean pictures are reduced before anything else.
    """

    degradations: tuple[Degradation | None, ...] = field(kw_only=True)
    real: Mapping[int, Batches] = field(kw_only=True)
    clean: int | None = field(kw_only=True)
    most: int = field(kw_only=True)
    real_share: float = field(kw_only=True)
    reduce: float = field(kw_only=True)

    @property
    def _side(self) -> int:
        return round(self.patch * self.reduce)

    def _make(
        self, crops: object, symmetry: Tensor, generator: torch.Generator, rows: Rows
    ) -> Batch:
        images = self._patches(crops, symmetry)  # pyright: ignore[reportArgumentType]
        if self.reduce != 1:
            size = (self.patch, self.patch)
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        labels, synthetic = self._labels(generator)
        # One after another in the order of the classes: the scene, the lens, the sensor, the file.
        spoilt = images.clone()
        for index, degradation in enumerate(self.degradations):
            if degradation is None:
                continue
            spoil = (labels[:, index] & synthetic).nonzero()[:, 0]
            if len(spoil) == 0:
                continue
            shape = (len(spoil), 3, self.patch, self.patch)
            parameters = degradation.sample(shape, generator)
            spoil = spoil.to(images.device)
            changed = degradation.apply(spoilt[spoil], parameters)
            if changed.shape[-2:] != spoilt.shape[-2:]:
                raise RecipeError(
                    f"the degradation {degradation.name} changes a picture's size: a router's "
                    "keeps it, leave that class out"
                )
            spoilt[spoil] = changed
        row, column = torch.randint(_GRID, (2,), generator=generator).tolist()
        side = self.patch - _GRID
        spoilt = spoilt[..., row : row + side, column : column + side]
        images = images[..., row : row + side, column : column + side]
        # Pictures as they are stored: in 8 bits.
        spoilt = (spoilt * 255).round() / 255
        self._put_real(spoilt, labels, synthetic, generator)
        return Batch(spoilt, images, labels.to(self.device))

    def _labels(self, generator: torch.Generator) -> tuple[Bool[Tensor, "b n"], Bool[Tensor, " b"]]:
        """Classes of each picture, and which are made from clean ones."""
        count = len(self.degradations)
        leading = torch.arange(self.batch) % count
        labels = torch.nn.functional.one_hot(leading, count).bool()
        chance = torch.rand(self.batch, generator=generator)
        has_real = torch.tensor([index in self.real for index in range(count)])[leading]
        # A clean picture is clean as it is, every other class needs what makes it.
        made = torch.tensor(
            [d is not None or i == self.clean for i, d in enumerate(self.degradations)]
        )[leading]
        synthetic = ~has_real | (made & (chance >= self.real_share))
        extra = torch.randint(self.most, (self.batch,), generator=generator)
        places = torch.rand(self.batch, count, generator=generator)
        able = torch.tensor([d is not None for d in self.degradations])
        places = places.masked_fill(~able | labels, 2.0).argsort(1).argsort(1)
        more = (places < extra[:, None]) & able & ~labels
        mixed = synthetic & (leading != (-1 if self.clean is None else self.clean))
        return labels | (more & mixed[:, None]), synthetic

    def _put_real(
        self, images: Tensor, labels: Tensor, synthetic: Tensor, generator: torch.Generator
    ) -> None:
        """Puts pictures from the classes' own folders in their rows."""
        for index, pack in self.real.items():
            crops = pack._draw_crops(generator)
            symmetry = torch.randint(8, (self.batch,), generator=generator)
            rows = (labels[:, index] & ~synthetic).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            chosen = rows.numpy()
            indices, tops, lefts = (values[chosen] for values in crops)
            own = pack._patches((indices, tops, lefts), symmetry[rows])
            images[rows.to(images.device)] = own


@dataclass(frozen=True)
class RouterBatches:
    """Draws the batch of any step; its side is drawn too.

    Args:
        by_side: what draws pictures of each side.
        seed: of the sides.
    """

    by_side: tuple[_Labelled, ...]
    seed: int

    def __call__(self, step: int) -> Batch:
        """Pictures (`degraded`) of step `step` and their classes (`applied`), in equal numbers."""
        drawn = torch.randint(len(self.by_side), (1,), generator=step_generator(self.seed, step))
        return self.by_side[int(drawn)](step)


def router_batches(
    recipe: RouterRecipe,
    clean: PackedPictures,
    real: Mapping[str, PackedPictures],
    device: torch.device,
    *,
    seed: int,
    augment: bool,
) -> RouterBatches:
    """What draws the pictures of a router's training, or of its validation.

    Args:
        recipe: classes, their degradations and numbers.
        clean: clean pictures.
        real: pictures of classes, by name.
        device: where pictures are made.
        seed: of everything.
        augment: turn and mirror.

    Raises:
        RecipeError: a pack belongs to no class, or a class without a degradation has none.
        DataError: no picture is large enough.
        DegradationError: a degradation is not valid.
    """
    names, degradations = list(recipe.classes), _degradations(recipe, real)
    count = recipe.pictures.per_class * len(names)
    packs = {id(p): p for p in (clean, *real.values())}
    resident = {
        key: None if device.type == "cpu" else pack.to_tensor(device) for key, pack in packs.items()
    }

    # What a middling picture allows; that of a training only, since it is to vary.
    largest = float(np.median(clean.sizes.min(1)))

    def drawing(side: int, factor: float) -> _Labelled:
        own = {}
        for name, pack in real.items():
            makeable = name == CLEAN or degradations[names.index(name)] is not None
            # Where a class can be made from clean pictures, smaller ones of its own do without.
            if side <= pack.sizes.min(1).max() or not makeable:
                drawn = _Drawn(pack, side, count, augment, seed, device, resident[id(pack)])
                own[names.index(name)] = drawn
        return _Labelled(
            clean, side + _GRID, count, augment, seed, device, resident[id(clean)],
            degradations=degradations,
            real=own,
            clean=names.index(CLEAN) if CLEAN in names else None,
            most=recipe.most if recipe.mode == "multi" else 1,
            real_share=recipe.pictures.real,
            reduce=factor,
        )  # fmt: skip

    made = []
    for side in recipe.pictures.sides:
        made.append(drawing(side, 1.0))
        factor = min(recipe.pictures.reduce, largest / (side + _GRID))
        if augment and factor > 1:
            made.append(drawing(side, factor))
    return RouterBatches(tuple(made), seed)


def _degradations(
    recipe: RouterRecipe, real: Mapping[str, PackedPictures]
) -> tuple[Degradation | None, ...]:
    """Of each class in the order of the logits; None has none."""
    for name in real:
        if name not in recipe.classes:
            expected = ", ".join(recipe.classes)
            raise RecipeError(f"pictures are given for {name!r}: expected {expected}")
    found = []
    for name, settings in recipe.classes.items():
        options = dict(settings.degradation or {})
        made = create_degradation(options.pop("name", ""), **options) if options else None
        if made is None and name != CLEAN and name not in real:
            raise DataError(f"the class {name} has no degradation and no pictures: give some")
        found.append(made)
    return tuple(found)
