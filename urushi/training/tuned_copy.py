"""A fully tuned copy of a base, for those who have none: what a profile is measured against.

A plain loop, for some hundred steps: AdamW, half a cosine, NAFNet's loss, weights as they are in
the end. Trainings that count are those of `urushi.training.loop`.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import nn

from urushi.errors import UrushiError
from urushi.training.batches import Batches
from urushi.training.losses import make_loss

__all__ = ["LEARNING_RATE", "tune_copy"]

LEARNING_RATE = 2e-4
_BETAS = (0.9, 0.9)  # NAFNet's
_CLIP = 0.1  # NAFNet's, of the gradient's norm
# Mean squared error below which a picture counts as right: see `docs/log.md`.
_FLOOR = 1e-4


def tune_copy(
    network: nn.Module,
    batches: Batches,
    *,
    steps: int,
    learning_rate: float = LEARNING_RATE,
    on_step: Callable[[int, float], None] | None = None,
) -> nn.Module:
    """Trains all parameters of a copy of a network.

    Args:
        network: the base, on the device of the batches; stays as it is.
        batches: what to train on.
        steps: optimizer steps.
        learning_rate: of the first step.
        on_step: called after every step with the steps done and the loss in dB.

    Returns:
        The copy, in evaluation mode.

    Raises:
        UrushiError: the loss is no longer finite.
    """
    tuned = copy.deepcopy(network).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        tuned.parameters(), lr=learning_rate, betas=_BETAS, weight_decay=0.0
    )
    loss_of = make_loss("psnr", floor=_FLOOR)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
        batch = batches(step)
        loss = loss_of(tuned(batch.degraded), batch.clean)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tuned.parameters(), _CLIP)
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UrushiError(
                f"the loss is {value} at step {step + 1} of tuning a copy: give a tuned network "
                "instead, or other pictures"
            )
        if on_step is not None:
            on_step(step + 1, value)
    return tuned.eval()
