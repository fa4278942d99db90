"""How adapters act during a pass: context, hooks, and functions around modules."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from urushi.adapters.base import Adapter, BlockChange, OutputChange
from urushi.adapters.context import Context
from urushi.backbones.network import RestorationNetwork

__all__ = ["Acting", "Around", "Whole", "added"]


class Whole(nn.Module):
    """A backbone and its adapters, so that the parameters of both can be replaced for a pass."""

    def __init__(self, backbone: RestorationNetwork, adapters: nn.ModuleList) -> None:
        super().__init__()
        self.backbone, self.adapters = backbone, adapters

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x)


class Acting:
    """Gives adapters their context for the length of a `with`; it can be entered again."""

    def __init__(self, adapters: Sequence[Adapter], context: Context) -> None:
        self._adapters = adapters
        self._context = context
        self._before: list[Context | None] = []

    def __enter__(self) -> None:
        self._before = [adapter.context for adapter in self._adapters]
        for adapter in self._adapters:
            adapter.context = self._context

    def __exit__(self, *_: object) -> None:
        for adapter, before in zip(self._adapters, self._before, strict=True):
            adapter.context = before


def added(
    changes: Sequence[tuple[Adapter, OutputChange]],
) -> Callable[[nn.Module, Any, Any], Any]:
    """A hook that adds to a module's output what the adapters at it make of it.

    A packed projection gives queries, keys and values apart, of which the number of tokens may
    differ: what is added to them is made of their first tokens, since it is an offset for all.
    """

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            first = torch.cat([part[:1] for part in output], -1)
            offset = one(module, inputs, first) - first
            sizes = [part.shape[-1] for part in output]
            parts = zip(output, offset.split(sizes, -1), strict=True)
            return tuple(part + own for part, own in parts)
        return one(module, inputs, output)

    def one(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        result = output
        for adapter, change in changes:
            if adapter.context is None or not adapter.strength:
                continue
            added = change.change(output)
            if added is not None:
                result = result + (adapter.strength * added).to(output.dtype)
        return result

    return hook


class Around:
    """An adapter that stands around a module, until `restore`."""

    def __init__(self, module: nn.Module, adapter: Adapter, change: BlockChange) -> None:
        self._module = module
        self._before = module.__dict__.get("forward")
        inner = module.forward

        def forward(*inputs: Any) -> Tensor:
            acts = adapter.context is not None and adapter.strength
            return change.around(inner, *inputs) if acts else inner(*inputs)

        module.forward = forward

    def restore(self) -> None:
        """Gives the module back the `forward` it had."""
        if self._before is None:
            del self._module.forward
        else:
            self._module.forward = self._before
