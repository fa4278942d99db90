"""What large works cost, from the rows in `benchmarks/results`, the recipes and stated assumptions.

    python docs/costs.py            # puts the tables into docs/scaling.md

Nothing here is measured anew, and nothing is guessed: where a row is missing the table says so.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks/results"
PAGE = DOCS / "scaling.md"
BEGIN = "<!-- made by  python docs/costs.py: {} -->"
END = "<!-- until here: {} -->"

MILLION = 1_000_000
CORES = 64
"""Of the machines in the tables; that so many are as good as two is an assumption."""
CORE_HOUR = 0.04
"""An assumed price of a core for an hour."""
READS, WRITES = 5, 1
"""Requests to a store for a picture: looking for the target, twice at the source, fetching it and
looking at what was put; and putting it."""
READ_PRICE, WRITE_PRICE = 0.4e-6, 5e-6
"""Assumed prices of a request."""

# Steps of these rows: eight patches of 128 pixels.
STEP_PIXELS = 8 * 128 * 128
NOT_MEASURED = "not measured"


def main() -> None:
    """Writes the tables into the page."""
    text = PAGE.read_text("utf-8")
    PAGE.write_text(with_tables(text), "utf-8")


def with_tables(text: str) -> str:
    """The page with its tables as the rows are now."""
    tables = {"scans": scans_table(), "recipes": recipes_table(), "papers": papers_table()}
    for name, table in tables.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = text.partition(begin)
        _, mark, after = rest.partition(end)
        assert mark, f"{PAGE} has no place for the table {name}"
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def rows_of(report: str) -> list[dict[str, Any]]:
    """The rows of a report."""
    return json.loads((RESULTS / f"{report}.json").read_text("utf-8"))["rows"]


def scans_table() -> str:
    """What a million pictures of 12 megapixels take."""
    names = {
        "none": "JPEG, the network alone",
        "task": "JPEG, an expert for all",
        "automatic": "JPEG, chosen for each",
        "tiff": "TIFF of 16 bits, the network alone",
    }
    lines = [
        "| from file to file | core-seconds a picture | core-hours a million | "
        f"days on {CORES} cores | at {CORE_HOUR} an hour and core |",
        "|---|---:|---:|---:|---:|",
    ]
    for report, what in (("large", ""), ("large-avx2", ", without AVX-512")):
        for row in rows_of(report):
            if row["row"] in names:
                hours = row["cpu"] * MILLION / 3600
                lines.append(
                    f"| {names[row['row']]}{what} | {row['cpu']:.1f} | {hours:,.0f} | "
                    f"{hours / CORES / 24:.1f} | {hours * CORE_HOUR:,.0f} |"
                )
    requests = MILLION * (READS * READ_PRICE + WRITES * WRITE_PRICE)
    lines += [
        "",
        f"A store is asked {READS} times for a picture and written to {WRITES} time: "
        f"{requests:.0f} more for a million, at {READ_PRICE * MILLION:g} and "
        f"{WRITE_PRICE * MILLION:g} a million.\nAn accelerator: {NOT_MEASURED}.",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Training:
    """A training, or many alike.

    Attributes:
        recipe: what it is called.
        steps: of all its parts.
        pixels: that all its steps see.
        seconds: of a core for all of them; None where a row is missing.
        left_out: what the figures do not count.
    """

    recipe: str
    steps: int
    pixels: int
    seconds: float | None
    left_out: str = ""


def recipes_table() -> str:
    """What the recipes take in core-hours."""
    lines = [
        "| recipe | steps | megapixels seen | core-hours | not counted |",
        "|---|---:|---:|---:|---|",
    ]
    for one in trainings():
        hours = NOT_MEASURED if one.seconds is None else f"{one.seconds / 3600:,.1f}"
        lines.append(
            f"| `{one.recipe}` | {one.steps:,} | {one.pixels / 1e6:,.0f} | {hours} | "
            f"{one.left_out} |"
        )
    return "\n".join(lines)


class Steps:
    """Core-seconds of a step on the shipped base, by what is trained."""

    def __init__(self) -> None:
        self._bf16 = {
            row["name"].partition(",")[0]: row["seconds"]
            for row in reversed(rows_of("adapters"))
            if row["kind"] == "training" and "saving" not in row["name"]
        }
        (float32,) = (
            row["cpu"]
            for row in rows_of("adapt_steps")
            if (row["code"], row["variant"]) == ("now", "full")
        )
        self.float32_to_bf16 = float32 / self._bf16["full"]

    def seconds(self, method: str, precision: str, pixels: float) -> float | None:
        """Of steps that see so many pixels; None for a method without a row."""
        found = self._bf16.get(method)
        if found is None:
            return None
        slower = self.float32_to_bf16 if precision == "float32" else 1.0
        return slower * found * pixels / STEP_PIXELS


def trainings() -> Iterator[Training]:
    """The recipes of the papers' settings, and those of the files that ship."""
    from urushi.training.recipe import load_recipe

    known = Steps()
    for name in ("base-cpu", "base-cpu-long", "pretraining-prod", "base-gpu"):
        recipe = load_recipe(name)
        steps, pixels = seen(recipe.data, recipe.schedule.steps, recipe.schedule.patches)
        if name == "base-gpu":
            yield Training(name, steps, pixels, None, "its network is another one")
        else:
            seconds = known.seconds("full", recipe.precision, pixels)
            yield Training(name, steps, pixels, seconds, "validation")
    for name in ("adapters", "adapters-cpu", "experts", "pretraining"):
        yield _of_comparison(name, known)
    for name in ("all-in-one-cpu", "all-in-one-lora-ir"):
        yield _of_all_in_one(name, known)


