"""A recipe: the complete, validated description of one training.

A recipe file states only what differs from the defaults below. The resolved recipe travels with
every checkpoint and every model file, and lies as `recipe.yaml` in the folder of the training.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from urushi.data.synthetic_pages import PAGE_SIDE
from urushi.errors import RecipeError, is_bare_name
from urushi.files.router_file import ClassName
from urushi.settings import Settings, names_file, read_mapping, read_settings, shown

__all__ = [
    "PAPERS",
    "RECIPES",
    "BackboneSettings",
    "ClassSource",
    "LearningSettings",
    "Origin",
    "PatchSettings",
    "PretextSettings",
    "Recipe",
    "TrainingSettings",
    "find_recipe",
    "load_recipe",
    "recipe_kind",
]

RECIPES = Path(__file__).parent.parent / "recipes"
PAPERS = RECIPES / "papers"
"""Tables of recipes: a row for each cell of a paper's tables."""


class Origin(Settings):
    """What recipes of all kinds say of themselves, and what the files of their trainings repeat.

    Attributes:
        name: names the run and its file; letters, digits, dot, dash and underscore.
        description: a sentence for the file.
        licence: licence of the weights (SPDX).
        data_statement: where the training pictures come from and under which terms.
        seed: the only source of randomness.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    licence: str = "Apache-2.0"
    data_statement: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class TrainingSettings(Origin):
    """What every training by `urushi.training.loop` states.

    Attributes:
        changeable: what a resumed training may change: how it goes on, not what it is made of.
        precision: arithmetic of the forward pass; the weights stay float32.
        checkpoint_minutes: time between two checkpoints.
        storage: number format of the weights in the file.
    """

    changeable: ClassVar[frozenset[str]]

    precision: Literal["float32", "bf16"] = "float32"
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 2.0
    storage: Literal["float32", "float16"] = "float16"


class BackboneSettings(Settings):
    """The network to train.

    Attributes:
        name: an entry of `BACKBONES`.
        config: arguments of its constructor.
    """

    name: str
    config: dict[str, Any]


class PatchSettings(Settings):
    """What networks learn from.

    Attributes:
        patch: side in pixels of the patches that the network gets; targets are larger where it
            enlarges.
        batch: patches of one optimizer step, over all processes.
        augment: turn and mirror patches (the eight symmetries of the square).
    """

    patch: Annotated[int, Field(ge=8)] = 128
    batch: Annotated[int, Field(ge=1)] = 8
    augment: bool = True


class DataSettings(PatchSettings):
    """Pictures and how patches are cut from them: clean ones, or pairs.

    Attributes:
        pictures: folders of clean pictures, relative to the place of the data.
        pairs: folders that hold a folder of inputs and one of targets each, instead of `pictures`.
        pages: number of made pages (text, screens, charts, line art, ...) of 512x512 pixels that
            are packed beside the pictures. Patches fall on them by their area.
        crops: patches cut from a picture each time it comes, where pictures come from shards;
            large pictures cost less to decode so. Without effect on packs.
    """

    pictures: list[str] = []
    pairs: list[str] = []
    pages: Annotated[int, Field(ge=0, le=100_000)] = 0
    crops: Annotated[int, Field(ge=1, le=1000)] = 1
    batch: Annotated[int, Field(ge=1)] = 32

    @model_validator(mode="after")
    def _one_kind(self) -> "DataSettings":
        if bool(self.pictures) == bool(self.pairs):
            raise ValueError("expected folders in pictures or in pairs, one of the two")
        if self.pages and self.pairs:
            raise ValueError("pages has no effect with pairs: leave it out")
        if self.pages and self.patch > PAGE_SIDE:
            raise ValueError(f"pages has no effect with patches larger than {PAGE_SIDE}")
        return self


class ClassSource(Settings):
    """Where patches of one kind of damage come from.

    Attributes:
        degradation: `{name: ..., ...}` as `urushi.degradations.create_degradation` takes it, of
            clean pictures; null has none.
        scene: what clean pictures are made into first, in the same form: such as out of focus, or
            as the web stores them. The damage is laid over that, and that is what is to come back.
        pairs: folders that hold a folder of inputs and one of targets each.
        without: names of pairs, without their ending, that are left out of them: such as those
            that show what a benchmark shows.
        rehaze: settings of `urushi.degradations.rehaze.Rehaze`, which lays other haze over patches
            of pairs; `{}` takes its own, null leaves pairs as they are.
        rerain: settings of `urushi.degradations.rerain.Rerain`, which lays the rain of pairs over
            other scenes and makes it lighter; null leaves pairs as they are. Patches of these pairs
            are mirrored and not turned, since rain falls.
        level: give the target of every patch of a pair the mean of its input, channel by channel:
            shots of one scene often differ in brightness, which is nothing to learn.
        real: share of the patches that are from pairs, where there are both.
        final_share: share of the steps, at the end of the training, in which all patches are from
            pairs.
    """

    renamed: ClassVar = {"last": "final_share"}

    degradation: dict[str, Any] | None = None
    scene: dict[str, Any] | None = None
    pairs: list[str] = []
    without: list[str] = []
    rehaze: dict[str, Any] | None = None
    rerain: dict[str, Any] | None = None
    level: bool = False
    real: Annotated[float, Field(ge=0, le=1)] = 0.5
    final_share: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _shares_have_effect(self) -> "ClassSource":
        both = self.degradation is not None and bool(self.pairs)
        for name in ("real", "final_share"):
            if getattr(self, name) != type(self).model_fields[name].default and not both:
                raise ValueError(f"{name} has no effect without both degradation and pairs")
        for name in ("without", "rehaze", "rerain", "level"):
            if getattr(self, name) not in ([], None, False) and not self.pairs:
                raise ValueError(f"{name} has no effect without pairs")
        if self.rehaze is not None and self.rerain is not None:
            raise ValueError("pairs cannot have both rehaze and rerain: leave one out")
        if self.scene is not None and self.degradation is None:
            raise ValueError("scene has no effect without degradation")
        return self


class LossSettings(Settings):
    """What is minimised; see `urushi.training.losses`.

    Attributes:
        name: `psnr`, `charbonnier`, `l1` or `l2`.
        frequency: weight of the L1 distance of Fourier spectra, added to it.
        floor: for `psnr`, mean squared error below which a picture counts as right; null is
            1e-8, NAFNet's.
        grid: weight of a level of 255 of the pattern that the network's grid leaves in even areas,
            added to it.
        damaged: if above 0, pixels that the degradation changes by more than two levels of 255
            count apart: the loss of the others, plus so many times that of these.
    """

    name: Literal["psnr", "charbonnier", "l1", "l2"] = "psnr"
    damaged: Annotated[float, Field(ge=0)] = 0.0
    frequency: Annotated[float, Field(ge=0)] = 0.0
    grid: Annotated[float, Field(ge=0)] = 0.0
    floor: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _floor_has_effect(self) -> "LossSettings":
        if self.floor is not None and self.name != "psnr":
            raise ValueError(f"floor has no effect with {self.name}: leave it out")
        return self


def _betas_below_one(betas: tuple[float, float]) -> tuple[float, float]:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError("both must be at least 0 and less than 1")
    return betas


class OptimizerSettings(Settings):
    """AdamW. The defaults are those of NAFNet's authors.

    Attributes:
        learning_rate: the greatest, reached after the warm-up.
        betas: decay of the first and second moments.
        weight_decay: decoupled.
        clip: greatest norm of the gradient over all parameters; null does not clip.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    betas: Annotated[tuple[float, float], AfterValidator(_betas_below_one)] = (0.9, 0.9)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Annotated[float, Field(gt=0)] | None = 0.1


