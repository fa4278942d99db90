"""Rows of routes after one expert changed: those that it had a part in are measured anew.

    python benchmarks/rescore.py rain benchmarks/results/routes-*.json --data DATA

A picture is restored again by each route that takes the expert: the right one of its own kind, the
wrong one where it was drawn, and the automatic one of pictures that the router took for its kind.
What the router sees at its first look hangs on no expert, so that all else would come out as it
was. Where experts acted one after the other, or the router, the base or what decides changed,
measure with `urushi evaluate --router` instead.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import run_script

from urushi.evaluation.benchmark import BenchmarkResult
from urushi.evaluation.catalog import find_benchmark
from urushi.evaluation.metrics import named_protocol, score
from urushi.evaluation.routes import RoutesResult
from urushi.inference.auto import AutoRestorer


def main() -> None:
    parser = argparse.ArgumentParser(description="Rows of routes after one expert changed.")
    parser.add_argument("name", help="of the expert")
    parser.add_argument("files", nargs="+", type=Path, help="of urushi evaluate --json")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    restorer = AutoRestorer(threads=options.threads)
    for path in options.files:
        document = json.loads(path.read_text(encoding="utf-8"))
        for place, routes in enumerate(document["routes"]):
            scores = {row["name"]: row for row in document["results"][place]["pictures"]}
            for row in routes["pictures"]:
                measured = rescored(options.name, routes, row, restorer, options.data)
                if measured:
                    print(routes["benchmark"], row["name"], measured, flush=True)
                row |= measured
                if "psnr_automatic" in measured:
                    # The scores of the evaluation itself are those of the automatic route.
                    own = {name: row[f"{name}_automatic"] for name in ("psnr", "ssim")}
                    scores[row["name"]] |= own
            routes |= summary(RoutesResult, routes)
            result = document["results"][place]
            result["restorer"] |= {"adapters": restorer.describe()["adapters"]}
            result |= summary(BenchmarkResult, result)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def rescored(
    name: str, routes: dict[str, Any], row: dict[str, Any], restorer: AutoRestorer, data: Path
) -> dict[str, float]:
    """PSNR and SSIM of the routes of one picture that take the expert `name`."""
    taken = {
        "right": routes["kind"] == name,
        "wrong": row["wrong"] == name,
        "automatic": row["seen"] == name and not row["abstained"],
    }
    if not any(taken.values()):
        return {}
    benchmark = find_benchmark(routes["benchmark"])
    (sample,) = (one for one in benchmark.samples(data) if one.name == row["name"])
    degraded, reference = sample.load()
    how = named_protocol(routes["protocol"], benchmark.crop_border)
    automatic = restorer.restore(degraded)
    choice = restorer.last
    assert choice is not None
    told = replace(choice, route=((name, 1.0),), guard=None)
    found: dict[str, float] = {}
    for route in (route for route, own in taken.items() if own):
        picture = automatic
        if route != "automatic":
            picture = restorer.restorer(told).restore(degraded)
        measured = score(picture, reference, how)
        found |= {f"psnr_{route}": measured.psnr, f"ssim_{route}": measured.ssim}
    return found


def summary(
    kind: type[RoutesResult] | type[BenchmarkResult], content: dict[str, Any]
) -> dict[str, Any]:
    """What a result says of all its pictures."""
    whole = kind.model_validate(content).model_dump(mode="json")
    return {name: whole[name] for name in kind.model_computed_fields if name in content}


if __name__ == "__main__":
    run_script(main)
