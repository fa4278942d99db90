"""The search for a better base: variants of a recipe at equal training time, one row each.

    python benchmarks/search.py --data DATA --pack PACK [--only GROUP] [--runs FOLDER] [--threads 1]

`search.yaml` beside this file names groups of variants. Within a group every variant gets the same
time: its optimizer steps are what fits into the group's minutes at the speed that `speeds` gives
for it, megapixels per second measured one after another on an idle machine (`--speeds` measures
them; in a trial beside other work they would be its luck), or the group gives the number of steps,
where its variants cost the same. A finished row is kept in `results/search.json` and not measured
again.

Scores are PSNR in dB on held-out pictures, six of them, by kind of damage; `mean` is that over
all kinds but the clean ones. `page` and `noisy page` are six made pages that no training sees. The
averaged weights are scored; where a group says `last`, the last ones as well.
"""

import argparse
import re
import tempfile
from pathlib import Path
from typing import Any

from measuring import run_script
from trials import Trials, flat, table

PICTURES = 6
TRIAL_STEPS = 25

# What the variants are scored on; none of it is a benchmark of the catalog.
KINDS: dict[str, dict[str, Any] | None] = {
    "noise 25": {"name": "gaussian_noise", "sigma_255": [25, 25], "grey_share": 0},
    "noise 50": {"name": "gaussian_noise", "sigma_255": [50, 50], "grey_share": 0},
    "jpeg 10": {"name": "jpeg", "quality": [10, 10]},
    "jpeg 30": {"name": "jpeg", "quality": [30, 30]},
    "rain": {"name": "rain_streaks"},
    "blur 1.5": {"name": "gaussian_blur", "sigma": [1.5, 1.5], "elliptic_share": 0},
    "motion 9": {"name": "motion_blur", "length": [9, 9], "shake_share": 0},
    "mixed": {
        "name": "chain",
        "order": "fixed",
        "steps": [
            {"name": "rain_streaks"},
            {"name": "gaussian_noise", "sigma_255": [15, 15], "grey_share": 0},
            {"name": "jpeg", "quality": [50, 50]},
        ],
    },
    "motion 15": {"name": "motion_blur", "length": [15, 15], "shake_share": 0},
    "film": {"name": "film_damage"},
    "web": {"name": "web"},
    "regions": {
        "name": "regions",
        "share": 1,
        "degradation": {
            "name": "chain",
            "order": "single",
            "steps": [
                {"name": "gaussian_noise", "sigma_255": [25, 25], "grey_share": 0},
                {"name": "jpeg", "quality": [15, 15]},
                {"name": "gaussian_blur", "sigma": [1.5, 1.5], "elliptic_share": 0},
            ],
        },
    },
    "clean": None,
}
ON_PAGES: dict[str, dict[str, Any] | None] = {
    "noisy page": KINDS["noise 25"],
    "page": None,
}
CLEAN = ("clean", "page")
PAGE_SEED = 1_000_003  # far from those that trainings use


def main() -> None:
    trials = Trials(__file__, "Variants of a recipe at equal training time.")
    trials.parser.add_argument("--pack", required=True, type=Path, help="packed clean pictures")
    trials.parser.add_argument("--speeds", action="store_true", help="measure speeds instead")
    rows = trials.run(trial, needs=("data", "pack"), keep=lambda options: not options.speeds)
    print(table(rows))


def trial(plan: dict[str, Any], group: str, name: str, options: argparse.Namespace) -> Any:
    return speed(plan, name, options) if options.speeds else measure(plan, group, name, options)


def recipe_of(plan: dict[str, Any], name: str, steps: int) -> Any:
    """The recipe of a variant with that many optimizer steps."""
    from urushi.training.recipe import load_recipe

    changes = [in_steps(change, steps) for change in changes_of(plan, name)]
    # Not scored during training, and no checkpoint is worth its time here.
    changes += ["validation.benchmarks=[]", "checkpoint_minutes=60"]
    return load_recipe(plan["recipe"], [f"schedule.steps={steps}", *changes])