class PatchStage(Settings):
    """Patches from some step on: progressive learning (Restormer, CVPR 2022).

    Attributes:
        from_step: first optimizer step with them, counted from 0.
        patch: side in pixels.
        batch: patches of one optimizer step.
    """

    from_step: Annotated[int, Field(ge=1)]
    patch: Annotated[int, Field(ge=8)]
    batch: Annotated[int, Field(ge=1)]


class ScheduleSettings(Settings):
    """Length of the training, and the learning rate over it: linear warm-up, then half a cosine.

    Attributes:
        steps: optimizer steps in all.
        minutes: of training, at most; the cosine then follows the time where that is ahead of the
            steps, and the training ends when either is over. What is trained so depends on the
            machine. Null sets no limit.
        warmup: steps of the warm-up.
        final_learning_rate: reached at the last step.
        decay: share of the steps after the warm-up over which the learning rate falls, at the end;
            before it stays at its greatest. A training whose end is not known yet can so go on
            until its `steps` are set, and fall then.
        milestones: shares of the steps, ascending, at each of which the learning rate is halved;
            where there are any, it does not fall otherwise.
        patches: later stages with patches of another size, in the order of their steps; before
            the first, `data.patch` and `data.batch` count.
    """

    steps: Annotated[int, Field(ge=1)]
    minutes: Annotated[float, Field(gt=0)] | None = None
    warmup: Annotated[int, Field(ge=0)] = 0
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-7
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    milestones: list[Annotated[float, Field(gt=0, lt=1)]] = []
    patches: list[PatchStage] = []

    @model_validator(mode="after")
    def _stages_in_order(self) -> "ScheduleSettings":
        if self.milestones != sorted(set(self.milestones)):
            raise ValueError(f"milestones are {self.milestones}: expected them in ascending order")
        if self.milestones and self.decay != 1:
            raise ValueError("decay has no effect with milestones: leave it out")
        starts = [stage.from_step for stage in self.patches]
        if starts != sorted(set(starts)):
            raise ValueError(f"patches begin at steps {starts}: expected them in ascending order")
        return self


