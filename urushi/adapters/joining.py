"""Experts from single adapters, and single adapters from experts.

An expert trained alone is an ordinary adapter with a file of its own; several of them become a
mixture, and a mixture comes apart into ordinary adapters, with the same numbers.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from urushi.adapters import create_adapter
from urushi.adapters.base import Adapter, key_of
from urushi.adapters.experts import Experts
from urushi.adapters.layers import parameter_kinds
from urushi.adapters.low_rank import LowRank
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError

__all__ = ["join", "split", "with_expert"]


def join(adapters: Sequence[Adapter], network: RestorationNetwork) -> Experts:
    """A mixture of single adapters, of any methods and ranks, in the order of its weights.

    Args:
        adapters: made for `network`; stay as they are.
        network: a backbone, or the `Host` for which they were made.

    Raises:
        AdapterError: there is none, or one belongs to another network.
    """
    if not adapters:
        raise AdapterError("no adapters to join: give at least one")
    config = {"method": "experts", "freeze": "base", "each": [a.describe() for a in adapters]}
    return _filled(config, adapters, None, network)


def with_expert(experts: Experts, adapter: Adapter, network: RestorationNetwork) -> Experts:
    """A mixture with one more expert, the last; routes of the old ones give what they gave.

    Args:
        experts, adapter: made for `network`; stay as they are.
        network: a backbone, or the `Host` for which they were made.

    Raises:
        AdapterError: the adapter belongs to another network.
    """
    members = [*experts.members, adapter]
    config = {**experts.describe(), "each": [a.describe() for a in members]}
    return _filled(config, members, experts.shared, network)


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


def _filled(
    config: dict[str, object],
    members: Sequence[Adapter],
    shared: Adapter | None,
    network: RestorationNetwork,
) -> Experts:
    joined = create_adapter(network, config)
    assert isinstance(joined, Experts)
    pairs = list(zip(joined.members, members, strict=True))
    if joined.shared is not None and shared is not None:
        pairs.append((joined.shared, shared))
    for new, old in pairs:
        try:
            new.load_state_dict(old.state_dict())
        except RuntimeError as error:
            raise AdapterError(
                f"an adapter of method {old.method} was made for another network: join those of "
                "one base"
            ) from error
        new.strength = old.strength
    return joined


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
