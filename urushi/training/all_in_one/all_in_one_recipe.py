"""The recipe of an all-in-one model: router, guidance and experts, and what they learn from."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from urushi.errors import RecipeError
from urushi.files.router_facts import Scale
from urushi.files.router_file import CLEAN, ClassName
from urushi.settings import Settings, read_settings
from urushi.training.recipe import (
    BackboneSettings,
    ClassSource,
    LearningSettings,
    LossSettings,
    OptimizerSettings,
    Origin,
    PatchSettings,
    PatchStage,
    find_recipe,
)
from urushi.training.router.router_recipe import PictureOptions, RouterOptions

__all__ = [
    "AllInOneRecipe",
    "ClassPlan",
    "EvidencePlan",
    "ExpertsPlan",
    "GuidedPlan",
    "RouterPlan",
    "load_all_in_one_recipe",
]


def _without_nulls(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {name: value for name, value in settings.items() if value is not None}


# A recipe that extends another one takes a setting of a method back by stating null.
MethodSettings = Annotated[dict[str, Any], BeforeValidator(_without_nulls)]


class ClassPlan(ClassSource):
    """One kind of damage.

    Attributes:
        description: a sentence for the file of its expert.
        router_degradation: what the router learns from in place of `degradation`: damage that is
            hardly there is for the expert to leave alone, but not for the router to tell from none.
        oversample: how many pictures the router learns from for one of another class.
        validation: folders of pairs that the router is measured by; of other places than `pairs`.
        benchmarks: what its expert is measured on: names in the catalog, or YAML files.
        adapter: method and settings of its expert, in place of the common ones.
        initial_adapter: file of an expert, or name of one in the zoo, whose weights the training of
            its expert begins with; of the same method and settings. `guided.mode` must be `none`,
            as it was when those were trained.
        steps: of the training of its expert, in place of the common number.
        loss: of the training of its expert, in place of the common one.
        patch, batch: of the training of its expert, in place of the common ones.
        patches: later stages of that training with patches of another size. What hangs on the whole
            picture, such as haze or exposure, wants large ones in the end.
    """

    renamed: ClassVar = {
        **ClassSource.renamed,
        "shown": "router_degradation",
        "times": "oversample",
        "begin": "initial_adapter",
    }

    description: str = ""
    router_degradation: dict[str, Any] | None = None
    oversample: Annotated[int, Field(ge=1, le=100)] = 1
    validation: list[str] = []
    benchmarks: list[str] = []
    adapter: MethodSettings | None = None
    initial_adapter: str | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    loss: LossSettings | None = None
    patch: Annotated[int, Field(ge=8)] | None = None
    batch: Annotated[int, Field(ge=1)] | None = None
    patches: list[PatchStage] = []


class AllInOneData(PatchSettings):
    """Clean pictures, and the patches that networks learn from.

    Attributes:
        clean: folders, relative to the place of the data.
        validation: folders of clean pictures that nothing learns from: the router is measured by
            them.
    """

    clean: Annotated[list[str], Field(min_length=1)]
    validation: Annotated[list[str], Field(min_length=1)]


class RouterPlan(RouterOptions, PictureOptions):
    """The first stage.

    Attributes:
        file: a router that is trained already, with all the classes; nothing else is needed then.
        targets: targets of pairs are clean pictures to it: so it cannot take what a data set shows
            for what is wrong with it.
    """

    file: str | None = None
    targets: bool = True
    steps: Annotated[int, Field(ge=1)] = 3000

    @model_validator(mode="after")
    def _nothing_beside_a_file(self) -> "RouterPlan":
        if self.file is not None and self.model_fields_set != {"file"}:
            beside = min(self.model_fields_set - {"file"})
            raise ValueError(f"{beside} has no effect together with file: leave one out")
        return self


class StagePlan(LearningSettings):
    """What the second and the third stage have in common; the defaults are for a short training.

    Attributes:
        steps: optimizer steps; of `separate` experts, for each of them.
        warmup: steps of the warm-up.
        final_learning_rate: reached at the last step.
    """

    steps: Annotated[int, Field(ge=1)] = 1000
    warmup: Annotated[int, Field(ge=0)] = 20
    final_learning_rate: Annotated[float, Field(ge=0)] = 1e-7
    loss: LossSettings = LossSettings(floor=1e-5)
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=2e-3, clip=0.5)
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.98


class GuidedPlan(StagePlan):
    """The second stage.

    Attributes:
        mode: `none`: no guidance; the base as it is. `adapter`: the gates alone are trained, and
            the base stays as it is. `full`: all of both, LoRA-IR's guided pre-training; the model
            gets a base of its own.
        settings: of the guidance; the length of its vector is the router's.
    """

    mode: Literal["none", "adapter", "full"] = "none"
    settings: MethodSettings = {}


class ExpertsPlan(StagePlan):
    """The third stage.

    Attributes:
        mode: `separate`: one after another, each on its own class. `joint`: all at once, each patch
            with the expert that the router, which is frozen, chooses.
        adapter: method and settings of each expert, any but `experts` and `guidance`.
        freeze: with `joint`, what all experts share, as the method `experts` has it; goes into
            each of them in the end, which only low-rank ones can hold.
        k: with `joint`, experts of one patch at most.
        storage: number format in the files.
        leave_out_worse: do not name experts that are worse than the base on their benchmarks, in
            the mean; the base then works alone on their class.
    """

    mode: Literal["separate", "joint"] = "separate"
    adapter: MethodSettings = {"method": "colora", "budget": "5%"}
    freeze: Literal["base", "paper"] = "base"
    k: Annotated[int, Field(ge=1)] = 1
    storage: Literal["float32", "float16"] = "float16"
    leave_out_worse: bool = False

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "ExpertsPlan":
        for name in ("freeze", "k"):
            if self.mode == "separate" and name in self.model_fields_set:
                raise ValueError(f"{name} has no effect with mode separate: leave it out")
        if self.mode == "joint" and self.leave_out_worse:
            raise ValueError("leave_out_worse needs mode separate, which measures: leave it out")
        return self


class EvidencePlan(Settings):
    """What comes after the experts: the router learns to judge by what they change.

    Attributes:
        pictures: to learn from, drawn as the router's are.
        held: to be calibrated and measured by, and to be remembered.
        scales, size, windows: views that experts are tried on; see
            `urushi.files.router_facts.EvidenceFacts`.
        steps, batch, learning_rate, weight_decay, dropout: of a linear layer on the evidence.
    """

    pictures: Annotated[int, Field(ge=1)] = 1000
    held: Annotated[int, Field(ge=1)] = 270
    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = ("reduced", "native")
    size: Annotated[int, Field(ge=32, le=512, multiple_of=32)] = 128
    windows: Annotated[int, Field(ge=1, le=16)] = 3
    steps: Annotated[int, Field(ge=1)] = 1500
    batch: Annotated[int, Field(ge=1)] = 128
    learning_rate: Annotated[float, Field(gt=0)] = 2.0e-3
    weight_decay: Annotated[float, Field(ge=0)] = 3.0e-2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.8


class ThresholdsPlan(Settings):
    """How sure the router must be before an expert acts that does little harm; measured last.

    Attributes:
        pictures: with the damage of each expert, and as many without any.
        ceiling: PSNR in dB above which a picture counts as left alone.
    """

    pictures: Annotated[int, Field(ge=2)] = 64
    ceiling: Annotated[float, Field(gt=0, le=100)] = 45.0


class AllInOneRecipe(Origin):
    """An all-in-one model, complete: three stages, one after another.

    Attributes:
        kind: always `all-in-one`: tells this recipe from others.
        name: of the all-in-one file; letters, digits, dash and underscore.
        start: the base: a model file, or a name in the zoo.
        backbone: a network of random weights, drawn from the seed, in place of `start`; the second
            stage then trains all of it (`guided.mode` is `full`).
        classes: by name, in the order of the router's logits; every one but `clean` gets an expert
            in a file of its name.
        data: pictures and patches.
        router: the first stage.
        guided: the second.
        experts: the third.
        evidence: what comes after it; null leaves the decision to the router as it is.
        thresholds: lets experts act at less certainty than `router.threshold` where they do little
            harm; null has all of them ask for the same.
        precision: arithmetic of the second and third; the weights stay float32.
        every: optimizer steps between two validations of an expert.
        limit: pictures of each benchmark; null takes all.
        checkpoint_minutes: time between two checkpoints.
    """

    kind: Literal["all-in-one"]
    name: ClassName
    start: str = "base"
    backbone: BackboneSettings | None = None
    classes: Annotated[dict[ClassName, ClassPlan], Field(min_length=2)]
    data: AllInOneData
    router: RouterPlan = RouterPlan()
    guided: GuidedPlan = GuidedPlan()
    experts: ExpertsPlan = ExpertsPlan()
    evidence: EvidencePlan | None = None
    thresholds: ThresholdsPlan | None = None
    precision: Literal["float32", "bf16"] = "float32"
    every: Annotated[int, Field(ge=1)] = 500
    limit: Annotated[int, Field(ge=1)] | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 2.0

    @model_validator(mode="after")
    def _consistent(self) -> "AllInOneRecipe":
        for name, plan in self.classes.items():
            if name == CLEAN and (
                plan.degradation or plan.pairs or plan.adapter or plan.initial_adapter
            ):
                raise ValueError(f"{CLEAN} needs no degradation, no pairs and no adapter")
            if plan.router_degradation is not None and plan.degradation is None:
                raise ValueError(
                    f"class {name} has router_degradation without degradation: leave it out"
                )
            if name != CLEAN and plan.degradation is None and not plan.pairs:
                raise ValueError(f"class {name} has neither a degradation nor pairs: give one")
            if (plan.adapter or {}).get("method") in ("experts", "guidance"):
                raise ValueError(f"class {name} has an adapter that is not a single expert")
            if plan.initial_adapter is not None and self.guided.mode != "none":
                raise ValueError(
                    f"class {name} has initial_adapter, which guided experts do not take: leave it "
                    "out"
                )
            for own in ("initial_adapter", "steps", "loss", "patch", "batch", "patches"):
                if getattr(plan, own) not in (None, []) and self.experts.mode == "joint":
                    raise ValueError(
                        f"class {name} has {own}, which joint experts do not take: leave it out"
                    )
        if self.backbone is not None and self.guided.mode != "full":
            raise ValueError("backbone has random weights, which need guided.mode full")
        if self.backbone is not None and self.start != type(self).model_fields["start"].default:
            raise ValueError("start has no effect with backbone: leave one out")
        taken = {self.name, f"{self.name}-base", "guidance"} & set(self.classes)
        if taken:
            raise ValueError(f"a class is named {min(taken)}, as another file of this training")
        if not self.expert_classes:
            raise ValueError(f"{CLEAN} is the only class: there is nothing to train")
        if self.experts.adapter.get("method") in ("experts", "guidance"):
            raise ValueError(
                "experts.adapter is not a single method: choose mode joint for a mixture"
            )
        if self.evidence is not None and self.guided.mode != "none":
            raise ValueError("evidence needs a base without guidance: leave one out")
        if self.thresholds is not None and self.guided.mode != "none":
            raise ValueError("thresholds need a base without guidance: leave one out")
        return self

    @property
    def expert_classes(self) -> tuple[str, ...]:
        """Those that get an expert."""
        return tuple(name for name in self.classes if name != CLEAN)

    @property
    def largest_patch(self) -> int:
        """Side in pixels of the largest patches that anything learns from."""
        plans = self.classes.values()
        own = [plan.patch or 0 for plan in plans]
        return max(self.data.patch, *own, *(s.patch for plan in plans for s in plan.patches))


def load_all_in_one_recipe(name: Path | str, overrides: Iterable[str] = ()) -> AllInOneRecipe:
    """Reads and validates a recipe; see `urushi.training.recipe.load_recipe`.

    Raises:
        RecipeError: the file cannot be read, or a key or value is wrong; names the key.
    """
    return read_settings(find_recipe(name), AllInOneRecipe, RecipeError, overrides, find_recipe)
