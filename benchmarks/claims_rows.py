"""Which claims of the papers are tried, and the rows of comparisons that they are judged by.

`claims.py` writes what they say; the rows lie in `results/claims`, one file for each comparison.
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "BEST",
    "CLAIMS",
    "LEAST_SEEDS",
    "MEAN",
    "RESULTS",
    "Claim",
    "Contrast",
    "Table",
    "collect",
    "load",
]

RESULTS = Path(__file__).resolve().parent / "results" / "claims"
MEAN = "mean"
BEST = "best single expert"
LEAST_SEEDS = 3
"""Of fewer nothing is said: their spread is hardly known."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Contrast:
    """Two rows that a claim sets beside one another.

    Attributes:
        better: what the claim says is better: a label, or `BASE: LABEL`.
        than: than this.
        on: tasks whose mean is compared; empty for all that the mean of the comparison is of.
        pairs: at that many; None at the most there are.
    """

    better: str
    than: str
    on: tuple[str, ...] = ()
    pairs: int | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and the rows it is judged by.

    Attributes:
        name: of the plot.
        title: heading.
        says: what the paper claims, and how it is tried here.
        comparison: of `urushi compare`, without `claim-`.
        contrasts: what is set beside what.
        decisive: so many of them, the first, are the claim itself: all have to hold.
        labels: rows that are shown; empty for all.
        curve: the plot is one by the number of pairs.
        parts: tasks that are shown; empty for those of the mean.
    """

    name: str
    title: str
    says: str
    comparison: str
    contrasts: tuple[Contrast, ...]
    decisive: int = 1
    labels: tuple[str, ...] = ()
    curve: bool = False
    parts: tuple[str, ...] = ()


SINGLE = ("low light", "low resolution")
MIXED = ("low resolution and noise", "low resolution and JPEG")
COMPOSITES = ("low light and rain", "haze and snow")

CLAIMS = (
    Claim(
        "guidance",
        "Guidance helps (LoRA-IR)",
        "A base whose stages are gated by the degradation vector of a router restores several "
        "degradations better than the same base without gates. The control: the same gates, given "
        "a vector of zeros, which have all the parameters and none of the information.",
        "experts",
        (
            Contrast("guided base", "full"),
            Contrast("guided base", "guided base, constant"),
            Contrast("gates", "gates, constant"),
        ),
        2,
        ("frozen", "gates", "gates, constant", "full", "guided base", "guided base, constant"),
    ),
    Claim(
        "routed-experts",
        "Routed experts help (LoRA-IR)",
        "Low-rank experts, one of which a router gives to each picture, do better than the base "
        "trained on (a), one shared LoRA of as many parameters (b), random routing (d) and the "
        "router that sees the whole picture alone (f); the right expert by label (c) is what "
        "routing could reach, and k = 2 and k = 4 mix several (e).",
        "experts",
        (
            Contrast("experts k=1", "one shared LoRA"),
            Contrast("experts k=1", "full"),
            Contrast("experts k=1", "random"),
            Contrast("oracle", "experts k=1"),
            Contrast("k=2", "experts k=1"),
            Contrast("k=4", "experts k=1"),
            Contrast("experts k=1", "whole view"),
        ),
        3,
        (
            "frozen",
            "full",
            "one shared LoRA",
            "experts k=1",
            "oracle",
            "random",
            "k=2",
            "k=4",
            "whole view",
        ),
    ),
    Claim(
        "budget",
        "A budget by contribution beats an even one (CoLoRA)",
        "The same number of parameters, given to layers by their measured contribution, does "
        "better than ranks that are the same everywhere, and than the reverse, most to the layers "
        "that contribute least. The contributions were measured on training pairs of rain and "
        "noise; low light and haze are tasks that they do not know.",
        "ranks",
        (
            Contrast("by contribution", "even"),
            Contrast("by contribution", "inverted"),
            Contrast("by contribution", "LoRA 4"),
        ),
        2,
        ("frozen", "by contribution", "even", "inverted", "LoRA 4", "full"),
    ),
    Claim(
        "adaptir-mixed",
        "AdaptIR beats homogeneous adapters, most on mixed degradations (AdaptIR)",
        "A local, a frequency and a channel branch together do better than a homogeneous adapter "
        "of as many parameters, and the lead is greatest where degradations are mixed.",
        "adaptir",
        (
            Contrast("AdaptIR", "AdaptFormer", MIXED),
            Contrast("AdaptIR", "LoRA", MIXED),
            Contrast("AdaptIR", "AdaptFormer", SINGLE),
            Contrast("AdaptIR", "LoRA", SINGLE),
        ),
        2,
        ("frozen", "AdaptIR", "AdaptFormer", "LoRA", "full"),
    ),
    Claim(
        "adaptir-branches",
        "Each branch of AdaptIR is needed (AdaptIR)",
        "Without any one of its branches AdaptIR does worse, at as many parameters.",
        "adaptir",
        (
            Contrast("AdaptIR", "without local"),
            Contrast("AdaptIR", "without frequency"),
            Contrast("AdaptIR", "without channel"),
        ),
        3,
        ("frozen", "AdaptIR", "without local", "without frequency", "without channel"),
    ),
    Claim(
        "prod",
        "Random orders of degradations are the better pre-training (CoLoRA + PROD)",
        "Fine-tuned whole on few pairs, a base that was pre-trained with degradations in random "
        "order (PROD) does better than one of single degradations, of all of them in a fixed "
        "order, or of random weights.",
        "prod",
        (
            Contrast("PROD: full", "random: full"),
            Contrast("PROD: full", "single: full"),
            Contrast("PROD: full", "fixed: full"),
        ),
        3,
        curve=True,
    ),
    Claim(
        "tuning",
        "CoLoRA comes near full fine-tuning, and beats LoRA and the decoder alone (CoLoRA)",
        "After PROD, CoLoRA does better than LoRA of as many parameters and than training the "
        "decoder alone, and nearly as well as full fine-tuning, at 16 to 128 pairs.",
        "tuning",
        (
            Contrast("CoLoRA", "LoRA"),
            Contrast("CoLoRA", "only decoder"),
            Contrast("full", "CoLoRA"),
        ),
        2,
        curve=True,
    ),
    Claim(
        "ranks",
        "Small ranks do better than large ones (ABAIR)",
        "LoRA of rank 4 does better than LoRA of rank 16, which has four times its parameters.",
        "ranks",
        (Contrast("LoRA 4", "LoRA 16"), Contrast("LoRA 1", "LoRA 16")),
        1,
        ("frozen", "LoRA 1", "LoRA 2", "LoRA 4", "LoRA 8", "LoRA 16", "full"),
    ),
    Claim(
        "composition",
        "Budgeted, routed, heterogeneous experts do better than LoRA-IR's (ours)",
        "CoLoRA experts did best on low light and AdaptIR's on rain "
        "([experts](../benchmarks/results/experts-cpu/comparison.md), the shipped base, one seed). "
        "So composed are CoLoRA experts for what changes tones (low light, haze) and AdaptIR's for "
        "what lies over a picture (rain, snow), and set beside LoRA experts and one shared LoRA of "
        "as many parameters. What counts are haze and snow, which nothing was chosen by.",
        "composition",
        (
            Contrast("composed", "LoRA experts", ("haze", "snow")),
            Contrast("composed", "one shared LoRA", ("haze", "snow")),
            Contrast("composed", "LoRA experts"),
            Contrast("composed", "one shared LoRA"),
            Contrast("LoRA experts", "one shared LoRA"),
        ),
        2,
    ),
    Claim(
        "soft-mixing",
        "Soft mixing beats the single best expert on composites (ABAIR)",
        "On pictures with two degradations both experts in equal parts, or as the router weighs "
        "them, do better than the best one of them, which is chosen knowing the result.",
        "composition",
        tuple(
            Contrast(f"{label}, {way}", f"{label}, {BEST}", COMPOSITES)
            for label, way in (
                ("LoRA experts", "both"),
                ("LoRA experts, k=2", "both"),
                ("LoRA experts, k=2", "routed"),
                ("composed", "both"),
            )
        ),
        parts=COMPOSITES,
    ),
)


# --- rows ---


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
        "machines": sorted({f"{result.device}, torch {result.torch}" for result in results}),
        "rows": rows,
    }


def _cells(name: str, seeds: Iterable[int], data: Path, folder: Path) -> tuple[list[Any], int]:
    """Finished cells, and how many are planned; a seed whose routers are missing has none."""
    from urushi.errors import UrushiError
    from urushi.training.compare.description import load_comparison
    from urushi.training.compare.grid import stored
    from urushi.training.compare.plan import make_plan

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
        singles: dict[tuple[str, str, int | None, int | None], list[float]] = {}
        for row in rows:
            label = f"{row['base']}: {row['label']}" if self._several else row["label"]
            task, way = row["task"], ""
            if task not in self.mean_of and ", " in task:
                task, way = task.split(", ", 1)
            if way in ("", "routed", "both"):
                self._put(f"{label}, {way}" if way else label, task, row)
                continue
            # The best one is chosen anew for each composite and seed, by its mean there.
            place = (f"{label}, {BEST}", task, row["pairs"], row["seed"])
            singles.setdefault(place, []).append(row["psnr"])
            self.parameters[place[0]] = row["parameters"]
        self._found |= {place: max(values) for place, values in singles.items()}
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
        shared: dict[str, int] = {}
        for task in contrast.on or self.mean_of:
            one, other = (
                self.per_seed(label, (task,), contrast.pairs)
                for label in (contrast.better, contrast.than)
            )
            shared[task] = len(one.keys() & other.keys()) if set(other) != {None} else len(one)
        wanted = min(LEAST_SEEDS, max(shared.values()))
        return [task for task, count in shared.items() if count >= wanted > 0]

    def differences(self, contrast: Contrast) -> list[float]:
        """What the first is better by, in dB, of each seed that has both."""
        tasks = self.compared_on(contrast)
        if not tasks:
            return []
        one = self.per_seed(contrast.better, tasks, contrast.pairs)
        other = self.per_seed(contrast.than, tasks, contrast.pairs)
        if set(other) == {None}:
            return [value - other[None] for value in one.values()]
        return [one[seed] - other[seed] for seed in one if seed in other]


def load() -> dict[str, Table]:
    """The committed rows by the name of their comparison."""
    return {
        path.stem: Table(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(RESULTS.glob("*.json"))
    }
