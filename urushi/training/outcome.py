"""What a training leaves for users, a model or adapter file, and how it is scored on the way."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import JsonValue
from torch import nn

from urushi.adapters import Adapted, Adapter
from urushi.adapters.stored import header_of, tensors_of
from urushi.evaluation.benchmark import evaluate, find_benchmark
from urushi.files.adapter import AdapterHeader, LoadedAdapter, write_adapter
from urushi.files.model import LoadedModel, ModelHeader, read_model, write_model
from urushi.inference.choice import PictureRestorer
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_model
from urushi.training.build import backbone_of, build_network
from urushi.training.loop import TrainingResult
from urushi.training.recipe import Recipe

__all__ = [
    "adapter_header",
    "adapter_in_training",
    "adapter_tensors",
    "benchmark_scores",
    "check_benchmarks",
    "model_path",
    "score_network",
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


def check_benchmarks(names: Iterable[str], root: Path | str | None) -> None:
    """Looks whether the benchmarks and their pictures are there, before hours are spent.

    Raises:
        DataError: one is unknown, or its data is missing or incomplete.
    """
    for name in names:
        find_benchmark(name).samples(root)


def score_network(
    network: nn.Module,
    recipe: Recipe,
    benchmarks: Iterable[str],
    root: Path | str | None = None,
    limit: int | None = None,
) -> dict[str, float]:
    """Measures a network through the very `Restorer` that users run.

    Args:
        network: built as `recipe` says; stays as it is.
        recipe: names the backbone and its configuration.
        benchmarks: names in the catalog, or paths of YAML files.
        root: folder of the data sets; `$URUSHI_DATA` if not given.
        limit: pictures of each benchmark; None takes all.

    Returns:
        Mean PSNR in dB by benchmark.

    Raises:
        UrushiError: data is missing, or the network gives no usable picture.
    """
    return benchmark_scores(_restorer_of(network, recipe), benchmarks, root, limit)


def benchmark_scores(
    restorer: PictureRestorer,
    benchmarks: Iterable[str],
    root: Path | str | None,
    limit: int | None,
) -> dict[str, float]:
    """Mean PSNR in dB by benchmark; see `score_network`."""
    scores = {}
    for name in benchmarks:
        means = evaluate(restorer, name, root=root, limit=limit).means
        assert means.psnr is not None
        assert math.isfinite(means.psnr)
        scores[name] = means.psnr
    return scores


def _restorer_of(network: nn.Module, recipe: Recipe) -> Restorer:
    device = str(next(network.parameters()).device)
    if isinstance(network, Adapted):
        assert recipe.start is not None
        base = read_model(find_model(recipe.start))
        adapter = network.adapters[-1]
        assert isinstance(adapter, Adapter)
        loaded = adapter_in_training(recipe, adapter, base)
        return Restorer(base, adapters=[loaded], engine="torch", device=device)
    weights = {n: t.detach().float().cpu().numpy() for n, t in network.state_dict().items()}
    backbone = backbone_of(recipe)
    header = ModelHeader(backbone=backbone.name, config=backbone.config)
    return Restorer(
        LoadedModel(header, weights, _in_training(recipe), None), engine="torch", device=device
    )


def adapter_in_training(recipe: Recipe, adapter: Adapter, base: LoadedModel) -> LoadedAdapter:
    """An adapter as it is now, as if it were read from a file."""
    header = adapter_header(recipe, adapter, base)
    return LoadedAdapter(header, adapter_tensors(adapter), _in_training(recipe))


def _in_training(recipe: Recipe) -> Path:
    return Path(f"{recipe.name}, in training")
