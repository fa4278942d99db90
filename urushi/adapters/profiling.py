"""Measuring a profile: attributions of many pictures and tasks, averaged to one number each."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor, nn

from urushi.adapters.attribution import Attribution, Rule, attribute
from urushi.adapters.contribution_profile import (
    Normalise,
    ParameterScore,
    Profile,
    Role,
    TaskFacts,
    Unit,
)
from urushi.adapters.layers import parameter_kinds
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError
from urushi.files.adapter import BaseFacts

__all__ = ["ProfileTask", "execution_order", "measure_profile", "units_of"]

# Mean squared error that counts as none: 100 dB, so that a perfect picture has a PSNR.
_LEAST_ERROR = 1e-10


@dataclass(frozen=True)
class ProfileTask:
    """One task to measure on.

    Attributes:
        name: what it is called.
        target: the parameters of the base tuned for it, by name.
        pairs: degraded pictures with their references, float32 `(3, H, W)` in [0, 1], of any sizes.
        data: what the pictures are, for people.
        tuned_by: what the target is, for people.
    """

    name: str
    target: Mapping[str, Tensor]
    pairs: Sequence[tuple[Float[Tensor, "3 _ _"], Float[Tensor, "3 _ _"]]]
    data: str = ""
    tuned_by: str = ""


def measure_profile(
    network: RestorationNetwork,
    base: BaseFacts,
    tasks: Sequence[ProfileTask],
    *,
    steps: int = 16,
    rule: Rule = "midpoint",
    normalise: Normalise = "task",
    on_progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Measures how much each parameter of a base contributes to tuned networks' doing better.

    Over which tasks and pictures CoLoRA averages, and how it normalises, could not be found: both
    are ours. Attributions are made picture by picture, their absolute values averaged.

    Args:
        network: the base, with its weights, on the device to calculate on; stays as it is.
        base: what is written into the profile about it.
        tasks: one or more; each counts alike with `normalise` `task`.
        steps, rule: see `attribute`.
        normalise: see `Profile`.
        on_progress: called after each point of an integral with (done, in all).

    Raises:
        AdapterError: a target is of another architecture or equal to the base, or a task has no
            pictures.
    """
    assert tasks
    _check_tasks(network, tasks)
    order = execution_order(network, tasks[0].pairs[0][0])
    kinds = parameter_kinds(network)
    counts = {name: p.numel() for name, p in network.named_parameters()}
    total, done = steps * sum(len(task.pairs) for task in tasks), count(1)

    def tell() -> None:
        if on_progress is not None:
            on_progress(next(done), total)

    means = dict.fromkeys(order, 0.0)
    facts = []
    for task in tasks:
        scores, found = _measure_task(network, task, steps, rule, normalise != "sum", tell)
        if normalise == "task":
            scores = _relative(scores, counts)
        for name, score in scores.items():
            means[name] += score / len(tasks)
        facts.append(found)
    return Profile(
        base=base,
        steps=steps,
        rule=rule,
        normalise=normalise,
        tasks=facts,
        units=units_of(network, order),
        parameters={
            name: ParameterScore(kind=kinds[name], count=counts[name], mean=means[name])
            for name in order
        },
    )


def _relative(scores: Mapping[str, float], counts: Mapping[str, int]) -> dict[str, float]:
    """Mean scores relative to that over all numbers of the network."""
    whole = sum(score * counts[name] for name, score in scores.items()) / sum(counts.values())
    return {name: score / whole for name, score in scores.items()}


def _check_tasks(network: nn.Module, tasks: Sequence[ProfileTask]) -> None:
    own = dict(network.named_parameters())
    for task in tasks:
        if not task.pairs:
            raise AdapterError(f"task {task.name!r} has no pictures: at least one is needed")
        same = own.keys() == task.target.keys() and all(
            p.shape == task.target[name].shape and torch.equal(p.cpu(), task.target[name].cpu())
            for name, p in own.items()
        )
        if same:
            raise AdapterError(
                f"the target of task {task.name!r} has the very weights of the base: nothing "
                "contributes to a difference that is not there; give a tuned network"
            )


