"""What experts would change in a picture, as evidence of what is wrong with it.

An expert has learnt to take one kind of damage away, and to leave alone what is none. So before it
is decided the experts are tried on a few views of the picture, and what each would change beyond
the base is described by a few statistics: streaks that the rain expert takes away are streaks. The
head of a router knows what a picture is like, this what could be done about it, and both together
know more pictures than either (docs/log.md). On arrays, without torch; the idea is ours.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from urushi.files.router_file import EvidenceFacts, ViewGeometry
from urushi.routing.head import Reading
from urushi.routing.views import Look

__all__ = [
    "Changes",
    "Evidence",
    "EvidenceEngine",
    "TrialViews",
    "describe_change",
    "describe_trials",
    "evidence_looks",
    "judged",
    "pool_scales",
    "standardise",
    "trial_views",
]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
_FLOOR = 1e-6  # of energies: a quarter of a step of 8 bits, so that rounding says nothing
_BOX = 9  # pixels over which a change counts as slow
_QUANTILES = (0.005, 0.05, 0.5, 0.95, 0.995)
_SMALL, _LARGE = 0.03, 0.1
_FARTHEST = 5.0


def describe_change(
    change: Float[np.ndarray, "3 s s"], reference: Float[np.ndarray, "3 s s"]
) -> Float[np.ndarray, " 23"]:
    """Statistics of what was taken away from a view.

    Mean of each colour; logarithms of the energies of slow changes, of detail and of colour;
    skewness and kurtosis of the detail; the shares of its gradients in four directions and how far
    these lie apart; quantiles of the change of luma; how detail and slow changes correlate with
    those of the reference; the energy of detail relative to the reference's; how much of the view
    changes by more than 0.03 and 0.1.

    Args:
        change: input minus output, in pixel values of [0, 1].
        reference: what it was taken away from.
    """
    luma, against = (change * _LUMA).sum(0), (reference * _LUMA).sum(0)
    slow, slow_against = _boxed(luma), _boxed(against)
    detail, own = luma - slow, against - slow_against
    energy, own_energy = _energy(detail), _energy(own)
    directions = [
        _energy(np.diff(detail, axis=1)),
        _energy(np.diff(detail, axis=0)),
        _energy(detail[1:, 1:] - detail[:-1, :-1]),
        _energy(detail[1:, :-1] - detail[:-1, 1:]),
    ]
    size = np.abs(luma)
    numbers = [
        *change.mean((1, 2)),
        _log(float(slow.var())),
        _log(energy),
        _log(_energy(change - luma)),
        np.arcsinh(np.clip((detail**3).mean() / (energy + _FLOOR) ** 1.5, -20, 20)),
        np.log1p(np.clip((detail**4).mean() / (energy + _FLOOR) ** 2, 0, 500)),
        *(_log(one) - _log(energy) for one in directions),
        _log(max(directions)) - _log(min(directions)),
        *np.quantile(luma, _QUANTILES),
        (detail * own).mean() / np.sqrt((energy + _FLOOR) * (own_energy + _FLOOR)),
        _correlation(slow, slow_against),
        _log(energy) - _log(own_energy),
        (size > _SMALL).mean(),
        (size > _LARGE).mean(),
    ]
    return np.array(numbers, np.float32)


class TrialViews(NamedTuple):
    """Views that experts are tried on.

    Attributes:
        views: in [0, 1].
        scales: of each view, its place in the facts' scales.
    """

    views: Float[np.ndarray, "v 3 s s"]
    scales: tuple[int, ...]


@runtime_checkable
class EvidenceEngine(Protocol):
    """Runs a base and its experts on views."""

    def restore(self, view: Float[np.ndarray, "1 3 s s"]) -> Float[np.ndarray, "e 3 s s"]:
        """What the base makes of a view, and then what each expert makes of it.

        Raises:
            EngineError: an engine failed.
        """
        ...


class Evidence(NamedTuple):
    """What is needed to take evidence from a picture.

    Attributes:
        facts: what is tried.
        engine: tries it: the base, the experts of the facts, and those that count for their own
            class alone.
        tensors: by name; see `judged`.
        own: places of the latter's classes among the logits.
    """

    facts: EvidenceFacts
    engine: EvidenceEngine
    tensors: Mapping[str, np.ndarray]
    own: tuple[int, ...] = ()


class Changes(NamedTuple):
    """What was found in a picture.

    Attributes:
        together: of the base and the experts that are judged together, `facts.width` numbers.
        own: of each expert that counts for its own class, `facts.each` numbers.
    """

    together: Float[np.ndarray, " k"]
    own: Float[np.ndarray, "m e"]


def evidence_looks(facts: EvidenceFacts) -> list[Look]:
    """The views of a picture from which `trial_views` chooses."""
    native = ViewGeometry(layout="native", size=facts.size, most=facts.windows)
    found = [Look(native, whole="whole" in facts.scales)]
    if "reduced" in facts.scales:
        reduced = ViewGeometry(layout="aspect", size=facts.size, grid=2, most=facts.windows)
        found.append(Look(reduced, whole=False))
    return found


def trial_views(facts: EvidenceFacts, made: Sequence[Float[np.ndarray, "_ 3 s s"]]) -> TrialViews:
    """The views that experts are tried on.

    Args:
        facts: what is tried.
        made: views of `evidence_looks`.
    """
    first = int("whole" in facts.scales)
    by_scale = {"whole": made[0][:first], "native": made[0][first:], "reduced": made[-1]}
    chosen = [by_scale[scale] for scale in facts.scales]
    scales = [index for index, views in enumerate(chosen) for _ in views]
    return TrialViews(np.concatenate(chosen), tuple(scales))


def describe_trials(facts: EvidenceFacts, trial: TrialViews, engine: EvidenceEngine) -> Changes:
    """All evidence of one picture; see `describe_change` and `pool_scales`."""
    found = []
    for view in trial.views:
        plain, *mended = engine.restore(view[None])
        changes = [describe_change(view - plain, plain)]
        found.append(np.stack(changes + [describe_change(plain - one, plain) for one in mended]))
    pooled = pool_scales(facts, np.stack(found), trial.scales)
    count = 1 + len(facts.experts)
    own = pooled[:, count:].swapaxes(0, 1).reshape(pooled.shape[1] - count, facts.each)
    return Changes(pooled[:, :count].reshape(facts.width), own)


def pool_scales(
    facts: EvidenceFacts, rows: Float[np.ndarray, "v e n"], scales: Sequence[int]
) -> Float[np.ndarray, "p e n"]:
    """Mean and maximum over the views of each scale, of `whole` its only view.

    Args:
        facts: what is tried.
        rows: statistics of each view and of the base and each expert.
        scales: as of `TrialViews`.
    """
    where, pooled = np.asarray(scales), []
    for index, scale in enumerate(facts.scales):
        own = rows[where == index]
        pooled += [own.mean(0)] if scale == "whole" else [own.mean(0), own.max(0)]
    return np.stack(pooled).astype(np.float32)


def judged(evidence: Evidence, found: Changes, reading: Reading) -> Reading:
    """What a router reads from a picture, in the light of evidence.

    To the logits of the head, times its share, are added those of a linear layer on the evidence,
    in deviations from its mean over the pictures it was fitted by. What both see independently of
    one another adds up so, as log-probabilities do. Classes that were added later keep the head's
    whole logit, to which comes what their own experts change.

    Args:
        evidence: its facts, and centre and spread `(k,)`, weight `(m, k)`, bias `(m,)`, own_centre,
            own_spread and own_weight `(a, e)`.
        found: in the picture.
        reading: by the head alone; the first m of its logits are judged anew.
    """
    tensors = evidence.tensors
    known = standardise(found.together, tensors["centre"], tensors["spread"])
    count = len(tensors["bias"])
    # Row by row, as the head does.
    old = (tensors["weight"] * known).sum(1) + tensors["bias"]
    logits = reading.logits.astype(np.float32)
    logits[:count] = old + evidence.facts.share * logits[:count]
    for place, changes, index in zip(evidence.own, found.own, range(len(found.own)), strict=True):
        centre, spread = tensors["own_centre"][index], tensors["own_spread"][index]
        logits[place] += (tensors["own_weight"][index] * standardise(changes, centre, spread)).sum()
    return Reading(logits, reading.vector, found.own)


def standardise(
    evidence: Float[np.ndarray, "*b k"],
    centre: Float[np.ndarray, " k"],
    spread: Float[np.ndarray, " k"],
) -> Float[np.ndarray, "*b k"]:
    """Evidence in deviations from the mean: what is unlike all that was seen goes to 5 at most."""
    return np.clip((evidence - centre) / spread, -_FARTHEST, _FARTHEST)


def _boxed(plane: Float[np.ndarray, "s s"]) -> Float[np.ndarray, "s s"]:
    """Mean over a square around every pixel; the plane goes on mirrored beyond its borders."""
    half = _BOX // 2
    for axis in (0, 1):
        padding = [(0, 0), (0, 0)]
        padding[axis] = (half, half)
        sums = np.cumsum(np.pad(plane, padding, mode="symmetric"), axis=axis, dtype=np.float64)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis)
        count = plane.shape[axis]
        ends = sums.take(range(_BOX, _BOX + count), axis) - sums.take(range(count), axis)
        plane = (ends / _BOX).astype(np.float32)
    return plane


def _energy(values: np.ndarray) -> float:
    return float(np.square(values, dtype=np.float64).mean())


def _log(energy: float) -> float:
    return float(np.log(energy + _FLOOR))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    shared = ((a - a.mean()) * (b - b.mean())).mean()
    return float(shared / np.sqrt((a.var() + _FLOOR) * (b.var() + _FLOOR)))
