"""Several degradations in one: in a fixed order, a single one, or in random order (PROD).

PROD, pre-training with random order degradations, is the scheme of "CoLoRA", ECCV 2024, arXiv
2408.01099: functions drawn at random are applied one after another, to every picture in an order of
its own. The paper does not say how many are drawn, with which probabilities, or from which ranges:
`count`, `weights`, `clean` and the ranges of the steps are ours, and therefore parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from urushi.degradations.base import Degradation, Parameters
from urushi.errors import DegradationError

ORDERS = ("fixed", "single", "random")
NONE = -1  # in `order`: no further step for this picture


@dataclass(frozen=True)
class Chain(Degradation):
    """Applies several degradations to each picture, which keeps its size.

    The parameters hold `order`, `(B, steps)`: which step comes at each position, -1 for none; and
    every step's own parameters under `INDEX.NAME`.

    Args:
        steps: the degradations; one may itself be a chain, such as one of several noise models.
        order: `fixed`: all steps as they are given. `single`: one step, drawn by weight. `random`:
            `count` distinct steps, drawn by weight, in random order (PROD).
        count: for `random`, least and greatest number of steps; the number is drawn uniformly. The
            greatest is at most the number of steps, which is its default.
        weights: how likely each step is drawn, relative to the others; equal if not given. With
            `fixed`, the probability in `[0, 1]` with which each step is applied.
        clean: share of pictures, in `[0, 1]`, that are left as they are.

    Raises:
        DegradationError: no steps, or a value outside the ranges above.
    """

    steps: Sequence[Degradation]
    order: str = "random"
    count: tuple[int, int] | None = None
    weights: Sequence[float] | None = None
    clean: float = 0.0

    name: ClassVar[str] = "chain"
    reference: ClassVar[str] = "PROD: CoLoRA, ECCV 2024, arXiv 2408.01099; numbers of steps ours"

    def __post_init__(self) -> None:
        total = len(self.steps)
        if total == 0:
            raise DegradationError("a chain has no steps: at least one degradation was expected")
        if self.order not in ORDERS:
            raise DegradationError(f"order is {self.order!r}: expected fixed, single or random")
        if self.count is not None:
            if self.order != "random":
                raise DegradationError(f"count has no effect with order {self.order}: leave it out")
            if not 1 <= self.count[0] <= self.count[1] <= total:
                raise DegradationError(
                    f"count is {self.count}: expected two numbers from 1 to {total}, "
                    "the first not the greater"
                )
        if not 0 <= self.clean <= 1:
            raise DegradationError(f"clean is {self.clean}: expected a share from 0 to 1")
        weights = self.weights
        if weights is not None:
            if len(weights) != total or min(weights) < 0 or sum(weights) == 0:
                raise DegradationError(
                    f"weights are {list(weights)}: expected {total} numbers that are not negative, "
                    "one for each step, not all zero"
                )
            if self.order == "fixed" and max(weights) > 1:
                raise DegradationError(
                    f"weights are {list(weights)}: with order fixed they are probabilities up to 1"
                )
            if self.order == "random" and sum(w > 0 for w in weights) < self._count[1]:
                raise DegradationError(
                    f"weights {list(weights)} leave fewer steps than count {self._count} asks for"
                )

    @property
    def _count(self) -> tuple[int, int]:
        return self.count or (1, len(self.steps))

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        parameters: Parameters = {"order": self._sample_order(batch_shape[0], generator)}
        for index, step in enumerate(self.steps):
            for name, values in step.sample(batch_shape, generator).items():
                parameters[f"{index}.{name}"] = values
        return parameters

    def _sample_order(self, batch: int, generator: torch.Generator) -> Int64[Tensor, "b steps"]:
        total = len(self.steps)
        position = torch.arange(total).expand(batch, total)
        weights = torch.tensor(self.weights or [1.0] * total)
        if self.order == "fixed":
            kept = torch.rand(batch, total, generator=generator) < weights
            # Kept steps move to the front and stay in their order: the sort is stable.
            front = torch.argsort((~kept).to(torch.uint8), dim=1, stable=True)
            order = torch.where(position < kept.sum(1, keepdim=True), front, NONE)
        else:
            # Exponential clocks: sorting by them draws without replacement in weighted order.
            clocks = -torch.rand(batch, total, generator=generator).clamp_min(1e-12).log()
            drawn = (clocks / weights.clamp_min(1e-12)).argsort(1)
            low, high = (1, 1) if self.order == "single" else self._count
            lengths = torch.randint(low, high + 1, (batch, 1), generator=generator)
            # Heavier steps ring first and would tend to come first: shuffle those that were drawn.
            shuffle = torch.rand(batch, total, generator=generator)
            shuffle = torch.where(position < lengths, shuffle, 2.0).argsort(1)
            order = torch.where(position < lengths, drawn.gather(1, shuffle), NONE)
        untouched = torch.rand(batch, 1, generator=generator) < self.clean
        return torch.where(untouched, NONE, order)

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        order = parameters["order"].cpu()
        own = [self._parameters_of(index, parameters) for index in range(len(self.steps))]
        result = images.clone()
        for position in range(order.shape[1]):
            for index, step in enumerate(self.steps):
                # Pictures that want this step now go through it together.
                rows = (order[:, position] == index).nonzero()[:, 0]
                if len(rows) == 0:
                    continue
                chosen = {name: values[rows] for name, values in own[index].items()}
                rows = rows.to(images.device)
                changed = step.apply(result[rows], chosen)
                if changed.shape[-2:] != images.shape[-2:]:
                    raise DegradationError(
                        f"step {step.name} changes the picture's size, and a chain must keep it"
                    )
                result[rows] = changed
        return result

    def applied(self, parameters: Parameters) -> Bool[Tensor, "b steps"]:
        """Which steps each picture goes through, wherever in its order; a row may be all false."""
        steps = torch.arange(len(self.steps), device=parameters["order"].device)
        return (parameters["order"][:, :, None] == steps).any(1)

    def _parameters_of(self, index: int, parameters: Parameters) -> Parameters:
        prefix = f"{index}."
        return {k.removeprefix(prefix): v for k, v in parameters.items() if k.startswith(prefix)}
