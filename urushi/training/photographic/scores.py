"""How good a router is on photographs that it was fitted without."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from urushi.files.router_file import CLEAN
from urushi.routing.calibration import probabilities
from urushi.training.photographic.recipe import UNKNOWN, PhotographicRecipe
from urushi.training.router_scores import scores_of_classes

__all__ = ["judged_photographs", "scores_of_router"]


def scores_of_router(
    recipe: PhotographicRecipe, logits: Float[np.ndarray, "b n"], truths: Float[np.ndarray, "b n"]
) -> tuple[dict[str, Any], float]:
    """What the file says it can do, and the fitted temperature."""
    return scores_of_classes(tuple(recipe.classes), "single", recipe.threshold, logits, truths)


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
