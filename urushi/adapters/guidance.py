"""Guidance: the degradation vector opens and closes the channels of a backbone's stages.

Ai, Huang, He: "LoRA-IR", arXiv 2410.15385, the degradation-guided modulation of its pre-training.
Once for a picture, `e = GELU(W2 GELU(W1 v))` is made of its vector v. In front of the blocks of a
stage with c channels, the gate is `g = sigmoid(Wd ReLU(Wc Wb GELU(Wa e)))`, and the feature map x
becomes `x + beta * (LN(x) * g)`. A gate is the same at all places of a picture.
"""

import copy
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.adapters.base import Adapter, BlockChange, key_of, parameter_of
from urushi.adapters.layers import choose, parameter_kinds
from urushi.adapters.method import Method, needed
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import Layout, Stage
from urushi.errors import AdapterError
from urushi.settings import Settings

__all__ = ["Guidance", "GuidanceSettings", "StageGate", "settle"]

NORM_EPSILON = 1e-6  # the released code's value, not torch's default


class GuidanceSettings(Settings):
    """Settings of `Guidance`; the sizes are LoRA-IR's.

    Attributes:
        vector: numbers of the degradation vector.
        hidden: numbers between the vector and a stage's channels.
        reduction: channels of a stage for each number inside its gate.
        decoder: also guide the decoder's stages: so draws the paper's figure, but not so does the
            released code.
        stages: patterns of the names of stages; those of encoder and middle, and of the decoder if
            it is wanted, by default.
        tune: kinds of the backbone's own parameters that are trained, too, as deltas. All of
            `weight`, `bias`, `norm` and `scale` make it LoRA-IR's guided pre-training. Weight
            decay then draws them to the backbone as it was and not to zero.
    """

    vector: Annotated[int, Field(ge=1)] = 384
    hidden: Annotated[int, Field(ge=1)] = 128
    reduction: Annotated[int, Field(ge=1)] = 16
    decoder: bool = False
    stages: list[str] = []
    tune: list[Literal["weight", "bias", "norm", "scale"]] = []


