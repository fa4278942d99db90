"""The routers that `urushi compare claim-experts` and `claim-composition` route by.

    python benchmarks/claims_routers.py --data DATA [--runs runs/claims] [--seeds 0 1 2]

Each is a head on what the frozen base makes of a picture's views, trained for a few minutes:
`both` looks at the whole picture and at four windows of it at twice the size, as LoRA-IR's router
does; `whole` at the whole picture alone. They learn from the pairs of four real degradations.
`made` learns four degradations that are laid over clean pictures, a third of them by twos.
"""

import argparse
from pathlib import Path

from urushi.data.pack import pack_pictures
from urushi.data.packed import PackedPictures
from urushi.data.pairs import PairedFolder
from urushi.files.router_file import ViewGeometry
from urushi.training.compare.description import load_comparison
from urushi.training.router.router_recipe import (
    ClassSettings,
    FeatureSettings,
    PictureSettings,
    RouterRecipe,
)
from urushi.training.router.router_training import RouterData, train_router

CLEAN, VALIDATION = "clean/cid22", "clean/val20_wed"
SIDE = 96  # of a view
# Windows of a picture of one view's side are the whole picture again.
VIEWS = {"both": 2, "whole": 1, "made": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the routers of two comparisons.")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/claims"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    for seed in options.seeds:
        for kind in VIEWS:
            print(kind, seed, accuracy(kind, seed, options.data, options.runs), flush=True)


def accuracy(kind: str, seed: int, data: Path, runs: Path) -> object:
    """Trains a router, or goes on with it, and tells its scores."""
    packs = runs / "router-packs"
    base = runs / "pretraining-prod/pretraining-prod.safetensors"
    classes, real, held = {}, {}, {}
    task = load_comparison("claim-composition" if kind == "made" else "claim-experts").tasks[0]
    for part in task.classes:
        classes[part.name] = ClassSettings(degradation=part.degradation)
        if part.pairs is not None and part.validation is not None:
            classes[part.name] = ClassSettings(pictures=[f"{part.pairs}/input"])
            real[part.name] = packed(data / part.pairs, packs / f"{part.name}.safetensors")
            held[part.name] = packed(data / part.validation, packs / f"{part.name}-val.safetensors")
    recipe = RouterRecipe(
        name="router",
        seed=seed,
        classes=classes,
        encoder=FeatureSettings(base=str(base), middle=1, width=64, pictures=600, batch=64),
        views=ViewGeometry(layout="squashed", size=SIDE, grid=VIEWS[kind]),
        pictures=PictureSettings(
            clean=[CLEAN], sides=[64, 128, 192], mixed=0.3 if kind == "made" else 0.0
        ),
        steps=300,
        precision="bf16",
    )
    pictures = RouterData(
        packed(data / CLEAN, packs / "clean.safetensors"),
        packed(data / VALIDATION, packs / "clean-val.safetensors"),
        real,
        held,
    )
    folder = runs / f"router-{kind}-{seed}"
    done = train_router(recipe, pictures, folder, resume=True, device="cpu")
    assert done.header is not None
    return done.header.scores


def packed(folder: Path, target: Path) -> PackedPictures:
    """The pictures of a folder, or the inputs of its pairs."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        inputs = folder if not (folder / "target").is_dir() else PairedFolder(folder).input_folder
        pack_pictures([inputs], target, min_side=SIDE)
    return PackedPictures(target)


if __name__ == "__main__":
    main()
