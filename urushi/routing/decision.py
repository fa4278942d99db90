"""From logits to a decision: which experts, how much of each, or none, and why.

Where a class was added to a router later, what it does not win is decided as before: of a picture
for which that class does not reach the threshold as the most probable one, the others are judged as
if it were not there. So nothing that a new class leaves alone changes, not even by a bit.

An expert that does little harm to a picture that does not need it may act where the router is less
sure. Such classes have a lower threshold of their own, which counts for the likeliest kind of
damage, be the picture likelier still to be clean. That expert then acts alone, and only with the
weight of its probability beside that of `clean`: of what a picture may be, the mean is the least
wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from urushi.errors import AdapterError
from urushi.files.router_file import CLEAN, Mode, RouterHeader
from urushi.routing.calibration import probabilities
from urushi.routing.wording import CLOSE, percent, two_likeliest, unsure, what_is_seen

__all__ = ["Decision", "decide", "expert_weights"]


@dataclass(frozen=True)
class Decision:
    """What is to be done with one picture.

    Attributes:
        weights: of every expert, by class; all zero where the base is to work alone. They add up
            to 1, less the share of `clean` where that is among the chosen.
        probabilities: calibrated, of every class; 0 of an added class that does not win.
        abstained: whether the base works alone.
        reason: one clause for people, such as `noise (97 %)`.
        suggested: where the base works alone, the kind of damage whose expert may be worth trying;
            else None. See docs/decisions/0023.
    """

    weights: Mapping[str, float]
    probabilities: Mapping[str, float]
    abstained: bool
    reason: str
    suggested: str | None = None

    @property
    def seen(self) -> str:
        """The most probable class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    @property
    def likeliest(self) -> Sequence[tuple[str, float]]:
        """The two most probable classes and their probabilities, the likeliest first."""
        return two_likeliest(self.probabilities)


def expert_weights(
    chances: Float[np.ndarray, "*b n"], k: int = 1, floor: float | int = 0
) -> Float[np.ndarray, "*b n"]:
    """Weights of the experts: the `k` most probable classes, in proportion to one another.

    In proportion to softmax probabilities is the softmax over the chosen logits, LoRA-IR's rule:
    with `k = 1` a hard switch. Of sigmoid probabilities two that are certain share equally.

    Args:
        chances: probabilities of the classes.
        k: how many experts at most.
        floor: classes less probable than this are not chosen.

    Raises:
        AdapterError: `k` is not from 1 to the number of classes.
    """
    classes = chances.shape[-1]
    if not 1 <= k <= classes:
        raise AdapterError(
            f"k is {k}: expected a number of experts from 1 to {classes}", usage=True
        )
    # Stable: of equals the first is chosen, on every machine.
    order = np.argsort(-chances, axis=-1, kind="stable")
    chosen = np.zeros(chances.shape, bool)
    np.put_along_axis(chosen, order[..., :k], True, axis=-1)
    kept = np.where(chosen & (chances >= floor), chances, 0.0)
    total = kept.sum(-1, keepdims=True)
    return kept / np.where(total > 0, total, 1.0)


def decide(
    logits: Float[np.ndarray, " n"],
    header: RouterHeader,
    *,
    k: int = 1,
    threshold: float | int | None = None,
) -> Decision:
    """Decides from a router's logits for one picture.

    The base works alone where the router is unsure (no class reaches the threshold) and where the
    picture looks clean; but not where the likeliest kind of damage reaches a threshold of its own.

    Args:
        logits: one for each class of the router.
        header: its classes, mode, temperature and thresholds.
        k: experts at most.
        threshold: instead of all of the header's.

    Raises:
        AdapterError: `k` is out of range.
    """
    least = header.threshold if threshold is None else threshold
    chances = _chances(logits, header, least)
    if not np.isfinite(chances).all():
        raise AdapterError(
            "the router's logits are not finite: its file or its engine is unsound, choose the "
            "expert yourself"
        )
    named = dict(zip(header.classes, map(float, chances), strict=True))
    seen = max(named, key=lambda name: named[name])
    reason, abstained = _judged(named, seen, least, header.mode)
    mild = _mild(named, header) if abstained and threshold is None else None
    if mild is not None:
        reason, abstained = f"perhaps {mild} ({percent(named[mild])}), taken away in part", False
    weights = expert_weights(chances, k, least if header.mode == "multi" else 0.0)
    shares = dict(zip(header.classes, map(float, weights), strict=True))
    shares.pop(CLEAN, None)
    if mild is not None:
        shares = dict.fromkeys(shares, 0.0)
        shares[mild] = named[mild] / (named[mild] + named.get(CLEAN, 0.0))
    elif abstained:
        shares = dict.fromkeys(shares, 0.0)
    elif sum(share > 0 for share in shares.values()) > 1:
        reason = _listed([(n, named[n]) for n in _descending(shares) if shares[n] > 0])
    asks = abstained and (named[seen] < least or header.mode == "single")
    suggested = _suggested(named, header) if asks else None
    return Decision(shares, named, abstained, reason, suggested)


def _chances(
    logits: Float[np.ndarray, " n"], header: RouterHeader, least: float | int
) -> Float[np.ndarray, " n"]:
    """Probabilities; 0 for classes that were added and do not win."""
    count = len(header.classes)
    first = count - len(header.added)
    chances = probabilities(logits, header.mode, header.temperature)
    while len(chances) > first and header.mode == "single":
        if chances[-1] >= max(least, chances.max()):
            break
        chances = probabilities(logits[: len(chances) - 1], header.mode, header.temperature)
    return np.concatenate([chances, np.zeros(count - len(chances), chances.dtype)])


def _judged(
    chances: Mapping[str, float], seen: str, threshold: float | int, mode: Mode
) -> tuple[str, bool]:
    """The reason, and whether the base works alone."""
    if chances[seen] < threshold:
        return unsure(chances, threshold), True
    return what_is_seen(chances, mode), seen == CLEAN


def _mild(chances: Mapping[str, float], header: RouterHeader) -> str | None:
    """The likeliest kind of damage, where it reaches a threshold of its own."""
    kinds = [name for name in _descending(chances) if name != CLEAN]
    if not kinds or kinds[0] not in header.thresholds:
        return None
    return kinds[0] if chances[kinds[0]] >= header.thresholds[kinds[0]] else None


def _suggested(chances: Mapping[str, float], header: RouterHeader) -> str | None:
    """The likeliest kind of damage, where it is probable enough and has an expert."""
    kinds = [name for name in _descending(chances) if name != CLEAN]
    if not kinds or kinds[0] not in header.experts or chances[kinds[0]] < CLOSE:
        return None
    return kinds[0]


def _descending(values: Mapping[str, float]) -> list[str]:
    return sorted(values, key=lambda name: -values[name])


def _listed(rows: Sequence[tuple[str, float]]) -> str:
    return " and ".join(f"{name} ({percent(chance)})" for name, chance in rows)
