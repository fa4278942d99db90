"""Training with less memory: weights of a pass that are not kept for the way back.

A batch with several routes has weights of its own for each of them. They are formed from the
backbone's weights and small factors in next to no time: so they are formed again on the way back,
those of one route at a time.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

__all__ = ["Rebuilt"]


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
