"""FAIG against numbers measured from the authors' code, and the completeness of its integral."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from urushi.adapters.attribution import RULES, attribute
from urushi.backbones import BACKBONES, create_backbone
from urushi.errors import AdapterError

GOLDEN = Path(__file__).parent / "golden" / "faig.safetensors"


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    features = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(5, 20, 3, padding=1),
        nn.PixelShuffle(2),
        nn.LeakyReLU(0.1),
        nn.Conv2d(5, 5, 3, padding=1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(5, 3, 3, padding=1),
    )
    for index, module in enumerate(features):
        assert config["architecture"][index].startswith(f"{index}: {type(module).__name__}(")
    network = nn.Sequential()
    network.features = features
    sides = [
        {
            name.removeprefix(f"state.{side}."): tensor
            for name, tensor in tensors.items()
            if name.startswith(f"state.{side}.")
        }
        for side in ("baseline", "target")
    ]
    return network, *sides, tensors, config


def scores_of(golden, which, **options):
    network, baseline, target, tensors, config = golden
    found = attribute(
        network, baseline, target, tensors[which], tensors["gt"],
        **{"steps": config["total_step"], **options},
    )  # fmt: skip
    return found, [
        # FAIG's score of every kernel: absolute attributions summed over its entries.
        found.scores[f"features.{index}.weight"].abs().flatten(2).sum(2)
        for index in config["conv_index"]
    ]


def test_equals_the_authors_scores(golden):
    tensors = golden[3]
    flat = {}
    for which, name in (("input", "faig_img1"), ("input2", "faig_img2")):
        _, kernels = scores_of(golden, which)
        flat[name] = torch.cat([kernel.flatten() for kernel in kernels])
        assert torch.allclose(flat[name], tensors[name], rtol=1e-4, atol=1e-4)
        sums = torch.stack([kernel.sum() for kernel in kernels])
        assert torch.allclose(sums, tensors[name.replace("faig", "layer_sum")], rtol=1e-4)
    difference = flat["faig_img1"] - flat["faig_img2"]
    assert (difference - tensors["output"]).abs().max() < 1e-4 * tensors["output"].abs().max()


def test_the_sum_of_attributions_approaches_the_difference_of_the_losses(golden):
    errors = {}
    for rule in RULES:
        for steps in (8, 32):
            found, _ = scores_of(golden, "input", steps=steps, rule=rule)
            difference = found.loss_target - found.loss_baseline
            errors[rule, steps] = abs(found.accounted - difference) / abs(difference)
    for rule in ("released", "paper"):  # the error of a Riemann sum falls with M
        assert errors[rule, 32] < 0.35 * errors[rule, 8]
        # Eight points in the middle are better than 32 at one end of each step.
        assert errors["midpoint", 8] < 0.2 * errors[rule, 32]
    assert errors["midpoint", 32] < 1e-3


def test_a_network_stays_as_it_is():
    torch.manual_seed(0)
    network = create_backbone("nafnet", BACKBONES["nafnet"].example).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    target = {name: p + 0.01 * torch.randn_like(p) for name, p in network.named_parameters()}
    calls = []
    found = attribute(
        network, dict(network.named_parameters()), target,
        torch.rand(1, 3, 17, 12), torch.rand(1, 3, 17, 12),
        steps=3, on_step=lambda: calls.append(1),
    )  # fmt: skip
    assert len(calls) == 3
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert found.scores.keys() == target.keys()


def test_networks_of_another_architecture_are_refused():
    network = nn.Conv2d(3, 3, 1)
    own = dict(network.named_parameters())
    picture = torch.rand(1, 3, 4, 4)
    with pytest.raises(AdapterError, match=r"target has bias with shape None.*one architecture"):
        attribute(network, own, {"weight": own["weight"]}, picture, picture)
    with pytest.raises(AdapterError, match=r"baseline has more"):
        attribute(network, {**own, "more": own["bias"]}, own, picture, picture)
