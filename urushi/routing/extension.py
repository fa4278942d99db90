"""A further class for a trained router, which leaves the logits of the others as they are.

Only a new row of the classifier is fitted: logistic regression on degradation vectors, with what
the old classes say as offset. That is a convex problem with one solution, found by Newton's method.
The router is LoRA-IR's (arXiv 2410.15385); extending it so is ours.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from urushi.errors import DataError
from urushi.files.router import RouterHeader

__all__ = ["extended_tensors", "fit_class"]

_ROUNDS = 50
_SOLVED = 1e-9


def fit_class(
    vectors: Float[np.ndarray, "b d"],
    logits: Float[np.ndarray, "b n"],
    of_it: Bool[np.ndarray, " b"],
    header: RouterHeader,
    *,
    ridge: float | int = 1.0,
) -> tuple[Float[np.ndarray, " d"], float]:
    """The row of the classifier, and its bias, that a further class gets.

    Both kinds of pictures count alike, however many there are. In mode `single` the new class
    competes with the old ones: its probability is `sigmoid(z / T - log sum exp(old / T))`.

    Args:
        vectors: degradation vectors of pictures.
        logits: what the router says of them as it is.
        of_it: which of them are of the new class.
        header: mode and temperature.
        ridge: weight of the row's squared norm, in units of the vectors' deviations; keeps it small
            where the classes can be told apart with certainty.

    Raises:
        DataError: there are not both kinds, or a number is not finite.
    """
    if not of_it.any() or of_it.all():
        raise DataError(
            f"{int(of_it.sum())} of {len(of_it)} pictures are of the new class: some of it and "
            "some of others are needed"
        )
    if not (np.isfinite(vectors).all() and np.isfinite(logits).all()):
        raise DataError("what the router reads from the pictures is not finite: train another one")
    values, temperature = vectors.astype(np.float64), header.temperature
    offset = np.zeros(len(values))
    if header.mode == "single":
        scaled = logits.astype(np.float64) / temperature
        top = scaled.max(1)
        offset = -(top + np.log(np.exp(scaled - top[:, None]).sum(1)))
    mean, deviation = values.mean(0), values.std(0) + 1e-6
    known = np.concatenate([(values - mean) / deviation, np.ones((len(values), 1))], 1)
    truth = of_it.astype(np.float64)
    share = np.where(of_it, 0.5 / of_it.mean(), 0.5 / (~of_it).mean())
    penalty = np.full(known.shape[1], float(ridge))
    penalty[-1] = 1e-6  # the bias is free
    weights = _newton(known, truth, share, offset, penalty) * temperature
    row = weights[:-1] / deviation
    return row, float(weights[-1] - row @ mean)


def _newton(
    known: np.ndarray, truth: np.ndarray, share: np.ndarray, offset: np.ndarray, penalty: np.ndarray
) -> np.ndarray:
    """Minimises the negative log-likelihood with a ridge."""

    def cost(weights: np.ndarray) -> float:
        z = known @ weights + offset
        return float((share * (np.logaddexp(0, z) - truth * z)).sum() + penalty @ weights**2 / 2)

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
    """The tensors of a router file with one more class, the last."""
    extended = dict(tensors)
    for name, new in (("weight", row[None]), ("bias", np.array([bias]))):
        key = f"head.classifier.{name}"
        extended[key] = np.concatenate([tensors[key], new.astype(np.float32)])
    return extended
