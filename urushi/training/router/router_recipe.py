"""The recipe of a router: the complete, validated description of its training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from urushi.errors import RecipeError
from urushi.files.router_file import CLEAN, ClassName, CompactFacts, Mode, ViewGeometry
from urushi.settings import Settings, read_settings
from urushi.training.recipe import LossSettings, ScheduleSettings, TrainingSettings

__all__ = [
    "COMPACT",
    "COMPACT_VIEWS",
    "ClassSettings",
    "ClipSettings",
    "FeatureSettings",
    "PictureOptions",
    "PictureSettings",
    "RouterOptions",
    "RouterRecipe",
    "load_router_recipe",
]

COMPACT = CompactFacts(widths=[16, 32, 64, 128, 192], width=256, blocks=1)
"""The compact encoder that is trained where a recipe names none: 1.6 million parameters."""

COMPACT_VIEWS = ViewGeometry(layout="native", size=96, most=8)
"""What it looks at: windows of the picture itself, since noise is gone once that is reduced."""


class ClipSettings(Settings):
    """A frozen CLIP as encoder.

    Attributes:
        kind: always `clip`.
        name: of the checkpoint on the hub, or its folder.
    """

    kind: Literal["clip"] = "clip"
    name: Annotated[str, Field(min_length=1)] = "openai/clip-vit-large-patch14-336"


class FeatureSettings(Settings):
    """The first part of a restoration network, frozen; see `urushi.routing.features`.

    It makes the same of a picture each time: what it reads from a number of pictures is calculated
    once, and kept beside the checkpoints; a projection and the head learn from that.

    Attributes:
        kind: always `features`.
        base: the network: a model file, or a name in the zoo; a NAFNet.
        middle: its first blocks at the lowest resolution that are taken.
        places: see `urushi.files.router_facts.FeatureFacts`; what is read is then some 300 kB for
            each picture.
        width: numbers of an embedding.
        pictures: to learn from, at least.
        batch: pictures of one optimizer step.
        dropout: share of what is read that a step does without.
    """

    kind: Literal["features"] = "features"
    base: Annotated[str, Field(min_length=1)] = "base"
    middle: Annotated[int, Field(ge=1)] = 4
    places: Annotated[int, Field(ge=1, le=1024)] | None = None
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 256
    pictures: Annotated[int, Field(ge=1)] = 6000
    batch: Annotated[int, Field(ge=1)] = 64
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3


RouterEncoder = Annotated[
    CompactFacts | FeatureSettings | ClipSettings, Field(discriminator="kind")
]


class ClassSettings(Settings):
    """Where pictures of one class come from.

    Attributes:
        degradation: `{name: ..., ...}` as `urushi.degradations.create_degradation` takes it,
            applied to clean pictures; null has none.
        pictures: folders of pictures that are degraded so already, relative to the place of the
            data.
        oversample: so many pictures are learned from for one of another class. What is more common
            than others, such as clean pictures, is then the likelier in doubt. It is measured with
            as many of each.
    """

    renamed: ClassVar = {"times": "oversample"}

    degradation: dict[str, Any] | None = None
    pictures: list[str] = []
    oversample: Annotated[int, Field(ge=1, le=100)] = 1


class PictureOptions(Settings):
    """What is cut from pictures to be looked at whole, and what is done to it.

    Attributes:
        mixed: mode `single`: share of spoilt pictures that go through the damage of a second class;
            each of the two is half the truth. (With mode `multi` see `most` of the recipe.)
        unknown: a degradation that no class is for, as `create_degradation` takes it: the router
            learns to be unsure of it, as many pictures as a class has. Null has none.
        sides: of a training picture in pixels; every step draws one of them.
        per_class: pictures of each class in one optimizer step (times its `oversample`).
        real: share of the pictures of a class that come from its own folders, where it has both
            these and a degradation.
        augment: turn and mirror (the eight symmetries of the square).
        reduce: in every other step clean pictures are reduced before they are spoilt, by this
            factor, or by less where they are too small: what many cameras and files have left in
            clean pictures must not be what tells them from others. 1 leaves them.
        before, after: degradations that pictures of every class, clean ones too, go through before
            and after they are spoilt, as `create_degradation` takes them: what happens to pictures
            of all kinds (other tones, a weak compression) must not tell them apart, either. Only
            pictures that are spoilt here go through the first. Null has none.
    """

    mixed: Annotated[float, Field(ge=0, le=1)] = 0.0
    unknown: dict[str, Any] | None = None
    sides: Annotated[list[Annotated[int, Field(ge=16)]], Field(min_length=1)] = [128, 192, 256]
    per_class: Annotated[int, Field(ge=1)] = 4
    real: Annotated[float, Field(ge=0, le=1)] = 0.5
    augment: bool = True
    reduce: Annotated[float, Field(ge=1, le=4)] = 1.0
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


class PictureSettings(PictureOptions):
    """Pictures, and what is cut from them.

    Attributes:
        clean: folders of clean pictures, relative to the place of the data.
    """

    clean: Annotated[list[str], Field(min_length=1)]


class RouterOptimizerSettings(Settings):
    """AdamW, linear warm-up and half a cosine.

    Attributes:
        learning_rate: the greatest.
        final_learning_rate: reached at the last step.
        weight_decay: decoupled.
        warmup: steps.
        clip: greatest norm of the gradient; null does not clip.
    """

    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-5
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Annotated[int, Field(ge=0)] = 0
    clip: Annotated[float, Field(gt=0)] | None = 1.0


class RouterValidationSettings(Settings):
    """Accuracy on pictures that were not trained on.

    Attributes:
        per_class: pictures of each class.
        every: optimizer steps between two validations; the last step always validates.
    """

    per_class: Annotated[int, Field(ge=1)] = 32
    every: Annotated[int, Field(ge=1)] = 500


class RouterOptions(Settings):
    """A router, and how it learns.

    Attributes:
        encoder: compact, trained with the head; the features of a frozen restoration network; or a
            frozen CLIP.
        views: what is looked at; null takes what suits the encoder.
        steps: optimizer steps in all.
        optimizer: and learning rate.
        validation: during training and at its end, where the temperature is fitted.
        threshold: the router abstains where its largest probability is below.
        precision: arithmetic of the forward pass; the weights stay float32.
    """

    encoder: RouterEncoder = COMPACT
    views: ViewGeometry | None = None
    steps: Annotated[int, Field(ge=1)]
    optimizer: RouterOptimizerSettings = RouterOptimizerSettings()
    validation: RouterValidationSettings = RouterValidationSettings()
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    precision: Literal["float32", "bf16"] = "float32"


class RouterRecipe(TrainingSettings, RouterOptions):
    """The training of one router, complete.

    Attributes:
        classes: by name, in the order of the logits. `clean` is what needs no expert; it has no
            degradation. Where a picture goes through several (mode `multi`), it goes through them
            in this order: name what happens before the lens first, what the file does last.
        mode: `single`: one class is true of a picture; `multi`: any number.
        max_degradations: mode `multi`: degradations that one picture has at most.
        pictures: clean ones, and how many of each class.
    """

    changeable: ClassVar = frozenset(
        {"checkpoint_minutes", "description", "data_statement", "licence", "name", "optimizer",
         "steps", "storage", "threshold", "validation"}
    )  # fmt: skip
    # What the loop asks for and a router does without.
    compile: ClassVar[bool] = False
    ema: ClassVar[float] = 0.0
    loss: ClassVar[LossSettings] = LossSettings()
    pretext: ClassVar[None] = None

    renamed: ClassVar = {"most": "max_degradations"}

    classes: Annotated[dict[ClassName, ClassSettings], Field(min_length=2)]
    mode: Mode = "single"
    max_degradations: Annotated[int, Field(ge=1)] = 2
    pictures: PictureSettings
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0

    @property
    def schedule(self) -> ScheduleSettings:
        """Length of the training, and the learning rate over it."""
        own = self.optimizer
        return ScheduleSettings(
            steps=self.steps,
            warmup=own.warmup,
            final_learning_rate=own.final_learning_rate,
        )

    @model_validator(mode="after")
    def _consistent(self) -> "RouterRecipe":
        for name, settings in self.classes.items():
            if name == CLEAN and settings.degradation is not None:
                raise ValueError(
                    f"{CLEAN} has a degradation: pictures that need no expert have none"
                )
            if name != CLEAN and settings.degradation is None and not settings.pictures:
                raise ValueError(f"class {name} has neither a degradation nor pictures: give one")
        default = (
            type(self).model_fields["max_degradations"].default
        )  # stands in every recipe written out
        if self.mode == "multi" and self.pictures.mixed:
            raise ValueError("pictures.mixed has no effect with mode multi: see max_degradations")
        if self.mode == "single" and self.max_degradations not in (1, default):
            raise ValueError("max_degradations has no effect with mode single: leave it out")
        return self


def load_router_recipe(path: Path | str, overrides: Iterable[str] = ()) -> RouterRecipe:
    """Reads and validates the recipe of a router; `overrides` are `a.b=value` texts.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong; names the key.
    """
    return read_settings(path, RouterRecipe, RecipeError, overrides)
