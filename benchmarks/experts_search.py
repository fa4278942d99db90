"""The search for better experts: what one learns from, and what it is; a row for each variant.

    python benchmarks/experts_search.py --data DATA [--only GROUP] [--runs FOLDER] [--threads 1]

`experts_search.yaml` beside this file names groups of variants. A variant trains the expert of one
class as the recipe of the all-in-one model does, with some settings changed, on the frozen base,
and measures it alone, as the right route. A finished row is kept in
`results/experts_search.json` and not measured again.

Scores are PSNR in dB over all pictures of the benchmarks that a group names. These are real pairs
that no expert learns from; what is chosen by them says so wherever it is told.
"""

import re
from pathlib import Path
from typing import Any

from measuring import run_script
from trials import Trials, flat, table


def main() -> None:
    trials = Trials(__file__, "Variants of experts, a row each.", first=["the base alone"])
    print(table(trials.run(measure)))


def measure(plan: dict[str, Any], group: str, name: str, arguments: Any) -> dict[str, Any]:
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


if __name__ == "__main__":
    run_script(main)
