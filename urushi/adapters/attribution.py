"""FAIG: what every parameter contributes to a tuned network's doing better than its base.

Xie et al., "Finding Discriminative Filters for Specific Degradations in Blind Super-Resolution",
NeurIPS 2021, arXiv 2108.01070: the gradient of the loss is integrated along the straight line in
parameter space between a baseline and a target of the same architecture. CoLoRA (ECCV 2024, arXiv
2408.01099) takes it as the contribution of a layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from urushi.errors import AdapterError

__all__ = ["RULES", "Attribution", "Rule", "attribute"]

Rule = Literal["released", "paper", "midpoint"]
RULES: tuple[Rule, ...] = get_args(Rule)

# Where on the line the first of M points lies, in steps of 1/M; 0 is the baseline, 1 the target.
_FIRST: Mapping[Rule, float] = {"released": 1.0, "paper": 0.0, "midpoint": 0.5}


@dataclass(frozen=True)
class Attribution:
    """Contributions of all parameters on one picture.

    Attributes:
        scores: by parameter, of its shape; negative where a change made the loss smaller.
        loss_baseline: summed squared error of the baseline.
        loss_target: the same of the target.
    """

    scores: Mapping[str, Tensor]
    loss_baseline: float
    loss_target: float

    @property
    def accounted(self) -> float:
        """Sum of all scores; by the completeness of the integral the difference of both losses."""
        return sum(float(score.double().sum()) for score in self.scores.values())


def attribute(
    network: nn.Module,
    baseline: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    picture: Float[Tensor, "1 c h w"],
    reference: Float[Tensor, "1 c2 h2 w2"],
    *,
    steps: int = 100,
    rule: Rule = "released",
    on_step: Callable[[], None] | None = None,
) -> Attribution:
    """Integrates the gradient of the summed squared error from baseline to target.

    Beside the network and both sets of parameters, three more of that size are held: the point on
    the line, its gradient and the sum.

    Args:
        network: gives the architecture, its buffers and its device; its parameters stay untouched.
        baseline: parameters that cannot do the task, by name.
        target: the same parameters, tuned for it.
        picture: the degraded picture, in [0, 1], alone: no other picture changes its attribution.
        reference: what should come out, in the size that the network makes.
        steps: points M on the line; 100 in FAIG.
        rule: where they lie. `released`: from the target on, without the baseline, as the authors'
            code has it; `paper`: from the baseline on, without the target, as their equation has
            it; `midpoint`: in the middle of each step, ours, whose error falls with M squared.
        on_step: called after every point.

    Returns:
        Scores on the network's device.

    Raises:
        AdapterError: the parameters are not those of the network.
    """
    assert steps >= 1
    _check_names(network, baseline, "baseline")
    _check_names(network, target, "target")
    device = picture.device
    start = {name: baseline[name].detach().to(device, torch.float32) for name in baseline}
    line = {name: target[name].detach().to(device, torch.float32) - start[name] for name in start}
    point = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    sums = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
    was_training = network.training
    network.eval()
    try:
        for step in range(steps):
            _move(point, start, line, (step + _FIRST[rule]) / steps)
            _add_gradient(sums, point, _loss(network, point, picture, reference))
            if on_step is not None:
                on_step()
        losses = []
        with torch.no_grad():
            for end in (0.0, 1.0):
                _move(point, start, line, end)
                losses.append(float(_loss(network, point, picture, reference)))
    finally:
        network.train(was_training)
    for name, total in sums.items():
        total.mul_(line[name]).div_(steps)
    return Attribution(sums, *losses)


def _add_gradient(sums: dict[str, Tensor], point: dict[str, Tensor], loss: Tensor) -> None:
    # In a function of its own, so that loss and gradients are gone before the next pass.
    gradients = torch.autograd.grad(loss, list(point.values()), allow_unused=True)
    for total, gradient in zip(sums.values(), gradients, strict=True):
        if gradient is not None:
            total += gradient


def _check_names(network: nn.Module, parameters: Mapping[str, Tensor], side: str) -> None:
    own = {name: tuple(p.shape) for name, p in network.named_parameters()}
    given = {name: tuple(p.shape) for name, p in parameters.items()}
    for name in [*own, *given]:
        if own.get(name) != given.get(name):
            raise AdapterError(
                f"the {side} has {name} with shape {given.get(name)}, the network "
                f"{own.get(name)}: both must be of one architecture"
            )


@torch.no_grad()
def _move(
    point: Mapping[str, Tensor], start: Mapping[str, Tensor], line: Mapping[str, Tensor], at: float
) -> None:
    """Puts `point` where the share `at` of the line is."""
    for name, tensor in point.items():
        torch.add(start[name], line[name], alpha=at, out=tensor.detach())


def _loss(
    network: nn.Module, point: Mapping[str, Tensor], picture: Tensor, reference: Tensor
) -> Tensor:
    result = functional_call(network, dict(point), (picture,))
    assert result.shape == reference.shape
    return (result - reference).square().sum()
