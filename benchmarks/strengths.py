"""How strong an expert should be: less than fully where damage is weak, or the router unsure?

    python benchmarks/strengths.py --data DATA [--clean bench/Kodak24]

Clean pictures as those of `benchmarks/composites.py`, with each single kind of damage at three
degrees. Every expert acts with a quarter, a half, three quarters and all of its strength, and the
base alone with none. The best of them for each picture is the most that any rule could win; beside
it stands the rule that the router's certainty is the strength, taken in quarters. PSNR in dB.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from composites import clean_picture, spoilt
from measuring import run_script, write_report

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
DEGREES = ("weak", "middle", "strong")
KINDS: Mapping[str, tuple[str, str, tuple[Any, Any, Any], Mapping[str, Any]]] = {
    # Name of the degradation, the number that says how strong it is, its three values, and others.
    "haze": ("haze", "beta", (0.4, 1.0, 2.2), {}),
    "rain": ("rain_streaks", "coverage", (0.08, 0.3, 1.2), {}),
    "snow": ("snow", "coverage", (0.04, 0.12, 0.4), {}),
    "low-light": ("low_light", "exposure", (0.4, 0.12, 0.03), {}),
    "raindrop": ("raindrops", "density", (0.1, 0.3, 0.6), {}),
    "blur": ("motion_blur", "length", (4, 9, 18), {}),
    "noise": ("gaussian_noise", "sigma_255", (5, 20, 50), {"grey_share": 0}),
    "jpeg": ("jpeg", "quality", (70, 35, 10), {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="How strong an expert should be.")
    parser.add_argument("--data", required=True, type=Path, help="of the data sets")
    parser.add_argument("--clean", default="bench/Kodak24", help="folder of clean pictures in it")
    parser.add_argument("--every", type=int, default=12, help="one in so many is taken")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    from urushi.data.pairs import find_pictures
    from urushi.inference.auto import AutoRestorer

    # One more than the strengths, of both shapes that pictures have.
    auto = AutoRestorer(threads=options.threads, device="cpu", kept=2 * len(STRENGTHS), quick=True)
    paths = find_pictures(options.data / options.clean)[options.first :: options.every]
    rows = []
    for kind in KINDS:
        for place, degree in enumerate(DEGREES):
            rows.append(row_of(auto, kind, degree, place, paths))
            print({key: value for key, value in rows[-1].items() if key != "pictures"}, flush=True)
    router = auto.members.router.header.tensors_hash[:12]
    facts = {"what": "PSNR in dB of experts by their strength", "clean": options.clean}
    write_report("strengths", {**facts, "router": router}, ("openvino",), rows)


def row_of(auto: Any, kind: str, degree: str, place: int, paths: list[Path]) -> dict[str, Any]:
    """A kind of damage at one degree, over all pictures."""
    from urushi.evaluation.metrics import PROTOCOLS, score
    from urushi.inference.choice import Choice

    name, number, values, others = KINDS[kind]
    steps = [{"name": name, number: [values[place]] * 2, **others}]
    pictures = []
    for path in paths:
        clean = clean_picture(path)
        bad = spoilt(clean, steps, path.stem)
        by = {}
        for strength in STRENGTHS:
            route = ((kind, strength),) if strength else ()
            restored = auto.restorer(Choice(route, "")).restore(bad)
            by[f"{strength:g}"] = round(score(restored, clean, PROTOCOLS["rgb-8bit"]).psnr, 3)
        decision = auto.choose(bad).decision
        assert decision is not None
        sure = decision.probabilities[kind]
        nearest = min(STRENGTHS, key=lambda strength: abs(strength - sure))
        found = {"picture": path.stem, "sure": round(sure, 4), "by": by, "full": by["1"]}
        found |= {"best": max(by.values()), "by_certainty": by[f"{nearest:g}"]}
        pictures.append(found)
    means = {
        key: round(float(np.mean([one[key] for one in pictures])), 3)
        for key in ("full", "best", "by_certainty", "sure")
    }
    means |= {
        f"at {at}": round(float(np.mean([one["by"][at] for one in pictures])), 3)
        for at in pictures[0]["by"]
    }
    return {"kind": kind, "degree": degree, number: values[place], **means, "pictures": pictures}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown: a line for each kind and degree."""
    titles = ["full strength", "best for each picture", "by the router's certainty"]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for row in rows:
        values = [f"{row[key]:.2f}" for key in ("full", "best", "by_certainty")]
        lines.append(f"| {row['kind']}, {row['degree']} | {' | '.join(values)} |")
    means = [
        f"**{np.mean([row[key] for row in rows]):.2f}**" for key in ("full", "best", "by_certainty")
    ]
    lines.append(f"| **mean** | {' | '.join(means)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
