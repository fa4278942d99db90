"""How good a router is on validation pictures, and the temperature that its confidence needs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from urushi.evaluation.confusion import accuracy, class_accuracies, confusion_matrix
from urushi.files.router_file import CLEAN, Mode
from urushi.routing.calibration import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
)
from urushi.training.photographs.photographs_recipe import UNKNOWN, PhotographicRecipe
from urushi.training.router.router_recipe import RouterRecipe

__all__ = [
    "confusion_of",
    "judged_photographs",
    "scores_of",
]


def confusion_of(logits: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Of pictures with one class."""
    alone = truths.sum(1) == 1
    seen, truth = logits[alone].argmax(1), truths[alone].argmax(1)
    return confusion_matrix(truth, seen, truths.shape[1])


def scores_of(
    recipe: RouterRecipe | PhotographicRecipe,
    logits: Float[np.ndarray, "b n"],
    truths: Float[np.ndarray, "b n"],
) -> tuple[dict[str, Any], float]:
    """What the file says it can do, and the fitted temperature."""
    mode: Mode = recipe.mode
    if mode == "single":
        # Of several damages, or an unknown one, there is nothing to be right about.
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
        "class_accuracy": dict(zip(recipe.classes, rates, strict=True)),
        "confusion": matrix.tolist(),
        "nll": negative_log_likelihood(logits, labels, mode, temperature),
        "ece": expected_calibration_error(calibrated, labels, mode),
        "ece_uncalibrated": expected_calibration_error(probabilities(logits, mode), labels, mode),
    }
    if mode == "multi":
        scores["all_right"] = float(((calibrated >= recipe.threshold) == truths).all(1).mean())
    return {"validation": scores}, temperature


def judged_photographs(
    recipe: PhotographicRecipe,
    logits: Float[np.ndarray, "p n"],
    classes: Sequence[tuple[str, ...]],
    temperature: float,
) -> dict[str, dict[str, int]]:
    """Of each kind: how many photographs get a right expert, another, or none.

    Args:
        recipe: of the classes and the threshold.
        logits: of the photographs.
        classes: what is true of each; empty where no class is for it.
        temperature: of the logits.
    """
    names = tuple(recipe.classes)
    chances = probabilities(logits, "single", temperature)
    found: dict[str, dict[str, int]] = {}
    for row, own in zip(chances, classes, strict=True):
        kind = own[0] if own else UNKNOWN
        seen = names[int(row.argmax())]
        acts = seen != CLEAN and row.max() >= recipe.threshold
        result = "none" if not acts else "right" if seen in own else "another"
        counts = found.setdefault(kind, {"right": 0, "another": 0, "none": 0})
        counts[result] += 1
    return found
