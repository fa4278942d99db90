"""A tiny all-in-one model for tests: its files, and the recipe of its training."""

from pathlib import Path

import numpy as np
from adapter_support import write_random
from cli_support import picture, write_pictures, write_tiny_model
from routing_support import CLASSES, tiny_router

from urushi.errors import RecipeError
from urushi.files.adapter import base_facts
from urushi.files.all_in_one_file import member_of
from urushi.files.model import read_model
from urushi.image import write_picture
from urushi.routing.router import save_router
from urushi.settings import parse_settings
from urushi.training.all_in_one.all_in_one_recipe import AllInOneRecipe
from urushi.training.all_in_one.datasets import pack_all_in_one

EXPERTS = tuple(name for name in CLASSES if name != "clean")
SEEN = "haze"  # what the tiny router sees in the tests' pictures


def write_all_in_one(folder: Path, model: Path, experts=EXPERTS, facts=None, **config) -> Path:
    """An all-in-one file with random experts beside it."""
    base = read_model(model)
    members = {
        name: member_of(write_random(folder / f"{name}.safetensors", base, seed=seed, **config))
        for seed, name in enumerate(experts, start=1)
    }
    path = folder / "all-in-one.safetensors"
    facts = {"threshold": 0.0, "base": base_facts(base), "experts": members, **(facts or {})}
    save_router(path, tiny_router(), CLASSES, **facts)
    return path


TINY = {
    "kind": "all-in-one",
    "name": "all",
    "classes": {
        "clean": {},
        "noise": {"degradation": {"name": "gaussian_noise", "sigma_255": [50, 60]}},
        "dark": {"degradation": {"name": "low_light"}, "pairs": ["pairs"]},
    },
    "data": {"clean": ["clean"], "validation": ["held"], "patch": 16, "batch": 4},
    "router": {
        "encoder": {"kind": "compact", "widths": [4, 6], "width": 8, "blocks": 0},
        "views": {"layout": "native", "size": 16, "most": 2},
        "sides": [24],
        "per_class": 2,
        "steps": 3,
        "validation": {"per_class": 4, "every": 3},
    },
    "experts": {"steps": 4, "warmup": 0, "adapter": {"method": "lora", "rank": 1}},
}


def make_data(root: Path) -> Path:
    """Folders of clean pictures, and of pairs that are dark."""
    for folder in ("clean", "held"):
        write_pictures(root / folder, 3)
    for index in range(3):
        pixels = picture(shift=float(index))
        for side, factor in (("input", 0.3), ("target", 1.0)):
            (root / "pairs" / side).mkdir(parents=True, exist_ok=True)
            write_picture(root / "pairs" / side / f"{index}.png", np.float32(factor) * pixels)
    return root


def make_world(root: Path) -> Path:
    """The same, with the model of which a recipe's experts are."""
    make_data(root)
    write_tiny_model(root / "tiny.safetensors")
    return root


def tiny_recipe(start: Path, **changes) -> AllInOneRecipe:
    content = {**TINY, "start": str(start), **changes}
    return parse_settings(content, AllInOneRecipe, RecipeError, "test")


def tiny_files(recipe: AllInOneRecipe, root: Path, folder: Path):
    return pack_all_in_one(recipe, folder, root)
