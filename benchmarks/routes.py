"""The table of routes and the confusion matrix in the card, from the rows of `urushi evaluate`.

    urushi evaluate --router all-in-one --data DATA --benchmark NAME ... --json routes-pairs.json
    python benchmarks/routes.py benchmarks/results/routes-*.json --confusion docs/confusion.png

Of each benchmark: how many pictures were taken for what they are, how many were left to the base
alone, and the mean PSNR in dB of the input, the base, and the right, the automatic and a wrong
route.
"""

import argparse
import json
from pathlib import Path

from urushi.evaluation.confusion import draw_confusion
from urushi.evaluation.routes import RoutesResult, routes_confusion
from urushi.inference.auto import AutoRestorer

ROUTES = ("input", "base", "right", "automatic", "wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description="Routes, as a table and as a picture.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--confusion", type=Path, help="PNG of what was taken for what")
    arguments = parser.parse_args()
    results = [
        RoutesResult.model_validate(row)
        for path in arguments.files
        for row in json.loads(path.read_text(encoding="utf-8"))["routes"]
    ]
    lines = [
        "| benchmark | is | recognised | base alone | "
        + " | ".join(ROUTES)
        + " | SSIM, automatic |",
        "|---|---|---|---|" + "---|" * (len(ROUTES) + 1),
    ]
    for result in results:
        alone = sum(row.abstained for row in result.pictures)
        means = result.means
        lines.append(
            f"| {result.benchmark} | {result.kind} "
            f"| {round(result.recognised * len(result.pictures))} of {len(result.pictures)} "
            f"| {alone} | " + " | ".join(f"{means[f'psnr_{name}']:.2f}" for name in ROUTES)
            + f" | {means['ssim_automatic']:.4f} |"
        )  # fmt: skip
    print("\n".join(lines))
    if arguments.confusion is not None:
        classes = AutoRestorer(task="none").classes
        matrix = routes_confusion(results, classes)
        draw_confusion(matrix, classes, arguments.confusion, title="What was taken for what")
        right = sum(matrix[i, i] for i in range(len(classes)))
        print(f"\n{right} of {matrix.sum()} pictures are taken for what they are")


if __name__ == "__main__":
    main()
