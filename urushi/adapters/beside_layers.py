"""Branches beside single layers, which read what the layer reads: what their methods share."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.adapters.base import Adapter, BlockChange, key_of
from urushi.adapters.layers import WeightLayer, choose, weight_layers
from urushi.adapters.method import linear
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError
from urushi.settings import Settings

__all__ = ["LayerBranches", "chosen_layers"]


@dataclass(frozen=True)
class _Geometry:
    """How a layer passes over its input; None in place of it for a linear one."""

    stride: tuple[int, ...]
    padding: str | tuple[int, ...]
    dilation: tuple[int, ...]


class LayerBranches(Adapter):
    """A branch of a few channels beside layers: `layer(x) + up(change(down(x)))`.

    `down` passes over the input as the layer does, with its kernel, stride and padding, into r
    channels; `up` makes the layer's channels of them, place by place.

    Its parameters: `down`, `(r, in * kh * kw)`, random as LoRA's; `up`, `(out, r)`, zero at first.

    Args:
        backbone: what it is made for.
        config: validated settings of the method.
        layers: beside which branches stand; see `chosen_layers`.
        rank: r.
    """

    def __init__(
        self,
        backbone: RestorationNetwork,
        config: Settings,
        layers: Sequence[WeightLayer],
        rank: int,
    ) -> None:
        super().__init__(config)
        self.branch_down, self.branch_up = nn.ParameterDict(), nn.ParameterDict()
        self._layers = {key_of(layer.weight): layer for layer in layers}
        self._geometry = {key: _geometry(backbone, one) for key, one in self._layers.items()}
        for key, layer in self._layers.items():
            bound = linear(inputs=layer.columns).bound
            first = torch.empty(rank, layer.columns).uniform_(-bound, bound)
            self.branch_down[key] = nn.Parameter(first)
            self.branch_up[key] = nn.Parameter(torch.zeros(layer.rows, rank))

    @abstractmethod
    def changed(self, key: str, hidden: Tensor, axis: int) -> Tensor:
        """What becomes of the r channels of a branch.

        Args:
            key: of the layer's weight.
            hidden: `(B, r, h, w)` beside a convolution, `(..., r)` beside a linear layer.
            axis: that of the channels.
        """

    def block_changes(self) -> list[BlockChange]:
        return [BlockChange(one.name, self._around(key)) for key, one in self._layers.items()]

    def _around(self, key: str) -> Callable[..., Tensor]:
        layer, geometry = self._layers[key], self._geometry[key]

        def around(inner: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
            result, (x,) = inner(*inputs), inputs
            down, up = self.branch_down[key], self.branch_up[key]
            if geometry is None:
                added = F.linear(self.changed(key, F.linear(x, down), -1), up)
            else:
                down, up = down.view(-1, *layer.shape[1:]), up[:, :, None, None]
                places = geometry.stride, geometry.padding, geometry.dilation
                hidden = F.conv2d(x, down, None, *places)  # pyright: ignore[reportArgumentType, reportCallIssue]
                added = F.conv2d(self.changed(key, hidden, 1), up)
            return result + (self.strength * added).to(result.dtype)

        return around


def chosen_layers(
    backbone: RestorationNetwork, patterns: Sequence[str], method: str
) -> list[WeightLayer]:
    """The layers beside which branches can stand, of those that are chosen.

    These are linear layers, and convolutions of one group that are not transposed: all their
    outputs read all their inputs. A layer that is called in a way of its own is left out, as IPT's
    projection of queries, keys and values.

    Raises:
        AdapterError: a pattern matches nothing, or no such layer is among them.
    """
    layers = {layer.name: layer for layer in weight_layers(backbone)}
    chosen = [layers[name] for name in choose(layers, patterns, "layers")]
    dense = [layer for layer in chosen if _takes_branch(backbone, layer)]
    if not dense:
        raise AdapterError(
            f"method {method} needs linear layers or convolutions of one group, of which this "
            "backbone has none among the chosen layers: choose other layers"
        )
    return dense


def _takes_branch(backbone: nn.Module, layer: WeightLayer) -> bool:
    plain = type(backbone.get_submodule(layer.name)) in (nn.Conv2d, nn.Linear)
    return plain and layer.groups == 1


def _geometry(backbone: nn.Module, layer: WeightLayer) -> _Geometry | None:
    module = backbone.get_submodule(layer.name)
    if not isinstance(module, nn.Conv2d):
        return None
    if module.padding_mode != "zeros":
        raise AdapterError(
            f"{layer.name} pads by {module.padding_mode}, which branches beside layers do not "
            "know: leave it out of layers"
        )
    return _Geometry(module.stride, module.padding, module.dilation)