class PretextSettings(Settings):
    """Tasks beside restoring, for the first steps; see `urushi.training.pretext`.

    Attributes:
        until: optimizer steps they last.
        mask: share of the input's area that is blanked.
        cell: side of a blanked cell in pixels.
        classify: weight of the classification loss, beside the loss of the recipe; 0 has no head.
    """

    until: Annotated[int, Field(ge=1)]
    mask: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cell: Annotated[int, Field(ge=1)] = 8
    classify: Annotated[float, Field(ge=0)] = 0.0


class ValidationSettings(Settings):
    """Scores during training, through `urushi.evaluation`.

    Attributes:
        benchmarks: names in the catalog; none by default.
        every: optimizer steps between two validations; the last step always validates.
        limit: pictures of each benchmark; null takes all.
    """

    benchmarks: list[str] = []
    every: Annotated[int, Field(ge=1)] = 5000
    limit: Annotated[int, Field(ge=1)] | None = None


class LearningSettings(Settings):
    """How a network learns.

    Attributes:
        loss, optimizer: what is minimised, and by what.
        ema: decay of the moving average of the weights, which is what ships; 0 averages nothing.
        save_memory: keep less for the way back and calculate it again; with an adapter only.
        compile: compile the network first: minutes for each size of patches, and then up to twice
            as fast on a CPU.
    """

    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    save_memory: bool = False
    compile: bool = False


