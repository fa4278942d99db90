"""The search for a better base: variants of a recipe at equal training time, one row each.

    python benchmarks/search.py --data DATA --pack PACK [--only GROUP] [--runs FOLDER] [--threads 1]

`search.yaml` beside this file names groups of variants. Within a group every variant gets the same
time: its optimizer steps are what fits into the group's minutes at the speed that it showed in a
short trial (compiling is not counted), unless the group gives the number of steps, because its
variants cost the same. A finished row is kept in `results/search.json` and not measured again.

Scores are PSNR in dB on held-out pictures, six of them, by kind of damage; `mean` is that over
all kinds but `clean`. The averaged weights are scored; where a group says `last`, the last ones
as well.
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
    "clean": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Variants of a recipe at equal training time.")
    parser.add_argument("--data", required=True, type=Path, help="folder of the data sets")
    parser.add_argument("--pack", required=True, type=Path, help="packed clean pictures")
    parser.add_argument("--only", nargs="*", help="groups to run; all by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/search"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        group, name = arguments.variant.split("/")
        print(json.dumps(measure(group, name, arguments)))
        return
    for group, plan in plans().items():
        if arguments.only and group not in arguments.only:
            continue
        for name in plan["variants"]:
            if any((r["group"], r["variant"]) == (group, name) for r in rows()):
                continue
            print(f"{group}/{name}", file=sys.stderr, flush=True)
            keep(in_own_process(group, name))
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


def in_own_process(group: str, name: str) -> dict[str, Any]:
    # Compiled programs and kept memory of one variant must not meet those of the next.
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--variant", f"{group}/{name}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(group: str, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch

    from urushi.backbones import create_backbone
    from urushi.data.pack import PackedPictures
    from urushi.training.loop import train
    from urushi.training.recipe import load_recipe

    torch.set_num_threads(arguments.threads)
    plan = plans()[group]
    pack = PackedPictures(arguments.pack)
    changes = [*plan.get("all", []), *(plan["variants"][name] or [])]
    # Not compared during training, and no checkpoint is worth its time here.
    changes += ["validation.benchmarks=[]", "checkpoint_minutes=60"]

    def recipe(steps: int) -> Any:
        own = [in_steps(change, steps) for change in changes]
        return load_recipe(plan["recipe"], [f"schedule.steps={steps}", *own])

    steps = plan.get("steps")
    if steps is None:
        with tempfile.TemporaryDirectory() as folder:
            log = train(recipe(TRIAL_STEPS), pack, Path(folder), device="cpu").log
        each = (log[-1]["seconds"] - log[0]["seconds"]) / (log[-1]["step"] - log[0]["step"])
        steps = round(60 * plan["minutes"] / each)
    final = recipe(steps)
    folder = arguments.runs / group / "".join(c if c.isalnum() else "-" for c in name)
    result = train(final, pack, folder, resume=True, device="cpu")
    first = result.log[0]
    network = create_backbone(final.backbone.name, final.backbone.config)
    row = {
        "group": group,
        "variant": name,
        "changes": changes[:-2],
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": steps,
        "seconds": round(result.seconds - first["seconds"]),
        "threads": arguments.threads,
        "psnr": scores(result.weights, final, arguments.data),
    }
    if plan.get("last"):
        row["psnr_last"] = scores(last_weights(folder), final, arguments.data)
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
    for kind, degradation in KINDS.items():
        benchmark = clean_benchmark(data / "clean/val20_wed", degradation)
        psnr = evaluate(restorer, benchmark, limit=PICTURES).means.psnr
        assert psnr is not None
        found[kind] = round(psnr, 3)
    damaged = [value for kind, value in found.items() if kind != "clean"]
    return {"mean": round(sum(damaged) / len(damaged), 3), **found}


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        "| group | variant | M parameters | steps | mean | " + " | ".join(KINDS) + " |",
        "|---|---|---|---|---|" + "---|" * len(KINDS),
    ]
    for row in found:
        psnr = row["psnr"]
        values = " | ".join(f"{psnr[kind]:.2f}" for kind in KINDS)
        lines.append(
            f"| {row['group']} | {row['variant']} | {row['parameters'] / 1e6:.2f} | {row['steps']} "
            f"| {psnr['mean']:.2f} | {values} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
