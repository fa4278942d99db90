"""Pictures from which a trained router learns a further class, and pictures of its old ones."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from urushi.data.packed import PackedPairs
from urushi.data.pairs import find_pictures
from urushi.degradations import degradation_of
from urushi.degradations.files import degrade_pixels, picture_seed
from urushi.errors import DataError, PictureError
from urushi.files.router_file import CLEAN
from urushi.image import read_picture
from urushi.training.examples import Examples
from urushi.training.router.router_recipe import RouterRecipe

__all__ = ["RouterExamples"]

_PER_CLASS, _PER_CLASS_FEW = 24, 6
_MOST_NEW, _MOST_FEW = 64, 24
_LEAST_NEW = 24
_MOST_FILES = 100
# Sides of parts in pixels: a router looks at whole pictures, and these are small ones.
_SIDES = (128, 320)
_WHITE = np.float32(255)

Picture = Float[np.ndarray, "_ _ 3"]


class RouterExamples:
    """What a router learns a further class from.

    Args:
        examples: of the new class, and what they should become.
        recipe: by which the router was trained; None where it is not known.
        data: the place of its data, or None: then old classes are made from the targets.
        seed: of which pictures are taken and how they are spoilt.
        few: take fewer, because reading one takes long.

    Attributes:
        note: a clause for people that says what the old pictures are, where they are made here.
    """

    def __init__(
        self,
        examples: Examples,
        recipe: RouterRecipe | None,
        data: Path | None,
        seed: int,
        *,
        few: bool = False,
    ) -> None:
        self._most = _MOST_FEW if few else _MOST_NEW
        self._per_class = _PER_CLASS_FEW if few else _PER_CLASS
        self._examples, self._recipe, self._seed = examples, recipe, seed
        self._data = None if recipe is None else data
        self._draw = np.random.default_rng(seed)
        self._read_before: dict[tuple[str, ...], list[Picture]] = {}
        if recipe is None:
            self.note = (
                "the targets as clean ones, since the file does not say what its router was "
                "trained with"
            )
        elif data is None:
            self.note = "the targets, spoilt as the router's recipe says"
        else:
            self.note = "those of the router's recipe, and the targets as clean ones"

    def learned(self) -> list[tuple[Picture, Picture]]:
        """Inputs and what they should become, whole and in parts.

        What the new pictures show, and how large they are, is then the same on both sides: only
        what is wrong with them tells them apart.
        """
        pack = self._examples.pack
        whole = [
            (self._input(int(index)), self._target(int(index)))
            for index in self._draw.permutation(len(pack))[: self._most]
        ]
        found = []
        for pair in whole:
            found += [pair, self._parts(*pair)]
        while len(found) < _LEAST_NEW:  # of a handful of pictures more parts are taken
            found.append(self._parts(*whole[len(found) % len(whole)]))
        return found

    def held(self) -> list[tuple[Picture, Picture]]:
        """The same of pictures that neither the expert nor the router learns from."""
        samples = self._examples.validation.samples()[: self._most]
        loaded = [sample.load() for sample in samples]
        whole = [(np.clip(a, 0, 1), np.clip(b, 0, 1)) for a, b in loaded]
        return whole + [self._parts(*pair) for pair in whole]

    def old(self) -> Iterator[tuple[str, Picture]]:
        """Pictures of the old classes with their names, one class after another, again and again.

        Raises:
            DataError: a folder of the router's recipe has no pictures.
        """
        targets = self._targets()
        for number in range(self._per_class):
            for name, settings in ({} if self._recipe is None else self._recipe.classes).items():
                real = self._folder(settings.pictures)
                if real and (number % 2 or (settings.degradation is None and name != CLEAN)):
                    yield name, self._part(self._any(real))
                elif settings.degradation is not None or name == CLEAN:
                    clean = self._part(self._any(self._clean() or targets))
                    yield (
                        name,
                        _spoilt(clean, settings.degradation, int(self._draw.integers(2**31))),
                    )

    def _input(self, index: int) -> Picture:
        pack, options = self._examples.pack, self._examples.degradation
        if isinstance(pack, PackedPairs):
            return pack.pair(index)[0].astype(np.float32) / _WHITE
        clean = pack.picture(index).astype(np.float32) / _WHITE
        return _spoilt(clean, options, picture_seed(self._seed, pack.names[index]))

    def _target(self, index: int) -> Picture:
        pack = self._examples.pack
        found = pack.pair(index)[1] if isinstance(pack, PackedPairs) else pack.picture(index)
        return found.astype(np.float32) / _WHITE

    def _targets(self) -> list[Picture]:
        return [self._target(index) for index in range(min(len(self._examples.pack), self._most))]

    def _clean(self) -> list[Picture]:
        return [] if self._recipe is None else self._folder(self._recipe.pictures.clean)

    def _folder(self, folders: Sequence[str]) -> list[Picture]:
        """Some pictures of folders of the router's recipe; none without its data."""
        if self._data is None or not folders:
            return []
        key = tuple(folders)
        if key not in self._read_before:
            files = [path for one in folders for path in find_pictures(self._data / one)]
            found = []
            for index in self._draw.permutation(len(files))[:_MOST_FILES]:
                try:
                    found.append(np.clip(read_picture(files[index]), 0, 1))
                except PictureError:
                    continue  # one of many is no loss
            if not found:
                raise DataError(
                    f"no pictures in {', '.join(folders)} below {self._data}, which the router was "
                    "trained with: give the place of that data, or leave --data out"
                )
            self._read_before[key] = found
        return self._read_before[key]

    def _any(self, pictures: Sequence[Picture]) -> Picture:
        return pictures[int(self._draw.integers(len(pictures)))]

    def _part(self, picture: Picture) -> Picture:
        return picture[self._window(picture)]

    def _parts(self, one: Picture, other: Picture) -> tuple[Picture, Picture]:
        """The same part of two pictures."""
        window = self._window(one)
        return one[window], other[window]

    def _window(self, picture: Picture) -> tuple[slice, slice]:
        height, width = picture.shape[:2]
        side = int(min(height, width, self._draw.integers(*_SIDES)))
        top = int(self._draw.integers(height - side + 1))
        left = int(self._draw.integers(width - side + 1))
        return slice(top, top + side), slice(left, left + side)


def _spoilt(picture: Picture, options: Mapping[str, Any] | None, seed: int) -> Picture:
    """As it would be stored: in 8 bits."""
    if options is None:
        return picture
    return np.rint(degrade_pixels(picture, degradation_of(options), seed) * _WHITE) / _WHITE