def _of_comparison(name: str, known: Steps) -> Training:
    from urushi.training.compare.description import load_comparison

    plan = load_comparison(name)
    bases = 1 if isinstance(plan.base, str) else len(plan.base)
    of_each = bases * len(plan.tasks) * len(plan.pairs) * len(plan.seeds)
    pixels = plan.steps * plan.batch * plan.patch**2
    methods = [entry.method for entry in plan.methods if entry.method != "frozen"]
    methods += [] if "full" in methods else ["full"]
    seconds = [known.seconds(method, plan.precision, pixels) for method in methods]
    told = None if None in seconds else of_each * sum(s for s in seconds if s is not None)
    cells = of_each * len(methods)
    return Training(
        f"compare {name}",
        cells * plan.steps,
        cells * pixels,
        told,
        "measuring, and tasks with few pairs",
    )


def _of_all_in_one(name: str, known: Steps) -> Training:
    from urushi.training.all_in_one.all_in_one_recipe import load_all_in_one_recipe

    recipe = load_all_in_one_recipe(name)
    plan, steps, pixels, seconds = recipe.experts, 0, 0, 0.0
    if plan.mode == "joint":
        steps, pixels = seen(recipe.data, plan.steps, [])
        found = known.seconds(plan.adapter["method"], recipe.precision, pixels)
        seconds += found or 0.0
    for own in recipe.classes.values() if plan.mode == "separate" else ():
        if own.degradation is None and not own.pairs:
            continue
        method = (own.adapter or plan.adapter)["method"]
        place = recipe.data.model_copy(
            update={k: v for k in ("patch", "batch") if (v := getattr(own, k)) is not None}
        )
        n, of_class = seen(place, own.steps or plan.steps, own.patches)
        steps, pixels = steps + n, pixels + of_class
        seconds += known.seconds(method, recipe.precision, of_class) or 0.0
    if recipe.guided.mode == "full":
        n, guided = seen(recipe.data, recipe.guided.steps, [])
        steps, pixels = steps + n, pixels + guided
        seconds += known.seconds("full", recipe.precision, guided) or 0.0
    return Training(name, steps, pixels, seconds, "router, guidance and evidence")


