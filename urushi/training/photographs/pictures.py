"""The pictures that a router learns from, one at a time: photographs, and what is made.

Every picture is a function of the recipe's seed and of its number, whatever was drawn before.
"""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from urushi.data.pack import read_8bit
from urushi.data.pairs import find_pictures
from urushi.data.synthetic_pages import PAGE_KINDS, draw_page, installed_fonts
from urushi.degradations import Degradation, create_rerain, degradation_of
from urushi.degradations.files import degrade_pixels
from urushi.degradations.rerain import Rerain
from urushi.errors import DataError
from urushi.files.router_file import CLEAN
from urushi.training.photographs.photographs_recipe import UNKNOWN, PhotographicRecipe

__all__ = ["MadePictures", "Photograph", "Photographs", "find_photographs", "fold_of_sources"]

Pixels = UInt8[np.ndarray, "_ _ 3"]
_LEAST = 64
_KEPT = 64  # decoded pictures that are kept: the same are drawn again and again


@dataclass(frozen=True)
class Photograph:
    """A photograph of known damage.

    Attributes:
        path: its file.
        classes: what is true of it; empty where no class is for it.
        source: group of photographs that one collector or camera made: the first word of the file's
            name, or the folder.
    """

    path: Path
    classes: tuple[str, ...]
    source: str


def find_photographs(recipe: PhotographicRecipe, data: Path) -> list[Photograph]:
    """All photographs of a recipe, class by class, by file name.

    Raises:
        DataError: a folder does not exist, or no photograph has a name that the recipe gives
            further classes.
    """
    found = []
    folders = {name: own.photographs for name, own in recipe.classes.items()}
    folders[UNKNOWN] = recipe.unknown
    for name, own in folders.items():
        for folder in own:
            for path in find_pictures(data / folder):
                also = recipe.photographs.also.get(path.stem, [])
                classes = tuple(dict.fromkeys([name, *also]))
                kept = () if UNKNOWN in classes else classes
                found.append(Photograph(path, kept, _source(path)))
    strange = set(recipe.photographs.also) - {one.path.stem for one in found}
    if strange:
        raise DataError(
            f"photographs.also names {min(strange)!r}, but there is no such photograph: correct "
            "the name, or leave it out"
        )
    return found


def fold_of_sources(photographs: Sequence[Photograph], folds: int) -> list[int]:
    """The fold of each photograph: one for all of a source, and about as many in each."""
    sizes: dict[str, int] = {}
    for one in photographs:
        sizes[one.source] = sizes.get(one.source, 0) + 1
    filled, where = [0] * folds, dict[str, int]()
    for source in sorted(sizes, key=lambda name: (-sizes[name], name)):
        where[source] = filled.index(min(filled))
        filled[where[source]] += sizes[source]
    return [where[one.source] for one in photographs]


def _source(path: Path) -> str:
    word = re.match(r"([A-Za-z]+)\d*_", path.stem)
    return path.parent.name if word is None else word[1].lower()


@dataclass
class Photographs:
    """Photographs as they are, and variants of them.

    Args:
        recipe: says how they are varied.
        photographs: the photographs.
    """

    recipe: PhotographicRecipe
    photographs: Sequence[Photograph]

    def __len__(self) -> int:
        return len(self.photographs) * (1 + self.recipe.photographs.variants)

    def which(self, number: int) -> int:
        """The photograph of a picture."""
        return number // (1 + self.recipe.photographs.variants)

    def draw(self, number: int) -> tuple[Pixels, tuple[str, ...]]:
        """A picture, and the classes that are true of it.

        Raises:
            PictureError: the file cannot be read.
        """
        one = self.photographs[self.which(number)]
        pixels = _read(one.path)
        variant = number % (1 + self.recipe.photographs.variants)
        if variant == 0:
            return pixels, one.classes
        draw = np.random.default_rng([self.recipe.seed, 1, number])
        return self._varied(pixels, one.classes, draw), one.classes

    def _varied(
        self, pixels: Pixels, classes: tuple[str, ...], draw: np.random.Generator
    ) -> Pixels:
        own = self.recipe.photographs
        height, width = pixels.shape[:2]
        sides = [
            min(side, max(96, int(side * draw.uniform(own.part, 1)))) for side in (height, width)
        ]
        pixels = _part(pixels, sides[0], sides[1], draw)
        if draw.random() < 0.5:
            pixels = pixels[:, ::-1]
        if draw.random() < 0.4:
            pixels = _toned(pixels, draw, 0.0 if "low-light" in classes else 0.15)
        return _shared(pixels, self.recipe, draw, classes)


