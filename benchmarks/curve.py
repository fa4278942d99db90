"""How a training went: its curve against time, from the log in its newest checkpoint.

    python benchmarks/curve.py RUN [RUN ...] --name base

Writes `results/training-NAME.json` and `docs/training-NAME.png`. Several runs are one training,
each begun with the weights of the one before (`start` in a recipe). The loss is the training's own,
negative PSNR in dB with the floor of the recipe, meaned over hundredths of the time; the scores are
PSNR in dB of the averaged weights on the first pictures of the validation benchmarks.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
BINS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description="The curve of a training.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    document = curve(arguments.runs)
    text = json.dumps(document, indent=1)
    (HERE / "results" / f"training-{arguments.name}.json").write_text(text + "\n", encoding="utf-8")
    draw(document, HERE.parent / "docs" / f"training-{arguments.name}.png")
    for row in document["scores"]:
        print(row)


def curve(runs: list[Path]) -> dict[str, Any]:
    from urushi.training.checkpoint import newest_checkpoint

    losses: list[tuple[float, float]] = []
    scores: list[dict[str, float]] = []
    begun, steps = 0.0, 0
    parts = []
    for run in runs:
        checkpoint = newest_checkpoint(run / "checkpoints")
        if checkpoint is None:
            raise SystemExit(f"{run} holds no checkpoint")
        for row in checkpoint.log:
            minutes = (begun + row["seconds"]) / 60
            losses.append((minutes, row["loss"]))
            found = {k: round(v, 3) for k, v in row.items() if k not in ("step", "seconds", "loss")}
            if found:
                scores.append({"minutes": round(minutes, 1), "step": steps + row["step"], **found})
        begun, steps = begun + checkpoint.seconds, steps + checkpoint.step
        parts.append({"steps": checkpoint.step, "minutes": round(checkpoint.seconds / 60, 1)})
    return {"parts": parts, "loss": thinned(losses, begun / 60), "scores": scores}


def thinned(rows: list[tuple[float, float]], total: float) -> list[dict[str, float]]:
    bins: dict[int, list[float]] = {}
    for minutes, loss in rows:
        bins.setdefault(min(BINS - 1, int(BINS * minutes / total)), []).append(loss)
    return [
        {
            "minutes": round((index + 0.5) * total / BINS, 1),
            "loss": round(sum(found) / len(found), 3),
        }
        for index, found in sorted(bins.items())
    ]


def draw(document: dict[str, Any], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    rows = document["loss"]
    axis.plot(
        [r["minutes"] for r in rows], [-r["loss"] for r in rows], color="0.6", label="training"
    )
    names = [name for name in document["scores"][-1] if name not in ("minutes", "step")]
    for name in names:
        known = [row for row in document["scores"] if name in row]
        axis.plot([r["minutes"] for r in known], [r[name] for r in known], marker=".", label=name)
    axis.set_xlabel("minutes of training")
    axis.set_ylabel("PSNR in dB")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