class Recipe(TrainingSettings, LearningSettings):
    """The training of one network, complete.

    Attributes:
        backbone: the network; null takes that of `start`.
        start: model file, or name in the zoo, whose weights the training begins with. Layers of the
            network that the file does not have begin as they are made: blocks added at the end
            of a stage of a NAFNet are the identity. Null begins from random weights.
        adapter: `{method: ..., ...}` as `urushi.adapters.create_adapter` takes it. The backbone,
            that of `start`, then stays frozen, and only the adapter is trained. Null trains the
            network.
        initial_adapter: adapter file, or name of one in the zoo, whose weights `adapter` begins
            with, of the same method and settings; null begins with one that changes nothing.
        degradation: `{name: ..., ...}` as `urushi.degradations.create_degradation` takes it; null
            where the data are pairs, or where there are classes.
        scene: what clean pictures are made into before that, in the same form, and what is to come
            back: such as grey, or with grain; null leaves them as they are.
        classes: kinds of damage by name, in place of one degradation; a patch is of each of them
            with the same probability. `clean` stays as it is. Part of all-in-one trainings.
        degradations: kinds of damage the trained network is for, named in its model file.
        pretext: tasks beside restoring, for the first steps; null has none.
        schedule, validation: how long, and how often it is measured.
    """

    changeable: ClassVar = frozenset(
        {"checkpoint_minutes", "compile", "description", "loss", "optimizer", "precision",
         "save_memory", "schedule", "validation"}
    )  # fmt: skip

    renamed: ClassVar = {"begin": "initial_adapter"}

    backbone: BackboneSettings | None = None
    start: str | None = None
    adapter: dict[str, Any] | None = None
    initial_adapter: str | None = None
    data: DataSettings
    degradation: dict[str, Any] | None = None
    scene: dict[str, Any] | None = None
    classes: dict[ClassName, ClassSource] = {}
    degradations: list[str] = []
    schedule: ScheduleSettings
    pretext: PretextSettings | None = None
    validation: ValidationSettings = ValidationSettings()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.start is None and (self.backbone is None or self.adapter is not None):
            missing = "adapter" if self.adapter is not None else "no backbone"
            raise ValueError(f"start is missing: with {missing} it names the model to begin with")
        if self.classes and (self.degradation is not None or self.data.pairs):
            raise ValueError("classes state degradations and pairs: leave them out elsewhere")
        if (self.degradation is None) != bool(self.data.pairs or self.classes):
            raise ValueError("expected a degradation for pictures, and none for pairs")
        if self.scene is not None and self.degradation is None:
            raise ValueError("scene has no effect without degradation")
        for name in ("save_memory", "initial_adapter"):
            if self.adapter is None and getattr(self, name):
                raise ValueError(f"{name} has no effect without an adapter: leave it out")
        if self.adapter is not None and self.pretext is not None:
            raise ValueError("pretext is for training a network, not an adapter: leave one out")
        return self


def find_recipe(name: Path | str) -> Path:
    """The file of a recipe given by path, or by the name of one that comes with Urushi.

    A row of a table is `TABLE:ROW`; see `urushi.settings`.

    Raises:
        RecipeError: there is neither.
    """
    path = Path(name)
    if names_file(path):
        return path
    table, colon, row = str(name).rpartition(":")
    if colon and len(table) > 1:
        found = find_recipe(table)
        return found.with_name(f"{found.name}:{row}")
    for folder in (RECIPES, PAPERS):
        shipped = folder / f"{name}.yaml"
        if path.suffix == "" and names_file(shipped):
            return shipped
    known = ", ".join(sorted(p.stem for p in [*RECIPES.glob("*.yaml"), *PAPERS.glob("*.yaml")]))
    raise RecipeError(
        f"there is no recipe {shown(str(name))}: expected a YAML file, or one of {known}",
        usage=is_bare_name(str(name)),
    )


def recipe_kind(name: Path | str) -> str | None:
    """The `kind` that a recipe, by name or path, states or has of one that it extends.

    Returns:
        `all-in-one`, `router`, or None: the recipe of a network.

    Raises:
        RecipeError: there is no such recipe, or none of a name that it extends.
    """
    seen: set[Path] = set()
    while (path := find_recipe(name)) not in seen:
        seen.add(path)
        try:
            content = read_mapping(path, RecipeError)
        except RecipeError:
            break  # whoever reads it as a recipe says what is wrong
        if "kind" in content or not isinstance(content.get("extends"), str):
            return content.get("kind")
        name = content["extends"]
    return None


def load_recipe(name: Path | str, overrides: Iterable[str] = ()) -> Recipe:
    """Reads and validates a recipe; `overrides` are `a.b=value` texts.

    A recipe may state `extends: NAME`, a recipe by name or path, and then only what differs from
    that one.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong; names the key.
    """
    return read_settings(find_recipe(name), Recipe, RecipeError, overrides, find_recipe)
