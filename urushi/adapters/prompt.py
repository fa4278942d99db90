"""VPT-deep: trained tokens in front of every block's sequence, taken off behind it.

Jia et al., "Visual Prompt Tuning", ECCV 2022, arXiv 2203.12119. It needs blocks that take a
sequence of any length, which convolutions and windows are not.
"""

import math
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from urushi.adapters.base import Adapter, BlockChange, key_of
from urushi.adapters.layers import choose
from urushi.adapters.method import Method, needed
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import TokenSite
from urushi.settings import Settings

__all__ = ["PromptSettings", "Prompts"]


class PromptSettings(Settings):
    """Settings of `Prompts`.

    Attributes:
        tokens: prompts of every block; 64 follows from the parameter count in AdaptIR's tables.
        sites: patterns of the names of blocks; all by default.
    """

    tokens: Annotated[int, Field(ge=1)] = 64
    sites: list[str] = ["*"]


class Prompts(Adapter):
    """New prompts for every block of tokens.

    Its parameters: `prompts.BLOCK`, `(P, C)`, uniform after Glorot (the bound is ours). Tokens
    attend to prompts as soon as they are there: this method alone does not begin as the identity. A
    `strength` between 0 and 1 mixes a block's result with that of the plain block, at the price of
    both.

    Raises:
        AdapterError: the backbone has no blocks of tokens, or none is chosen.
    """

    method = "vpt"
    config: PromptSettings

    def __init__(self, backbone: RestorationNetwork, config: PromptSettings) -> None:
        super().__init__(config)
        sites = needed(backbone.sites.tokens, "blocks that take tokens in any number", self.method)
        names = set(choose([site.block for site in sites], config.sites, "sites"))
        self._sites = [site for site in sites if site.block in names]
        self.prompts = nn.ParameterDict()
        for site in self._sites:
            bound = math.sqrt(6 / (config.tokens + site.width))
            first = torch.empty(config.tokens, site.width).uniform_(-bound, bound)
            self.prompts[key_of(site.block)] = nn.Parameter(first)

    def block_changes(self) -> list[BlockChange]:
        return [BlockChange(site.block, self._around(site)) for site in self._sites]

    def _around(self, site: TokenSite) -> Callable[..., Tensor]:
        axis = site.layout.index("l")

        def around(block: Callable[..., Tensor], tokens: Tensor, *rest: Any) -> Tensor:
            prompts, count = self.prompts[key_of(site.block)], tokens.shape[axis]
            front = prompts.to(tokens.dtype).unsqueeze(1 - axis)
            front = front.expand(*(-1 if i != 1 - axis else s for i, s in enumerate(tokens.shape)))
            longer = [
                _with_zeros(x, axis, len(prompts)) if place in site.companions else x
                for place, x in enumerate(rest, start=1)
            ]
            result = block(torch.cat([front, tokens], axis), *longer)
            result = result.narrow(axis, len(prompts), count)
            if self.strength == 1:
                return result
            return torch.lerp(block(tokens, *rest), result, self.strength)

        return around


def _with_zeros(x: Tensor, axis: int, count: int) -> Tensor:
    """What accompanies tokens, with nothing for the prompts in front of them."""
    shape = list(x.shape)
    shape[axis] = count
    return torch.cat([x.new_zeros(shape), x], axis)


METHOD = Method(PromptSettings, "Jia et al., VPT, ECCV 2022", adapter=Prompts, identity=False)