@dataclass
class MadePictures:
    """Pictures that are made from clean ones, or cut from inputs of pairs.

    Args:
        recipe: says how.
        data: place of the data.
        held: whether they are to be measured by: then from the validation folders.
    """

    recipe: PhotographicRecipe
    data: Path
    held: bool = False
    _degradations: dict[str, Degradation] = field(default_factory=dict, init=False)
    _rerains: dict[str, Rerain] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        own = self.recipe.made
        names = own.validation if self.held else own.clean
        self.clean = [path for name in names for path in find_pictures(self.data / name)]
        if not self.clean:
            raise DataError(f"there are no pictures in {', '.join(names)}: name other folders")
        self.pictures = {name: self._parts(name) for name in self.recipe.classes}
        for name, plan in self.recipe.classes.items():
            if plan.degradation is not None:
                self._degradations[name] = degradation_of(plan.degradation)
            if plan.rerain is not None:
                self._rerains[name] = create_rerain(**plan.rerain)
                for path in self.pictures[name]:
                    if not _target(path).is_file():
                        raise DataError(
                            f"class {name}: {path} has no target {_target(path)}: rerain takes "
                            "pictures of pairs, in folders input and target"
                        )
        able = [n for n in self.recipe.classes if n == CLEAN or n in self._degradations]
        self.turns = (*able, CLEAN)

    def _parts(self, name: str) -> list[Path]:
        plan = self.recipe.classes[name]
        found = [path for one in plan.pictures for path in find_pictures(self.data / one)]
        if missing := set(plan.without) - {path.stem for path in found}:
            raise DataError(f"class {name}: no picture is named {min(missing)!r}: correct without")
        return [path for path in found if path.stem not in plan.without]

    def __len__(self) -> int:
        return self.recipe.made.held if self.held else self.recipe.made.learned

    def draw(self, number: int) -> tuple[Pixels, tuple[str, ...]]:
        """A picture, and the class that is true of it.

        Raises:
            PictureError: a file cannot be read.
        """
        own = self.recipe.made
        draw = np.random.default_rng([self.recipe.seed, 2 + self.held, number])
        name = self.turns[number % len(self.turns)]
        share = self.recipe.classes[name].real
        share = own.real if share is None else share
        if not self.held and self.pictures[name] and draw.random() < share:
            path = self.pictures[name][int(draw.integers(len(self.pictures[name])))]
            if name in self._rerains:
                pixels = self._rained(path, self._rerains[name], draw)
            else:
                pixels = _cut(_read(path), own.sides, draw)
        else:
            pixels = self._clean(draw)
            if name in self._degradations:
                seed = int(draw.integers(2**31))
                spoilt = degrade_pixels(
                    pixels.astype(np.float32) / 255, self._degradations[name], seed
                )
                pixels = np.rint(np.clip(spoilt, 0, 1) * 255).astype(np.uint8)
        return _shared(pixels, self.recipe, draw, (name,)), (name,)

    def _rained(self, path: Path, rerain: Rerain, draw: np.random.Generator) -> Pixels:
        """A part of a pair, with the pair's rain made lighter, or over another scene."""
        scene = self._clean(draw)
        both = np.concatenate([_read(path), _read(_target(path))], 2)
        height, width = (min(sides) for sides in zip(scene.shape[:2], both.shape[:2], strict=True))
        both, scene = _part(both, height, width, draw), _part(scene, height, width, draw)
        if draw.random() < 0.5:
            both = both[:, ::-1]
        rainy, clean, other = (
            torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1))).float()[None] / 255
            for part in (both[..., :3], both[..., 3:], scene)
        )
        generator = torch.Generator().manual_seed(int(draw.integers(2**31)))
        with torch.inference_mode():
            found, _ = rerain.apply(rainy, clean, rerain.sample(1, generator), other)
        return np.rint(255 * found[0].numpy().transpose(1, 2, 0)).astype(np.uint8)

    def _clean(self, draw: np.random.Generator) -> Pixels:
        own = self.recipe.made
        if draw.random() < own.pages:
            kind = sorted(PAGE_KINDS)[int(draw.integers(len(PAGE_KINDS)))]
            width, height = (int(side) for side in draw.integers(own.sides[0], own.sides[1], 2))
            return draw_page(kind, width, height, int(draw.integers(2**31)), installed_fonts())
        pixels = _read(self.clean[int(draw.integers(len(self.clean)))])
        if draw.random() < own.reduced:
            factor = draw.uniform(own.least, 1)
            if min(pixels.shape[:2]) * factor >= own.sides[0]:
                pixels = _resized(pixels, factor)
        pixels = _cut(pixels, own.sides, draw)
        if draw.random() < 0.5:
            pixels = pixels[:, ::-1]
        if draw.random() < own.toned:
            pixels = _toned(pixels, draw, 0.2)
        return np.ascontiguousarray(pixels)


