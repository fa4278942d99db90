"""The search for better experts: what one learns from, and what it is; a row for each variant.

    python benchmarks/experts_search.py --data DATA [--only GROUP] [--runs FOLDER] [--threads 1]

`experts_search.yaml` beside this file names groups of variants. A variant trains the expert of one
class as the recipe of the all-in-one model does, with some settings changed, on the frozen base,
and measures it alone, as the right route. A finished row is kept in
`results/experts_search.json` and not measured again.

Scores are PSNR in dB over all pictures of the benchmarks that a group names. These are real pairs
that no expert learns from; what is chosen by them says so wherever it is told.
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "experts_search.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="Variants of experts, a row each.")
    parser.add_argument("--data", required=True, type=Path, help="folder of the data sets")
    parser.add_argument("--only", nargs="*", help="groups to run; all by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/experts-search"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    for group, plan in plans().items():
        if arguments.only and group not in arguments.only:
            continue
        for name in ["the base alone", *plan["variants"]]:
            if any((r["group"], r["variant"]) == (group, name) for r in rows()):
                continue
            row = measure(plan, group, name, arguments)
            print(json.dumps(row), flush=True)
            keep(row)
    print(table(rows()))


def plans() -> dict[str, Any]:
    groups = yaml.safe_load((HERE / "experts_search.yaml").read_text(encoding="utf-8"))
    return {name: plan for name, plan in groups.items() if not name.startswith(".")}


def rows() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []


def keep(row: dict[str, Any]) -> None:
    # Read again: another process may have added rows of another group meanwhile.
    text = json.dumps([*rows(), row], indent=1)
    RESULTS.write_text(text + "\n", encoding="utf-8")


def measure(plan: dict[str, Any], group: str, name: str, arguments: Any) -> dict[str, Any]:
    import torch

    from urushi.adapters import Adapted
    from urushi.evaluation.benchmark import evaluate
    from urushi.files.adapter import LoadedAdapter
    from urushi.files.model import read_model
    from urushi.inference.restorer import Restorer
    from urushi.inference.zoo import find_model
    from urushi.training.all_in_one.all_in_one_recipe import load_all_in_one_recipe
    from urushi.training.all_in_one.datasets import pack_all_in_one
    from urushi.training.all_in_one.stages import StagePlans
    from urushi.training.loop import train
    from urushi.training.outcome import adapter_header, adapter_tensors

    torch.set_num_threads(arguments.threads)
    row: dict[str, Any] = {"group": group, "variant": name, "class": plan["class"]}
    model = read_model(find_model("base"))
    adapters: list[Any] = []
    if name in plan["variants"]:
        own = [*flat(plan.get("all", [])), *flat(plan["variants"][name])]
        changes = [*own, f"classes.{plan['class']}.steps={plan['steps']}"]
        recipe = load_all_in_one_recipe(plan.get("recipe", "all-in-one-cpu"), changes)
        files = pack_all_in_one(recipe, arguments.runs / "data", arguments.data)
        # Experts that stand alone do not ask the router for anything.
        stage = StagePlans(recipe, files, None, "cpu").expert(plan["class"], model, None)  # type: ignore[arg-type]
        folder = arguments.runs / group / re.sub(r"\W+", "-", name)
        result = train(stage.recipe, stage.material, folder, resume=True, device="cpu")
        if not result.finished:
            raise SystemExit(130)
        network = stage.material.network(True)
        network.load_state_dict(result.weights)
        assert isinstance(network, Adapted)
        expert: Any = network.adapters[-1]
        header = adapter_header(stage.recipe, expert, model)
        adapters = [LoadedAdapter(header, adapter_tensors(expert), Path(f"{group}, {name}"))]
        seconds = result.seconds - result.log[0]["seconds"] if result.log else result.seconds
        row |= {
            "changes": own,
            "steps": plan["steps"],
            "parameters": sum(p.numel() for p in expert.parameters() if p.requires_grad),
            "seconds": round(seconds),
            "threads": arguments.threads,
        }
    restorer = Restorer(model, adapters=adapters, engine="torch")
    found = {}
    for benchmark in plan["benchmarks"]:
        psnr = evaluate(restorer, benchmark, root=arguments.data).means.psnr
        assert psnr is not None
        found[benchmark] = round(psnr, 3)
    return {**row, "psnr": found}


def flat(changes: Any) -> list[str]:
    """A list of changes that may hold lists, which YAML's anchors make."""
    return [c for part in changes or [] for c in ([part] if isinstance(part, str) else part)]


def table(found: list[dict[str, Any]]) -> str:
    lines = []
    for group in dict.fromkeys(row["group"] for row in found):
        own = [row for row in found if row["group"] == group]
        benchmarks = list(dict.fromkeys(name for row in own for name in row["psnr"]))
        lines += [
            "",
            f"| {group} | parameters | steps | " + " | ".join(benchmarks) + " |",
            "|---|---|---|" + "---|" * len(benchmarks),
        ]
        for row in own:
            values = " | ".join(f"{row['psnr'][name]:.2f}" for name in benchmarks)
            parameters, steps = row.get("parameters", 0), row.get("steps", 0)
            lines.append(f"| {row['variant']} | {parameters:,} | {steps} | {values} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
