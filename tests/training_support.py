"""A tiny training for tests: recipe, pictures, and what looks at its results."""

import sys

import numpy as np
import torch
import yaml

from urushi.data.pack import PackedPictures, pack_pictures
from urushi.errors import RecipeError
from urushi.image import write_picture
from urushi.settings import parse_settings
from urushi.training.checkpoint import Checkpoint, newest_checkpoint
from urushi.training.recipe import Recipe

TINY = {
    "name": "tiny",
    "backbone": {
        "name": "nafnet",
        "config": {
            "width": 4,
            "enc_blk_nums": [1, 1],
            "middle_blk_num": 1,
            "dec_blk_nums": [1, 1],
        },
    },
    "data": {"pictures": ["clean"], "patch": 16, "batch": 4},
    "degradation": {
        "name": "chain",
        "order": "random",
        "steps": [{"name": "gaussian_noise"}, {"name": "jpeg"}, {"name": "gaussian_blur"}],
    },
    "schedule": {"steps": 6, "warmup": 2},
}


def recipe(**changes):
    return parse_settings({**TINY, **changes}, Recipe, RecipeError, "test")


def make_pack(folder):
    """Three small pictures of blocks, packed."""
    rng = np.random.default_rng(0)
    for index, (height, width) in enumerate([(40, 56), (33, 20), (64, 64)]):
        coarse = rng.random((4, 4, 3), dtype=np.float32)
        picture = np.kron(coarse, np.ones((16, 16, 1), np.float32))[:height, :width]
        write_picture(folder / f"{index}.png", picture)
    return PackedPictures(pack_pictures([folder], folder / "pack.safetensors").path)


def newest(run) -> Checkpoint:
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    return checkpoint


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def run_script(script, plan, pack, run, *more):
    """Runs `script` in a process of its own, which alone has a main thread that gets signals."""
    path = run.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(plan))
    return [sys.executable, "-c", script, str(path), str(pack.path), str(run), *more]
