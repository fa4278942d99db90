"""What a training carries from step to step, as named tensors and back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from urushi.errors import RecipeError
from urushi.settings import parse_settings
from urushi.training.average import WeightAverage
from urushi.training.checkpoint import Checkpoint
from urushi.training.pretext import Pretext
from urushi.training.recipe import Recipe

__all__ = ["CHANGEABLE", "State", "check_same_training"]

# What a resumed training may change: how it goes on, not what it is made of.
CHANGEABLE = {
    "checkpoint_minutes",
    "compile",
    "description",
    "loss",
    "optimizer",
    "precision",
    "save_memory",
    "schedule",
    "validation",
}
_PRETEXT = "pretext."


class State:
    """Weights, their moving average and the optimizer's moments.

    Args:
        network: what is trained.
        pretext: trained beside it, if there is one.
        average: of the network's parameters, if there is one.
    """

    def __init__(
        self, network: nn.Module, pretext: Pretext | None, average: WeightAverage | None
    ) -> None:
        self._network, self._pretext, self._average = network, pretext, average

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """All that the optimizer changes, by the names that checkpoints use."""
        own = list(self._network.named_parameters())
        if self._pretext is not None:
            own += [(_PRETEXT + name, p) for name, p in self._pretext.named_parameters()]
        return own

    def averaged(self) -> dict[str, Tensor]:
        """The network's tensors as they are shipped: on the CPU, float32, counters as they are."""
        tensors = dict(self._network.state_dict())
        tensors |= {} if self._average is None else self._average.weights
        return {
            name: (tensor.detach().float() if tensor.is_floating_point() else tensor).cpu().clone()
            for name, tensor in tensors.items()
        }

    def tensors(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """All of it, as a checkpoint holds it."""
        weights = dict(self._network.state_dict())
        weights |= {n: p for n, p in self.trained() if n.startswith(_PRETEXT)}
        tensors = {f"weights.{name}": tensor for name, tensor in weights.items()}
        if self._average is not None:
            tensors |= {f"ema.{name}": tensor for name, tensor in self._average.weights.items()}
        names = [name for name, _ in self.trained()]
        for index, state in optimizer.state_dict()["state"].items():
            tensors[f"moment1.{names[index]}"] = state["exp_avg"]
            tensors[f"moment2.{names[index]}"] = state["exp_avg_sq"]
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def restore(self, checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
        """Takes over what `tensors` gave."""
        weights = checkpoint.group("weights")
        if self._pretext is not None:
            self._pretext.load_state_dict(checkpoint.group("weights.pretext"))
        self._network.load_state_dict(_without(weights, _PRETEXT))
        if self._average is not None:
            self._average.load(checkpoint.group("ema"))
        first, second = checkpoint.group("moment1"), checkpoint.group("moment2")
        step = torch.tensor(float(checkpoint.step))
        state = optimizer.state_dict()
        state["state"] = {
            index: {
                "step": step.clone(),
                # The fused optimizer walks through memory: moments must lie as their weights do.
                "exp_avg": torch.empty_like(parameter.detach()).copy_(first[name]),
                "exp_avg_sq": torch.empty_like(parameter.detach()).copy_(second[name]),
            }
            for index, (name, parameter) in enumerate(self.trained())
            if name in first
        }
        optimizer.load_state_dict(state)


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}


def check_same_training(recipe: Recipe, data: str, checkpoint: Checkpoint, run: object) -> None:
    """Refuses to go on with a training that was another one.

    Args:
        recipe: of now.
        data: content hash of the pack of now.
        checkpoint: to go on with.
        run: named in messages.

    Raises:
        RecipeError: the data, or a key of the recipe that must not change, is another.
    """
    if checkpoint.data != data:
        raise RecipeError(
            f"{run} was trained on other pictures: give the same, or choose another folder"
        )
    # Read anew, so that keys which came later have their defaults.
    before = parse_settings(checkpoint.recipe, Recipe, RecipeError, f"the recipe in {run}")
    then = before.model_dump(mode="json")
    for key, value in recipe.model_dump(mode="json").items():
        if key not in CHANGEABLE and value != then[key]:
            raise RecipeError(
                f"{run} was started with {key} {then[key]!r}, the recipe now says {value!r}: a "
                f"resumed training may only change {', '.join(sorted(CHANGEABLE))}"
            )
