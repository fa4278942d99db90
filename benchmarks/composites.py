"""Two kinds of damage in one picture: one expert, two mixed, two one after the other, automatic.

    python benchmarks/composites.py --data DATA [--clean bench/Kodak24] [--only NAME ...]

Clean pictures that nothing learned from are made smaller and cut to 384 x 256 pixels, spoilt twice
in the order of nature (scene, lens, sensor, file), and rounded to 8 bits. The rows: every single
expert, of which the best is what a router that is never wrong could choose; the two right ones
mixed by halves, and by the router's probabilities; one after the other in both orders; and what is
done by itself, with one look and with two. PSNR in dB; `benchmarks/all.py --write` puts the table
into docs/measured.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import RESULTS, run_script, write_report

SIZE = (256, 384)
HAZE = {"name": "haze", "beta": [0.8, 2]}
SNOW = {"name": "snow", "coverage": [0.08, 0.5], "opacity": [0.65, 1]}
RAIN = {"name": "rain_streaks"}
DARK = {"name": "low_light", "exposure": [0.03, 0.3]}
BLUR = {"name": "motion_blur", "length": [7, 25]}
NOISE = {"name": "gaussian_noise", "sigma_255": [15, 50], "grey_share": 0}
JPEG = {"name": "jpeg", "quality": [10, 40]}


class Composite(NamedTuple):
    """Two kinds of damage.

    Attributes:
        kinds: classes of the router.
        steps: what is done to a clean picture, in this order.
    """

    kinds: tuple[str, str]
    steps: tuple[dict[str, Any], dict[str, Any]]


COMPOSITES: Mapping[str, Composite] = {
    "haze, snow": Composite(("haze", "snow"), (HAZE, SNOW)),
    "haze, rain": Composite(("haze", "rain"), (HAZE, RAIN)),
    "low light, noise": Composite(("low-light", "noise"), (DARK, NOISE)),
    "blur, noise": Composite(("blur", "noise"), (BLUR, NOISE)),
    "haze, noise": Composite(("haze", "noise"), (HAZE, NOISE)),
    "noise, JPEG": Composite(("noise", "jpeg"), (NOISE, JPEG)),
    "snow, JPEG": Composite(("snow", "jpeg"), (SNOW, JPEG)),
    "low light, JPEG": Composite(("low-light", "jpeg"), (DARK, JPEG)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Two kinds of damage in one picture.")
    parser.add_argument("--data", required=True, type=Path, help="of the data sets")
    parser.add_argument("--clean", default="bench/Kodak24", help="folder of clean pictures in it")
    parser.add_argument("--every", type=int, default=4, help="one in so many is taken")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(COMPOSITES), default=list(COMPOSITES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--automatic", action="store_true", help="what asks the router anew, beside kept rows"
    )
    options = parser.parse_args()
    from urushi.data.pairs import find_pictures
    from urushi.inference.auto import AutoRestorer

    own: dict[str, Any] = {"threads": options.threads, "device": "cpu", "kept": 40}
    ways = AutoRestorer(**own), AutoRestorer(quick=True, **own)
    paths = find_pictures(options.data / options.clean)[options.first :: options.every]
    committed = committed_rows() if options.automatic or len(options.only) < len(COMPOSITES) else []
    of_pictures = {
        (r["composite"], one["picture"]): one for r in committed for one in r["pictures"]
    }
    kept = of_pictures if options.automatic else {}
    rows = []
    for name in options.only:
        found = [
            measured(ways, COMPOSITES[name], path, kept.get((name, path.stem))) for path in paths
        ]
        rows.append(summed(name, COMPOSITES[name], found))
        print({key: value for key, value in rows[-1].items() if key != "pictures"}, flush=True)
    facts = {
        "what": "PSNR in dB of pictures with two kinds of damage",
        "clean": options.clean,
        "router": ways[0].members.router.header.tensors_hash[:12],
    }
    found = {row["composite"]: row for row in [*committed, *rows]}
    write_report("composites", facts, ("openvino",), [found[n] for n in COMPOSITES if n in found])


def clean_picture(path: Path) -> np.ndarray:
    """A picture, made smaller by a whole factor and cut to `SIZE`, upright or not as it is."""
    from urushi.image import read_picture

    pixels = read_picture(path)
    factor = max(1, max(pixels.shape[:2]) // max(SIZE))
    height, width = (side // factor * factor for side in pixels.shape[:2])
    small = pixels[:height, :width].reshape(height // factor, factor, width // factor, factor, 3)
    small = small.mean((1, 3))
    size = SIZE if width >= height else SIZE[::-1]
    top, left = (max(0, (a - b) // 2) for a, b in zip(small.shape[:2], size, strict=True))
    return eight_bits(small[top : top + size[0], left : left + size[1]])


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    """As a file of 8 bits holds them."""
    return (np.rint(np.clip(pixels, 0, 1) * 255) / 255).astype(np.float32)


def spoilt(clean: np.ndarray, steps: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    """A clean picture with damage that depends on its name alone."""
    from urushi.degradations import degradation_of
    from urushi.degradations.files import degrade_pixels, picture_seed

    chain = degradation_of({"name": "chain", "order": "fixed", "steps": list(steps)})
    return eight_bits(degrade_pixels(clean, chain, picture_seed(0, name)))


def committed_rows() -> list[dict[str, Any]]:
    """The rows that were measured before."""
    return json.loads((RESULTS / "composites.json").read_text("utf-8"))["rows"]


def measured(
    ways: Any, composite: Composite, path: Path, kept: dict[str, Any] | None
) -> dict[str, Any]:
    """All ways of restoring a picture; of one with a kept row those that ask the router."""
    from urushi.evaluation.metrics import PROTOCOLS, score
    from urushi.inference.choice import Choice
    from urushi.inference.in_turn import in_order

    auto, quick = ways
    clean = clean_picture(path)
    bad = spoilt(clean, composite.steps, path.stem)

    def of(restored: np.ndarray) -> float:
        return round(score(restored, clean, PROTOCOLS["rgb-8bit"]).psnr, 3)

    def by(*route: tuple[str, float], in_turn: bool = False) -> float:
        return of(auto.restorer(Choice(route, "", in_turn=in_turn)).restore(bad))

    one, other = in_order(composite.kinds)
    row: dict[str, Any] = dict(kept or {"picture": path.stem, "input": of(bad), "base": by()})
    if kept is None:
        row["experts"] = {name: by((name, 1.0)) for name in auto.tasks}
        row["halves"] = by((one, 0.5), (other, 0.5))
        row["in_order"] = by((one, 1.0), (other, 1.0), in_turn=True)
        row["other_way_round"] = by((other, 1.0), (one, 1.0), in_turn=True)
    row["one_look"] = of(quick.restore(bad))
    assert quick.last is not None
    chances = quick.last.decision.probabilities
    share = round(8 * chances[one] / (chances[one] + chances[other])) / 8
    mixed = [(name, weight) for name, weight in ((one, share), (other, 1 - share)) if weight]
    row["by_the_router"] = by(*mixed)
    row["two_looks"] = of(auto.restore(bad))
    assert auto.last is not None
    row["did"] = {"one_look": quick.last.reason, "two_looks": auto.last.reason}
    return row


def summed(name: str, composite: Composite, pictures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The means of a composite over its pictures, and the single expert that is best by them."""
    from urushi.inference.in_turn import in_order

    def mean(values: Sequence[float]) -> float:
        return round(float(np.mean(values)), 2)

    experts = {
        kind: mean([one["experts"][kind] for one in pictures]) for kind in pictures[0]["experts"]
    }
    best = max(experts, key=lambda kind: experts[kind])
    plain = [key for key, value in pictures[0].items() if isinstance(value, float)]
    return {
        "composite": name,
        "order": list(in_order(composite.kinds)),
        **{key: mean([one[key] for one in pictures]) for key in plain},
        "best_expert": best,
        "best": experts[best],
        "pictures": list(pictures),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown."""
    titles = {
        "input": "input", "base": "network alone", "best": "best single expert",
        "halves": "mixed by halves", "by_the_router": "mixed by the router",
        "in_order": "one after the other", "other_way_round": "the other way round",
        "one_look": "automatic, one look", "two_looks": "automatic",
    }  # fmt: skip
    lines = [f"| | {' | '.join(titles.values())} |", "|---" * (len(titles) + 1) + "|"]
    for row in rows:
        values = {key: f"{row[key]:.2f}" for key in titles}
        values["best"] += f" ({row['best_expert']})"
        lines.append(f"| {row['composite']} | {' | '.join(values.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
