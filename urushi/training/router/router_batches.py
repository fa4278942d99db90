"""Batches for a router: whole pictures with their classes, each a function of seed and step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor
from torch.nn import functional as F

from urushi.data.pack import PackedPictures
from urushi.degradations import Degradation, degradation_of
from urushi.errors import DataError, RecipeError
from urushi.files.router_file import CLEAN
from urushi.training.batches import Batch, Batches, Rows, step_generator
from urushi.training.router.router_recipe import RouterRecipe

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
        several: whether any number of classes is true of a picture.
        most: degradations of one picture at most, then.
        mixed: share of spoilt pictures that have two, else.
        unknown: damage that no class is for, or None.
        real_share: of the pictures of a class that has a pack and a degradation.
        reduce: factor by which clean pictures are reduced before anything else.
        before, after: what pictures of all classes go through around their damage, or None.
        turns: class of every picture, again and again; unknown damage is behind the last class.
    """

    degradations: tuple[Degradation | None, ...] = field(kw_only=True)
    real: Mapping[int, Batches] = field(kw_only=True)
    clean: int | None = field(kw_only=True)
    several: bool = field(kw_only=True)
    most: int = field(kw_only=True)
    mixed: float = field(kw_only=True)
    unknown: Degradation | None = field(kw_only=True)
    real_share: float = field(kw_only=True)
    reduce: float = field(kw_only=True)
    before: Degradation | None = field(kw_only=True)
    after: Degradation | None = field(kw_only=True)
    turns: tuple[int, ...] = field(kw_only=True)

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
        images = _through(self.before, images, generator)
        labels, synthetic = self._labels(generator)
        unknown = self._leading == len(self.degradations)
        # One after another in the order of the classes: the scene, the lens, the sensor, the file.
        spoilt = images.clone()
        for index, degradation in enumerate(self.degradations):
            self._spoil(spoilt, degradation, labels[:, index] & synthetic, generator)
        self._spoil(spoilt, self.unknown, unknown, generator)
        spoilt = _through(self.after, spoilt, generator)
        row, column = torch.randint(_GRID, (2,), generator=generator).tolist()
        side = self.patch - _GRID
        spoilt = spoilt[..., row : row + side, column : column + side]
        images = images[..., row : row + side, column : column + side]
        self._put_real(spoilt, labels, synthetic, generator)
        # Pictures as they are stored: in 8 bits.
        spoilt = (spoilt * 255).round() / 255
        # Nothing can be told of unknown damage: any class is as likely as another.
        labels[unknown] = not self.several
        return Batch(spoilt, images, labels.to(self.device))

    def _spoil(
        self,
        images: Tensor,
        degradation: Degradation | None,
        chosen: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Sends some of the pictures through a degradation, in place."""
        rows = chosen.nonzero()[:, 0]
        if degradation is None or len(rows) == 0:
            return
        parameters = degradation.sample((len(rows), 3, self.patch, self.patch), generator)
        rows = rows.to(images.device)
        changed = degradation.apply(images[rows], parameters)
        if changed.shape[-2:] != images.shape[-2:]:
            raise RecipeError(
                f"the degradation {degradation.name} changes a picture's size: a router's keeps "
                "it, leave that class out"
            )
        images[rows] = changed

    @property
    def _leading(self) -> Int64[Tensor, " b"]:
        """The class of every picture."""
        return torch.tensor(self.turns)[torch.arange(self.batch) % len(self.turns)]

    def _labels(self, generator: torch.Generator) -> tuple[Bool[Tensor, "b n"], Bool[Tensor, " b"]]:
        """Classes of each picture, and which are made from clean ones; unknown damage has none."""
        count = len(self.degradations)
        leading = self._leading
        labels = F.one_hot(leading, count + 1)[:, :count].bool()
        known = leading < count
        own = leading.clamp_max(count - 1)
        chance = torch.rand(self.batch, generator=generator)
        has_real = torch.tensor([index in self.real for index in range(count)])[own]
        # A clean picture is clean as it is, every other class needs what makes it.
        made = torch.tensor(
            [d is not None or i == self.clean for i, d in enumerate(self.degradations)]
        )[own]
        synthetic = (~has_real | (made & (chance >= self.real_share))) & known
        places = torch.rand(self.batch, count, generator=generator)
        able = torch.tensor([d is not None for d in self.degradations])
        places = places.masked_fill(~able | labels, 2.0).argsort(1).argsort(1)
        more = (places < self._extra(generator)[:, None]) & able & ~labels
        mixed = synthetic & (leading != (-1 if self.clean is None else self.clean))
        return labels | (more & mixed[:, None]), synthetic

    def _extra(self, generator: torch.Generator) -> Tensor:
        """How many further kinds of damage each picture has."""
        if self.several:
            return torch.randint(self.most, (self.batch,), generator=generator)
        return (torch.rand(self.batch, generator=generator) < self.mixed).long()

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
            images[rows.to(images.device)] = _through(self.after, own, generator)


def _through(degradation: Degradation | None, images: Tensor, generator: torch.Generator) -> Tensor:
    """What a degradation makes of pictures, which keep their size."""
    if degradation is None:
        return images
    batch, channels, height, width = images.shape
    made = degradation.apply(
        images, degradation.sample((batch, channels, height, width), generator)
    )
    if made.shape != images.shape:
        raise RecipeError(
            f"{degradation.name}, which all pictures go through, changes their size: leave it out"
        )
    return made


@dataclass(frozen=True)
class RouterBatches:
    """Draws the batch of any step; its side is drawn too.

    Args:
        by_side: what draws pictures of each side.
        seed: of the sides.
    """

    by_side: tuple[_Labelled, ...]
    seed: int

    @property
    def batch(self) -> int:
        """Pictures of a step."""
        return self.by_side[0].batch

    def __call__(self, step: int) -> Batch:
        """Pictures (`degraded`) of step `step` and what is true of them (`applied`).

        There are as many of each class, and of unknown damage where the recipe has any. Of that
        every class is true with mode `single`, where each counts by its share; none with `multi`.
        """
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
    measuring: bool = False,
) -> RouterBatches:
    """What draws the pictures of a router's training, or of its validation.

    Args:
        recipe: classes, their degradations and numbers.
        clean: clean pictures.
        real: pictures of classes, by name.
        device: where pictures are made.
        seed: of everything.
        augment: turn and mirror.
        measuring: as many pictures of each class whatever the recipe says.

    Raises:
        RecipeError: a pack belongs to no class, or a class without a degradation has none.
        DataError: no picture is large enough.
        DegradationError: a degradation is not valid.
    """
    names, degradations = list(recipe.classes), _degradations(recipe, real)
    common = _common(recipe, degradations, measuring)
    count = recipe.pictures.per_class * len(common["turns"])
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
            real=own,
            reduce=factor,
            **common,
        )  # fmt: skip

    made = []
    for side in recipe.pictures.sides:
        made.append(drawing(side, 1.0))
        factor = min(recipe.pictures.reduce, largest / (side + _GRID))
        if augment and factor > 1:
            made.append(drawing(side, factor))
    return RouterBatches(tuple(made), seed)


def _common(
    recipe: RouterRecipe, degradations: tuple[Degradation | None, ...], measuring: bool
) -> dict[str, Any]:
    """What pictures of all sides have in common."""
    names, own = list(recipe.classes), recipe.pictures
    before, after, unknown = (_created(some) for some in (own.before, own.after, own.unknown))
    turns = [
        index
        for index, settings in enumerate(recipe.classes.values())
        for _ in range(1 if measuring else settings.oversample)
    ]
    turns += [len(names)] * (unknown is not None)
    return {
        "degradations": degradations,
        "clean": names.index(CLEAN) if CLEAN in names else None,
        "several": recipe.mode == "multi",
        "most": recipe.max_degradations,
        "mixed": own.mixed,
        "unknown": unknown,
        "real_share": own.real,
        "before": before,
        "after": after,
        "turns": tuple(turns),
    }


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
        made = _created(settings.degradation)
        if made is None and name != CLEAN and name not in real:
            raise DataError(f"the class {name} has no degradation and no pictures: give some")
        found.append(made)
    return tuple(found)


def _created(options: Mapping[str, Any] | None) -> Degradation | None:
    """The degradation that a recipe states; None has none."""
    return degradation_of(options) if options else None
