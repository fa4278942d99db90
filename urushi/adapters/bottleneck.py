"""Bottlenecks: down to a few channels, an activation, up again.

Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019, arXiv 1902.00751: behind
attention and behind the feed-forward branch. Chen et al., "AdaptFormer", NeurIPS 2022, arXiv
2205.13535: beside the feed-forward branch. Many of the latter, summed, are the classic mixture of
experts that AdaptIR (NeurIPS 2024, arXiv 2312.08881) is compared with.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from urushi.adapters.base import Adapter, OutputChange, key_of
from urushi.adapters.branches import BranchSettings, ParallelBranches
from urushi.adapters.layers import choose
from urushi.adapters.layouts import pointwise
from urushi.adapters.method import Method, needed
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import AttentionSite, FeedForwardSite, Layout

__all__ = [
    "AdaptFormer",
    "AdaptFormerSettings",
    "Bottleneck",
    "ClassicMixture",
    "ClassicMixtureSettings",
    "Houlsby",
    "HoulsbySettings",
]


class Bottleneck(nn.Module):
    """`scale * up(activation(down(x)))` on the channels of every place.

    Args:
        width: channels of input and output.
        hidden: channels between.
        layout: order of the axes of the input.
        activation: between the two layers.
        scale: fixed factor of the result.
        learn_scale: the factor is a parameter that begins at `scale`.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        layout: Layout,
        activation: nn.Module,
        scale: float = 1.0,
        learn_scale: bool = False,
    ) -> None:
        super().__init__()
        self.down = pointwise(width, hidden, layout)
        self.activation = activation
        self.up = pointwise(hidden, width, layout)
        self.scale: nn.Parameter | float = (
            nn.Parameter(torch.tensor(scale)) if learn_scale else scale
        )
        # As AdaptFormer's authors; Houlsby's begin near zero, ours exactly there.
        nn.init.kaiming_uniform_(self.down.get_parameter("weight"), a=math.sqrt(5))
        for name in ("down.bias", "up.weight", "up.bias"):
            nn.init.zeros_(self.get_parameter(name))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(self.activation(self.down(x)))


class HoulsbySettings(BranchSettings):
    """Settings of `Houlsby`.

    Attributes:
        hidden: channels of the bottleneck; 12 follows from the parameter count in AdaptIR's tables.
    """

    hidden: Annotated[int, Field(ge=1)] = 12


class Houlsby(Adapter):
    """A bottleneck with a skip behind each attention and each feed-forward branch, with GELU.

    It changes what the branch gives, before the scale and the residual. On a backbone without
    attention it stands behind the feed-forward branches alone.

    Raises:
        AdapterError: the backbone has no such branches, or none is chosen.
    """

    method = "houlsby"
    config: HoulsbySettings

    def __init__(self, backbone: RestorationNetwork, config: HoulsbySettings) -> None:
        super().__init__(config)
        sites: Sequence[AttentionSite | FeedForwardSite] = needed(
            (*backbone.sites.attention, *backbone.sites.feed_forward),
            "attention or feed-forward sites",
            self.method,
        )
        names = set(choose([site.output for site in sites], config.sites, "sites"))
        self.branches = nn.ModuleDict(
            {
                key_of(s.output): Bottleneck(s.width, config.hidden, s.layout, nn.GELU())
                for s in sites
                if s.output in names
            }
        )
        self._names = {key_of(name): name for name in names}

    def output_changes(self) -> list[OutputChange]:
        return [OutputChange(self._names[key], branch) for key, branch in self.branches.items()]


class AdaptFormerSettings(BranchSettings):
    """Settings of `AdaptFormer`.

    Attributes:
        hidden: channels of the bottleneck; 24 follows from the parameter count in AdaptIR's tables.
        scale: factor of the branch; 0.1 as in the paper.
        learn_scale: the factor is trained, too.
    """

    hidden: Annotated[int, Field(ge=1)] = 24
    scale: float = 0.1
    learn_scale: bool = False


class AdaptFormer(ParallelBranches):
    """A bottleneck with ReLU beside each feed-forward branch, behind the same norm."""

    method = "adaptformer"
    config: AdaptFormerSettings

    def make_branch(self, site: FeedForwardSite) -> nn.Module:
        c = self.config
        return Bottleneck(site.width, c.hidden, site.layout, nn.ReLU(), c.scale, c.learn_scale)


class ClassicMixtureSettings(BranchSettings):
    """Settings of `ClassicMixture`.

    Attributes:
        experts: branches at every site; 3 as in a figure of AdaptIR's paper.
        hidden: channels of each branch's bottleneck; ours, for the parameters of AdaptFormer.
    """

    experts: Annotated[int, Field(ge=1, le=1000)] = 3
    hidden: Annotated[int, Field(ge=1)] = 8


class ClassicMixture(ParallelBranches):
    """Identical bottlenecks beside each feed-forward branch, summed without weights.

    The paper says no more of its branches; bottlenecks with GELU are ours. As all of them read the
    same and are summed, n of width h are one of width n h, and are calculated as that.
    """

    method = "moe"
    config: ClassicMixtureSettings

    def make_branch(self, site: FeedForwardSite) -> nn.Module:
        hidden = self.config.experts * self.config.hidden
        return Bottleneck(site.width, hidden, site.layout, nn.GELU())


HOULSBY = Method(HoulsbySettings, "Houlsby et al., adapters, ICML 2019", adapter=Houlsby)
ADAPTFORMER = Method(
    AdaptFormerSettings, "Chen et al., AdaptFormer, NeurIPS 2022", adapter=AdaptFormer
)
MIXTURE = Method(
    ClassicMixtureSettings,
    "identical branches, summed: a baseline of AdaptIR, NeurIPS 2024",
    adapter=ClassicMixture,
)
