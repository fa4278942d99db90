"""The optimizer of a training."""

from collections.abc import Iterable

import torch
from torch import nn

from urushi.training.recipe import OptimizerSettings

__all__ = ["make_optimizer"]


def make_optimizer(
    parameters: Iterable[nn.Parameter], settings: OptimizerSettings
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
