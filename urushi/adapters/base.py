"""What every adapter is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from urushi.adapters.context import Context
from urushi.settings import Settings

__all__ = ["Adapter", "BlockChange", "OutputChange", "key_of", "parameter_of"]


@dataclass(frozen=True)
class OutputChange:
    """A module of the backbone whose output an adapter reads, or to which it adds something.

    Args:
        module: dotted path in the backbone.
        change: gets the output as the backbone gave it and returns what is added to it at strength
            1, of the same shape, or None when it only reads. What several adapters add is summed.
    """

    module: str
    change: Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class BlockChange:
    """A module of the backbone around which an adapter stands.

    Args:
        module: dotted path in the backbone.
        around: gets the module's own `forward` and then what the module was given; returns the
            result. `strength` is its own business.
    """

    module: str
    around: Callable[..., Tensor]


class Adapter(nn.Module):
    """Everything that one method adds to one frozen backbone.

    An adapter holds its own parameters and never those of the backbone. It acts in three ways: by
    `deltas`, which are added to parameters of the backbone for the time of a pass; by
    `output_changes`, which read feature maps or add to them; and by `block_changes`, which stand
    around whole modules. One that acts by deltas alone can be merged into the weights.

    Args:
        config: validated settings of the method.

    Attributes:
        method: its name in `METHODS`.
        reads: what of the batch's side information it acts by: `vector`, `weights`.
        strength: factor of its effect; 1 is what it was trained for, 0 the plain backbone.
        context: the batch at hand; None when the backbone is called directly, and then an attached
            adapter does nothing.
    """

    method: str
    reads: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Settings) -> None:
        super().__init__()
        self.config = config
        self.strength = 1.0
        self.context: Context | None = None

    @property
    def mergeable(self) -> bool:
        """Whether `merge` can put it into the backbone's weights."""
        return not self.output_changes() and not self.block_changes()

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is added to parameters of the backbone, by their names, at strength 1.

        Args:
            base: the backbone's own parameters.
        """
        return {}

    def added_to(
        self, base: Mapping[str, Tensor], changed: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parameters that deltas change, with the deltas at the adapter's strength, by name.

        Args:
            base: the backbone's own parameters.
            changed: those that other adapters have changed already.
        """
        below = {**base, **changed}
        deltas = self.deltas(base)
        if self.strength == 1:  # one multiplication less for each weight
            return {name: below[name] + delta for name, delta in deltas.items()}
        return {name: below[name] + self.strength * delta for name, delta in deltas.items()}

    def output_changes(self) -> list[OutputChange]:
        """What is read from feature maps and added to them."""
        return []

    def block_changes(self) -> list[BlockChange]:
        """What stands around modules."""
        return []

    def describe(self) -> dict[str, Any]:
        """Method and settings, as a recipe states them."""
        return {"method": self.method, **self.config.model_dump(mode="json", exclude_defaults=True)}


def key_of(parameter: str) -> str:
    """A parameter's dotted name as a key that torch accepts in a `ParameterDict`."""
    return parameter.replace(".", "/")


def parameter_of(key: str) -> str:
    """The dotted name behind a key of `key_of`."""
    return key.replace("/", ".")
