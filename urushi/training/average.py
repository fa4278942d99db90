"""An exponential moving average of a network's weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Follows `network` with decay `decay`; holds float32 copies of its parameters by name.

    The decay starts small, `(1 + n) / (10 + n)` at update `n` (as TensorFlow's moving average with
    `num_updates`), so that the random initial weights do not linger.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: p.detach().clone() for k, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Moves towards the weights after optimizer step `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach() for _, p in network.named_parameters()]
        get_ema_multi_avg_fn(decay)(list(self.weights.values()), current, step)

    def load(self, weights: dict[str, Tensor]) -> None:
        """Takes over stored weights."""
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])
