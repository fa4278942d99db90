"""Trainings that one process or several do, and what loss each of their steps has."""

import json
import os
import sys
from pathlib import Path

import yaml
from world import TINY_ALL_IN_ONE, TINY_TRAINING

from urushi.app.cli import app
from urushi.data.packed import PackedPictures
from urushi.errors import RecipeError
from urushi.settings import parse_settings
from urushi.training import loop
from urushi.training.recipe import Recipe

Losses = dict[str, list[float]]


def plan(steps: int, **changes) -> Recipe:
    """A short training of a base."""
    own = {**TINY_TRAINING, "schedule": {"steps": steps}, **changes}
    return parse_settings(own, Recipe, RecipeError, "test")


def losses_of(work) -> Losses:
    """The mean over all processes of every step's loss, by the folder of the training."""
    plain, found = loop._Session._one_step, {}

    def watched(session, clock):
        loss = plain(session, clock)
        mean = float(session._reduced(loss, "mean"))
        found.setdefault(session.run.name, []).append(mean)
        return loss

    loop._Session._one_step = watched
    try:
        work()
    finally:
        loop._Session._one_step = plain
    return found


def everything(world: Path, pack: Path, folder: Path) -> None:
    """A base begun, one gone on with, an adapter and an all-in-one model."""
    loop.train(plan(2), PackedPictures(pack), folder / "base", device="cpu")
    loop.train(plan(4), PackedPictures(pack), folder / "begun", device="cpu", resume=True)
    command = ["adapt", "--pairs", world / "pairs", "--model", world / "tiny.safetensors"]
    command += ["--method", "full", "-o", folder / "adapter.safetensors", "--steps", "25"]
    called(*command)
    stated = {**TINY_ALL_IN_ONE, "start": str(world / "tiny.safetensors")}
    recipe = folder / "recipe.yaml"
    if os.environ.get("RANK", "0") == "0":
        recipe.write_text(yaml.safe_dump(stated))
    called("train", recipe, "--data", world, "-o", folder / "all", "--no-graph")


def called(*words: object) -> None:
    app([str(word) for word in [*words, "--device", "cpu"]], standalone_mode=False)


if __name__ == "__main__":
    places = [Path(word) for word in sys.argv[1:]]
    losses = losses_of(lambda: everything(*places))
    if os.environ["RANK"] == "0":
        Path(places[-1], "losses.json").write_text(json.dumps(losses))
