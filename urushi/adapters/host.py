"""A backbone and the adapters on it, as one network to which further adapters can be made."""

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor, nn

from urushi.adapters.base import Adapter
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import Sites
from urushi.errors import AdapterError

__all__ = ["Host", "named_apart"]


class Host(RestorationNetwork):
    """A backbone together with adapters whose own layers are to be adapted, too.

    Everything of the backbone keeps its name; what belongs to an adapter is named
    `METHOD.PARAMETER`, as in `guidance.stages.0.squeeze.weight`. Given to `create_adapter` in place
    of the backbone, it makes experts that change the layers of both; they are attached to the
    backbone itself, together with those adapters. All modules and parameters are shared with the
    backbone and the adapters.

    Args:
        backbone: stays as it is.
        adapters: of different methods.

    Raises:
        AdapterError: two have the same method, or the backbone has a part of that name.
    """

    def __init__(self, backbone: RestorationNetwork, *adapters: Adapter) -> None:
        super().__init__()
        # In a list, so that nothing is listed twice.
        self._held = [backbone]
        self.size_multiple = backbone.size_multiple
        self.scale, self.fixed_patch = backbone.scale, backbone.fixed_patch
        for name, module in backbone.named_children():
            self.add_module(name, module)
        for name, parameter in backbone.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for adapter in adapters:
            if adapter.method in self._modules:
                raise AdapterError(
                    f"{adapter.method} is there already: one adapter of each method can be adapted "
                    "itself"
                )
            self.add_module(adapter.method, adapter)
        self.training = backbone.training

    @property
    def sites(self) -> Sites:
        """Those of the backbone."""
        return self._held[0].sites

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """The plain backbone's result."""
        return self._held[0](x)


def named_apart(adapters: Iterable[Adapter]) -> dict[str, nn.Parameter]:
    """The adapters' own parameters, named as a `Host` names them.

    An adapter whose method another one of them has, too, is left out: it cannot be told by name.
    """
    found = list(adapters)
    methods = [adapter.method for adapter in found]
    return {
        f"{adapter.method}.{name}": parameter
        for adapter in found
        if methods.count(adapter.method) == 1
        for name, parameter in adapter.named_parameters()
    }
