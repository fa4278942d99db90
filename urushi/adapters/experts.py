"""Routed experts: several adapters, of which each picture gets the mixture that its route names.

Ai, Huang, He: "LoRA-IR", arXiv 2410.15385: every convolution has n low-rank experts, a picture has
one weight for each, `W + sum_i w_i dW_i`, and no more than k of them are not zero. Here an expert
is an adapter of any method; weights, branches and prompts are mixed alike. See
`urushi.adapters.attached` for what that costs.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from urushi.adapters import create_adapter
from urushi.adapters.base import Adapter, BlockChange, OutputChange, key_of
from urushi.adapters.layers import choose, parameter_kinds, weight_layers
from urushi.adapters.low_rank import LowRank
from urushi.adapters.method import Method
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError
from urushi.names import counted
from urushi.settings import Settings

__all__ = ["Experts", "ExpertsSettings", "depthwise_layers", "split", "top_weights"]

# Those of LoRA-IR's first setting: "alpha" treats all ranks alike, and its alpha over r is 2.
_LOW_RANK = {"rank": 8, "layout": "loralib", "scaling": "alpha", "alpha": 2.0}
# Patterns of what trains besides the experts, for all of them alike.
_SHARED = {"paper": "*.bias", "released": "*"}


class ExpertsSettings(Settings):
    """Settings of `Experts`.

    Attributes:
        count: how many experts, all alike.
        expert: method and settings of each, as for `create_adapter`; low-rank ones (`lora`) get
            LoRA-IR's rank 8, layout `loralib` and scale 2 where they say nothing.
        each: method and settings of every single expert, in place of `count` and `expert`; so does
            a finished one state them.
        depthwise: what low-rank experts are on depth-wise convolutions: `low_rank` is LoRA-IR's;
            `dense` gives them whole deltas, which have an eighth of the numbers at rank 8 and can
            be any update.
        freeze: what trains besides the experts, shared by all of them: `paper`: all biases;
            `released`: every parameter, as the released code does; `base`: nothing.
    """

    count: Annotated[int, Field(ge=1, le=1000)] = 3
    expert: dict[str, Any] = {"method": "lora"}
    each: list[dict[str, Any]] = []
    depthwise: Literal["low_rank", "dense"] = "low_rank"
    freeze: Literal["paper", "released", "base"] = "paper"

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "ExpertsSettings":
        if self.each:
            for name in ("count", "expert", "depthwise"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"each states the experts, which leave {name} no effect")
        return self


class Experts(Adapter):
    """Experts, and what is trained for all of them. Without weights it does nothing.

    Weights of 0 for all experts leave the plain backbone, shared parameters included; else those
    act at their whole strength.

    Its parameters: `experts.INDEX`, those of each expert; `shared`, deltas that all routes have.
    Its `config` states every expert.

    Args:
        backbone: what is adapted: a backbone, or a `Host` of one with its guidance.
        config: see `ExpertsSettings`.

    Raises:
        AdapterError: an expert cannot be made, or is itself a mixture.
    """

    method = "experts"
    reads = frozenset({"weights"})
    config: ExpertsSettings

    def __init__(self, backbone: RestorationNetwork, config: ExpertsSettings) -> None:
        configs = config.each or [_expert_of(backbone, config)] * config.count
        if any(one.get("method") == self.method for one in configs):
            raise AdapterError("an expert of method experts: state the experts themselves in each")
        experts = [create_adapter(backbone, one) for one in configs]
        stated = {"each": [e.describe() for e in experts], "freeze": config.freeze}
        super().__init__(ExpertsSettings.model_validate(stated))
        self.experts = nn.ModuleList(experts)
        self.shared: Adapter | None = None
        pattern = _SHARED.get(config.freeze, "")
        if any(fnmatchcase(name, pattern) for name, _ in backbone.named_parameters()):
            self.shared = create_adapter(backbone, {"method": "full", "parameters": [pattern]})

    @property
    def members(self) -> list[Adapter]:
        """The experts, in the order of the weights."""
        return [expert for expert in self.experts if isinstance(expert, Adapter)]

    @property
    def mergeable(self) -> bool:
        """Only within a pass, whose route tells what is to be put into the weights."""
        return self._route() is not None and all(e.mergeable for e in self.members)

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        route = self._route()
        if route is None or not any(route):
            return {}
        sums = dict(self.shared.deltas(base)) if self.shared is not None else {}
        for expert, weight in zip(self.members, route, strict=True):
            if not weight:
                continue
            factor = weight * expert.strength
            for name, delta in expert.deltas(base).items():
                own = delta if factor == 1 else factor * delta
                sums[name] = sums[name] + own if name in sums else own
        return sums

    def output_changes(self) -> list[OutputChange]:
        return [
            OutputChange(change.module, self._weighted(index, change))
            for index, expert in enumerate(self.members)
            for change in expert.output_changes()
        ]

    def block_changes(self) -> list[BlockChange]:
        return [
            BlockChange(change.module, self._around(index, change))
            for index, expert in enumerate(self.members)
            for change in expert.block_changes()
        ]

    def _route(self) -> tuple[float, ...] | None:
        """The weights of this pass, if there are any."""
        weights = None if self.context is None else self.context.weights
        if weights is not None and len(weights) != len(self.experts):
            raise AdapterError(
                f"{counted(len(weights), 'weight')} for {counted(len(self.experts), 'expert')}: "
                "use the router that they "
                "were trained with"
            )
        return weights

    def _weighted(self, index: int, change: OutputChange) -> Callable[[Tensor], Tensor | None]:
        def weighted(output: Tensor) -> Tensor | None:
            route = self._route()
            if route is None or not route[index]:
                return None
            added = change.change(output)
            return None if added is None else route[index] * self.members[index].strength * added

        return weighted

    def _around(self, index: int, change: BlockChange) -> Callable[..., Tensor]:
        def around(inner: Callable[..., Tensor], *inputs: Any) -> Tensor:
            route = self._route()
            if route is None or not route[index]:
                return inner(*inputs)
            expert = self.members[index]
            before = expert.strength
            expert.strength = route[index] * self.strength * before
            try:
                return change.around(inner, *inputs)
            finally:
                expert.strength = before

        return around


def top_weights(logits: Float[Tensor, "b n"], k: int) -> Float[Tensor, "b n"]:
    """Weights of experts: the softmax over the k greatest logits, 0 for the others.

    Args:
        logits: the router's, of n experts.
        k: at least 1 and at most n; with 1 a weight is exactly 1.

    Raises:
        AdapterError: there are no k experts.
    """
    if not 1 <= k <= logits.shape[1]:
        raise AdapterError(f"k is {k}: choose 1 to {logits.shape[1]}, the number of experts")
    values, chosen = logits.topk(k, dim=1)
    return torch.zeros_like(logits).scatter(1, chosen, values.softmax(1))


def split(experts: Experts, network: RestorationNetwork) -> list[Adapter]:
    """Single adapters that do alone what their expert does at weight 1.

    What the experts share goes into each of them.

    Args:
        experts: stay as they are.
        network: for which they were made.

    Raises:
        AdapterError: what is shared has no place in an expert: it changes whole weights, as
            `freeze: released` does, or the expert is no low-rank one.
    """
    if experts.shared is None:
        return [copy.deepcopy(expert) for expert in experts.members]
    shared = dict(experts.shared.deltas({}))
    return [
        _with_shared(expert, shared, experts.config.freeze, network) for expert in experts.members
    ]


def _with_shared(
    expert: Adapter, shared: dict[str, Tensor], freeze: str, network: RestorationNetwork
) -> Adapter:
    if isinstance(expert, LowRank) and freeze == "paper":
        kinds = parameter_kinds(network)
        tune = dict.fromkeys([*expert.config.tune, *(kinds[name] for name in shared)])
        single = create_adapter(network, {**expert.describe(), "tune": list(tune)})
        state = {**single.state_dict(), **expert.state_dict()}
        if all(f"value.{key_of(name)}" in state for name in shared):
            with torch.no_grad():
                for name, delta in shared.items():
                    key = f"value.{key_of(name)}"
                    state[key] = state[key] + delta / expert.strength
            single.load_state_dict(state)
            single.strength = expert.strength
            return single
    raise AdapterError(
        f"experts with freeze: {freeze} share changes that an expert of method {expert.method} "
        "cannot hold: keep them together, or train them with freeze: base"
    )


def depthwise_layers(network: nn.Module) -> list[str]:
    """Names of the convolutions in which every channel is on its own."""
    return [
        layer.name
        for layer in weight_layers(network)
        if layer.groups > 1 and layer.shape[0] == layer.groups and layer.shape[1] == 1
    ]


def _expert_of(backbone: RestorationNetwork, config: ExpertsSettings) -> dict[str, Any]:
    """Settings of each expert, what LoRA-IR's have where they say nothing."""
    stated = dict(config.expert)
    if stated.get("method") != "lora":
        if config.depthwise == "dense":
            raise AdapterError(
                f"depthwise is dense, but experts of method {stated.get('method')!r} have no such "
                "layers: leave it out, or choose lora"
            )
        return stated
    if "scaling" in stated or "alpha" in stated:
        stated = {"rank": _LOW_RANK["rank"], "layout": _LOW_RANK["layout"], **stated}
    else:
        stated = {**_LOW_RANK, **stated}
    if config.depthwise == "dense":
        stated["dense"] = [*stated.get("dense", []), *_dense_for(backbone, stated)]
    return stated


def _dense_for(backbone: RestorationNetwork, stated: Mapping[str, Any]) -> Sequence[str]:
    """Depth-wise layers that an expert adapts and that have no form of their own."""
    layers = [layer.name for layer in weight_layers(backbone)]
    chosen = set(choose(layers, stated.get("layers", ["*"]), "layers"))
    settled = {*stated.get("ranks", {}), *stated.get("dense", [])}
    return [n for n in depthwise_layers(backbone) if n in chosen and n not in settled]


METHOD = Method(ExpertsSettings, "Ai et al., LoRA-IR, arXiv 2410.15385", adapter=Experts)
