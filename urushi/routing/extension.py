"""A further class for a trained router, which leaves the logits of the others as they are.

Only a new row of the classifier is fitted: logistic regression on degradation vectors, with what
the old classes say as offset. That is a convex problem with one solution, found by Newton's method.
What it may not do is draw pictures of old classes away: the new class counts for no more than any
other, and how far it may trust what it sees is found by cross-validation. The router is LoRA-IR's
(arXiv 2410.15385); extending it so is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from urushi.errors import DataError
from urushi.files.router_file import RouterHeader
from urushi.names import counted

__all__ = ["extended_tensors", "fit_class"]

_ROUNDS = 50
_SOLVED = 1e-9
_FOLDS = 4
# Weights of the row's squared norm that are tried, in units of the vectors' deviations.
_RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def fit_class(
    vectors: Float[np.ndarray, "b d"],
    logits: Float[np.ndarray, "b n"],
    of_it: Bool[np.ndarray, " b"],
    header: RouterHeader,
) -> tuple[Float[np.ndarray, " d"], float]:
    """The row of the classifier, and its bias, that a further class gets.

    However many pictures of it there are, it is as probable before they are seen as each of the old
    classes. In mode `single` it competes with these: its probability is
    `sigmoid(z / T - log sum exp(old / T))`. The row's squared norm has a weight that keeps it small
    where the classes can be told apart with certainty: that of several with which pictures that are
    left out in turn become most likely.

    Args:
        vectors: degradation vectors of pictures.
        logits: what the router says of them as it is.
        of_it: which of them are of the new class.
        header: classes, mode and temperature.

    Raises:
        DataError: there are not both kinds, or a number is not finite.
    """
    if not of_it.any() or of_it.all():
        raise DataError(
            f"{int(of_it.sum())} of {counted(len(of_it), 'picture is', 'pictures are')} of the "
            "new class: some of it and "
            "some of others are needed"
        )
    if not (np.isfinite(vectors).all() and np.isfinite(logits).all()):
        raise DataError(
            "the router's features of these pictures are not finite: train another router"
        )
    values, temperature = vectors.astype(np.float64), header.temperature
    offset = np.zeros(len(values))
    if header.mode == "single":
        scaled = logits.astype(np.float64) / temperature
        top = scaled.max(1)
        offset = -(top + np.log(np.exp(scaled - top[:, None]).sum(1)))
    mean, deviation = values.mean(0), values.std(0) + 1e-6
    known = np.concatenate([(values - mean) / deviation, np.ones((len(values), 1))], 1)
    prior = 1 / (len(header.classes) + 1)
    share = np.where(of_it, prior / of_it.mean(), (1 - prior) / (~of_it).mean())
    problem = _Problem(known, of_it.astype(np.float64), share, offset)
    losses = [problem.left_out(ridge) for ridge in _RIDGES]
    weights = problem.solved(_RIDGES[int(np.argmin(losses))]) * temperature
    row = weights[:-1] / deviation
    return row, float(weights[-1] - row @ mean)


@dataclass(frozen=True)
class _Problem:
    """Logistic regression.

    Attributes:
        known: of every picture, a column of ones last.
        truth: 1 for pictures of the new class, else 0.
        share: how much each picture counts.
        offset: what is added to the products.
    """

    known: np.ndarray
    truth: np.ndarray
    share: np.ndarray
    offset: np.ndarray

    def of(self, rows: np.ndarray) -> "_Problem":
        """The same with some of the pictures."""
        return _Problem(self.known[rows], self.truth[rows], self.share[rows], self.offset[rows])

    def loss(self, weights: np.ndarray) -> float:
        """Negative log-likelihood."""
        z = self.known @ weights + self.offset
        return float((self.share * (np.logaddexp(0, z) - self.truth * z)).sum())

    def left_out(self, ridge: float) -> float:
        """Negative log-likelihood of all pictures, each with weights found without it."""
        # Every fold has as many of either kind. Neighbours may show the same: they stay together.
        turn = np.empty(len(self.truth), int)
        for kind in (0, 1):
            own = np.flatnonzero(self.truth == kind)
            turn[own] = np.arange(len(own)) // 2 % _FOLDS
        total = 0.0
        for fold in range(_FOLDS):
            learnt, held = self.of(turn != fold), self.of(turn == fold)
            if not 0 < learnt.truth.sum() < len(learnt.truth):
                continue  # a single picture of a kind cannot be left out
            total += held.loss(learnt.solved(ridge))
        return total

    def solved(self, ridge: float) -> np.ndarray:
        """The most likely weights."""
        penalty = np.full(self.known.shape[1], float(ridge))
        penalty[-1] = 1e-6  # the bias is free
        return _newton(self, penalty)


def _newton(problem: _Problem, penalty: np.ndarray) -> np.ndarray:
    """Minimises the negative log-likelihood with a ridge."""
    known, truth, share, offset = problem.known, problem.truth, problem.share, problem.offset

    def cost(weights: np.ndarray) -> float:
        return problem.loss(weights) + float(penalty @ weights**2) / 2

    weights = np.zeros(known.shape[1])
    # At first the new class is as likely as all others together.
    weights[-1] = -float(np.median(offset))
    now = cost(weights)
    for _ in range(_ROUNDS):
        z = known @ weights + offset
        chance = np.exp(-np.logaddexp(0, -z))
        slope = known.T @ (share * (chance - truth)) + penalty * weights
        curvature = (known * (share * chance * (1 - chance))[:, None]).T @ known
        step = np.linalg.solve(curvature + np.diag(penalty), slope)
        length = 1.0
        while (then := cost(weights - length * step)) > now and length > 1e-6:
            length /= 2
        weights = weights - length * step
        if now - then < _SOLVED * max(1.0, abs(now)):
            break
        now = then
    return weights


def extended_tensors(
    tensors: Mapping[str, np.ndarray], row: Float[np.ndarray, " d"], bias: float
) -> dict[str, np.ndarray]:
    """The tensors of a router file with one more class, the last; without its memory."""
    extended = {k: v for k, v in tensors.items() if not k.startswith("memory.")}
    for name, new in (("weight", row[None]), ("bias", np.array([bias]))):
        key = f"head.classifier.{name}"
        extended[key] = np.concatenate([tensors[key], new.astype(np.float32)])
    return extended
