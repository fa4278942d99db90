"""Training with less memory: blocks whose activations are calculated again on the way back."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

__all__ = ["SavingBlock"]


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
