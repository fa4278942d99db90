"""Optimizer and learning rate of trainings, and the loop for what is trained in memory, in minutes.

Whatever takes longer, or is to be gone on with, is trained by `urushi.training.loop`.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from urushi.errors import UrushiError
from urushi.training.recipe import OptimizerSettings, ScheduleSettings
from urushi.training.router.router_recipe import RouterOptimizerSettings

__all__ = ["fit", "learning_rate", "make_optimizer"]


def learning_rate(
    schedule: ScheduleSettings, greatest: float, step: int, seconds: float = 0.0
) -> float:
    """The learning rate of optimizer step `step`, counted from 0.

    Args:
        schedule: linear warm-up, then half a cosine, or halvings at milestones.
        greatest: learning rate.
        step: of the training.
        seconds: spent training so far; counts where the schedule is in minutes.
    """
    if step < schedule.warmup:
        return greatest * (step + 1) / schedule.warmup
    length = max(1, schedule.steps - schedule.warmup - 1)
    share = min(1.0, (step - schedule.warmup) / length)
    if schedule.minutes is not None:
        share = min(1.0, max(share, seconds / (60 * schedule.minutes)))
    if schedule.milestones:
        return greatest / 2 ** sum(share >= milestone for milestone in schedule.milestones)
    share = max(0.0, 1 - (1 - share) / schedule.decay)
    least = min(schedule.final_learning_rate, greatest)
    return least + (greatest - least) * (1 + math.cos(math.pi * share)) / 2


def make_optimizer(
    parameters: Iterable[nn.Parameter], settings: OptimizerSettings | RouterOptimizerSettings
) -> torch.optim.AdamW:
    """AdamW as a recipe wants it.

    Its loops over numbers are one kernel each: a network has hundreds of small tensors, and on a
    CPU a step from tensor to tensor takes as long as a picture of the batch.

    Args:
        parameters: what is trained, on one device.
        settings: of the recipe.
    """
    return torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def fit(
    parameters: Iterable[nn.Parameter],
    loss_of: Callable[[int], Tensor],
    optimizer: OptimizerSettings | RouterOptimizerSettings,
    schedule: ScheduleSettings,
    *,
    way_out: str = "choose a smaller learning rate",
    on_step: Callable[[int, float], None] | None = None,
) -> float:
    """Trains parameters in place, on one device and without checkpoints.

    Args:
        parameters: what is trained.
        loss_of: the loss of an optimizer step, counted from 0.
        optimizer: AdamW.
        schedule: length and learning rate.
        way_out: what to do where the loss is no longer finite.
        on_step: called after every step with the steps done and its loss.

    Returns:
        The loss of the last step.

    Raises:
        UrushiError: the loss is no longer finite.
    """
    trained, value = list(parameters), math.nan
    adam = make_optimizer(trained, optimizer)
    for step in range(schedule.steps):
        for group in adam.param_groups:
            group["lr"] = learning_rate(schedule, optimizer.learning_rate, step)
        loss = loss_of(step)
        adam.zero_grad()
        loss.backward()
        if optimizer.clip is not None:
            nn.utils.clip_grad_norm_(trained, optimizer.clip)
        adam.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UrushiError(f"the loss is {value} at step {step + 1}: {way_out}")
        if on_step is not None:
            on_step(step + 1, value)
    return value
