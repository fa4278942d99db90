"""The file of an all-in-one model: its members, and how sure the router must be of each class."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64

from urushi.data.packed import PackedPairs, PackedPictures
from urushi.degradations import degradation_of
from urushi.errors import DataError
from urushi.evaluation.metrics import psnr
from urushi.files.adapter import LoadedAdapter, base_facts, read_adapter
from urushi.files.all_in_one_file import AllInOne, Expert, member_of, read_all_in_one
from urushi.files.model import LoadedModel
from urushi.files.router_file import LoadedRouter, RouterHeader, router_graph_path, write_router
from urushi.inference.restorer import Restorer
from urushi.names import counted
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe, ThresholdsPlan
from urushi.training.all_in_one.datasets import AllInOneFiles
from urushi.training.all_in_one.probe_training import fit_evidence
from urushi.training.batches import Batch, CleanBatches, DegradedBatches, PairBatches
from urushi.training.kept_parts import OnPictures

__all__ = [
    "assemble",
    "break_even",
    "measure_thresholds",
]

Picture = Float32[np.ndarray, "h w 3"]
Shown = tuple[Picture, Picture]

_MOST_SIDE = 256
# Of the common threshold: what was measured on a few pictures is not to open the door to all.
_LEAST_SHARE = 0.5
_OF_CLEAN = 0.9


def break_even(gain: float, loss: float) -> float:
    """The probability from which on acting is worth more than it costs, in [0, 1].

    Args:
        gain: in dB, of the expert over the base where there is its damage.
        loss: in dB, of the expert against the base where there is none.
    """
    if gain <= 0:
        return 1.0
    return max(0.0, loss) / (gain + max(0.0, loss))


def measure_thresholds(
    recipe: AllInOneRecipe,
    files: AllInOneFiles,
    members: AllInOne,
    model: LoadedModel,
    *,
    device: str = "auto",
    on_expert: Callable[[str], None] = lambda _told: None,
) -> dict[str, float]:
    """Thresholds of the experts that may act where the router is less sure than it must be else.

    Clean pictures, and those that damage is made in, are the ones that the experts learn from; none
    of these was trained to leave any as it is. Pictures held out to measure the router by would do
    as well, but such as people have at hand show faint noise and compression, and an expert that
    takes these away would seem to do harm.

    Args:
        recipe: with `thresholds`.
        files: packed pictures of the recipe's folders.
        members: the all-in-one file.
        model: its base.
        device: `auto` (the best there is) or `cpu`.
        on_expert: told what was found for each, a clause.

    Returns:
        By class; those that must be as sure as all others are not in it.

    Raises:
        DataError: no picture is large enough.
        EngineError: an engine failed.
    """
    plan, common = recipe.thresholds, members.router.header.threshold
    assert plan is not None
    base = Restorer(model, device=device)
    clean = list(_clean(recipe, files, plan.pictures))
    clean_alone = _psnr(base, clean, plan.ceiling)
    found = {}
    for name, expert in members.experts.items():
        own = list(_damaged(recipe, files, name, plan))
        restorer = Restorer(model, adapters=[(expert.adapter, expert.strength)], device=device)
        gains = _psnr(restorer, own, plan.ceiling) - _psnr(base, own, plan.ceiling)
        losses = clean_alone - _psnr(restorer, clean, plan.ceiling)
        gain, loss = float(gains.mean()), float(np.quantile(losses, _OF_CLEAN))
        least = max(break_even(gain, loss), _LEAST_SHARE * common)
        on_expert(f"{name}: {gain:+.1f} dB where it is right, {-loss:+.1f} where it is not")
        if least < common:
            found[name] = round(least, 3)
    return found


def _psnr(
    restorer: Restorer, pictures: list[Shown], ceiling: float
) -> Float64[np.ndarray, " pictures"]:
    scores = [psnr(restorer.restore(shown), clean) for shown, clean in pictures]
    return np.minimum(scores, ceiling)


def _clean(recipe: AllInOneRecipe, files: AllInOneFiles, count: int) -> Iterator[Shown]:
    yield from _pictures(CleanBatches(files.clean, *_cut(files.clean, count, recipe.seed))(0))


def _damaged(
    recipe: AllInOneRecipe, files: AllInOneFiles, name: str, plan: ThresholdsPlan
) -> Iterator[Shown]:
    """Pictures of a class; half of each where some are made and some are from pairs."""
    source, pairs = recipe.classes[name], files.pairs.get(name)
    options = source.router_degradation or source.degradation
    count = plan.pictures
    if options is not None:
        made = count if pairs is None else count - count // 2
        cut, damage = _cut(files.clean, made, recipe.seed), degradation_of(options)
        yield from _pictures(DegradedBatches(files.clean, *cut, degradation=damage)(0))
        count -= made
    if pairs is not None and count:
        yield from _pictures(
            PairBatches(pairs, *_cut(pairs, count, recipe.seed), level=source.level)(0)
        )


def _cut(
    pack: PackedPictures | PackedPairs, count: int, seed: int
) -> tuple[int, int, bool, int, torch.device]:
    """Sides and number of what is cut out of a pack, and how."""
    side = min(_MOST_SIDE, int(pack.sizes.min(1).max()))
    if side < 8:
        raise DataError(f"no picture of {pack.path} is 8 pixels on its shorter side")
    return side, count, False, seed, torch.device("cpu")


def _pictures(batch: Batch) -> Iterator[Shown]:
    for shown, clean in zip(batch.degraded, batch.clean, strict=True):
        yield _array(shown), _array(clean)


def _array(picture: torch.Tensor) -> Picture:
    return np.ascontiguousarray(picture.permute(1, 2, 0).clamp(0, 1).numpy())


def assemble(
    recipe: AllInOneRecipe,
    files: AllInOneFiles,
    run: Path,
    router: LoadedRouter,
    model: LoadedModel,
    guidance: LoadedAdapter | None,
    *,
    device: str = "auto",
    on_stage: Callable[[str], None] = lambda _told: None,
    on_pictures: OnPictures | None = None,
) -> tuple[Path, RouterHeader] | int:
    """Writes the file, and reads it as users will.

    Args:
        recipe: of the training.
        files: packed pictures of its folders.
        run: holds the files of its experts; the new one goes beside them.
        router: alone, without members.
        model: the base of the experts.
        guidance: of that base, or None.
        device: `auto` (the best there is) or `cpu`.
        on_stage: told what begins and what was found, a clause each.
        on_pictures: see `urushi.training.all_in_one.probe_training.fit_evidence`.

    Returns:
        The file and what it says; the number of the signal that stopped it.

    Raises:
        UrushiError: a member cannot be read, or an engine failed.
    """
    paths = {name: run / f"{name}.safetensors" for name in recipe.expert_classes}
    members = {name: read_adapter(path) for name, path in paths.items()}
    header = _header(recipe, router, model, guidance, members)
    path = run / f"{recipe.name}.safetensors"
    if router.graph is not None and router.path != path:
        shutil.copyfile(router.graph, router_graph_path(path))
    tensors = dict(router.tensors)
    experts = {name: Expert(members[name], 1.0) for name in header.experts}
    whole = AllInOne(replace(router, header=header), base_facts(model), experts)
    if recipe.evidence is not None:
        on_stage(f"evidence: {counted(recipe.evidence.pictures, 'picture')}")
        place = run / "evidence"
        fitted = fit_evidence(
            recipe, files, whole, model, place, device=device, on_pictures=on_pictures
        )
        if isinstance(fitted, int):
            return fitted
        tensors, header = fitted
    if recipe.thresholds is not None and header.mode == "multi":
        on_stage("thresholds: left out, since the router may see several kinds at once")
    elif recipe.thresholds is not None:
        on_stage("thresholds: each expert on pictures that need it, and that do not")
        lower = measure_thresholds(recipe, files, whole, model, device=device, on_expert=on_stage)
        header = header.model_copy(update={"thresholds": lower})
    write_router(path, tensors, header, router.storage)
    return path, read_all_in_one(path).router.header


def _header(
    recipe: AllInOneRecipe,
    router: LoadedRouter,
    model: LoadedModel,
    guidance: LoadedAdapter | None,
    members: Mapping[str, LoadedAdapter],
) -> RouterHeader:
    """What the file says: the router's header, with the members that are to be named."""
    scores = {n: member.header.scores for n, member in members.items() if member.header.scores}
    if recipe.experts.leave_out_worse:
        better = {n: m for n, m in members.items() if _gain(m.header.scores) >= 0}
        members = better or members  # a file without any would be no all-in-one
    return router.header.model_copy(
        update={
            "name": recipe.name,
            "description": recipe.description or router.header.description,
            "base": base_facts(model),
            "experts": {name: member_of(member) for name, member in members.items()},
            "guidance": None if guidance is None else member_of(guidance),
            "scores": {**router.header.scores, **({"experts": scores} if scores else {})},
            "licence": recipe.licence,
            "data": recipe.data_statement,
        }
    )


def _gain(scores: Mapping[str, Any]) -> float:
    """How much better than the base, in dB; 0 where it was not measured."""
    gains = [row["psnr"] - row["psnr_base"] for row in scores.values()]
    return sum(gains) / max(1, len(gains))
