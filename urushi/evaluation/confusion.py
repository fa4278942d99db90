"""What a router takes for what: the confusion matrix, accuracies, and a drawing of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from urushi.errors import DataError
from urushi.evaluation.plots import new_figure, save_figure
from urushi.names import counted

__all__ = ["accuracy", "class_accuracies", "confusion_matrix", "draw_confusion"]


def confusion_matrix(
    truth: Int[np.ndarray, " b"], seen: Int[np.ndarray, " same"], classes: int
) -> Int[np.ndarray, "n n"]:
    """How many pictures of each class (row) were taken for each class (column).

    Raises:
        DataError: the lengths differ, or a number is not that of a class.
    """
    if len(truth) != len(seen):
        raise DataError(f"{counted(len(truth), 'picture')} and {len(seen)} seen: expected as many")
    both = np.concatenate([truth, seen])
    if len(both) and not (both.min() >= 0 and both.max() < classes):
        raise DataError(
            f"classes from {both.min()} to {both.max()}: there are {classes}, counted from 0"
        )
    pairs = np.bincount(truth * classes + seen, minlength=classes * classes)
    return pairs.reshape(classes, classes)


def accuracy(matrix: Int[np.ndarray, "n n"]) -> float:
    """Share of pictures that were taken for what they are; NaN without any."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else float("nan")


def class_accuracies(matrix: Int[np.ndarray, "n n"]) -> list[float]:
    """The same for the pictures of each class."""
    totals = matrix.sum(1)
    return [
        float(matrix[i, i] / total) if total else float("nan") for i, total in enumerate(totals)
    ]


def draw_confusion(
    matrix: Int[np.ndarray, "n n"], classes: Sequence[str], path: Path, *, title: str = ""
) -> None:
    """Draws a confusion matrix: darkness is the share of a row, numbers are pictures.

    Args:
        matrix: see `confusion_matrix`.
        classes: their names.
        path: file to write; its suffix, of `urushi.evaluation.plots.FORMATS`, says which.
        title: beside the accuracy; may be empty.

    Raises:
        DataError: there are not as many names as classes.
        MissingExtraError, TargetError: see `urushi.evaluation.plots.save_figure`.
    """
    if len(classes) != len(matrix):
        raise DataError(
            f"{counted(len(classes), 'name')} for {counted(len(matrix), 'class', 'classes')}: "
            "expected as many"
        )
    side = 2.2 + 0.52 * len(classes)
    figure, (axis,) = new_figure((side + 0.6, side))
    axis.grid(False)
    axis.spines[:].set_visible(False)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    # Blue alone: as legible in grey, and for the colour-blind.
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)
    places = range(len(classes))
    axis.set_xticks(places, [name.replace("_", " ") for name in classes], rotation=45, ha="right")
    recalls = [
        f"{name.replace('_', ' ')}  {100 * share:.0f} %" if np.isfinite(share) else name
        for name, share in zip(classes, class_accuracies(matrix), strict=True)
    ]
    axis.set_yticks(places, recalls)
    axis.tick_params(length=0)
    axis.set_xlabel("taken for")
    axis.set_ylabel("is, and how often that was seen")
    right = f"{100 * accuracy(matrix):.1f} % of {counted(int(matrix.sum()), 'picture')} right"
    axis.set_title(f"{title}: {right}" if title else right, fontsize="medium")
    save_figure(figure, path)
