"""Rows of routes after the router changed: what it decides otherwise is measured anew.

    python benchmarks/reroute.py benchmarks/results/routes-*.json --data DATA

Every picture is chosen for again. Where the same expert acts as before, alone and not held by the
guard, what it makes of the picture hangs on nothing of the router, and its scores stay; all others
are restored and scored.
After a change of the base or of experts, measure with `urushi evaluate --router` instead.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring import run_script

from urushi.evaluation.benchmark import BenchmarkResult
from urushi.evaluation.catalog import Sample, find_benchmark
from urushi.evaluation.metrics import Protocol, named_protocol, score
from urushi.evaluation.routes import RoutesResult
from urushi.inference.auto import AutoRestorer


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows of routes after the router changed.")
    parser.add_argument("files", nargs="+", type=Path, help="of urushi evaluate --json")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    restorer = AutoRestorer(threads=options.threads)
    for path in options.files:
        document = json.loads(path.read_text(encoding="utf-8"))
        for result, routes in zip(document["results"], document["routes"], strict=True):
            benchmark = find_benchmark(routes["benchmark"])
            how = named_protocol(routes["protocol"], benchmark.crop_border)
            samples = {one.name: one for one in benchmark.samples(options.data)}
            scores = {row["name"]: row for row in result["pictures"]}
            for row in routes["pictures"]:
                changed = chosen_anew(restorer, row, samples[row["name"]], how)
                if "psnr_automatic" in changed:
                    print(routes["benchmark"], row["name"], changed, flush=True)
                    own = {name: changed[f"{name}_automatic"] for name in ("psnr", "ssim")}
                    scores[row["name"]] |= own
                row |= changed
            result["restorer"] = restorer.describe()
            routes |= summary(RoutesResult, routes)
            result |= summary(BenchmarkResult, result)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def chosen_anew(
    restorer: AutoRestorer, row: Mapping[str, Any], sample: Sample, how: Protocol
) -> dict[str, Any]:
    """What the router sees in a picture; scores as well where something else acts than before."""
    degraded, reference = sample.load()
    choice = restorer.choose(degraded)
    assert choice.decision is not None
    found: dict[str, Any] = {
        "seen": choice.decision.seen,
        "sure": choice.decision.probabilities[choice.decision.seen],
        "abstained": choice.decision.abstained,
    }
    before = [] if row["abstained"] else [row["seen"]]
    if choice.experts != before or choice.guard is not None:
        measured = score(restorer.restorer(choice).restore(degraded), reference, how)
        found |= {"psnr_automatic": measured.psnr, "ssim_automatic": measured.ssim}
    return found


def summary(
    kind: type[RoutesResult] | type[BenchmarkResult], content: dict[str, Any]
) -> dict[str, Any]:
    """What a result says of all its pictures."""
    whole = kind.model_validate(content).model_dump(mode="json")
    return {name: whole[name] for name in kind.model_computed_fields if name in content}


if __name__ == "__main__":
    run_script(main)
