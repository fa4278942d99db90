"""Training with less memory: what the way back needs is calculated again instead of kept.

`SavingBlock` does so with the activations inside a block. `Rebuilt` does so with weights: a batch
with several routes has weights of its own for each of them, which are formed from the backbone's
weights and small factors in next to no time.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

__all__ = ["Rebuilt", "SavingBlock"]


class SavingBlock:
    """A block of a backbone whose inner activations are not kept for the way back.

    It is given its changed parameters as arguments: when it is calculated again, the backbone
    around it has its own parameters back.

    Args:
        block: its `forward` is replaced until `restore`.
        again: what surrounds the second calculation of the present pass, or None outside of one.
    """

    def __init__(
        self, block: nn.Module, again: Callable[[], AbstractContextManager[None] | None]
    ) -> None:
        self._block = block
        self._again = again
        self._inner = _Inner(block)
        self._tensors: dict[str, Tensor] = {}
        # Compilers do not see through the second calculation: such a block runs as it is.
        block.forward = torch.compiler.disable(self._run)

    def take(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Takes the block's parameters out of those of the whole backbone."""
        start = f"{name}."
        self._tensors = {
            f"block.{k.removeprefix(start)}": v for k, v in tensors.items() if k.startswith(start)
        }
        return {k: v for k, v in tensors.items() if not k.startswith(start)}

    def forget(self) -> None:
        """Lets go of the parameters of the pass that is over."""
        self._tensors = {}

    def restore(self) -> None:
        """Gives the block its own `forward` back."""
        del self._block.forward

    def _run(self, *inputs: Any) -> Tensor:
        tensors, again = self._tensors, self._again()

        def run(*inputs: Any) -> Tensor:
            return functional_call(self._inner, tensors, inputs)

        if again is None or not torch.is_grad_enabled():
            return run(*inputs)
        result = checkpoint(
            run, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), again)
        )
        assert isinstance(result, Tensor)
        return result


class _Inner(nn.Module):
    """Calls a block's class, past the `forward` that stands on the block itself."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *inputs: Any) -> Tensor:
        return type(self.block).forward(self.block, *inputs)


class Rebuilt(saved_tensors_hooks):
    """Around one pass: autograd remembers the names of its weights, and not the weights.

    Args:
        tensors: the weights of the pass, by name; alive until its end.
        form: gives them again, by name.
        parameters: what they are formed from: must not change until the way back is done.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        form: Callable[[], Mapping[str, Tensor]],
        parameters: Iterable[Tensor],
    ) -> None:
        super().__init__(self._remember, self._recall)
        self._names = {t.untyped_storage().data_ptr(): name for name, t in tensors.items()}
        self._form = form
        self._parameters = list(parameters)
        self._versions = [parameter._version for parameter in self._parameters]
        # Lives as long as a part of this pass's graph does.
        self._again: Mapping[str, Tensor] | None = None

    def _remember(self, tensor: Tensor) -> Any:
        name = self._names.get(tensor.untyped_storage().data_ptr())
        if name is None:
            return tensor
        return name, tensor.size(), tensor.stride(), tensor.storage_offset()

    def _recall(self, remembered: Any) -> Tensor:
        if isinstance(remembered, Tensor):
            return remembered
        if self._again is None:
            if self._versions != [parameter._version for parameter in self._parameters]:
                raise RuntimeError(
                    "parameters of an adapter were changed between a pass and its way back: go "
                    "back first, then change them"
                )
            with torch.no_grad():
                self._again = self._form()
        name, size, stride, offset = remembered
        return self._again[name].as_strided(size, stride, offset)
