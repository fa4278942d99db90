"""Trainings that one process or several do, and what loss each of their steps has."""

import contextlib
import json
import os
import sys
from pathlib import Path

import yaml
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from world import TINY_ALL_IN_ONE, TINY_TRAINING

from urushi.app.cli import app
from urushi.data.packed import PackedPictures
from urushi.errors import RecipeError
from urushi.settings import parse_settings
from urushi.training import loop
from urushi.training.recipe import Recipe

Losses = dict[str, list[float]]


def plan(steps: int, **changes) -> Recipe:
    """A short training of a base, whose steps do not depend on how many there are."""
    schedule = {"steps": steps, "final_learning_rate": 1e-3}
    own = {**TINY_TRAINING, "schedule": schedule, **changes}
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
    """A base begun, one gone on with, one under FSDP, an adapter and an all-in-one model."""
    recipe = folder / "recipe.yaml"
    if os.environ.get("RANK", "0") == "0":  # long before the others read it
        stated = {**TINY_ALL_IN_ONE, "start": str(world / "tiny.safetensors")}
        recipe.write_text(yaml.safe_dump(stated))
    loop.train(plan(2), PackedPictures(pack), folder / "base", device="cpu")
    loop.train(plan(4), PackedPictures(pack), folder / "begun", device="cpu", resume=True)
    with sharing_weights():
        for steps in (2, 4):
            options = {"device": "cpu", "resume": steps > 2}
            loop.train(plan(steps), PackedPictures(pack), folder / "sharded", **options)
    command = ["adapt", "--pairs", world / "pairs", "--model", world / "tiny.safetensors"]
    command += ["--method", "full", "-o", folder / "adapter.safetensors", "--steps", "25"]
    called(*command)
    called("train", recipe, "--data", world, "-o", folder / "all", "--no-graph")


@contextlib.contextmanager
def sharing_weights():
    """Under several processes, those train as `accelerate launch --use_fsdp` has them.

    It has accelerators do so alone; nothing else in it is about them.
    """

    def made(**options) -> Accelerator:
        accelerator = Accelerator(**options)
        if accelerator.num_processes > 1:
            plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
            accelerator.state.fsdp_plugin = plugin
            accelerator.state.distributed_type = DistributedType.FSDP
            states.append(accelerator.state)
        return accelerator

    states, loop.Accelerator = [], made
    try:
        yield
    finally:
        loop.Accelerator = Accelerator
        for state in states:
            state.distributed_type = DistributedType.MULTI_CPU


def called(*words: object) -> None:
    app([str(word) for word in [*words, "--device", "cpu"]], standalone_mode=False)


if __name__ == "__main__":
    places = [Path(word) for word in sys.argv[1:]]
    losses = losses_of(lambda: everything(*places))
    if os.environ["RANK"] == "0":
        Path(places[-1], "losses.json").write_text(json.dumps(losses))