class StageGate(nn.Module):
    """The gate of one stage.

    Args:
        vector, hidden, reduction: see `GuidanceSettings`.
        width: channels of the stage.
    """

    def __init__(self, vector: int, hidden: int, width: int, reduction: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(vector, hidden)
        self.expand = nn.Linear(hidden, width)
        self.squeeze = nn.Linear(width, width // reduction)
        self.excite = nn.Linear(width // reduction, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.beta = nn.Parameter(torch.zeros(width))

    def gate(self, embedded: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """How far each channel is open, 0 to 1."""
        inner = self.expand(F.gelu(self.reduce(embedded)))
        return self.excite(F.relu(self.squeeze(inner))).sigmoid()

    def added(self, x: Tensor, gate: Float[Tensor, "b c"], layout: Layout) -> Tensor:
        """What is added to a feature map.

        Args:
            x: the feature map, its axes in the order of `layout`.
            gate: of its pictures, in their order, or one for all.
            layout: squares of a picture stand one after the other on the axis b.
        """
        channels, order = layout.index("c"), layout.replace("c", "")
        if len(gate) == 1:  # goes into the norm's own gain and offset
            factor = self.beta * gate[0]
            gain, offset = factor * self.norm.weight, factor * self.norm.bias
            rows = x.movedim(channels, -1)
            return F.layer_norm(rows, gain.shape, gain, offset, NORM_EPSILON).movedim(-1, channels)
        gate = gate.repeat_interleave(x.shape[layout.index("b")] // len(gate), 0)
        shape = [len(gate) if axis == "b" else 1 for axis in order]
        normed = self.norm(x.movedim(channels, -1))
        return ((self.beta * gate).view(*shape, -1) * normed).movedim(-1, channels)


class Guidance(Adapter):
    """Gates in front of the stages of a backbone. Without a vector it does nothing.

    Its parameters: `embed.0` and `embed.2`, W1 and W2; `stages.INDEX`, a `StageGate` for each
    guided stage, in the order of execution, with a beta of zero at first; `value`, deltas of the
    backbone's own parameters, zero at first. Its `config` names the stages.

    Raises:
        AdapterError: the backbone has no stages, none is chosen, one is too narrow for the
            reduction, or one is no module that is called and has no block either.
    """

    method = "guidance"
    reads = frozenset({"vector"})
    config: GuidanceSettings

    def __init__(self, backbone: RestorationNetwork, config: GuidanceSettings) -> None:
        stages = _chosen(backbone, config)
        names = [stage.name for stage in stages]
        super().__init__(config.model_copy(update={"stages": names}))
        self._stages = stages
        d = config.vector
        self.embed = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.Linear(d, d), nn.GELU())
        self.stages = nn.ModuleList(
            StageGate(d, config.hidden, stage.width, config.reduction) for stage in self._stages
        )
        self._places = [_place(backbone, stage) for stage in self._stages]
        kinds = parameter_kinds(backbone)
        self.value = nn.ParameterDict(
            {
                key_of(name): nn.Parameter(torch.zeros_like(parameter))
                for name, parameter in backbone.named_parameters()
                if kinds[name] in config.tune
            }
        )

    def gates(self, vector: Float[Tensor, "b d"]) -> list[Float[Tensor, "b c"]]:
        """How far the channels of each guided stage are open, 0 to 1.

        Raises:
            AdapterError: the vectors have another length than this guidance is made for.
        """
        if vector.shape[1] != self.config.vector:
            raise AdapterError(
                f"a degradation vector of {vector.shape[1]} numbers, but this guidance is made for "
                f"{self.config.vector}: use the router that it was trained with"
            )
        embedded = self.embed(vector.to(next(self.embed.parameters())))
        return [stage.gate(embedded) for stage in self._gates()]

    def deltas(self, base: Any) -> dict[str, Tensor]:
        return {parameter_of(key): delta for key, delta in self.value.items()}

    def block_changes(self) -> list[BlockChange]:
        return [
            BlockChange(place, self._around(index, stage.layout))
            for index, (place, stage) in enumerate(zip(self._places, self._stages, strict=True))
        ]

    def _gates(self) -> list[StageGate]:
        return [stage for stage in self.stages if isinstance(stage, StageGate)]

    def _around(self, index: int, layout: Layout) -> Callable[..., Tensor]:
        def around(inner: Callable[..., Tensor], x: Tensor, *rest: Any) -> Tensor:
            context = self.context
            assert context is not None, "adapters act within a pass alone"
            if context.vector is None:
                return inner(x, *rest)
            if self not in context.known:
                context.known[self] = self.gates(context.vector)
            added = self._gates()[index].added(x, context.known[self][index], layout)
            added = added if self.strength == 1 else self.strength * added
            return inner(x + added.to(x.dtype), *rest)

        return around


def settle(backbone: RestorationNetwork, guidance: Guidance) -> Guidance:
    """Puts the deltas of a guided pre-training into the weights of its backbone, for good.

    Args:
        backbone: its parameters change.
        guidance: stays as it is; attach it no more.

    Returns:
        The guidance for the changed backbone: the gates alone.
    """
    own = dict(backbone.named_parameters())
    with torch.no_grad():
        for name, delta in guidance.deltas(own).items():
            own[name].add_(guidance.strength * delta)
    settled = copy.deepcopy(guidance)
    settled.value = nn.ParameterDict()
    settled.config = guidance.config.model_copy(update={"tune": []})
    return settled


def _chosen(backbone: RestorationNetwork, config: GuidanceSettings) -> list[Stage]:
    stages = needed(backbone.sites.stages, "stages", Guidance.method)
    if config.stages:
        names = set(choose([stage.name for stage in stages], config.stages, "stages"))
        found = [stage for stage in stages if stage.name in names]
    else:
        found = [stage for stage in stages if config.decoder or stage.role != "decoder"]
    for stage in found:
        if stage.width < config.reduction:
            raise AdapterError(
                f"stage {stage.name} has {stage.width} channels, which a reduction of "
                f"{config.reduction} leaves none of: choose at most {stage.width}"
            )
    return list(found)


def _place(backbone: RestorationNetwork, stage: Stage) -> str:
    """The module that is called with a stage's feature map: its own, or else its first block."""
    module = backbone.get_submodule(stage.name)
    if type(module).forward is not nn.Module.forward:  # a ModuleList, for one, has none
        return stage.name
    if not stage.blocks:
        raise AdapterError(f"stage {stage.name} has no block to guide: leave it out of stages")
    return stage.blocks[0]


METHOD = Method(GuidanceSettings, "Ai et al., LoRA-IR, arXiv 2410.15385", adapter=Guidance)
