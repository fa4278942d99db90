"""AdaptIR: a local, a frequency and a channel branch beside each frozen feed-forward branch.

Guo et al., "Parameter Efficient Adaptation for Image Restoration with Heterogeneous
Mixture-of-Experts", NeurIPS 2024, arXiv 2312.08881. Paper and released code differ; both are here,
as `variant`, and each difference is a setting of its own.
"""

import math
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.adapters.branches import BranchSettings, ParallelBranches
from urushi.adapters.layouts import from_map, grid_of, to_map
from urushi.adapters.method import Method
from urushi.backbones.sites import FeedForwardSite

__all__ = ["AdaptIR", "AdaptIRBranch", "AdaptIRSettings", "FrequencyBranch"]

Size = Annotated[int, Field(ge=1)]

# What paper and released code do not share. The paper does not say which gate is for which branch,
# nor whether layers have biases where this says False.
VARIANTS: dict[str, dict[str, Any]] = {
    "released": {
        "batch_norm": True,
        "rectify": True,
        "scale_layer": False,
        "fft_norm": "ortho",
        "local_bias": True,
        "gates": "crossed",
        "up_bias": False,
    },
    "paper": {
        "batch_norm": False,
        "rectify": False,
        "scale_layer": True,
        "fft_norm": "forward",
        "local_bias": False,
        "gates": "crossed",
        "up_bias": False,
    },
}


class AdaptIRSettings(BranchSettings):
    """Settings of `AdaptIR`.

    Attributes:
        variant: `released` code or `paper`; decides the settings below that are null.
        reduction: gamma, by which the width is divided for the channels h inside; 24 for IPT, 14
            for EDT.
        smallest: h is at least this (ours: the paper has no narrow backbone).
        hidden: h itself, instead of the two above.
        rank: of the local branch's kernels; null is h / 2.
        kernel: side of the local branch's kernels, odd.
        channel_reduction: a, narrows the layers of the channel branch.
        gate_reduction: b, narrows those of the channel gate; 8 in the paper and for IPT, 4 for EDT.
        batch_norm: a batch normalisation behind the first layer.
        rectify: the frequency branch ends with an absolute value.
        scale_layer: the frequency branch ends with a gain and an offset for every channel.
        fft_norm: how the Fourier transform is normalised; see `torch.fft`.
        local_bias: an offset for every channel behind the local branch's convolution.
        gates: `crossed`, the channel gate is made from the frequency branch and multiplies the
            local one, the spatial gate the reverse; `straight`, each gates where it is made.
        up_bias: an offset for every channel behind the last layer.
        branches: those that are there. What a missing one would gate stays as it is.
    """

    variant: Literal["released", "paper"] = "released"
    reduction: Size = 24
    smallest: Size = 8
    hidden: Size | None = None
    rank: Size | None = None
    kernel: Size = 3
    channel_reduction: Size = 2
    gate_reduction: Size = 8
    batch_norm: bool | None = None
    rectify: bool | None = None
    scale_layer: bool | None = None
    fft_norm: Literal["ortho", "forward", "backward"] | None = None
    local_bias: bool | None = None
    gates: Literal["crossed", "straight"] | None = None
    up_bias: bool | None = None
    branches: Annotated[list[Literal["local", "frequency", "channel"]], Field(min_length=1)] = [
        "local",
        "frequency",
        "channel",
    ]

    @field_validator("branches")
    @classmethod
    def _something_to_gate(cls, branches: list[str]) -> list[str]:
        if len(set(branches)) < len(branches) or set(branches) == {"channel"}:
            raise ValueError(
                "expected local, frequency or both, with channel or without, once each"
            )
        return branches

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("the side of a kernel must be odd")
        return kernel

    def resolved(self) -> "AdaptIRSettings":
        """With the variant's choices where nothing is set."""
        chosen = VARIANTS[self.variant]
        return self.model_copy(update={k: v for k, v in chosen.items() if getattr(self, k) is None})

    def hidden_of(self, width: int) -> int:
        """Channels h inside a branch for a site of `width` channels."""
        return self.hidden or max(width // self.reduction, self.smallest)


class AdaptIR(ParallelBranches):
    """One heterogeneous branch beside each feed-forward branch; it cannot be merged."""

    method = "adaptir"
    config: AdaptIRSettings

    def make_branch(self, site: FeedForwardSite) -> nn.Module:
        return AdaptIRBranch(site.width, self.config)

    def run_branch(self, branch: nn.Module, x: Tensor, site: FeedForwardSite) -> Tensor:
        context = self.context
        maps = to_map(x, site.layout, grid_of(x, site, context.sides if context else None))
        return from_map(branch(maps, bool(context and context.again)), site.layout)


class AdaptIRBranch(nn.Module):
    """The adapter of one site; its last layer is zero at first.

    Args:
        width: channels d of input and output.
        config: sizes and variant.
    """

    def __init__(self, width: int, config: AdaptIRSettings) -> None:
        super().__init__()
        config = config.resolved()
        hidden = config.hidden_of(width)
        self._crossed = config.gates == "crossed"
        there = set(config.branches)
        self.down = nn.Conv2d(width, hidden, 1)
        self.norm = _BatchNorm(hidden) if config.batch_norm else None
        self.local = _LocalBranch(hidden, config) if "local" in there else None
        self.frequency = FrequencyBranch(hidden, config) if "frequency" in there else None
        self.channel = (
            _ChannelBranch(hidden, config.channel_reduction) if "channel" in there else None
        )
        gated = there >= {"local", "frequency"}
        squeezed = max(hidden // config.gate_reduction, 1)
        self.channel_gate = (
            nn.Sequential(nn.Conv2d(hidden, squeezed, 1), nn.GELU(), nn.Conv2d(squeezed, hidden, 1))
            if gated
            else None
        )
        self.spatial_gate = nn.Conv2d(hidden, 1, 1) if gated else None
        self.up = nn.Conv2d(hidden, width, 1, bias=bool(config.up_bias))
        for name in ("channel_gate.2", "spatial_gate", "up") if gated else ("up",):
            for parameter in self.get_submodule(name).parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "b d h w"], again: bool = False) -> Float[Tensor, "b d h w"]:
        """What is added to the feed-forward branch.

        Args:
            x: what that branch reads.
            again: running statistics have seen this batch already.
        """
        x = self.down(x)
        if self.norm is not None:
            x = self.norm(x, again)
        places = self._places(x)
        return self.up(places if self.channel is None else self.channel(x) * places)

    def _places(self, x: Float[Tensor, "b h y x"]) -> Float[Tensor, "b h y x"]:
        """The local and the frequency branch, gated by one another where both are there."""
        if self.local is None or self.frequency is None:
            alone = self.local or self.frequency
            assert alone is not None
            return alone(x)
        assert self.channel_gate is not None
        assert self.spatial_gate is not None
        local, spread = self.local(x), self.frequency(x)
        channel_gate = self.channel_gate(spread.mean((2, 3), keepdim=True)).sigmoid()
        spatial_gate = self.spatial_gate(local).sigmoid()
        if self._crossed:
            return channel_gate * local + spatial_gate * spread
        return spatial_gate * local + channel_gate * spread


