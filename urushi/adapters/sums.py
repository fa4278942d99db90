"""The sums of a frozen network's parameters and an adapter's deltas, as one function.

A network has hundreds of small parameters. Recorded one by one, adding their deltas and going back
through each addition costs a CPU as much as a picture of the batch. Here all sums are one step of
autograd; a whole delta's gradient is that of its sum, and nothing is calculated for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from urushi.backbones.factors import Factors, leave_factors

__all__ = ["plain_sums", "summed"]


def plain_sums(below: Iterable[Tensor], own: Iterable[Tensor]) -> bool:
    """Whether `summed` can add an adapter's own tensors to these: all float32, these frozen.

    A compiler forms sums of its own, and without gradients there is nothing to save: results
    then have the bits of sums that are formed one by one.
    """
    return (
        torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and all(tensor.dtype == torch.float32 and not tensor.requires_grad for tensor in below)
        and all(tensor.dtype == torch.float32 for tensor in own)
    )


def summed(
    below: Mapping[str, Tensor],
    whole: Mapping[str, Tensor],
    products: Mapping[str, Factors],
    strength: float,
) -> dict[str, Tensor]:
    """Parameters with their deltas, by name; products keep their factors beside them.

    Args:
        below: what deltas are added to, frozen; float32.
        whole: deltas of the parameters' own shapes.
        products: deltas whose numbers, row by row, are those of `scale * up @ down`.
        strength: factor of all deltas.
    """
    scaled = [Factors(f.down, f.up, f.scale * strength) for f in products.values()]
    names = [*whole, *products]
    tensors = [*whole.values(), *(f.down for f in scaled), *(f.up for f in scaled)]
    scales = [f.scale for f in scaled]
    frozen = [below[name].detach() for name in names]
    results = _Summed.apply(frozen, strength, scales, *tensors)
    assert isinstance(results, tuple)
    for result, factors in zip(results[len(whole) :], scaled, strict=True):
        # As a matrix it is the product only where a row of the one is a row of the other.
        if result[0].numel() == factors.down.shape[1]:
            leave_factors(result, factors)
    return dict(zip(names, results, strict=True))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, frozen: list[Tensor], strength: float, scales: list[float], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(scales)
        whole = len(tensors) - 2 * count
        deltas, factors = tensors[:whole], tensors[whole:]
        downs, ups = factors[:count], factors[count:]
        ctx.set_materialize_grads(False)
        ctx.strength, ctx.scales, ctx.whole = strength, scales, whole
        ctx.save_for_backward(*factors)
        sums = list(_added(frozen[:whole], list(deltas), strength))
        for below, down, up, scale in zip(frozen[whole:], downs, ups, scales, strict=True):
            sums.append(_with_product(below, down, up, scale))
        return tuple(sums)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        count, strength = len(ctx.scales), ctx.strength
        downs, ups = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        found: list[Tensor | None] = list(grads[: ctx.whole])
        if strength != 1:
            found = [None if grad is None else strength * grad for grad in found]
        back_down: list[Tensor | None] = []
        back_up: list[Tensor | None] = []
        for grad, down, up, scale in zip(grads[ctx.whole :], downs, ups, ctx.scales, strict=True):
            if grad is None:
                back_down.append(None)
                back_up.append(None)
                continue
            matrix = grad.reshape(len(up), -1)
            back_down.append((up.t() @ matrix).mul_(scale))
            back_up.append((matrix @ down.t()).mul_(scale))
        return None, None, None, *found, *back_down, *back_up


def _added(frozen: list[Tensor], deltas: list[Tensor], strength: float) -> Sequence[Tensor]:
    if not frozen:
        return ()
    return torch._foreach_add(frozen, deltas, alpha=strength)  # pyright: ignore[reportPrivateImportUsage]


def _with_product(frozen: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    if frozen.is_contiguous():
        rows = frozen.view(len(up), down.shape[1])
        return torch.addmm(rows, up, down, alpha=scale).view(frozen.shape)
    return torch.add(frozen, (up @ down).view(frozen.shape), alpha=scale)
