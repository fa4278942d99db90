"""Putting adapters onto a frozen backbone, from outside, and taking them off again.

The backbone's code and its parameters stay what they are. For the time of a pass, parameters that
adapters change are replaced by the sum of the backbone's and the adapters' deltas
(`torch.func.functional_call`); feature maps are changed by hooks, and whole
modules by functions that stand around them.

A batch whose pictures have different routes through experts is divided: one pass for all pictures
of one route, with the weights of that route. So the convolutions of a step cost what one pass over
the whole batch costs, exactly, for any number of experts and for routes of several. With one expert
for each picture there are at most as many passes as experts; routes of several have weights of
their own for each picture, and so mostly a pass for each. The weights of a route are formed again
on the way back and not kept.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from urushi.adapters.base import Adapter, BlockChange, OutputChange
from urushi.adapters.checkpointing import Rebuilt, SavingBlock
from urushi.adapters.context import Context, check_vector, divided, one_route
from urushi.adapters.hooks import Acting, Around, Whole, added
from urushi.adapters.host import named_apart
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError

__all__ = ["Adapted", "FixedRoute", "ParameterReport", "attach"]


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
            in the weights, branches where they join. One whose own parameters another one changes
            (see `urushi.adapters.host.Host`) is frozen as the backbone is.
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
        self.adapters = nn.ModuleList(adapters)
        # In a list, so that the backbone's parameters are not among this module's.
        self._held = [Whole(backbone, self.adapters)]
        self._adapted: list[int] = []
        changes, blocks = self._changes()
        frozen = [backbone, *(self.adapters[index] for index in self._adapted)]
        self._wanted_gradients = [(p, p.requires_grad) for m in frozen for p in m.parameters()]
        for module in frozen:
            module.requires_grad_(False)
        self._was_training = backbone.training
        backbone.eval()
        self._handles: list[RemovableHandle] = []
        self._blocks: dict[str, SavingBlock] = {}
        self._around: list[Around] = []
        if save_memory:
            self._save_memory()
        for module, at in changes.items():
            hook = added(at)
            self._handles.append(backbone.get_submodule(module).register_forward_hook(hook))
        # Last, so that they stand outside of blocks that are calculated twice.
        self._around = [Around(backbone.get_submodule(c.module), a, c) for a, c in blocks]

    @property
    def backbone(self) -> RestorationNetwork:
        """The frozen backbone."""
        return self._held[0].backbone

    @property
    def size_multiple(self) -> int:
        """As the backbone's."""
        return self.backbone.size_multiple

    @property
    def scale(self) -> int:
        """As the backbone's."""
        return self.backbone.scale

    @property
    def fixed_patch(self) -> int | None:
        """As the backbone's."""
        return self.backbone.fixed_patch

    @property
    def reads(self) -> frozenset[str]:
        """The side information that the adapters act by: `vector`, `weights`."""
        return frozenset().union(*(adapter.reads for adapter in self._every()))

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        *,
        vector: Float[Tensor, "rows d"] | None = None,
        weights: Float[Tensor, "rows n"] | None = None,
    ) -> Float[Tensor, "b c2 h2 w2"]:
        """Restores pictures as the backbone does; the result is not clipped.

        Args:
            x: pictures.
            vector: degradation vectors of the pictures, or one for all. Without, guidance does
                nothing.
            weights: of the experts, for each picture. Without, and where all are 0, experts do
                nothing. No gradient reaches them.

        Raises:
            AdapterError: no adapter acts by what is given, or it is of the wrong shape.
        """
        check_vector(vector, len(x), self.reads)
        groups = divided(weights, len(x), self.reads)
        if len(groups) == 1:
            return self._pass(x, Context((0, 0), vector=vector, weights=groups[0][0]))
        results = []
        for route, rows in groups:
            own = vector if vector is None or len(vector) == 1 else vector[rows]
            context = Context((0, 0), vector=own, weights=route)
            results.append(self._pass(x[rows], context, rebuild=torch.is_grad_enabled()))
        order = torch.tensor([row for _, rows in groups for row in rows], device=x.device)
        return torch.cat(results)[order.argsort()]

    def fixed(
        self,
        *,
        vector: Float[Tensor, "1 d"] | None = None,
        weights: Sequence[float | int] | None = None,
    ) -> "FixedRoute":
        """The network for one picture, or several of one route: what its tiles are given to.

        The weights are put together here, once, as the parameters are now; each tile then costs
        what it costs the plain backbone (and a normalisation for each guided stage).

        Args:
            vector: the picture's degradation vector.
            weights: of the experts.

        Raises:
            AdapterError: as for `forward`.
        """
        check_vector(vector, 1, self.reads)
        route = one_route(weights, self.reads)
        return FixedRoute(self, Context((0, 0), vector=vector, weights=route))

    def effective_parameters(self) -> dict[str, Tensor]:
        """The parameters that adapters change, by name, as they are with all deltas added."""
        base = self._base_parameters()
        changed: dict[str, Tensor] = {}
        # Sums of small numbers: never in half precision.
        with torch.autocast(next(iter(base.values())).device.type, enabled=False):
            for adapter in self._adapters():
                changed |= adapter.added_to(base, changed)
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
        for parameter, wanted in self._wanted_gradients:
            parameter.requires_grad_(wanted)
        return self.backbone

    def merge(self, weights: Sequence[float | int] | None = None) -> RestorationNetwork:
        """Puts the adapters into the backbone's weights and takes them off.

        Args:
            weights: of the experts, if there are any: the one route that the result has.

        Raises:
            AdapterError: one of them changes feature maps, which weights cannot hold, or experts
                have no weights; nothing is changed then.
        """
        context = Context((0, 0), weights=one_route(weights, self.reads))
        with torch.no_grad(), Acting(self._every(), context):
            for adapter in self._adapters():
                if not adapter.mergeable:
                    kind = "a branch of its own"
                    if "weights" in adapter.reads and weights is None:
                        kind = "a mixture without its weights"
                    raise AdapterError(
                        f"an adapter of method {adapter.method} is {kind}, which weights cannot "
                        "hold: run it attached"
                    )
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

    def _every(self) -> list[Adapter]:
        """The adapters and those inside of them."""
        return [module for module in self.adapters.modules() if isinstance(module, Adapter)]

    def _base_parameters(self) -> dict[str, Tensor]:
        """What deltas are added to: the backbone's, and those of adapters that are adapted."""
        found: dict[str, Tensor] = dict(self.backbone.named_parameters())
        adapters = self._adapters()
        return found | named_apart(adapters[index] for index in self._adapted)

    def _pass(
        self,
        x: Tensor,
        context: Context,
        tensors: Mapping[str, Tensor] | None = None,
        rebuild: bool = False,
    ) -> Tensor:
        """One pass of pictures that have one route.

        Args:
            x: the pictures.
            context: its sides are filled in here.
            tensors: the effective parameters, where they are known.
            rebuild: form them again on the way back.
        """
        height, width = x.shape[-2:]
        m = self.size_multiple
        context = replace(context, sides=(height + -height % m, width + -width % m))
        with Acting(self._every(), context):
            tensors = self.effective_parameters() if tensors is None else tensors
            around = self._rebuilt(tensors, context) if rebuild else nullcontext()
            for name, block in self._blocks.items():
                tensors = block.take(name, tensors)
            try:
                with around:
                    return functional_call(self._held[0], self._inside(tensors), (x,))
            finally:
                for block in self._blocks.values():
                    block.forget()

    def _rebuilt(self, tensors: Mapping[str, Tensor], context: Context) -> Rebuilt:
        def form() -> Mapping[str, Tensor]:
            with Acting(self._every(), context):
                return self.effective_parameters()

        return Rebuilt(tensors, form, [*self.backbone.parameters(), *self.parameters()])

    def _inside(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by their names in the module that a pass calls."""
        starts = {f"{self._adapters()[i].method}.": f"adapters.{i}." for i in self._adapted}
        found = {}
        for name, tensor in tensors.items():
            start = next((start for start in starts if name.startswith(start)), "")
            found[starts.get(start, "backbone.") + name.removeprefix(start)] = tensor
        return found

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
        base: dict[str, Tensor] = dict(self.backbone.named_parameters())
        apart = named_apart(self._adapters())
        modules = dict(self.backbone.named_modules())
        changes: dict[str, list[tuple[Adapter, OutputChange]]] = {}
        blocks = []
        for adapter in self._every():
            for name, delta in adapter.deltas({**apart, **base}).items():
                if name not in base and name in apart:
                    self._note_adapted(name)
                known = base.get(name, apart.get(name))
                if known is None or known.shape != delta.shape:
                    raise AdapterError(
                        f"the adapter changes {name}, {tuple(delta.shape)}, which this backbone "
                        "does not have: it was made for another one"
                    )
        for adapter in self._adapters():
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

    def _note_adapted(self, parameter: str) -> None:
        """Remembers whose parameter it is that another adapter changes."""
        method = parameter.partition(".")[0]
        index = [adapter.method for adapter in self._adapters()].index(method)
        if index not in self._adapted:
            self._adapted.append(index)

    def _save_memory(self) -> None:
        for stage in self.backbone.sites.stages:
            for name in stage.blocks:
                block = self.backbone.get_submodule(name)
                self._blocks[name] = SavingBlock(block, self._again)

    def _again(self) -> "Acting | None":
        """What surrounds the second calculation of a part of the present pass."""
        adapters = self._every()
        context = adapters[0].context if adapters else None
        return Acting(adapters, replace(context, again=True)) if context else None


class FixedRoute:
    """An adapted backbone for pictures of one route, for inference; see `Adapted.fixed`."""

    def __init__(self, adapted: Adapted, context: Context) -> None:
        self._adapted, self._context = adapted, context
        with torch.no_grad(), Acting(adapted._every(), context):
            self._tensors = adapted.effective_parameters()

    def __call__(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Restores tiles, or pictures of this route; the result is not clipped."""
        with torch.no_grad():
            return self._adapted._pass(x, self._context, self._tensors)
