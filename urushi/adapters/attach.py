"""Putting adapters onto a frozen backbone, from outside, and taking them off again.

The backbone's code and its parameters stay what they are. For the time of a pass, parameters that
adapters change are replaced by the sum of the backbone's and the adapters' deltas
(`torch.func.functional_call`); feature maps are changed by hooks, and whole
modules by functions that stand around them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from urushi.adapters.base import Adapter, BlockChange, OutputChange
from urushi.adapters.context import Context
from urushi.adapters.saving import SavingBlock
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError

__all__ = ["Adapted", "ParameterReport", "attach"]


@dataclass(frozen=True)
class ParameterReport:
    """How much is trained.

    Attributes:
        backbone: parameters of the frozen backbone.
        trainable: parameters of the adapters.
        stored: numbers an adapter file holds: the trainable ones and the adapters' buffers.
    """

    backbone: int
    trainable: int
    stored: int

    @property
    def share(self) -> float:
        """Trainable parameters relative to those of the backbone."""
        return self.trainable / self.backbone


def attach(
    backbone: RestorationNetwork, *adapters: Adapter, save_memory: bool = False
) -> "Adapted":
    """Freezes a backbone and attaches adapters to it.

    Args:
        backbone: stays untouched until `merge`; called directly, it gives its plain result. While
            adapters are attached, it is in evaluation mode.
        adapters: made for this very architecture by `create_adapter`; their effects add up: deltas
            in the weights, branches where they join.
        save_memory: in training, keep the activations of a block's input alone and calculate the
            rest again on the way back.

    Raises:
        AdapterError: an adapter changes a parameter or module that the backbone does not have.
    """
    return Adapted(backbone, adapters, save_memory)


class Adapted(nn.Module):
    """A frozen backbone with adapters; called like the backbone.

    Its parameters are those of the adapters alone; moving it to a device moves the backbone, too.
    It begins in training mode, as every module does. See `attach`.
    """

    def __init__(
        self, backbone: RestorationNetwork, adapters: Sequence[Adapter], save_memory: bool = False
    ) -> None:
        super().__init__()
        # In a list, so that the backbone's parameters are not among this module's.
        self._held = [backbone]
        self.adapters = nn.ModuleList(adapters)
        changes, blocks = self._changes()
        self._wanted_gradients = {n: p.requires_grad for n, p in backbone.named_parameters()}
        backbone.requires_grad_(False)
        self._was_training = backbone.training
        backbone.eval()
        self._handles: list[RemovableHandle] = []
        self._blocks: dict[str, SavingBlock] = {}
        self._around: list[_Around] = []
        if save_memory:
            self._save_memory()
        for module, at in changes.items():
            hook = _added(at)
            self._handles.append(backbone.get_submodule(module).register_forward_hook(hook))
        # Last, so that they stand outside of blocks that are calculated twice.
        self._around = [_Around(backbone.get_submodule(c.module), a, c) for a, c in blocks]

    @property
    def backbone(self) -> RestorationNetwork:
        """The frozen backbone."""
        return self._held[0]

    @property
    def size_multiple(self) -> int:
        """As the backbone's."""
        return self.backbone.size_multiple

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Restores pictures as the backbone does; the result is not clipped."""
        height, width = x.shape[-2:]
        m = self.size_multiple
        context = Context((height + -height % m, width + -width % m))
        with _Acting(self._adapters(), context):
            tensors = self.effective_parameters()
            for name, block in self._blocks.items():
                tensors = block.take(name, tensors)
            try:
                return functional_call(self.backbone, tensors, (x,))
            finally:
                for block in self._blocks.values():
                    block.forget()

    def effective_parameters(self) -> dict[str, Tensor]:
        """The parameters that adapters change, by name, as they are with all deltas added."""
        base = dict(self.backbone.named_parameters())
        changed: dict[str, Tensor] = {}
        # Sums of small numbers: never in half precision.
        with torch.autocast(next(iter(base.values())).device.type, enabled=False):
            for adapter in self._adapters():
                for name, delta in adapter.deltas(base).items():
                    below = changed.get(name, base[name])
                    changed[name] = below + adapter.strength * delta
        return changed

    def report(self) -> ParameterReport:
        """Counts what is trained."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        return ParameterReport(
            backbone=sum(p.numel() for p in self.backbone.parameters()),
            trainable=sum(p.numel() for p in trainable),
            stored=sum(t.numel() for t in self.adapters.state_dict().values()),
        )

    def detach(self) -> RestorationNetwork:
        """Takes the adapters off; the backbone is bit for bit what it was before."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for around in reversed(self._around):
            around.restore()
        self._around.clear()
        for block in self._blocks.values():
            block.restore()
        self._blocks.clear()
        self.backbone.train(self._was_training)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(self._wanted_gradients[name])
        return self.backbone

    def merge(self) -> RestorationNetwork:
        """Puts the adapters into the backbone's weights and takes them off.

        Raises:
            AdapterError: one of them changes feature maps, which weights cannot hold; nothing is
                changed then.
        """
        for adapter in self._adapters():
            if not adapter.mergeable:
                raise AdapterError(
                    f"an adapter of method {adapter.method} is a branch of its own, which weights "
                    "cannot hold: run it attached"
                )
        with torch.no_grad():
            merged = self.effective_parameters()
            for name, parameter in self.backbone.named_parameters():
                if name in merged:
                    parameter.copy_(merged[name])
        return self.detach()

    def train(self, mode: bool = True) -> "Adapted":
        """Sets the mode of the adapters; the backbone is always in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def _adapters(self) -> list[Adapter]:
        return [adapter for adapter in self.adapters if isinstance(adapter, Adapter)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Adapted":
        self.backbone._apply(fn)
        return super()._apply(fn, recurse)

    def _changes(
        self,
    ) -> tuple[dict[str, list[tuple[Adapter, OutputChange]]], list[tuple[Adapter, BlockChange]]]:
        """What adapters do to feature maps: by module, and around modules.

        Raises:
            AdapterError: the backbone does not have what one of them changes.
        """
        base = dict(self.backbone.named_parameters())
        modules = dict(self.backbone.named_modules())
        changes: dict[str, list[tuple[Adapter, OutputChange]]] = {}
        blocks = []
        for adapter in self._adapters():
            for name, delta in adapter.deltas(base).items():
                if name not in base or base[name].shape != delta.shape:
                    raise AdapterError(
                        f"the adapter changes {name}, {tuple(delta.shape)}, which this backbone "
                        "does not have: it was made for another one"
                    )
            for change in [*adapter.output_changes(), *adapter.block_changes()]:
                if change.module not in modules:
                    raise AdapterError(
                        f"the adapter changes the output of {change.module}, which this backbone "
                        "does not have: it was made for another one"
                    )
                if isinstance(change, OutputChange):
                    changes.setdefault(change.module, []).append((adapter, change))
                else:
                    blocks.append((adapter, change))
        return changes, blocks

    def _save_memory(self) -> None:
        for stage in self.backbone.sites.stages:
            for name in stage.blocks:
                block = self.backbone.get_submodule(name)
                self._blocks[name] = SavingBlock(block, self._again)

    def _again(self) -> "_Acting | None":
        """What surrounds the second calculation of a part of the present pass."""
        adapters = self._adapters()
        context = adapters[0].context if adapters else None
        return _Acting(adapters, replace(context, again=True)) if context else None


class _Acting:
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


def _added(
    changes: Sequence[tuple[Adapter, OutputChange]],
) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook that adds to a module's output what the adapters at it make of it."""

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        result = output
        for adapter, change in changes:
            if adapter.context is None or not adapter.strength:
                continue
            added = change.change(output)
            if added is not None:
                result = result + (adapter.strength * added).to(output.dtype)
        return result

    return hook


class _Around:
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