# Tables of recipes, the rows of each that train one network, and what `networks` calls that.
PAPERS = (
    ("adaptir", "ipt.", "ipt-denoise"),
    ("adaptir", "edt.", "edt-b-denoise"),
    ("colora-pretraining", "nafnet.", "nafnet-32"),
    ("colora-pretraining", "restormer.", "restormer"),
    ("lora-ir", "", "nafnet-64"),
)
FORWARD_SIZE = 256
"""Side in pixels of the pictures by which networks are compared."""


def papers_table() -> str:
    """What the recipes of the papers' tables take in core-hours."""
    lines = [
        "| recipes | network | rows | steps of a row | core-hours of a row | of all "
        "| not counted |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    forward = forward_seconds()
    for paper, beginning, network in PAPERS:
        rows = list(_rows_of_paper(paper, beginning))
        slower = forward[network] / forward["base"] if network in forward else None
        known = [one.seconds * slower / 3600 for one in rows if slower and one.seconds is not None]
        missing = [one.recipe for one in rows if one.seconds is None]
        told = [f"{_span(known, ',.0f')} | {sum(known):,.0f}" if known else f"{NOT_MEASURED} | "]
        left_out = [rows[0].left_out]
        if missing and known:
            methods = dict.fromkeys(name.split(".")[1] for name in missing)
            left_out.append(f"{len(missing)} rows of {', '.join(methods)}")
        lines.append(
            f"| `{paper}:{beginning}*` | {network} | {len(rows)} | "
            f"{_span([one.steps for one in rows], ',')} | {told[0]} | {'; '.join(left_out)} |"
        )
    return "\n".join(lines)


def forward_seconds() -> dict[str, float]:
    """Seconds of a pixel through each network in torch, on the machine of the base's row."""
    found: dict[str, float] = {}
    for report in ("networks", "networks-ipt", "networks-lora-ir"):
        here = {
            row["network"]: row["milliseconds"] / 1000 / _filled(row) ** 2
            for row in rows_of(report)
            if (row["engine"], row["size"]) == ("torch", FORWARD_SIZE)
        }
        # A report with a base of its own may be of another hour, and is seen relative to that.
        scale = found["base"] / here["base"] if found and "base" in here else 1.0
        found |= {name: scale * seconds for name, seconds in here.items() if name not in found}
    return found


def _filled(row: dict[str, Any]) -> int:
    """Side of a picture once it is filled up to the multiples that the network asks for."""
    return -(-row["size"] // row["size_multiple"]) * row["size_multiple"]


def _rows_of_paper(paper: str, beginning: str) -> Iterator[Training]:
    """Each training of a table, as if its network were the shipped base."""
    from urushi.errors import RecipeError
    from urushi.settings import rows_of as names_in
    from urushi.training.recipe import PAPERS as FOLDER
    from urushi.training.recipe import load_recipe, recipe_kind

    known = Steps()
    rows = [n for n in names_in(FOLDER / f"{paper}.yaml", RecipeError) if n.startswith(beginning)]
    all_in_one = recipe_kind(f"{paper}:{rows[0]}") == "all-in-one"
    for row in rows:
        if all_in_one:
            yield _of_all_in_one(f"{paper}:{row}", known)
            continue
        recipe = load_recipe(f"{paper}:{row}")
        steps, pixels = seen(recipe.data, recipe.schedule.steps, recipe.schedule.patches)
        method = "full" if recipe.adapter is None else recipe.adapter["method"]
        seconds = known.seconds(method, recipe.precision, pixels)
        yield Training(row, steps, pixels, seconds, "validation")


def _span(values: Sequence[float], form: str) -> str:
    least, most = format(min(values), form), format(max(values), form)
    return least if least == most else f"{least} to {most}"


def seen(patch: Any, steps: int, stages: Sequence[Any]) -> tuple[int, int]:
    """Steps of a training and the pixels that they see."""
    begins = [(1, patch.batch * patch.patch**2)]
    begins += [(stage.from_step, stage.batch * stage.patch**2) for stage in stages]
    ends = [min(begin - 1, steps) for begin, _ in begins[1:]] + [steps]
    spans = zip(begins, ends, strict=True)
    return steps, sum(max(0, end - begin + 1) * pixels for (begin, pixels), end in spans)


if __name__ == "__main__":
    main()
