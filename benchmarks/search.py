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
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from measuring import run_script

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "search.json"
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
    parser = argparse.ArgumentParser(description="Variants of a recipe at equal training time.")
    parser.add_argument("--data", required=True, type=Path, help="folder of the data sets")
    parser.add_argument("--pack", required=True, type=Path, help="packed clean pictures")
    parser.add_argument("--only", nargs="*", help="groups to run; all by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speeds", action="store_true", help="measure training speeds instead")
    parser.add_argument("--cluster", help="a Ray cluster whose nodes share these folders")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        group, name = arguments.variant.split("/")
        measured = speed if arguments.speeds else measure
        print(json.dumps(measured(group, name, arguments)))
        return
    unknown = set(arguments.only or []) - set(plans())
    if unknown:
        parser.error(f"--only is {min(unknown)!r}: expected some of {', '.join(plans())}")
    for needed in (arguments.data, arguments.pack):
        if not needed.exists():
            parser.error(f"{needed} does not exist: name the data sets and the packed pictures")
    waiting = []
    for group, plan in plans().items():
        if arguments.only and group not in arguments.only:
            continue
        for name in plan["variants"]:
            if arguments.speeds:
                print(f"{group}/{name}: {in_own_process(group, name)} MP/s", flush=True)
                continue
            if any((r["group"], r["variant"]) == (group, name) for r in rows()):
                continue
            if arguments.cluster:
                waiting.append(words_for(group, name))
                continue
            print(f"{group}/{name}", file=sys.stderr, flush=True)
            keep(in_own_process(group, name))
    if waiting:
        run_there(arguments.cluster, waiting, arguments.threads)
    print(table(rows()))


def plans() -> dict[str, Any]:
    groups = yaml.safe_load((HERE / "search.yaml").read_text(encoding="utf-8"))
    return {name: plan for name, plan in groups.items() if not name.startswith(".")}


def rows() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []


def keep(row: dict[str, Any]) -> None:
    # Read again: another process may have added rows of another group meanwhile.
    text = json.dumps([*rows(), row], indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")


def in_own_process(group: str, name: str) -> Any:
    # Compiled programs and kept memory of one variant must not meet those of the next.
    return told_by(words_for(group, name))


def words_for(group: str, name: str) -> list[str]:
    return [sys.executable, __file__, *sys.argv[1:], "--variant", f"{group}/{name}"]


def told_by(words: list[str]) -> Any:
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_there(address: str, waiting: list[list[str]], threads: int) -> None:
    """Runs variants as tasks of a cluster, and keeps the row of each as it ends."""
    from urushi.cluster.connection import joined
    from urushi.cluster.tasks import Room, run_tasks

    def done(words: list[str], row: Any) -> None:
        if isinstance(row, Exception):
            print(f"{words[-1]}: {row}", file=sys.stderr, flush=True)
        else:
            keep(row)

    with joined(address):
        run_tasks(told_by, waiting, Room(threads), done)


def recipe_of(plan: dict[str, Any], name: str, steps: int) -> Any:
    """The recipe of a variant with that many optimizer steps."""
    from urushi.training.recipe import load_recipe

    changes = [in_steps(change, steps) for change in changes_of(plan, name)]
    # Not scored during training, and no checkpoint is worth its time here.
    changes += ["validation.benchmarks=[]", "checkpoint_minutes=60"]
    return load_recipe(plan["recipe"], [f"schedule.steps={steps}", *changes])


def changes_of(plan: dict[str, Any], name: str) -> list[str]:
    return [*plan.get("all", []), *(plan["variants"][name] or [])]


def speed(group: str, name: str, arguments: argparse.Namespace) -> float:
    """Training speed in megapixels per second, without compiling."""
    from urushi.data.packed import PackedPictures
    from urushi.training.loop import train

    use_threads(arguments.threads)
    recipe = recipe_of(plans()[group], name, TRIAL_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        log = train(recipe, PackedPictures(arguments.pack), Path(folder), device="cpu").log
    seconds = log[-1]["seconds"] - log[0]["seconds"]
    pixels = (log[-1]["step"] - log[0]["step"]) * pixels_of(recipe)
    return round(pixels / seconds / 1e6, 3)


def pixels_of(recipe: Any) -> int:
    return recipe.data.batch * recipe.data.patch**2


def use_threads(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)


def measure(group: str, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    use_threads(arguments.threads)
    from urushi.backbones import create_backbone
    from urushi.data.packed import PackedPictures
    from urushi.training.loop import train

    plan = plans()[group]
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


def table(found: list[dict[str, Any]]) -> str:
    kinds = [*KINDS, *ON_PAGES]
    lines = [
        "| group | variant | M parameters | steps | mean | " + " | ".join(kinds) + " |",
        "|---|---|---|---|---|" + "---|" * len(kinds),
    ]
    for row in found:
        psnr = row["psnr"]
        # Kinds that came later are missing in older rows.
        values = " | ".join(f"{psnr[kind]:.2f}" if kind in psnr else "" for kind in kinds)
        lines.append(
            f"| {row['group']} | {row['variant']} | {row['parameters'] / 1e6:.2f} | {row['steps']} "
            f"| {psnr['mean']:.2f} | {values} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