def _measure_task(
    network: nn.Module,
    task: ProfileTask,
    steps: int,
    rule: Rule,
    by_size: bool,
    on_step: Callable[[], None],
) -> tuple[dict[str, float], TaskFacts]:
    """Mean absolute attribution of every parameter's numbers, meaned over the pictures."""
    baseline = {name: p.detach() for name, p in network.named_parameters()}
    device = next(iter(baseline.values())).device
    sums = dict.fromkeys(baseline, 0.0)
    psnr = [0.0, 0.0]
    difference = accounted = 0.0
    for picture, reference in task.pairs:
        found: Attribution = attribute(
            network,
            baseline,
            task.target,
            picture[None].to(device),
            reference[None].to(device),
            steps=steps,
            rule=rule,
            on_step=on_step,
        )
        values = reference.numel()
        for name, score in found.scores.items():
            sums[name] += float(score.abs().mean()) / (values if by_size else 1)
        for side, loss in enumerate((found.loss_baseline, found.loss_target)):
            psnr[side] -= 10 * math.log10(max(loss / values, _LEAST_ERROR)) / len(task.pairs)
        difference += found.loss_target - found.loss_baseline
        accounted += found.accounted
    if not (math.isfinite(difference) and all(map(math.isfinite, sums.values()))):
        raise AdapterError(
            f"the attributions of task {task.name!r} are not finite: its target, or the line from "
            "the base to it, gives no usable pictures; tune it with a smaller learning rate"
        )
    if not any(sums.values()):
        raise AdapterError(
            f"all attributions of task {task.name!r} are zero: its target makes no other pictures "
            "than the base does; tune it longer"
        )
    facts = TaskFacts(
        name=task.name,
        data=task.data,
        target=task.tuned_by,
        pictures=len(task.pairs),
        psnr_baseline=psnr[0],
        psnr_target=psnr[1],
        accounted=accounted / difference if difference else 0.0,
    )
    return {name: score / len(task.pairs) for name, score in sums.items()}, facts


@torch.no_grad()
def execution_order(network: nn.Module, picture: Float[Tensor, "3 h w"]) -> list[str]:
    """Names of all parameters, in the order in which their modules are called for a picture.

    Parameters of modules that are not called come last.
    """
    called: dict[str, None] = {}
    handles = []
    for prefix, module in network.named_modules():
        own = [
            f"{prefix}.{name}" if prefix else name
            for name, _ in module.named_parameters(recurse=False)
        ]
        if own:
            handles.append(
                module.register_forward_pre_hook(
                    lambda _module, _inputs, own=own: called.update(dict.fromkeys(own))
                )
            )
    try:
        network(picture[None].to(next(network.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys([*called, *(name for name, _ in network.named_parameters())]))


def units_of(network: RestorationNetwork, order: Sequence[str]) -> list[Unit]:
    """The blocks of a backbone, and the layers outside of them, in the order of execution.

    Args:
        network: says where its blocks are.
        order: its parameters, in the order of execution.
    """
    sites = network.sites
    blocks = {block: stage for stage in sites.stages for block in stage.blocks}
    decoder = tuple(f"{name}." for name in sites.decoder)
    role: Role = "encoder"
    members: dict[str, list[str]] = {}
    roles: dict[str, Role] = {}
    for name in order:
        parts = name.split(".")
        prefixes = (".".join(parts[:end]) for end in range(1, len(parts)))
        unit = next((p for p in prefixes if p in blocks), ".".join(parts[:-1]) or name)
        if unit in blocks:
            role = blocks[unit].role
        members.setdefault(unit, []).append(name)
        # What leads down to the middle counts to the encoder, what leads up to the decoder.
        roles.setdefault(unit, "decoder" if name.startswith(decoder) else role)
    return [
        Unit(
            name=unit,
            role=roles[unit],
            stage=blocks[unit].name if unit in blocks else "",
            parameters=names,
        )
        for unit, names in members.items()
    ]
