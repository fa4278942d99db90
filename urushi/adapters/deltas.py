"""Adapters that are a formula: their tensors as parameters of torch, their deltas by the method."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from urushi.adapters.base import Adapter, OutputChange, key_of, parameter_of
from urushi.adapters.method import Fresh, Groups, Method, UnfitError
from urushi.adapters.sums import plain_sums, summed
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError
from urushi.settings import Settings

__all__ = ["DeltaAdapter", "FormulaAdapter"]


class FormulaAdapter(Adapter):
    """An adapter whose deltas are those of a method's formula.

    Its parameters: a `ParameterDict` for each group of the method.

    Attributes:
        formula: the method.
    """

    formula: Method

    def groups(self) -> Groups:
        """Its tensors as the formula takes them."""
        return {
            group: {parameter_of(key): tensor for key, tensor in getattr(self, group).items()}
            for group in self.formula.groups
        }

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        assert self.formula.deltas is not None
        try:
            return self.formula.deltas(self.groups(), self.config, base)
        except UnfitError as error:
            raise AdapterError(f"{error}: the adapter was made for another backbone") from error


class DeltaAdapter(FormulaAdapter):
    """An adapter that a method describes without torch.

    Args:
        backbone: what it is made for.
        config: validated settings of the method.
        formula: the method, with what its tensors are at first.
        method: its name in `METHODS`.
    """

    def __init__(
        self, backbone: RestorationNetwork, config: Settings, formula: Method, method: str
    ) -> None:
        super().__init__(config)
        assert formula.start is not None
        self.formula, self.method = formula, method
        made: dict[str, dict[str, nn.Parameter]] = {group: {} for group in formula.groups}
        for (group, name), fresh in formula.start(backbone, config).items():
            made[group][key_of(name)] = _parameter(fresh)
        for group, parameters in made.items():
            setattr(self, group, nn.ParameterDict(parameters))
        self._shapes = {name: tuple(p.shape) for name, p in backbone.named_parameters()}

    def added_to(
        self, base: Mapping[str, Tensor], changed: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        if not self.formula.whole:
            return super().added_to(base, changed)
        deltas = self.deltas(base)
        below = {name: changed.get(name, base[name]) for name in deltas}
        if not plain_sums(below.values(), deltas.values()):
            return super().added_to(base, changed)
        return summed(below, deltas, {}, float(self.strength))

    def output_changes(self) -> list[OutputChange]:
        return [OutputChange(name, partial(self._added, name)) for name in self._offsets()]

    def _offsets(self) -> dict[str, Tensor]:
        offsets: Callable[..., dict[str, Tensor]] | None = self.formula.offsets
        return {} if offsets is None else offsets(self.groups(), self.config, self._shapes)

    def _added(self, name: str, output: Tensor) -> Tensor:
        return self._offsets()[name].expand_as(output)


def _parameter(fresh: Fresh) -> nn.Parameter:
    if not fresh.bound:
        return nn.Parameter(torch.full(fresh.shape, fresh.value))
    first = torch.empty(fresh.shape).uniform_(-fresh.bound, fresh.bound)
    return nn.Parameter(first + fresh.value if fresh.value else first)
