"""Probabilities that mean what they say: temperature scaling, and how far off it leaves them.

Guo, Pleiss, Sun, Weinberger: "On Calibration of Modern Neural Networks", ICML 2017, arXiv
1706.04599. One temperature is fitted on validation logits; which class wins does not change.
"""

import numpy as np
from jaxtyping import Float

from urushi.errors import DataError
from urushi.files.router_file import Mode
from urushi.names import counted

__all__ = ["expected_calibration_error", "fit_temperature", "negative_log_likelihood",
           "probabilities"]  # fmt: skip

COLDEST, HOTTEST = 0.05, 20.0
_GOLDEN = (5**0.5 - 1) / 2


def probabilities(
    logits: Float[np.ndarray, "*b n"], mode: Mode = "single", temperature: float | int = 1
) -> Float[np.ndarray, "*b n"]:
    """Probabilities of the classes: softmax (`single`) or sigmoid (`multi`) of logits / T."""
    return np.exp(_log_probabilities(logits, mode, temperature)[0])


def negative_log_likelihood(
    logits: Float[np.ndarray, "b n"],
    labels: np.ndarray,
    mode: Mode = "single",
    temperature: float | int = 1,
) -> float:
    """Mean negative log-likelihood of the labels.

    Args:
        logits: of pictures.
        labels: `single`: class of each, `(B,)` integers; `multi`: `(B, n)` truths in [0, 1].
        mode: softmax or sigmoid.
        temperature: logits are divided by it.
    """
    truth = _truth(logits, labels, mode)
    positive, negative = _log_probabilities(logits, mode, temperature)
    total = truth * positive
    if mode == "multi":
        total = total + (1 - truth) * negative
    return float(-total.sum() / len(logits))


def fit_temperature(
    logits: Float[np.ndarray, "b n"], labels: np.ndarray, mode: Mode = "single"
) -> float:
    """The temperature with the least negative log-likelihood, by golden section.

    The likelihood is unimodal in the temperature's logarithm. Where every picture is classified
    right it would fall to nothing; so truths count as seen N times out of N once more in doubt
    (Laplace's rule of succession), which no finite sample can be surer than.

    Args:
        logits: of validation pictures that were not trained on.
        labels: see `negative_log_likelihood`.
        mode: softmax or sigmoid.

    Raises:
        DataError: there are no pictures, logits that are not finite, or labels that do not fit.
    """
    truth = _truth(logits, labels, mode)
    count, classes = logits.shape
    doubt = 1 / (count + 2) if mode == "multi" else (classes - 1) / (count + classes)
    rest = 1 - truth if mode == "multi" else (1 - truth) / max(1, classes - 1)
    truth = (1 - doubt) * truth + doubt * rest

    def cost(log_temperature: float) -> float:
        positive, negative = _log_probabilities(logits, mode, float(np.exp(log_temperature)))
        total = truth * positive
        if mode == "multi":
            total = total + (1 - truth) * negative
        return float(-total.sum())

    low, high = float(np.log(COLDEST)), float(np.log(HOTTEST))
    first, second = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_first, at_second = cost(first), cost(second)
    while high - low > 1e-5:
        if at_first <= at_second:
            high, second, at_second = second, first, at_first
            first = high - _GOLDEN * (high - low)
            at_first = cost(first)
        else:
            low, first, at_first = first, second, at_second
            second = low + _GOLDEN * (high - low)
            at_second = cost(second)
    return float(np.exp((low + high) / 2))


def expected_calibration_error(
    chances: Float[np.ndarray, "b n"], labels: np.ndarray, mode: Mode = "single", bins: int = 15
) -> float:
    """Mean distance between how sure and how often right, over bins of sureness (ECE).

    Args:
        chances: probabilities of the classes.
        labels: see `negative_log_likelihood`.
        mode: `single` looks at the class that wins; `multi` at every class by itself.
        bins: equal parts of [0, 1].

    Raises:
        DataError: see `fit_temperature`.
    """
    truth = _truth(chances, labels, mode)
    if mode == "multi":
        sure, right = chances.reshape(-1), truth.reshape(-1)
    else:
        winners = chances.argmax(1)
        rows = np.arange(len(chances))
        sure, right = chances[rows, winners], truth[rows, winners]
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = np.bincount(place, sure - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def _log_probabilities(
    logits: np.ndarray, mode: Mode, temperature: float | int
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the probabilities that a class is true, and that it is not."""
    scaled = np.asarray(logits, np.float64) / temperature
    if mode == "multi":
        return -np.logaddexp(0, -scaled), -np.logaddexp(0, scaled)
    shifted = scaled - scaled.max(-1, keepdims=True)
    positive = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return positive, np.zeros_like(positive)


def _truth(values: np.ndarray, labels: np.ndarray, mode: Mode) -> np.ndarray:
    """Labels as `(B, n)` truths."""
    labels = np.asarray(labels)
    if len(values) == 0 or not np.isfinite(values).all():
        raise DataError(
            f"{counted(len(values), 'row')} of logits, or some not finite: finite ones of at "
            "least one "
            "validation picture are needed"
        )
    if mode == "multi":
        if labels.shape != values.shape or labels.min() < 0 or labels.max() > 1:
            raise DataError(
                f"labels of shape {labels.shape} for logits {values.shape}: expected a truth from "
                "0 to 1 for each"
            )
        return labels.astype(np.float64)
    if labels.shape != values.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels of {labels.dtype} {labels.shape} for logits {values.shape}: expected a whole "
            "number for each row"
        )
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise DataError(
            f"labels from {labels.min()} to {labels.max()}: there are {values.shape[1]} classes, "
            "counted from 0"
        )
    return np.eye(values.shape[1])[labels]
