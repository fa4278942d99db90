"""What a training leaves for users: a model or adapter file that tells where it comes from."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue

from urushi.adapters import Adapted, Adapter
from urushi.adapters.stored import header_of, tensors_of
from urushi.files.adapter import AdapterHeader, write_adapter
from urushi.files.model import LoadedModel, ModelHeader, read_model, write_model
from urushi.inference.zoo import find_model
from urushi.training.build import backbone_of, build_network
from urushi.training.loop import TrainingResult
from urushi.training.recipe import Recipe

__all__ = [
    "adapter_header",
    "adapter_tensors",
    "model_path",
    "write_trained_adapter",
    "write_trained_model",
]


def model_path(recipe: Recipe, run: Path) -> Path:
    """Where the model file of a training goes."""
    return run / f"{recipe.name}.safetensors"


def write_trained_model(recipe: Recipe, result: TrainingResult, path: Path) -> ModelHeader:
    """Writes the averaged weights of a training with its recipe and its last scores.

    Args:
        recipe: as it was trained.
        result: of the training.
        path: target; one that is there is replaced.

    Raises:
        FileFormatError: the weights are not finite in the recipe's storage, or the disk refuses.
    """
    backbone = backbone_of(recipe)
    header = ModelHeader(
        backbone=backbone.name,
        config=backbone.config,
        description=recipe.description,
        degradations=recipe.degradations,
        recipe=recipe.model_dump(mode="json"),
        scores=_last_scores(recipe, result),
        licence=recipe.licence,
        data=recipe.data_statement,
    )
    tensors = {name: tensor.numpy() for name, tensor in result.weights.items()}
    return write_model(path, tensors, header, recipe.storage)


def write_trained_adapter(recipe: Recipe, result: TrainingResult, path: Path) -> AdapterHeader:
    """Writes the averaged adapter of a training with its recipe and its last scores.

    Args:
        recipe: as it was trained, with an adapter.
        result: of the training.
        path: target; one that is there is replaced.

    Raises:
        FileFormatError: the weights are not finite, or the disk refuses.
    """
    assert recipe.start is not None
    network = build_network(recipe, begun=True)
    assert isinstance(network, Adapted)
    network.load_state_dict(result.weights)
    adapter = network.adapters[-1]
    assert isinstance(adapter, Adapter)
    base = read_model(find_model(recipe.start))
    header = adapter_header(recipe, adapter, base, scores=_last_scores(recipe, result))
    return write_adapter(path, adapter_tensors(adapter), header, recipe.storage)


def adapter_header(
    recipe: Recipe, adapter: Adapter, base: LoadedModel, **facts: Any
) -> AdapterHeader:
    """What the file of an adapter says that was trained by a recipe.

    Args:
        recipe: as it is trained.
        adapter: as it is attached.
        base: the frozen model.
        facts: other fields of the header, and those that are to differ from the recipe's.
    """
    known = {
        "name": recipe.name,
        "description": recipe.description,
        "degradations": recipe.degradations,
        "recipe": recipe.model_dump(mode="json"),
        "licence": recipe.licence,
        "data": recipe.data_statement,
    }
    return header_of(adapter, base, **{**known, **facts})


def adapter_tensors(adapter: Adapter) -> dict[str, np.ndarray]:
    """What the file of an adapter holds, as copies."""
    return {name: array.copy() for name, array in tensors_of(adapter).items()}


def _last_scores(recipe: Recipe, result: TrainingResult) -> dict[str, JsonValue]:
    """PSNR of the newest validation, with how many pictures it was measured on at most."""
    scores: dict[str, JsonValue] = {}
    for name in recipe.validation.benchmarks:
        known = [row[name] for row in result.log if name in row]
        if known:
            scores[name] = {"psnr": float(known[-1]), "limit": recipe.validation.limit}
    return scores
