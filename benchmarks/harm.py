"""What the automatic route does to graphics, clean and damaged, with the last guard and without.

    python benchmarks/harm.py [--seeds 8] [--data DATA] [--quick] [--threads 1] [--name harm]

Draws pages, screens, charts, maps, codes, comics, cloth, stars and patterns (`harm_graphics.py`,
and the kinds of `urushi.data.synthetic_pages` with seeds of no training), with `--data` adds those
pictures of CID22 that are plain over more than a tenth, and damages each in one of several ways.
Every picture is chosen for and restored three ways: as `urushi restore` does, without the guard,
and by the base alone. PSNR in dB is against the clean graphic, over all channels; a clean one
should come back at 45 dB or more, and a damaged one nearer to it than it was.

With `--guard` no network runs: of each clean graphic and of each damaged one it is told what the
guard says, whichever expert, or the base alone, were about to act (`results/NAME-guard.json`).

Rows are appended to `results/NAME.jsonl` as they are made, so that a run that was stopped goes on;
`--again` begins anew. The last part writes `results/NAME.json` and prints the table by kind.
"""

import argparse
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harm_graphics import KINDS, draw
from measuring import RESULTS, write_report
from PIL import Image, ImageFilter

PACKAGES = ("openvino", "numpy", "pillow")
DAMAGES = ("noise", "jpeg", "camera", "twice", "noise", "jpeg", "blur")
LEFT_ALONE = 45.0
# Differences below this are rounding.
WORSE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description="What is done to graphics.")
    parser.add_argument("--seeds", type=int, default=8, help="graphics of each kind")
    parser.add_argument("--kinds", nargs="+", help="only these")
    parser.add_argument("--data", type=Path, help="folder of the data sets, for CID22's graphics")
    parser.add_argument("--quick", action="store_true", help="choose by a look, trying no expert")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--name", default="harm", help="of the files of results")
    parser.add_argument("--guard", action="store_true", help="what the guard says alone, quickly")
    parser.add_argument("--again", action="store_true", help="begin anew")
    options = parser.parse_args()
    if options.guard:
        print(whichever_acts(options))
        return
    kept = RESULTS / f"{options.name}.jsonl"
    if options.again:
        kept.unlink(missing_ok=True)
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    rows = [json.loads(line) for line in lines]
    measure = Measure(options.threads, options.quick)
    done = {(row["picture"], row["damage"] != "none") for row in rows}
    for damaged in (False, True):
        for name, kind, clean in graphics(options):
            if (name, damaged) in done:
                continue
            before, target, damage = spoilt(clean, name) if damaged else (clean, clean, "none")
            row = {"picture": name, "kind": kind, "damage": damage, **measure(before, target)}
            rows.append(row)
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            found = f"{row['before']} -> {row['guarded']}, {row['reason']}"
            print(f"{name} {damage}: {found}", flush=True)
    facts = {"what": "graphics, clean and damaged", "quick": options.quick}
    write_report(options.name, facts, PACKAGES, rows)
    kept.unlink(missing_ok=True)
    print(table(rows))


def graphics(options: argparse.Namespace) -> Iterator[tuple[str, str, np.ndarray]]:
    """Names, kinds and pixels of clean graphics."""
    from urushi.data.synthetic_pages import PAGE_KINDS, draw_page, installed_fonts

    fonts = installed_fonts()
    kinds = [*KINDS, *(f"page-{kind}" for kind in PAGE_KINDS)]
    for seed in range(options.seeds):
        for kind in kinds:
            if options.kinds and kind not in options.kinds:
                continue
            if kind in KINDS:
                yield f"{kind}-{seed}", kind, draw(kind, seed, fonts)
            elif seed % 2 == 0:
                rng = random.Random(f"{kind} {seed}")
                sides = rng.randint(200, 700), rng.randint(200, 700)
                pixels = draw_page(kind.removeprefix("page-"), *sides, 777_000 + seed, fonts)
                yield f"{kind}-{seed}", kind, pixels
    if options.data is not None and (not options.kinds or "cid22" in options.kinds):
        yield from plain_ones(options.data / "clean" / "cid22")


