"""What a recipe asks for, made: the network to train, and the batches to train it on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from urushi.adapters import Adapted, Adapter, attach, create_adapter
from urushi.adapters.contribution_profile import locate_profile
from urushi.adapters.stored import load_adapter
from urushi.backbones import RestorationNetwork, create_backbone
from urushi.backbones.claims import create_claimed
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.data.shards.sharded import ShardedPictures
from urushi.degradations import degradation_of
from urushi.errors import RecipeError
from urushi.files.adapter import check_base, read_adapter
from urushi.files.model import LoadedModel, read_header, read_model
from urushi.inference.zoo import find_adapter, find_model
from urushi.names import counted
from urushi.training.batches import DegradedBatches, Draws, PairBatches
from urushi.training.recipe import BackboneSettings, LossSettings, Recipe
from urushi.training.streaming import Stream

__all__ = [
    "Material",
    "Stages",
    "backbone_of",
    "build_network",
    "build_stages",
    "check_scale",
    "load_initial",
    "load_start",
    "material_of",
    "stage_sizes",
]

# Batches by the step with which their stage begins, in order.
Stages = list[tuple[int, Draws]]


@dataclass(frozen=True)
class Material:
    """What a training works with, beside its recipe.

    Attributes:
        sha256: what the batches are drawn from.
        network: builds what is trained; given whether its own weights will be loaded into it (see
            `build_network`). Random weights come from torch's global generator.
        stages: makes the batches, for a device, the rank of a process and the number of processes.
        loss: of an optimizer step, given the network; None takes the recipe's, of what the network
            makes of the batches.
    """

    sha256: str
    network: Callable[[bool], nn.Module]
    stages: Callable[[torch.device, int, int], Stages]
    loss: Callable[[nn.Module, int], torch.Tensor] | None = None


def material_of(recipe: Recipe, pack: PackedPictures) -> Material:
    """What a recipe asks for, with the pictures of one pack.

    Raises:
        RecipeError: it asks for classes, whose pictures no single pack holds.
    """
    if recipe.classes:
        raise RecipeError(
            f"{recipe.name} has classes, which no single pack holds: train it as part of an "
            "all-in-one recipe"
        )
    return Material(
        pack.sha256,
        lambda begun: build_network(recipe, begun=begun),
        lambda device, rank, processes: build_stages(recipe, pack, device, rank, processes),
    )


def build_network(recipe: Recipe, *, begun: bool = False) -> nn.Module:
    """The network that a recipe trains: a backbone, or a frozen one with an adapter attached.

    Random weights come from torch's global generator.

    Args:
        recipe: what to build.
        begun: the training's own weights will be loaded into the network: those of `start` are then
            read for a frozen backbone alone, and those of `initial_adapter` are not.

    Raises:
        RecipeError: the model of `start` does not fit.
        AdapterError: the adapter does not fit, or that of `initial_adapter` was made for another
            model.
        FileFormatError: the model of `start`, or the adapter of `initial_adapter`, cannot be read.
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
    backbone = create_claimed(model)
    load_start(backbone, recipe.start)
    if recipe.adapter is None:
        return backbone
    adapter = create_adapter(backbone, locate_profile(recipe.adapter, model.path))
    if recipe.initial_adapter is not None and not begun:
        load_initial(adapter, recipe.initial_adapter, backbone, model)
    return attach(backbone, adapter, save_memory=recipe.save_memory)


def load_start(network: nn.Module, name: str) -> list[str]:
    """Puts the weights of a model file into a network of the same or of more layers.

    Args:
        network: changed in place.
        name: path of a model file, or a name in the zoo.

    Returns:
        Names of the network's parameters that the file does not have; they stay as they are.

    Raises:
        FileFormatError: there is no such model, or its file is damaged.
        RecipeError: the file has a tensor that the network lacks or has in another shape.
    """
    model = read_model(find_model(name))
    own: dict[str, torch.Tensor] = dict(network.named_parameters())
    own |= dict(network.named_buffers())
    for tensor_name, values in model.tensors.items():
        target = own.pop(tensor_name, None)
        if target is None or tuple(target.shape) != values.shape:
            found = "lacks it" if target is None else f"has it with shape {tuple(target.shape)}"
            raise RecipeError(
                f"start is {name}, whose tensor {tensor_name} has shape {values.shape}; the "
                f"network {found}: start from a model of the same widths and no more layers"
            )
        with torch.no_grad():
            target.copy_(torch.from_numpy(values.astype("float32")))
    return sorted(own.keys() & dict(network.named_parameters()).keys())


