"""The learning rate over a training."""

import math

from urushi.training.recipe import Recipe

__all__ = ["learning_rate"]


def learning_rate(recipe: Recipe, step: int, seconds: float = 0.0) -> float:
    """The learning rate of optimizer step `step`, counted from 0.

    Args:
        recipe: its schedule and greatest learning rate.
        step: of the training.
        seconds: spent training so far; counts where the schedule is in minutes.
    """
    schedule, greatest = recipe.schedule, recipe.optimizer.learning_rate
    if step < schedule.warmup:
        return greatest * (step + 1) / schedule.warmup
    length = max(1, schedule.steps - schedule.warmup - 1)
    share = min(1.0, (step - schedule.warmup) / length)
    if schedule.minutes is not None:
        share = min(1.0, max(share, seconds / (60 * schedule.minutes)))
    share = max(0.0, 1 - (1 - share) / schedule.decay)
    least = min(schedule.final_learning_rate, greatest)
    return least + (greatest - least) * (1 + math.cos(math.pi * share)) / 2
