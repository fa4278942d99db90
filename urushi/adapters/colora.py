"""CoLoRA: low-rank adapters whose ranks follow the contribution of each layer.

CoLoRA, ECCV 2024, arXiv 2408.01099; see `urushi.adapters.contribution` for the ranks and for what
is ours in them. A profile and a budget become the settings of an ordinary low-rank adapter, which
keeps them: the profile is not needed again. `urushi.adapters.low_rank` trains it.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from urushi.adapters.contribution import (
    Allocation,
    DeltaSettings,
    Spread,
    WeightSize,
    allocate,
)
from urushi.adapters.layers import WeightLayer, choose, parameter_kinds, weight_layers
from urushi.adapters.low_rank_formula import LowRankSettings, deltas, factor_shapes
from urushi.adapters.method import Method
from urushi.errors import AdapterError
from urushi.files.container import weights_hash

if TYPE_CHECKING:
    from torch import nn

    from urushi.adapters.contribution_profile import Profile
    from urushi.backbones.network import RestorationNetwork

__all__ = [
    "COLORA",
    "DEFAULT_BUDGET",
    "CoLoRASettings",
    "allocation",
    "matches",
    "parse_budget",
    "resolve",
]

DEFAULT_BUDGET = 0.07  # CoLoRA's, of a NAFNet's parameters


def parse_budget(value: Any) -> Any:
    """A share of the parameters from `0.07` or `"7%"`; what is neither is returned as it is.

    Raises:
        ValueError: it is outside of what a share can be.
    """
    share = value
    if isinstance(value, str):
        text = value.strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = None
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError("expected a share of the parameters, such as 7% or 0.07")
    return float(share)


class CoLoRASettings(LowRankSettings):
    """Settings of `urushi.adapters.low_rank.CoLoRA`.

    With `ranks` or `dense` given, as a finished adapter states them, nothing is decided any more.

    Attributes:
        profile: file that `urushi profile` has written, in recipes also `base`: the one beside the
            base's file; null takes all layers as contributing alike.
        other_weights: take a profile that was measured on other weights of the same architecture.
        budget: share of the backbone's parameters to train, biases, norms and scales included, as
            `7%` or `0.07`. Null is 7 %, CoLoRA's on NAFNet, or what is nearest to it where a small
            backbone cannot have so little.
        delta: from contributions to shares. With both its numbers given there is no budget.
        by: `layer`: each weight has its own contribution; `block`: that of its block, as in the
            paper's figure.
        spread: see `allocate`. Null is `share` with a profile, and `rank` without one, which is
            LoRA of a uniform rank.
        min_rank: of every layer. Ours: 1.
        reach: null places adapters everywhere. A share: only from the latest block on from which,
            in the order of execution, at least this share of the whole contribution (mean times
            number of parameters) lies; nothing before it is trained, and back-propagation ends
            there. Ours.
        scaling, alpha: as in LoRA; layers of all ranks are treated alike by default.
        tune: kinds of parameters that are trained whole.
        tuned: patterns of the parameters that `tune` is for.
    """

    rank: Annotated[int, Field(ge=0)] = 0
    scaling: Literal["alpha/r", "alpha/sqrt(r)", "alpha"] = "alpha"
    tune: list[Literal["bias", "norm", "scale"]] = ["bias", "norm", "scale"]
    profile: str | None = None
    other_weights: bool = False
    budget: Annotated[float, BeforeValidator(parse_budget)] | None = None
    delta: DeltaSettings = DeltaSettings()
    by: Literal["layer", "block"] = "layer"
    spread: Spread | None = None
    min_rank: Annotated[int, Field(ge=0)] = 1
    reach: Annotated[float, Field(gt=0, le=1)] | None = None
    tuned: list[str] = ["*"]

    @property
    def resolved(self) -> bool:
        """Whether the ranks are decided."""
        return bool(self.ranks or self.dense)

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "CoLoRASettings":
        if self.rank:
            raise ValueError("colora gives ranks itself: state a budget instead of a rank")
        if self.budget is not None and self.delta.complete:
            raise ValueError("delta states alpha and beta, which leave a budget no effect")
        if self.profile is None:
            idle = [n for n in ("by", "reach", "other_weights") if self._differs(n)]
            if idle:
                raise ValueError(f"{idle[0]} has no effect without a profile: leave it out")
        if self.resolved:
            names = ("profile", "budget", "delta", "spread", "min_rank", "layers")
            idle = [n for n in names if self._differs(n)]
            if idle:
                raise ValueError(f"the ranks are stated, which leave {idle[0]} no effect")
        return self

    def _differs(self, name: str) -> bool:
        return getattr(self, name) != type(self).model_fields[name].default


def resolve(backbone: "RestorationNetwork", config: CoLoRASettings) -> CoLoRASettings:
    """Decides the ranks; settings that state them are returned as they are.

    Raises:
        AdapterError, FileFormatError: see `urushi.adapters.low_rank.CoLoRA`.
    """
    if config.resolved:
        return config
    found, start = _decide(backbone, config)
    return CoLoRASettings(
        ranks=found.ranks,
        dense=list(found.dense),
        layout=config.layout,
        scaling=config.scaling,
        alpha=config.alpha,
        tune=config.tune,
        tuned=start,
    )


def allocation(backbone: "RestorationNetwork", config: CoLoRASettings) -> Allocation:
    """How a budget would be spent, with alpha and beta as they were solved.

    Raises:
        AdapterError, FileFormatError: see `urushi.adapters.low_rank.CoLoRA`; also where the ranks
            are stated already.
    """
    if config.resolved:
        raise AdapterError("the ranks are stated already: there is no budget to spend")
    return _decide(backbone, config)[0]


def _decide(backbone: "RestorationNetwork", config: CoLoRASettings) -> tuple[Allocation, list[str]]:
    """The allocation, and the patterns of parameters that `tune` is then for."""
    layers = {layer.name: layer for layer in weight_layers(backbone)}
    chosen = choose(layers, config.layers, "layers")
    patterns = config.tuned
    if config.profile is None:
        contributions = dict.fromkeys(chosen, 1.0)
    else:
        from urushi.adapters.contribution_profile import read_profile  # files of adapters name none

        profile = read_profile(Path(config.profile))
        _check_fits(profile, backbone, config)
        contributions = profile.of_weights(config.by)
        if config.reach is not None:
            reached = _reached(profile, config.reach)
            chosen = [name for name in chosen if layers[name].weight in reached]
            patterns = _as_patterns(profile, reached, config.tuned)
            if not chosen:
                raise AdapterError(
                    f"reach {config.reach} leaves none of the chosen layers: choose a greater one"
                )
    sizes = [_size(layers[name], config) for name in chosen]
    spread = config.spread or ("share" if config.profile else "rank")
    kinds = parameter_kinds(backbone)
    tuned = sum(
        parameter.numel()
        for name, parameter in backbone.named_parameters()
        if kinds[name] in config.tune and matches(name, patterns)
    )
    total = sum(parameter.numel() for parameter in backbone.parameters())
    budget = None
    if not config.delta.complete:
        budget = _budget(config, total, tuned, sizes)
    found = allocate(
        sizes,
        contributions,
        config.delta,
        budget=budget,
        tuned=tuned,
        min_rank=config.min_rank,
        spread=spread,
    )
    # Layers that are left out are stated, too: the whole of the network is then accounted for.
    ranks = {name: found.ranks.get(name, 0) for name in layers if name not in found.dense}
    return Allocation(ranks, found.dense, found.parameters, found.alpha, found.beta), patterns


def _budget(config: CoLoRASettings, total: int, tuned: int, sizes: list[WeightSize]) -> int:
    """Parameters to train in all."""
    least = tuned + sum(size.cost(config.min_rank) for size in sizes)
    most = tuned + sum(size.full for size in sizes)
    if config.budget is None:
        return min(max(round(DEFAULT_BUDGET * total), least), most)
    budget = round(config.budget * total)
    if not least <= budget <= most:
        where = "" if config.reach is None else f" from where reach {config.reach} lets them begin"
        raise AdapterError(
            f"a budget of {config.budget:.2%} cannot be had: rank {config.min_rank} for the chosen "
            f"layers and what is tuned whole take {least / total:.2%} of this backbone's "
            f"parameters, all that can be trained{where} {most / total:.2%}: choose between them"
        )
    return budget


def _size(layer: WeightLayer, config: CoLoRASettings) -> WeightSize:
    down, up = factor_shapes(layer, 1, config.layout)
    per_rank = down[0] * down[1] + up[0] * up[1]
    return WeightSize(layer.name, layer.rows * layer.columns, per_rank)


def _check_fits(profile: "Profile", backbone: "RestorationNetwork", config: CoLoRASettings) -> None:
    own = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    if own != {name: score.count for name, score in profile.parameters.items()}:
        raise AdapterError(
            f"the profile {config.profile} was measured on {profile.base.name!r}, which has other "
            "parameters than this backbone: measure one with  urushi profile"
        )
    if not config.other_weights and profile.base.weights_hash not in _hashes(backbone):
        raise AdapterError(
            f"the profile {config.profile} was measured on {profile.base.name!r}, which has other "
            "weights than this backbone: measure one with  urushi profile , or set other_weights"
        )


def _hashes(backbone: "nn.Module") -> set[str]:
    """Hashes that a model file of this network has, in either storage."""
    arrays = {
        name: tensor.detach().float().cpu().numpy()
        for name, tensor in backbone.state_dict().items()
    }
    return {
        weights_hash({name: array.astype(storage) for name, array in arrays.items()})
        for storage in ("float16", "float32")
    }


def _reached(profile: "Profile", reach: float) -> set[str]:
    """Parameters of the last units that together hold that share of the contribution."""
    parts = [
        sum(profile.parameters[n].mean * profile.parameters[n].count for n in unit.parameters)
        for unit in profile.units
    ]
    wanted = reach * sum(parts) * (1 - 1e-9)
    held, names = 0.0, set()
    for unit, part in zip(reversed(profile.units), reversed(parts), strict=True):
        if held >= wanted:
            break
        held += part
        names.update(unit.parameters)
    return names


def _as_patterns(profile: "Profile", reached: set[str], tuned: list[str]) -> list[str]:
    """Patterns for those of the reached parameters that `tuned` names."""
    found: list[str] = []
    for unit in profile.units:
        if not reached.issuperset(unit.parameters):
            continue
        if unit.stage and tuned == ["*"]:
            found.append(f"{unit.name}.*")
        else:
            found += [name for name in unit.parameters if matches(name, tuned)]
    return found


def matches(name: str, patterns: list[str]) -> bool:
    """Whether a name is that of one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


COLORA = Method(
    settings=CoLoRASettings,
    paper="CoLoRA, ECCV 2024, arXiv 2408.01099",
    groups=("down", "up", "value"),
    deltas=deltas,
    adapter="urushi.adapters.low_rank:CoLoRA",
)
