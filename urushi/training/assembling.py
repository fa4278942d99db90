"""The file of an all-in-one model: it names its members, and decides by what was fitted to them."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from urushi.files.adapter import LoadedAdapter, base_facts, read_adapter
from urushi.files.all_in_one_file import AllInOne, Expert, member_of, read_all_in_one
from urushi.files.model import LoadedModel
from urushi.files.router_file import LoadedRouter, RouterHeader, router_graph_path, write_router
from urushi.training.all_in_one_data import AllInOneFiles
from urushi.training.all_in_one_recipe import AllInOneRecipe
from urushi.training.evidence import OnPictures, fit_evidence
from urushi.training.thresholds import measure_thresholds

__all__ = ["assemble"]


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
        on_pictures: see `urushi.training.evidence.fit_evidence`.

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
        on_stage(f"evidence: {recipe.evidence.pictures} pictures")
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
