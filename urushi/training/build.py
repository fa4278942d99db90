"""What a recipe asks for, made: the network to train, and the batches to train it on."""

from collections.abc import Iterator

import torch
from torch import nn

from urushi.adapters import attach, create_adapter
from urushi.adapters.profile import locate_profile
from urushi.backbones import create_backbone
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.degradations import create_degradation
from urushi.errors import RecipeError
from urushi.files.model import LoadedModel, read_header, read_model
from urushi.inference.zoo import find_model
from urushi.training.batches import Batches, DegradedBatches, PairBatches
from urushi.training.recipe import BackboneSettings, Recipe
from urushi.training.start import load_start

__all__ = ["Stages", "backbone_of", "build_network", "build_stages"]

# Batches by the step with which their stage begins, in order.
Stages = list[tuple[int, Batches]]


def build_network(recipe: Recipe, *, begun: bool = False) -> nn.Module:
    """The network that a recipe trains: a backbone, or a frozen one with an adapter attached.

    Random weights come from torch's global generator.

    Args:
        recipe: what to build.
        begun: the training's own weights will be loaded into the network: those of `start` are then
            read for a frozen backbone alone.

    Raises:
        RecipeError: the model of `start` does not fit.
        AdapterError: the adapter does not fit.
        FileFormatError: the model of `start` cannot be read.
    """
    if recipe.adapter is None and recipe.start is not None and recipe.backbone is not None:
        network = create_backbone(recipe.backbone.name, recipe.backbone.config)
        if not begun:
            load_start(network, recipe.start)
        return network
    if recipe.start is None:
        assert recipe.backbone is not None
        return create_backbone(recipe.backbone.name, recipe.backbone.config)
    model = read_model(find_model(recipe.start))
    _check_backbone(recipe, model)
    backbone = create_backbone(model.header.backbone, model.header.config)
    load_start(backbone, recipe.start)
    if recipe.adapter is None:
        return backbone
    adapter = create_adapter(backbone, locate_profile(recipe.adapter, model.path))
    return attach(backbone, adapter, save_memory=recipe.save_memory)


def backbone_of(recipe: Recipe) -> BackboneSettings:
    """The backbone that a recipe states, or that of the model it starts from.

    Raises:
        FileFormatError: the model of `start` cannot be read.
    """
    if recipe.backbone is not None:
        return recipe.backbone
    assert recipe.start is not None
    header = read_header(find_model(recipe.start))
    return BackboneSettings(name=header.backbone, config=header.config)


def _check_backbone(recipe: Recipe, model: LoadedModel) -> None:
    """A backbone stated beside a frozen start must be the same."""
    stated, header = recipe.backbone, model.header
    if stated is not None and (stated.name, stated.config) != (header.backbone, header.config):
        raise RecipeError(
            f"backbone is {stated.name} {stated.config}, and start is {recipe.start}, a "
            f"{header.backbone} {header.config}: leave backbone out"
        )


def build_stages(
    recipe: Recipe,
    pack: PackedPictures,
    device: torch.device,
    rank: int = 0,
    processes: int = 1,
) -> Stages:
    """The batches of every stage of a training.

    Raises:
        RecipeError: the pack holds pairs and the recipe wants pictures, or the reverse; or a batch
            cannot be shared by that many processes.
        DataError: no picture is large enough.
        DegradationError: the recipe's degradation is not valid.
    """
    paired = isinstance(pack, PackedPairs)
    if paired != bool(recipe.data.pairs):
        held, wanted = ("pairs", "pictures") if paired else ("pictures", "pairs")
        raise RecipeError(f"{pack.path} holds {held}, the recipe wants {wanted}: pack them again")
    # On an accelerator the pixels stay there; on a CPU the mapped file is as near.
    resident = None if device.type == "cpu" else pack.to_tensor(device)
    options = dict(recipe.degradation or {})
    degradation = None if paired else create_degradation(options.pop("name", ""), **options)
    stages: Stages = []
    for start, patch, batch in _sizes(recipe):
        if batch % processes:
            raise RecipeError(
                f"a batch of {batch} is shared by {processes} processes: choose a multiple"
            )
        shared = (pack, patch, batch, recipe.data.augment, recipe.seed, device)
        if degradation is None:
            made: Batches = PairBatches(*shared, resident, rank, processes)
        else:
            made = DegradedBatches(*shared, resident, rank, processes, degradation=degradation)
        stages.append((start, made))
    return stages


def _sizes(recipe: Recipe) -> Iterator[tuple[int, int, int]]:
    """First step, patch and batch of every stage."""
    yield 0, recipe.data.patch, recipe.data.batch
    for stage in recipe.schedule.patches:
        yield stage.from_step, stage.patch, stage.batch
