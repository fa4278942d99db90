"""The stages of an all-in-one training as ordinary trainings: recipe, network and batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from urushi.adapters import Adapted, Adapter, attach, create_adapter
from urushi.adapters.contribution_profile import locate_profile
from urushi.adapters.guidance import Guidance, settle
from urushi.adapters.stored import load_adapter
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError, RecipeError
from urushi.files.adapter import LoadedAdapter, read_adapter_header
from urushi.files.model import LoadedModel, ModelHeader, read_model, write_model
from urushi.files.router_file import LoadedRouter
from urushi.inference.engines.torch_engine import build_network
from urushi.routing.router import load_router
from urushi.settings import parse_settings
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe, StagePlan
from urushi.training.all_in_one.class_batches import RoutedBatches
from urushi.training.all_in_one.datasets import AllInOneFiles, class_stages
from urushi.training.build import Material, Stages, load_initial
from urushi.training.recipe import (
    ClassSource,
    DataSettings,
    LearningSettings,
    Origin,
    Recipe,
    ScheduleSettings,
    ValidationSettings,
)

__all__ = ["Stage", "StagePlans", "finished", "settled_base"]

_ALL_KINDS = ["weight", "bias", "norm", "scale"]


@dataclass(frozen=True)
class Stage:
    """A training that is part of a larger one.

    Attributes:
        recipe: as its checkpoints and its files state it.
        material: its network and its batches.
    """

    recipe: Recipe
    material: Material


@dataclass(frozen=True)
class StagePlans:
    """Makes the stages of a recipe.

    Args:
        recipe: of the whole training.
        files: packed pictures.
        router: as it is trained.
        device: `auto` or `cpu`.
    """

    recipe: AllInOneRecipe
    files: AllInOneFiles
    router: LoadedRouter
    device: str

    def guided(self, base: LoadedModel) -> Stage:
        """The guidance of a base, alone or with all of the base.

        Raises:
            RecipeError: a setting is not one's own to choose here.
            AdapterError: the guidance cannot go onto the base.
        """
        plan = self.recipe.guided
        length = self.router.header.encoder.width // 2
        for name in ("method", "vector", "tune"):
            if name in plan.settings:
                raise RecipeError(
                    f"guided.settings has {name}, which the router or guided.mode decides: leave "
                    "it out"
                )
        config = {"method": "guidance", "vector": length, **plan.settings}
        if plan.mode == "full":
            config["tune"] = _ALL_KINDS
        recipe = self._recipe("guidance", plan, config, list(self.recipe.classes), None)

        def network(_begun: bool) -> nn.Module:
            backbone = build_network(base)
            return attach(backbone, create_adapter(backbone, config), save_memory=plan.save_memory)

        return self._stage(recipe, network, vector=True)

    def expert(self, name: str, model: LoadedModel, guidance: LoadedAdapter | None) -> Stage:
        """One expert on its own class.

        Raises:
            AdapterError: it cannot go onto the base.
            RecipeError: it cannot go on from what it is to begin with.
        """
        plan, own = self.recipe.experts, self.recipe.classes[name]
        config = dict(own.adapter or plan.adapter)
        recipe = self._recipe(name, plan, config, [name], own.steps)
        build = self._building(model, guidance, config, recipe.initial_adapter)
        return self._stage(recipe, build, vector=guidance is not None)

    def joint(self, model: LoadedModel, guidance: LoadedAdapter | None) -> Stage:
        """All experts together, on the routes of the router.

        Raises:
            AdapterError: an expert cannot go onto the base.
        """
        plan, names = self.recipe.experts, self.recipe.expert_classes
        each = [dict(self.recipe.classes[name].adapter or plan.adapter) for name in names]
        config = {"method": "experts", "each": each, "freeze": plan.freeze}
        recipe = self._recipe("experts", plan, config, names, None)
        known = self.router.header.classes
        # Where the router has it, and where the batches have it.
        experts = [(known.index(name), index) for index, name in enumerate(names)]
        located = [locate_profile(one, model.path) for one in each]
        build = self._building(model, guidance, {**config, "each": located})
        return self._stage(recipe, build, vector=guidance is not None, experts=experts, k=plan.k)

    def _building(
        self,
        model: LoadedModel,
        guidance: LoadedAdapter | None,
        config: dict[str, Any],
        initial_adapter: str | None = None,
    ) -> Callable[[bool], nn.Module]:
        located = locate_profile(config, model.path)

        def network(begun: bool) -> nn.Module:
            backbone = build_network(model)
            before: list[Adapter] = []
            if guidance is not None:
                before.append(load_adapter(backbone, guidance).requires_grad_(False))
            adapter = create_adapter(backbone, located)
            if initial_adapter is not None and not begun:
                load_initial(adapter, initial_adapter, backbone, model)
            return attach(backbone, *before, adapter, save_memory=self.recipe.experts.save_memory)

        return network

    def _recipe(
        self,
        name: str,
        plan: StagePlan,
        adapter: dict[str, Any],
        classes: Sequence[str],
        steps: int | None,
    ) -> Recipe:
        own = self.recipe
        start = own.start if own.backbone is None else f"{own.name}-start"
        if own.guided.mode == "full" and name != "guidance":
            start = f"{own.name}-base"
        sources = {n: ClassSource(**own.classes[n].values_of(ClassSource)) for n in classes}
        single = own.classes.get(name)
        benchmarks = single.benchmarks if single else []
        changed = {"name": name, "loss": (single and single.loss) or plan.loss}
        if single:
            changed["description"] = single.description or f"The expert for {name} of {own.name}."
        return Recipe(
            **{**own.values_of(Origin), **plan.values_of(LearningSettings), **changed},
            start=start,
            adapter=adapter,
            initial_adapter=single.initial_adapter if single else None,
            data=DataSettings(
                pictures=own.data.clean,
                patch=(single and single.patch) or own.data.patch,
                batch=(single and single.batch) or own.data.batch,
                augment=own.data.augment,
            ),
            classes=sources,
            degradations=list(classes),
            schedule=ScheduleSettings(
                steps=steps or plan.steps,
                warmup=plan.warmup,
                final_learning_rate=plan.final_learning_rate,
                patches=single.patches if single else [],
            ),
            precision=own.precision,
            validation=ValidationSettings(benchmarks=benchmarks, every=own.every, limit=own.limit),
            checkpoint_minutes=own.checkpoint_minutes,
            storage=own.experts.storage,
        )

    def _stage(
        self,
        recipe: Recipe,
        network: Callable[[bool], nn.Module],
        *,
        vector: bool = False,
        experts: Sequence[tuple[int, int]] = (),
        k: int = 1,
    ) -> Stage:
        reads = vector or bool(experts)

        def stages(device: torch.device, rank: int, processes: int) -> Stages:
            drawn = class_stages(recipe, self.files, device, rank, processes)
            if not reads:
                return drawn
            router = load_router(self.router).to(device)
            return [
                (start, RoutedBatches(inner, router, vector, tuple(experts), k))
                for start, inner in drawn
            ]

        sha256 = self.files.sha256(recipe.classes)
        if reads:
            sha256 += f" router:{self.router.header.tensors_hash}"
        return Stage(recipe, Material(sha256, network, stages))


def finished(path: Path, recipe: Recipe) -> bool:
    """Whether the file of a stage is there, and was trained by just this recipe."""
    if not path.is_file():
        return False
    stated = read_adapter_header(path).recipe
    try:
        # Read anew, so that keys which came later have their defaults.
        before = parse_settings(
            stated or {}, Recipe, RecipeError, f"the recipe in {path}", former=True
        )
    except RecipeError:
        return False
    return _what(before) == _what(recipe)


def _what(recipe: Recipe) -> dict[str, Any]:
    """A recipe without what makes no difference to the result."""
    return recipe.model_dump(mode="json", exclude={"checkpoint_minutes", "compile", "description"})


def settled_base(
    network: nn.Module, base: LoadedModel, target: Path, recipe: AllInOneRecipe, stage: Recipe
) -> tuple[LoadedModel, Guidance]:
    """Writes the base of a guided pre-training, and makes its guidance.

    Args:
        network: base and guidance, as trained.
        base: as it was.
        target: the new base's file.
        recipe: of the whole training.
        stage: of this one.

    Raises:
        FileFormatError: the disk refuses.
    """
    assert isinstance(network, Adapted)
    guidance = network.adapters[0]
    assert isinstance(guidance, Guidance)
    backbone = network.detach()
    assert isinstance(backbone, RestorationNetwork)
    settled = settle(backbone, guidance)
    header = ModelHeader(
        backbone=base.header.backbone,
        config=base.header.config,
        description=recipe.description,
        degradations=list(recipe.expert_classes),
        recipe=stage.model_dump(mode="json"),
        licence=recipe.licence,
        data=recipe.data_statement,
    )
    tensors = {name: t.detach().cpu().numpy() for name, t in backbone.state_dict().items()}
    if not tensors.keys() == base.tensors.keys():
        raise AdapterError(f"{base.path}: its network has its own tensors: use guided.mode adapter")
    write_model(target, tensors, header, recipe.experts.storage)
    return read_model(target), settled