def changes_of(plan: dict[str, Any], name: str) -> list[str]:
    return [*flat(plan.get("all", [])), *flat(plan["variants"][name])]


def speed(plan: dict[str, Any], name: str, arguments: argparse.Namespace) -> float:
    """Training speed in megapixels per second, without compiling."""
    from urushi.data.packed import PackedPictures
    from urushi.training.loop import train

    recipe = recipe_of(plan, name, TRIAL_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        log = train(recipe, PackedPictures(arguments.pack), Path(folder), device="cpu").log
    seconds = log[-1]["seconds"] - log[0]["seconds"]
    pixels = (log[-1]["step"] - log[0]["step"]) * pixels_of(recipe)
    return round(pixels / seconds / 1e6, 3)


def pixels_of(recipe: Any) -> int:
    return recipe.data.batch * recipe.data.patch**2


def measure(
    plan: dict[str, Any], group: str, name: str, arguments: argparse.Namespace
) -> dict[str, Any]:
    from urushi.backbones import create_backbone
    from urushi.data.packed import PackedPictures
    from urushi.training.loop import train

    steps = plan.get("steps")
    if steps is None:
        pixels = 60e6 * plan["minutes"] * plan["speeds"][name]
        steps = round(pixels / pixels_of(recipe_of(plan, name, 1000)))
    recipe = recipe_of(plan, name, steps)
    folder = arguments.runs / group / "".join(c if c.isalnum() else "-" for c in name)
    result = train(recipe, PackedPictures(arguments.pack), folder, resume=True, device="cpu")
    network = create_backbone(recipe.backbone.name, recipe.backbone.config)
    row = {
        "group": group,
        "variant": name,
        "changes": changes_of(plan, name),
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": steps,
        "seconds": round(result.seconds - result.log[0]["seconds"]),
        "threads": arguments.threads,
        "psnr": scores(result.weights, recipe, arguments.data),
    }
    if plan.get("last"):
        row["psnr_last"] = scores(last_weights(folder), recipe, arguments.data)
    return row


def in_steps(change: str, steps: int) -> str:
    """`STEPS*0.7` as a number of steps."""
    return re.sub(r"STEPS\*([\d.]+)", lambda share: str(round(float(share[1]) * steps)), change)


def last_weights(folder: Path) -> dict[str, Any]:
    from urushi.training.checkpoint import newest_checkpoint

    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    weights = checkpoint.group("weights")
    return {k: v for k, v in weights.items() if not k.startswith("pretext.")}


def scores(weights: dict[str, Any], recipe: Any, data: Path) -> dict[str, float]:
    from urushi.evaluation.benchmark import clean_benchmark, evaluate
    from urushi.files.model import LoadedModel, ModelHeader
    from urushi.inference.restorer import Restorer

    header = ModelHeader(backbone=recipe.backbone.name, config=recipe.backbone.config)
    tensors = {name: tensor.detach().float().numpy() for name, tensor in weights.items()}
    restorer = Restorer(LoadedModel(header, tensors, Path("variant"), None), engine="torch")
    found = {}
    with tempfile.TemporaryDirectory() as pages:
        write_pages(Path(pages))
        plan = [(kind, data / "clean/val20_wed", how) for kind, how in KINDS.items()]
        plan += [(kind, Path(pages), how) for kind, how in ON_PAGES.items()]
        for kind, folder, degradation in plan:
            benchmark = clean_benchmark(folder, degradation)
            psnr = evaluate(restorer, benchmark, limit=PICTURES).means.psnr
            assert psnr is not None
            found[kind] = round(psnr, 3)
    damaged = [value for kind, value in found.items() if kind not in CLEAN]
    return {"mean": round(sum(damaged) / len(damaged), 3), **found}


def write_pages(folder: Path) -> None:
    from PIL import Image

    from urushi.data.synthetic_pages import draw_page

    for kind in ("text", "screen", "chart", "lines", "pattern", "comic"):
        page = draw_page(kind, 320, 320, PAGE_SEED)
        Image.fromarray(page).save(folder / f"{kind}.png")


if __name__ == "__main__":
    run_script(main)
