"""Ranks as experts: each rank of a low-rank branch is chosen by itself, as in MoR.

He et al., "Mixture of Ranks with Degradation-Aware Routing for One-Step Real-World Image
Super-Resolution", AAAI 2026, arXiv 2511.16024. By its abstract every rank of LoRA is an expert of
its own, some fixed ranks are shared and always act, and slots of experts that do nothing let the
number of acting ranks vary with the input.

Left out, for the published text at hand states no formula of them: its estimate of the degradation
by CLIP, which guides the routing there, and its loss that balances the load. Ours is therefore the
router: at every place of a map, or every token, the r channels `h = A x` of the branch, divided by
their root mean square, give the logits `G h + g` of the routed ranks and the empty slots; the k
greatest act, with k times their softmax, so that a rank counts on average as much as a shared one.
The route so follows the place and not the whole picture, and tiles do not matter. Also ours: all
numbers, and that convolutions have A with their kernel and B of 1x1; depth-wise, grouped and
transposed ones have no branch.
"""

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from urushi.adapters.beside_layers import LayerBranches, chosen_layers
from urushi.adapters.method import Method, linear
from urushi.backbones.network import RestorationNetwork
from urushi.settings import Settings

__all__ = ["METHOD", "RankRouting", "RankRoutingSettings"]

_TINY = 1e-6


class RankRoutingSettings(Settings):
    """Settings of `RankRouting`.

    Attributes:
        rank: ranks of a branch, the shared ones included.
        shared: the first ranks of these, which always act.
        empty: slots that do nothing and take part in the choice.
        active: k, how many of the routed ranks and empty slots are chosen.
        layers: patterns of the names of layers; all by default.
    """

    rank: Annotated[int, Field(ge=2)] = 8
    shared: Annotated[int, Field(ge=0)] = 2
    empty: Annotated[int, Field(ge=0)] = 2
    active: Annotated[int, Field(ge=1)] = 4
    layers: list[str] = ["*"]

    @model_validator(mode="after")
    def _enough(self) -> "RankRoutingSettings":
        if self.shared >= self.rank:
            raise ValueError(f"shared is {self.shared}, which leaves none of {self.rank} ranks")
        if self.active > self.slots:
            raise ValueError(f"active is {self.active}, and there are {self.slots} to choose from")
        return self

    @property
    def slots(self) -> int:
        """How many are chosen from."""
        return self.rank - self.shared + self.empty


class RankRouting(LayerBranches):
    """A branch beside layers, of whose ranks every place has its own; it cannot be merged.

    Its parameters: `branch_down` and `branch_up`, see `LayerBranches`; `route`, G of `(slots, r)`,
    random, and `route_bias`, g of `(slots,)`, zero at first.

    Raises:
        AdapterError: no layer is chosen beside which a branch could stand.
    """

    method = "mor"
    config: RankRoutingSettings

    def __init__(self, backbone: RestorationNetwork, config: RankRoutingSettings) -> None:
        layers = chosen_layers(backbone, config.layers, self.method)
        super().__init__(backbone, config, layers, config.rank)
        self.route, self.route_bias = nn.ParameterDict(), nn.ParameterDict()
        bound = linear(inputs=config.rank).bound
        for key in self.branch_down:
            first = torch.empty(config.slots, config.rank).uniform_(-bound, bound)
            self.route[key] = nn.Parameter(first)
            self.route_bias[key] = nn.Parameter(torch.zeros(config.slots))

    def changed(self, key: str, hidden: Tensor, axis: int) -> Tensor:
        # Beside the channels, so that maps and tokens are one case.
        channels = hidden.movedim(axis, -1)
        return (channels * self._weights(key, channels)).movedim(-1, axis)

    def _weights(self, key: str, channels: Tensor) -> Tensor:
        """Weights of the ranks at every place, `(..., r)`."""
        c = self.config
        # Close logits would change places in half precision.
        with torch.autocast(channels.device.type, enabled=False):
            route = self.route[key]
            wide = channels.to(route.dtype)
            # Features of a backbone have any size, which must not decide how sharp the choice is.
            size = (wide.square().mean(-1, keepdim=True) + _TINY).rsqrt()
            logits = (size * wide) @ route.T + self.route_bias[key]
            values, chosen = logits.topk(c.active, dim=-1)
            weights = c.active * values.softmax(-1)
            routed = torch.zeros_like(logits).scatter(-1, chosen, weights)
            always = torch.ones_like(routed[..., : c.shared])
            # The last slots are the empty ones.
            return torch.cat([always, routed[..., : c.rank - c.shared]], -1).to(channels.dtype)


METHOD = Method(
    RankRoutingSettings,
    "He et al., Mixture of Ranks, AAAI 2026: ranks as experts",
    adapter=RankRouting,
)