def whichever_acts(options: argparse.Namespace) -> str:
    """What the guard says of each graphic, for all experts and the base; writes it, and counts."""
    from urushi.inference.guard.damage import KNOWN, judged
    from urushi.inference.guard.signs import signs_of

    routes = [(), *((name,) for name in sorted(KNOWN))]
    rows = []
    for name, kind, clean in graphics(options):
        for damaged in (False, True):
            before, _, damage = spoilt(clean, name) if damaged else (clean, clean, "none")
            watcher = signs_of(before.astype(np.float32) / 255)
            row: dict[str, Any] = {"picture": name, "kind": kind, "damage": damage}
            for route in routes:
                verdict = judged(route, watcher)
                stopped = verdict.guard is not None and verdict.guard.strength == 0
                held = verdict.guard is not None and not stopped
                said = "stopped" if stopped else "withheld" if verdict.withheld else ""
                row[route[0] if route else "base"] = said or ("held" if held else "free")
            rows.append(row)
    write_report(f"{options.name}-guard", {"what": "what the guard says"}, ("numpy",), rows)
    ways = [route[0] if route else "base" for route in routes]
    lines = [f"| kind | {' | '.join(ways)} |", "|" + "---|" * (len(ways) + 1)]
    for kind in [*dict.fromkeys(row["kind"] for row in rows), "all"]:
        for damaged in (False, True):
            own = [r for r in rows if kind in (r["kind"], "all")]
            own = [r for r in own if (r["damage"] != "none") == damaged]
            cells = []
            for way in ways:
                said = [row[way] for row in own]
                held = said.count("withheld") + said.count("held")
                cells.append(f"{said.count('stopped')}+{held}")
            what = "damaged" if damaged else "clean"
            lines.append(f"| {kind}, {len(own)} {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plain_ones(folder: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Pictures of a folder that are exactly plain over more than a tenth."""
    from urushi.inference.guard.signs import signs_of

    for path in sorted(folder.iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        signs = signs_of(pixels.astype(np.float32) / 255).signs()
        if signs is not None and signs.flat > 0.1:
            yield f"cid22-{path.stem}", "cid22", pixels


def spoilt(clean: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """A damaged graphic, the clean one cut alike, and what was done."""
    rng = random.Random(f"spoilt {name}")
    draws = np.random.default_rng(rng.getrandbits(32))
    way = rng.choice(DAMAGES)
    if way == "noise":
        sigma, grey = rng.choice((5, 10, 15, 20, 30)), rng.random() < 0.3
        noise = draws.normal(0, sigma, (*clean.shape[:2], 1 if grey else 3))
        return _coded(clean + noise), clean, f"noise {sigma}{' grey' if grey else ''}"
    if way == "camera":
        gain, read = rng.choice((0.0005, 0.002, 0.006)), rng.choice((0.002, 0.006))
        light = (clean / 255) ** 2.2
        light = light + draws.normal(0, 1, clean.shape) * np.sqrt(gain * light + read**2)
        picture = Image.fromarray(_coded(255 * np.clip(light, 0, 1) ** (1 / 2.2)))
        softer = np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.choice((0, 0.4, 0.6)))))
        return _compressed(softer, rng.choice((85, 92, 97)), rng), clean, f"camera {gain}"
    if way == "jpeg":
        quality = rng.choice((10, 20, 30, 50, 70))
        return _compressed(clean, quality, rng), clean, f"jpeg {quality}"
    if way == "twice":
        one, two = rng.choice((30, 50, 70)), rng.choice((50, 75))
        down, across = rng.randint(1, 7), rng.randint(0, 7)
        first = _compressed(clean, one, rng)[down:, across:]
        second = _compressed(np.ascontiguousarray(first), two, rng)
        return second, clean[down:, across:], f"jpeg {one} and {two}"
    sigma = rng.choice((0.5, 0.7, 1.0, 1.4))
    softer = Image.fromarray(clean).filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(softer), clean, f"blur {sigma}"


def _coded(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _compressed(pixels: np.ndarray, quality: int, rng: random.Random) -> np.ndarray:
    file = io.BytesIO()
    subsampling = rng.choice((0, 2, 2))
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file).convert("RGB"))


class Measure:
    """Restores a picture in three ways.

    Args:
        threads: of the engine.
        quick: choose by a look alone.
    """

    def __init__(self, threads: int | None, quick: bool = False) -> None:
        from urushi.inference.auto import AutoRestorer

        self.auto = AutoRestorer(threads=threads, quick=quick, kept=9)

    def __call__(self, before: np.ndarray, target: np.ndarray) -> dict[str, Any]:
        """Facts of a row: dB of each way, what acted, and what the guard said."""
        from urushi.inference.choice import Choice

        choice = self.auto.choose(before)
        named = {} if choice.decision is None else choice.decision.weights
        route = tuple((n, w) for n, w in named.items() if w > 0 and n in self.auto.tasks)
        found = {"base": self.auto.restorer(Choice((), "")).restore(before)}
        found["unguarded"] = found["base"]
        if route:
            found["unguarded"] = self.auto.restorer(Choice(route, "")).restore(before)
        found["guarded"] = found["unguarded"]
        if choice.guard is not None or choice.route != route:
            found["guarded"] = self.auto.restorer(choice).restore(before)
        return {
            "size": list(before.shape[:2]),
            "expert": next((name for name, _ in route), None),
            "reason": choice.reason,
            "guard": choice.describe()["guard"],
            "before": _psnr(before, target),
            **{name: _psnr(pixels, target) for name, pixels in found.items()},
        }


def _psnr(pixels: np.ndarray, target: np.ndarray) -> float:
    """In dB; 99 for equal ones."""
    error = float(np.square(pixels.astype(np.float64) - target).mean())
    return round(min(99.0, 10 * np.log10(255**2 / max(error, 1e-9))), 2)


def table(rows: list[dict[str, Any]]) -> str:
    """Of each kind, clean: how many stay above 45 dB and the least; damaged: gain, worse, worst."""
    ways = ("base", "unguarded", "guarded")
    head = ["kind", "clean", *(f"{way}: 45 dB, least" for way in ways), "damaged"]
    head += [f"{way}: gain, worse, worst" for way in ways]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    for kind in [*kinds, "all"]:
        own = [row for row in rows if kind in (row["kind"], "all")]
        clean = [row for row in own if row["damage"] == "none"]
        spoilt_ones = [row for row in own if row["damage"] != "none"]
        cells = [kind, str(len(clean))]
        for way in ways:
            values = [row[way] for row in clean]
            good = sum(value >= LEFT_ALONE for value in values)
            cells.append(f"{good}, {min(values):.1f}" if values else "-")
        cells.append(str(len(spoilt_ones)))
        for way in ways:
            gains = [row[way] - row["before"] for row in spoilt_ones]
            worse = sum(gain < -WORSE for gain in gains)
            mean = float(np.mean(gains)) if gains else 0.0
            cells.append(f"{mean:+.2f}, {worse}, {min(gains):+.1f}" if gains else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
