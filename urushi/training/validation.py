"""Scoring a network that is being trained, by the way that users restore."""

import math
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from urushi.adapters import Adapted, Adapter
from urushi.evaluation.benchmark import evaluate, find_benchmark
from urushi.files.adapter import LoadedAdapter
from urushi.files.model import LoadedModel, ModelHeader, read_model
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_model
from urushi.training.build import backbone_of
from urushi.training.outcome import adapter_header, adapter_tensors
from urushi.training.recipe import Recipe

__all__ = ["check_benchmarks", "score_network"]


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
    restorer = _restorer_of(network, recipe)
    scores = {}
    for name in benchmarks:
        means = evaluate(restorer, name, root=root, limit=limit).means
        assert means.psnr is not None
        assert math.isfinite(means.psnr)
        scores[name] = means.psnr
    return scores


def _restorer_of(network: nn.Module, recipe: Recipe) -> Restorer:
    device = str(next(network.parameters()).device)
    name = Path(f"{recipe.name}, in training")
    if isinstance(network, Adapted):
        assert recipe.start is not None
        base = read_model(find_model(recipe.start))
        adapter = network.adapters[-1]
        assert isinstance(adapter, Adapter)
        loaded = LoadedAdapter(
            adapter_header(recipe, adapter, base), adapter_tensors(adapter), name
        )
        return Restorer(base, adapters=[loaded], engine="torch", device=device)
    weights = {n: t.detach().float().cpu().numpy() for n, t in network.state_dict().items()}
    backbone = backbone_of(recipe)
    header = ModelHeader(backbone=backbone.name, config=backbone.config)
    return Restorer(LoadedModel(header, weights, name, None), engine="torch", device=device)