class _BatchNorm(nn.Module):
    """Batch normalisation that can leave its running statistics alone, and has no counter."""

    momentum, epsilon = 0.1, 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c h w"], again: bool) -> Float[Tensor, "b c h w"]:
        mean, variance = self.get_buffer("running_mean"), self.get_buffer("running_var")
        if self.training and again:
            mean, variance = mean.clone(), variance.clone()
        return F.batch_norm(
            x, mean, variance, self.weight, self.bias, self.training, self.momentum, self.epsilon
        )


class _LocalBranch(nn.Module):
    """Depth-wise convolution whose kernels are a product of low rank (eq. 1 and 2)."""

    def __init__(self, channels: int, config: AdaptIRSettings) -> None:
        super().__init__()
        self._kernel = config.kernel
        rank = config.rank or max(channels // 2, 1)
        self.left = nn.Parameter(torch.empty(channels, rank))
        self.right = nn.Parameter(torch.empty(rank, config.kernel**2))
        for factor in (self.left, self.right):
            nn.init.kaiming_uniform_(factor, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(channels)) if config.local_bias else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        weight = (self.left @ self.right).view(-1, 1, self._kernel, self._kernel)
        return F.conv2d(x, weight, self.bias, padding=self._kernel // 2, groups=len(weight))


class FrequencyBranch(nn.Module):
    """A gain and an offset for amplitude and phase of every channel's spectrum (eq. 3 and 4)."""

    def __init__(self, channels: int, config: AdaptIRSettings) -> None:
        super().__init__()
        self.norm, self.rectify = config.fft_norm, config.rectify
        self.amplitude, self.phase = _Affine(channels), _Affine(channels)
        self.scale = _Affine(channels) if config.scale_layer else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # Half precision has Fourier transforms of powers of two only, where it has any.
        with torch.autocast(x.device.type, enabled=False):
            wide = x if x.dtype == torch.float64 else x.float()
            spectrum = torch.fft.rfft2(wide, norm=self.norm)
            amplitude, phase = self.amplitude(spectrum.abs()), self.phase(spectrum.angle())
            # Not torch.polar, whose gradient is wrong where an amplitude has become negative.
            changed = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
            result = torch.fft.irfft2(changed, s=x.shape[-2:], norm=self.norm)
            result = result.abs() if self.rectify else result
            return (result if self.scale is None else self.scale(result)).to(x.dtype)


class _ChannelBranch(nn.Module):
    """A signed factor for every channel, from a weighted mean over all places (eq. 5 and 6)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        self.mask = nn.Conv2d(channels, 1, 1)
        self.layers = nn.Sequential(
            nn.Linear(channels, squeezed), nn.GELU(), nn.Linear(squeezed, channels)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 1 1"]:
        mask = self.mask(x).flatten(2).softmax(-1)
        pooled = (x.flatten(2) * mask).sum(-1)
        return self.layers(pooled)[:, :, None, None]


class _Affine(nn.Module):
    """A gain and an offset for every channel, the identity at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.weight + self.bias


METHOD = Method(AdaptIRSettings, "Guo et al., AdaptIR, NeurIPS 2024", adapter=AdaptIR)