def load_initial(
    adapter: Adapter, name: str, backbone: RestorationNetwork, model: LoadedModel
) -> None:
    """Puts the weights of an adapter file into an adapter that is to be trained on.

    Args:
        adapter: changed in place.
        name: path of an adapter file, or name of one in the zoo.
        backbone: what the adapter was made for; not changed.
        model: the file of that backbone.

    Raises:
        FileFormatError: there is no such file, or it is damaged.
        AdapterError: it was made for another model.
        RecipeError: it is of another method, or has other settings.
    """
    stored = read_adapter(find_adapter(name))
    check_base(stored, model)
    known = load_adapter(backbone, stored)
    if known.describe() != adapter.describe():
        found = "other settings" if known.method == adapter.method else f"method {known.method}"
        raise RecipeError(
            f"initial_adapter is {name}, an adapter of {found}, which cannot continue as one of "
            f"method {adapter.method} with the settings that adapter states: state its own"
        )
    adapter.load_state_dict(known.state_dict())


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


def check_scale(network: nn.Module, stages: Stages, loss: LossSettings) -> None:
    """Looks whether a network makes of degraded patches what has the size of the clean ones.

    The loss of damaged pixels needs them to be of the same size before as well.

    Raises:
        RecipeError: it does not.
    """
    backbone = network.backbone if isinstance(network, Adapted) else network
    assert isinstance(backbone, RestorationNetwork)
    wanted = stages[0][1].scale
    if backbone.scale != wanted:
        raise RecipeError(
            f"the network makes sides {backbone.scale} times as long, and the clean pictures are "
            f"{wanted} times as large as the degraded ones: choose another backbone or other data"
        )
    if loss.damaged and wanted != 1:
        raise RecipeError(
            f"loss.damaged is {loss.damaged:g}, and the clean pictures are {wanted} times as large "
            "as the degraded ones, so no pixel can be told to be damaged: leave it out"
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
    streamed = isinstance(pack, ShardedPictures)
    resident = None if device.type == "cpu" or streamed else pack.to_tensor(device)
    degradation = None if paired else degradation_of(recipe.degradation or {})
    scene = None if recipe.scene is None else degradation_of(recipe.scene)
    stages: Stages = []
    sizes = list(stage_sizes(recipe, processes))
    ends = [start for start, _, _ in sizes[1:]] + [recipe.schedule.steps]
    for (start, patch, batch), end in zip(sizes, ends, strict=True):
        shared = (pack, patch, batch, recipe.data.augment, recipe.seed, device)
        stream = None
        if isinstance(pack, ShardedPictures):
            side = patch * (1 if degradation is None else degradation.scale)
            usable = np.flatnonzero(pack.sizes.min(1) >= side)
            stream = Stream(pack, usable, batch, recipe.seed, recipe.data.crops, start, end)
        own = {"resident": resident, "rank": rank, "processes": processes, "stream": stream}
        if degradation is None:
            made: Draws = PairBatches(*shared, **own)
        else:
            made = DegradedBatches(*shared, **own, degradation=degradation, scene=scene)
        stages.append((start, made))
    return stages


def stage_sizes(recipe: Recipe, processes: int = 1) -> Iterator[tuple[int, int, int]]:
    """First step, patch and batch of every stage.

    Raises:
        RecipeError: a batch cannot be shared by that many processes.
    """
    sizes = [(0, recipe.data.patch, recipe.data.batch)]
    sizes += [(stage.from_step, stage.patch, stage.batch) for stage in recipe.schedule.patches]
    for start, patch, batch in sizes:
        if batch % processes:
            raise RecipeError(
                f"a batch of {batch} cannot be divided among "
                f"{counted(processes, 'process', 'processes')}: choose a "
                "multiple"
            )
        yield start, patch, batch
