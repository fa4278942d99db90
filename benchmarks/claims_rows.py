"""The rows of the claims' comparisons: collected from finished cells, and set beside one another.

`claims_list.py` has the claims, `claims.py` writes what they say; the rows lie in `results/claims`,
one file for each comparison.
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from claims_list import BEST, BEST_RATE, CLAIMS, Contrast

__all__ = ["LEAST_SEEDS", "MEAN", "RESULTS", "Table", "collect", "load"]

RESULTS = Path(__file__).resolve().parent / "results" / "claims"
MEAN = "mean"
LEAST_SEEDS = 3
"""Of fewer nothing is said: their spread is hardly known."""

Row = Mapping[str, Any]


def collect(data: Path, runs: Path) -> None:
    """Writes the rows of all comparisons that were begun."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(claim.comparison for claim in CLAIMS):
        document = _document(name, data, runs / name)
        if document["rows"]:
            text = json.dumps(document, indent=1)
            (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _document(name: str, data: Path, folder: Path) -> dict[str, Any]:
    from urushi.training.compare.description import load_comparison
    from urushi.training.compare.summary import in_parts

    settings = load_comparison(f"claim-{name}")
    cells, planned = _cells(name, settings.seeds, data, folder)
    results = [one.result for one in cells if one.result is not None]
    print(f"{name}: {len(results)} of {planned} cells")
    rows = []
    for one in [part for outcome in cells for part in in_parts(outcome)]:
        assert one.result is not None
        facts = one.cell.model_dump(include={"base", "task", "label", "pairs", "seed"})
        scores = {"psnr": round(one.result.psnr, 4), "ssim": round(one.result.ssim, 5)}
        rows.append({**facts, **scores, "parameters": one.result.trainable})
    terms = {"steps", "patch", "batch", "precision", "limit", "seeds", "pairs"}
    return {
        "comparison": f"claim-{name}",
        "command": f"urushi compare claim-{name} --data DATA -o runs/claims/{name}",
        "description": settings.description,
        "terms": settings.model_dump(mode="json", include=terms),
        "base_parameters": max((result.backbone for result in results), default=0),
        "mean_of": [part for task in settings.tasks for part in task.names],
        "planned": planned,
        "finished": len(results),
        "routers": _routers(settings),
        "machines": sorted({f"{result.device}, torch {result.torch}" for result in results}),
        "rows": rows,
    }


def _routers(settings: Any) -> dict[str, list[float]]:
    """How many of held-out pictures each router names right, by method and in order of seeds."""
    from urushi.errors import UrushiError
    from urushi.files.router_file import read_router

    found: dict[str, list[float]] = {}
    for method in settings.methods:
        if method.route is None or method.route.router is None:
            continue
        try:
            headers = [
                read_router(Path(method.route.router.format(seed=seed))).header
                for seed in settings.seeds
            ]
        except UrushiError:  # not trained yet
            continue
        scores: list[Any] = [header.scores["validation"] for header in headers]
        found[method.label or method.method] = [round(one["accuracy"], 4) for one in scores]
    return found


def _cells(name: str, seeds: Iterable[int], data: Path, folder: Path) -> tuple[list[Any], int]:
    """Finished cells, and how many are planned; a seed whose routers are missing has none."""
    from urushi.errors import UrushiError
    from urushi.training.compare.cell_plan import make_plan
    from urushi.training.compare.cell_runs import stored
    from urushi.training.compare.description import load_comparison

    found: dict[str, Any] = {}
    frozen, trained, every = 0, 0, list(seeds)
    for seed in every:
        try:
            plan = make_plan(load_comparison(f"claim-{name}", [f"seeds=[{seed}]"]), data)
        except UrushiError as reason:
            print(f"{name}, seed {seed}: {reason}")
            continue
        frozen = sum(cell.seed is None for cell in plan.cells)
        trained = len(plan.cells) - frozen
        found |= {one.cell.hash: one for one in stored(folder, plan.cells) if one.result}
    return list(found.values()), frozen + trained * len(every)


class Table:
    """The rows of one comparison, by base and label, task, number of pairs and seed."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self.mean_of: list[str] = document["mean_of"]
        rows: list[Row] = document["rows"]
        self._several = len({row["base"] for row in rows}) > 1
        self._found: dict[tuple[str, str, int | None, int | None], float] = {}
        self.parameters: dict[str, int] = {}
        chosen: dict[tuple[str, str, int | None, int | None], list[float]] = {}
        for row in rows:
            label = f"{row['base']}: {row['label']}" if self._several else row["label"]
            task, way = row["task"], ""
            if task not in self.mean_of and ", " in task:
                task, way = task.split(", ", 1)
            if way in ("", "routed", "both"):
                self._put(f"{label}, {way}" if way else label, task, row)
            best = f"{label}, {BEST}" if way not in ("", "routed", "both") else None
            if " at " in label:
                best = f"{label.split(' at ', 1)[0]}, {BEST_RATE}"
            if best is not None:
                # The best one is chosen anew for each task and seed, by its mean there.
                place = (best, task, row["pairs"], row["seed"])
                chosen.setdefault(place, []).append(row["psnr"])
                self.parameters[best] = row["parameters"]
        self._found |= {place: max(values) for place, values in chosen.items()}
        self.seeds = sorted({s for _, _, _, s in self._found if s is not None})
        self.counts = sorted({p for _, _, p, _ in self._found if p is not None})

    def _put(self, label: str, task: str, row: Row) -> None:
        self._found[label, task, row["pairs"], row["seed"]] = row["psnr"]
        self.parameters[label] = row["parameters"]

    @property
    def labels(self) -> list[str]:
        """Rows in the order of the comparison."""
        return list(dict.fromkeys(label for label, _, _, _ in self._found))

    def per_seed(
        self, label: str, tasks: Iterable[str] = (), pairs: int | None = None
    ) -> dict[int | None, float]:
        """The mean over tasks in dB, of each seed that has all of them.

        Args:
            label: of the row.
            tasks: all of the comparison's mean if there are none.
            pairs: None for the most that all of these tasks have.
        """
        wanted = list(tasks) or self.mean_of
        own = [(t, p, s) for name, t, p, s in self._found if name == label and t in wanted]
        counts = {p for _, p, _ in own}
        shared = [p for p in counts if {t for t, q, _ in own if q == p} == set(wanted)]
        if pairs is None:
            pairs = max((p for p in shared if p is not None), default=None)
        if None in shared:  # nothing is trained
            pairs = None
        found = {}
        for seed in {s for _, p, s in own if p == pairs}:
            values = [self._found.get((label, task, pairs, seed)) for task in wanted]
            if None not in values:
                found[seed] = statistics.fmean(v for v in values if v is not None)
        return dict(sorted(found.items(), key=lambda item: item[0] or 0))

    def compared_on(self, contrast: Contrast) -> list[str]:
        """The tasks that a contrast can be told on: with both rows of three seeds, if there are
        any such, which is what a verdict needs."""
        return self._shared(contrast, contrast.on or self.mean_of)

    def less_on(self, contrast: Contrast) -> list[str]:
        """The tasks whose lead is taken off, of those that it can be told on."""
        return self._shared(contrast, contrast.less)

    def _shared(self, contrast: Contrast, tasks: Iterable[str]) -> list[str]:
        shared: dict[str, int] = {}
        for task in tasks:
            one, other = (
                self.per_seed(label, (task,), contrast.pairs)
                for label in (contrast.better, contrast.than)
            )
            shared[task] = len(one.keys() & other.keys()) if set(other) != {None} else len(one)
        wanted = min(LEAST_SEEDS, max(shared.values(), default=0))
        return [task for task, count in shared.items() if count >= wanted > 0]

    def differences(self, contrast: Contrast) -> list[float]:
        """What the first is better by, in dB, of each seed that has both."""
        lead = self._lead(contrast, self.compared_on(contrast))
        if not contrast.less:
            return list(lead.values())
        there = self._lead(contrast, self.less_on(contrast))
        return [lead[seed] - there[seed] for seed in lead if seed in there]

    def by_task(self, contrast: Contrast) -> dict[str, list[float]]:
        """Differences on each task that a contrast is told on."""
        tasks = self.compared_on(contrast)
        return {task: list(self._lead(contrast, [task]).values()) for task in tasks}

    def _lead(self, contrast: Contrast, tasks: list[str]) -> dict[int | None, float]:
        if not tasks:
            return {}
        one = self.per_seed(contrast.better, tasks, contrast.pairs)
        other = self.per_seed(contrast.than, tasks, contrast.pairs)
        if set(other) == {None}:
            return {seed: value - other[None] for seed, value in one.items()}
        return {seed: one[seed] - other[seed] for seed in one if seed in other}


def load() -> dict[str, Table]:
    """The committed rows by the name of their comparison."""
    return {
        path.stem: Table(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(RESULTS.glob("*.json"))
    }
