"""How good a router is on validation pictures, and the temperature that its confidence needs."""

import math
from typing import Any

import numpy as np

from urushi.evaluation.confusion import accuracy, class_accuracies, confusion_matrix
from urushi.files.router_file import Mode
from urushi.routing.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
)
from urushi.training.router_recipe import RouterRecipe

__all__ = ["confusion_of", "scores_of", "scores_of_classes"]


def confusion_of(logits: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Of pictures with one class."""
    alone = truths.sum(1) == 1
    seen, truth = logits[alone].argmax(1), truths[alone].argmax(1)
    return confusion_matrix(truth, seen, truths.shape[1])


def scores_of(
    recipe: RouterRecipe, logits: np.ndarray, truths: np.ndarray
) -> tuple[dict[str, Any], float]:
    """What the file says it can do, and the fitted temperature."""
    return scores_of_classes(tuple(recipe.classes), recipe.mode, recipe.threshold, logits, truths)


def scores_of_classes(
    classes: tuple[str, ...], mode: Mode, threshold: float, logits: np.ndarray, truths: np.ndarray
) -> tuple[dict[str, Any], float]:
    """The same of any router: its classes, its mode and the threshold below which it abstains."""
    if (
        mode == "single"
    ):  # of several damages, or an unknown one, there is nothing to be right about
        alone = truths.sum(1) == 1
        logits, truths = logits[alone], truths[alone]
    labels = truths.astype(np.float64) if mode == "multi" else truths.argmax(1)
    temperature = fit_temperature(logits, labels, mode)
    matrix = confusion_of(logits, truths)
    calibrated = probabilities(logits, mode, temperature)
    # JSON has no NaN, which a class without pictures of its own gives.
    rates = [rate if math.isfinite(rate) else None for rate in class_accuracies(matrix)]
    scores: dict[str, Any] = {
        "pictures": len(logits),
        "accuracy": accuracy(matrix) if matrix.any() else None,
        "class_accuracy": dict(zip(classes, rates, strict=True)),
        "confusion": matrix.tolist(),
        "nll": negative_log_likelihood(logits, labels, mode, temperature),
        "ece": expected_calibration_error(calibrated, labels, mode),
        "ece_uncalibrated": expected_calibration_error(probabilities(logits, mode), labels, mode),
    }
    if mode == "multi":
        scores["all_right"] = float(((calibrated >= threshold) == truths).all(1).mean())
    return {"validation": scores}, temperature
