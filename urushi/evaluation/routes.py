"""How well a restorer chooses: the automatic route beside the right one, a wrong one, and none.

The controls that routing needs (LoRA-IR, arXiv 2410.15385, reports none of them): what the experts
could do if the router were always right, and what it costs where it is wrong.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, computed_field
from rich.table import Table

from urushi.errors import DataError, nearest
from urushi.evaluation.benchmark import Benchmark, PictureScore, Triplet
from urushi.evaluation.confusion import confusion_matrix
from urushi.evaluation.metrics import mean_psnr, named_protocol, score
from urushi.files.router_file import CLEAN
from urushi.inference.auto import AutoRestorer
from urushi.inference.choice import Route

__all__ = ["RoutePicture", "Routes", "RoutesResult", "class_of", "routes_confusion", "routes_table"]

# What a benchmark shows, by words of its degradation's name or of its own.
_WORDS = (
    ("noise", ("noise", "denoise")),
    ("jpeg", ("jpeg",)),
    ("blur", ("blur", "deblur")),
    ("rain", ("rain_streaks", "rain_veil", "derain")),
    ("haze", ("haze", "dehaze")),
    ("snow", ("snow", "desnow")),
    ("raindrop", ("raindrop",)),
    ("low-light", ("low_light", "lowlight")),
    (CLEAN, ("clean",)),
)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", extra="ignore")


class RoutePicture(_Document):
    """One picture: what was seen, and dB and SSIM of each route.

    Attributes:
        name: of the picture.
        seen: the class it was taken for.
        sure: how sure the router was, 0 to 1.
        abstained: whether the base worked alone.
        psnr_input, psnr_base, psnr_right, psnr_automatic, psnr_wrong: in dB.
        ssim_input, ssim_base, ssim_right, ssim_automatic, ssim_wrong: structural similarity.
        wrong: the class whose expert the wrong route took.
    """

    name: str
    seen: str
    sure: float
    abstained: bool
    psnr_input: float
    psnr_base: float
    psnr_right: float
    psnr_automatic: float
    psnr_wrong: float
    ssim_input: float
    ssim_base: float
    ssim_right: float
    ssim_automatic: float
    ssim_wrong: float
    wrong: str


class RoutesResult(_Document):
    """The routes of one benchmark.

    Attributes:
        benchmark: its name.
        kind: the class that its pictures are of.
        protocol: how it was scored.
        pictures: one row each.
    """

    benchmark: str
    kind: str
    protocol: str
    pictures: tuple[RoutePicture, ...]

    @computed_field
    @property
    def means(self) -> dict[str, float]:
        """Means over the pictures, `psnr_...` and `ssim_...` as theirs."""
        found = {}
        for name in RoutePicture.model_fields:
            if name.startswith(("psnr", "ssim")):
                values = [getattr(row, name) for row in self.pictures]
                mean = mean_psnr if name.startswith("psnr") else np.mean
                found[name] = float(mean(values))
        return found

    @computed_field
    @property
    def recognised(self) -> float:
        """Share of pictures that were taken for what they are."""
        return sum(row.seen == self.kind for row in self.pictures) / len(self.pictures)


def class_of(benchmark: Benchmark, classes: Sequence[str], stated: str | None = None) -> str:
    """The class of a router that a benchmark's pictures are of.

    Args:
        benchmark: its degradation, or its name, tells.
        classes: the router's.
        stated: by a person; goes first.

    Raises:
        DataError: it cannot be told, or the router has no such class.
    """
    if stated is not None:
        if stated not in classes:
            raise DataError(
                f"the router has no class {stated!r}{nearest(stated, classes)}: expected one of "
                f"{', '.join(classes)}",
                usage=True,
            )
        return stated
    if benchmark.several:
        raise DataError(
            f"{benchmark.name} shows several kinds of damage at once: state the one whose expert "
            "is to count as right"
        )
    said = str((benchmark.degradation or {}).get("name", ""))
    for text in (said, benchmark.name.lower().replace("-", "_")):
        for kind, words in _WORDS:
            if kind in classes and any(word in text for word in words):
                return kind
    raise DataError(
        f"the degradation of {benchmark.name} does not follow from its name: state one of "
        f"{', '.join(classes)}"
    )


class Routes:
    """Called after each picture of an evaluation with a restorer that chooses; see `evaluate`.

    Args:
        restorer: the one that is evaluated.
        benchmark: what it is evaluated on.
        kind: the class of its pictures.
        protocol: used instead of the benchmark's own.

    Raises:
        DataError: fewer than two classes have experts, so none can be wrong.
    """

    def __init__(
        self,
        restorer: AutoRestorer,
        benchmark: Benchmark,
        kind: str,
        protocol: str | None = None,
    ) -> None:
        self._restorer, self._benchmark, self._kind = restorer, benchmark, kind
        self._how = named_protocol(protocol or benchmark.protocol, benchmark.crop_border)
        self._others = [name for name in restorer.tasks if name != kind]
        if not self._others:
            raise DataError(f"{kind} is the only class with an expert: no route can be wrong")
        self._rows: list[RoutePicture] = []

    def __call__(self, done: int, _total: int, row: PictureScore, pictures: Triplet) -> None:
        """Restores the picture by the other routes, and keeps the scores."""
        choice = self._restorer.last
        assert choice is not None
        assert choice.decision is not None
        assert row.psnr is not None
        assert row.ssim is not None
        wrong = self._others[(done - 1) % len(self._others)]
        right: Route = ((self._kind, 1.0),) if self._kind in self._restorer.tasks else ()
        known = {choice.route: (row.psnr, row.ssim)}

        def scored(route: Route) -> tuple[float, float]:
            if route not in known:
                restorer = self._restorer.restorer(
                    replace(choice, route=route, in_turn=False, guard=None)
                )
                found = score(restorer.restore(pictures.input), pictures.reference, self._how)
                known[route] = (found.psnr, found.ssim)
            return known[route]

        facts: dict[str, Any] = {"psnr_input": row.psnr_input, "ssim_input": row.ssim_input}
        routes: dict[str, Route] = {
            "base": (), "right": right, "automatic": choice.route, "wrong": ((wrong, 1.0),),
        }  # fmt: skip
        for name, route in routes.items():
            facts[f"psnr_{name}"], facts[f"ssim_{name}"] = scored(route)
        decision = choice.decision
        self._rows.append(
            RoutePicture(
                name=row.name,
                seen=decision.seen,
                sure=decision.probabilities[decision.seen],
                abstained=decision.abstained,
                wrong=wrong,
                **facts,
            )
        )

    def result(self) -> RoutesResult:
        """All pictures so far."""
        return RoutesResult(
            benchmark=self._benchmark.name,
            kind=self._kind,
            protocol=self._how.name,
            pictures=tuple(self._rows),
        )


def routes_confusion(
    results: Sequence[RoutesResult], classes: Sequence[str]
) -> Int[np.ndarray, "n n"]:
    """How many pictures of each class (row) were taken for each class (column)."""
    truth = [classes.index(result.kind) for result in results for _ in result.pictures]
    seen = [classes.index(row.seen) for result in results for row in result.pictures]
    return confusion_matrix(np.array(truth, int), np.array(seen, int), len(classes))


def routes_table(results: Sequence[RoutesResult]) -> Table:
    """A row for each benchmark: what was seen, and dB of every route."""
    table = Table(title="Routes, mean dB", title_justify="left")
    for column in ("benchmark", "is", "recognised", "left to the base"):
        table.add_column(column)
    routes = ("input", "base", "right", "automatic", "wrong")
    for name in routes:
        table.add_column(name, justify="right")
    for result in results:
        alone = sum(row.abstained for row in result.pictures)
        table.add_row(
            result.benchmark,
            result.kind,
            f"{100 * result.recognised:.0f} % of {len(result.pictures)}",
            str(alone),
            *(f"{result.means[f'psnr_{name}']:.2f}" for name in routes),
        )
    return table