def _target(path: Path) -> Path:
    """The clear picture of a pair's rainy one."""
    return path.parent.with_name("target") / path.name


@lru_cache(maxsize=_KEPT)
def _read(path: Path) -> Pixels:
    return read_8bit(path)


def _part(
    pixels: UInt8[np.ndarray, "_ _ c"], height: int, width: int, draw: np.random.Generator
) -> UInt8[np.ndarray, "_ _ c"]:
    top = int(draw.integers(pixels.shape[0] - height + 1))
    left = int(draw.integers(pixels.shape[1] - width + 1))
    return pixels[top : top + height, left : left + width]


def _cut(pixels: Pixels, sides: tuple[int, int], draw: np.random.Generator) -> Pixels:
    drawn = draw.integers(sides[0], sides[1], 2)
    height, width = (min(int(a), b) for a, b in zip(drawn, pixels.shape[:2], strict=True))
    return _part(pixels, height, width, draw)


def _resized(pixels: Pixels, factor: float) -> Pixels:
    size = [max(_LEAST, round(side * factor)) for side in (pixels.shape[1], pixels.shape[0])]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((size[0], size[1]), Image.Resampling.BICUBIC))


def _toned(pixels: Pixels, draw: np.random.Generator, brightness: float) -> Pixels:
    """With other powers of each colour: other light, another film."""
    power = np.exp(0.4 * draw.normal(0, 0.15, 3) + draw.normal(0, 1) * brightness)
    return np.rint(255 * (pixels / 255.0) ** power).astype(np.uint8)


def _shared(
    pixels: Pixels,
    recipe: PhotographicRecipe,
    draw: np.random.Generator,
    classes: Sequence[str],
) -> Pixels:
    own = recipe.shared
    reducible = all(recipe.classes[name].reducible for name in classes)
    # What is compressed already would be another degree of it.
    compressible = "jpeg" not in classes
    if draw.random() < own.reduced and reducible:
        pixels = _resized(pixels, draw.uniform(own.least, 1))
    if draw.random() < own.compressed and compressible:
        least, greatest = own.clean if CLEAN in classes else own.quality
        quality = int(draw.integers(least, greatest + 1))
        stored = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(pixels))
        image.save(stored, "JPEG", quality=quality, subsampling=int(draw.integers(2)) * 2)
        pixels = np.asarray(Image.open(stored))
    return np.ascontiguousarray(pixels)


Draw = Callable[[int], tuple[Pixels, tuple[str, ...]]]
