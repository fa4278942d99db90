"""The card of every expert that ships, from its file and from the rows of `urushi evaluate`.

    python benchmarks/cards.py benchmarks/results/routes-*.json

Those of `film` and `fading`, which no router knows, are made from results/NAME.json. What only a
person can say stands in `cards.yaml` beside this file. Cards are written to `urushi/zoo/NAME.md`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from urushi.evaluation.routes import RoutePicture, RoutesResult
from urushi.files.adapter import describe_adapter, read_adapter_header
from urushi.inference.zoo import ZOO, zoo_experts

NOTES = Path(__file__).with_name("cards.yaml")
RESULTS = Path(__file__).with_name("results")
ROUTES = ("input", "base", "right", "automatic", "wrong")


def main() -> None:
    parser = argparse.ArgumentParser(description="The cards of the experts.")
    parser.add_argument("files", nargs="+", type=Path, help="of urushi evaluate --json")
    results = [
        RoutesResult.model_validate(row)
        for path in parser.parse_args().files
        for row in json.loads(path.read_text(encoding="utf-8"))["routes"]
    ]
    notes = yaml.safe_load(NOTES.read_text(encoding="utf-8"))
    for name in zoo_experts():
        by_name = {"film": film_card, "fading": fading_card}.get(name)
        text = by_name(notes[name]) if by_name else card(name, results, notes[name])
        (ZOO / f"{name}.md").write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.splitlines())} lines")


def card(name: str, results: list[RoutesResult], note: str) -> str:
    path = ZOO / f"{name}.safetensors"
    parts = [
        f"# {name}",
        f"The expert for {name.replace('-', ' ')} of [all-in-one](all-in-one.md), an adapter on "
        "the frozen [base](base.md).",
        facts(path),
        note.strip(),
        "## Use\n```\n"
        f"urushi restore photo.jpg --task {name}\n"
        f"urushi restore photo.jpg --adapter {name}:0.7       # weaker\n```",
        "## Scores\nPSNR in dB, means over the pictures: of the input, of the base alone, of this "
        "expert (right), of what the router chose (automatic), and of an expert for something "
        "else (wrong). Which pictures these are, and what they were looked at for, is said in "
        "[all-in-one](all-in-one.md).",
        own_scores(name, results),
        "On pictures of other kinds, where a wrong route took this expert:",
        other_scores(name, results),
        "Made by `python benchmarks/cards.py`.",
    ]
    return "\n\n".join(parts) + "\n"


def film_card(note: str) -> str:
    report = json.loads((RESULTS / "film.json").read_text(encoding="utf-8"))
    shares = ("share", "closer", "surely")
    limit = "" if report["limit"] is None else f" --limit {report['limit']}"
    names = {
        "share": "damaged", "psnr_input": "input", "psnr_base": "base", "psnr_film": "this expert",
        "closer_base": "closer, base", "closer_film": "closer",
        "surely_film": "by more than 3 levels", "outside_base": "outside, base",
        "outside_film": "outside", "clean_film": "clean pictures",
    }  # fmt: skip
    lines = ["| marks | halves | " + " | ".join(names.values()) + " |"]
    lines.append("|---|---|" + "---|" * len(names))
    for row in report["rows"]:
        cells = [
            f"{100 * row[key]:.1f} %" if key.startswith(shares) else f"{row[key]:.2f}"
            for key in names
        ]
        lines.append(f"| {row['kind']} | {row['halves']} | " + " | ".join(cells) + " |")
    parts = [
        "# film",
        "For scans of film and old prints: takes hairs, scratches, specks and cracks away. "
        "An adapter on the frozen [base](base.md). No router knows it: it is asked for by its "
        "name.",
        facts(ZOO / "film.safetensors"),
        note.strip(),
        "## Use\n```\n"
        "urushi restore scans/ -o mended/ --adapter film\n"
        "urushi restore scan.tif --adapter film:0.7       # weaker\n```",
        "## Scores\nOverlays of real film (FilmDamageSimulator, of which nothing was learned), "
        "white and black, each over a half of a clean picture that nothing learned from "
        f"({report['rows'][0]['halves'] // 2} of Kodak24 and of a validation set): PSNR in dB of "
        "the whole half; the share of damaged pixels that came closer to the truth; PSNR of the "
        "pixels that were not damaged, and of the clean picture, to themselves.",
        "\n".join(lines),
        f"Made by `python benchmarks/film.py --data DATA{limit}` and `python benchmarks/cards.py`.",
    ]
    return "\n\n".join(parts) + "\n"


def fading_card(note: str) -> str:
    report = json.loads((RESULTS / "fading.json").read_text(encoding="utf-8"))
    names = {
        "psnr_input": "input", "psnr_stretched": "stretched",
        "psnr_densities": "stretched in densities", "psnr_expert": "this expert",
        "clean_expert": "clean pictures",
    }  # fmt: skip
    lines = ["| Kodak24 at | pictures | " + " | ".join(names.values()) + " | ahead of densities |"]
    lines.append("|---|---|" + "---|" * (len(names) + 1))
    for row in report["rows"]:
        cells = [f"{row[key]:.2f}" for key in names]
        cells.append(f"{100 * row['ahead_of_densities']:.0f} %")
        lines.append(f"| {row['kind']} | {row['pictures']} | " + " | ".join(cells) + " |")
    parts = [
        "# fading",
        "For scans of faded colour prints and slides: gives contrast and colours back. An adapter "
        "on the frozen [base](base.md). No router knows it: it is asked for by its name.",
        facts(ZOO / "fading.safetensors"),
        note.strip(),
        "## Use\n```\n"
        "urushi restore scans/ -o mended/ --adapter fading\n"
        "urushi restore scan.tif --adapter fading:0.6       # weaker\n```",
        "## Scores\nPictures of Kodak24, of which nothing was learned, faded by formula: PSNR in "
        "dB. Beside the expert: each channel stretched between its half and 99.5 percentiles, in "
        "display values and in densities; and the clean pictures after the expert, to themselves.",
        "\n".join(lines),
        "Made by `python benchmarks/fading.py measure --data DATA` and "
        "`python benchmarks/cards.py`.",
    ]
    return "\n\n".join(parts) + "\n"


def facts(path: Path) -> str:
    header, told = read_adapter_header(path), describe_adapter(path)
    recipe: dict[str, Any] = header.recipe or {}
    if recipe["classes"]:
        (source,) = recipe["classes"].values()
        named = f"the class `{path.stem}` of [`all-in-one-cpu`](../recipes/all-in-one-cpu.yaml)"
    else:
        source = {**recipe, "pairs": []}
        named = f"[`{recipe['name']}`](../recipes/{recipe['name']}.yaml)"
    batch = recipe["data"]["batch"]
    stages = [f"{batch} {'patch' if batch == 1 else 'patches'} of {recipe['data']['patch']}"]
    stages += [
        f"from step {stage['from_step']} on {stage['batch']} of {stage['patch']}"
        for stage in recipe["schedule"]["patches"]
    ]
    learned = []
    if source["degradation"] is not None:
        learned.append(f"damage made by `{inline(source['degradation'])}`")
        if source.get("scene") is not None and not recipe["classes"]:
            learned[-1] += f" over pictures made by `{inline(source['scene'])}`"
    if source["pairs"]:
        share = source["real"] if source["degradation"] is not None else 1
        varied = ", in other haze" if source.get("rehaze") is not None else ""
        varied += (
            ", in lighter rain and over other scenes" if source.get("rerain") is not None else ""
        )
        varied += ", levelled" if source.get("level") else ""
        pairs = ", ".join(source["pairs"])
        learned.append(f"pairs of `{pairs}` in {100 * share:.0f} % of the patches{varied}")
    loss = {name: value for name, value in recipe["loss"].items() if value}
    rows = {
        "file": f"`{path.name}`, {told['size'] / 1e6:.1f} MB, {' and '.join(told['storage'])}",
        "method": f"{header.method}, {told['parameters']:,} parameters",
        "recipe": named,
        "learned from": "; ".join(learned),
        "training": f"{recipe['schedule']['steps']:,} steps, {', '.join(stages)}, "
        f"loss `{inline(loss)}`, {recipe['precision']}",
        "data": header.data,
        "licence": header.licence,
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {key} | {value} |" for key, value in rows.items())


def inline(content: Any) -> str:
    text = yaml.safe_dump(content, default_flow_style=True, width=10**6, sort_keys=False)
    return text.strip().removesuffix("...").strip()


def own_scores(name: str, results: list[RoutesResult]) -> str:
    lines = ["| benchmark | pictures | " + " | ".join(ROUTES) + " | SSIM, base | SSIM, right |"]
    lines.append("|---|---|" + "---|" * (len(ROUTES) + 2))
    for result in results:
        if result.kind == name:
            means = result.means
            cells = [f"{means[f'psnr_{route}']:.2f}" for route in ROUTES]
            cells += [f"{means[f'ssim_{route}']:.4f}" for route in ("base", "right")]
            lines.append(
                f"| {result.benchmark} | {len(result.pictures)} | " + " | ".join(cells) + " |"
            )
    return "\n".join(lines)


def other_scores(name: str, results: list[RoutesResult]) -> str:
    lines = ["| pictures of | pictures | base | this expert |", "|---|---|---|---|"]
    found: dict[str, list[RoutePicture]] = {}
    for result in results:
        own = [row for row in result.pictures if row.wrong == name]
        found.setdefault(result.kind, []).extend(own)
    for kind, rows in found.items():
        if rows:
            base, here = (
                sum(getattr(row, f"psnr_{route}") for row in rows) / len(rows)
                for route in ("base", "wrong")
            )
            lines.append(f"| {kind} | {len(rows)} | {base:.2f} | {here:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
