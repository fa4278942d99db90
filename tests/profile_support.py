"""What the tests of profiles share: a tiny base, a network tuned from it, a profile made up."""

from pathlib import Path

import torch

from urushi.adapters.contribution_profile import ParameterScore, Profile, TaskFacts
from urushi.adapters.layers import parameter_kinds
from urushi.adapters.profiling import execution_order, units_of
from urushi.backbones import BACKBONES, RestorationNetwork, create_backbone
from urushi.files.adapter import base_facts
from urushi.files.model import ModelHeader, read_model, write_model


def tiny_network(seed=0) -> RestorationNetwork:
    """A NAFNet whose every layer does something."""
    torch.manual_seed(seed)
    network = create_backbone("nafnet", BACKBONES["nafnet"].example).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            parameter.data.fill_(0.3)
        if name.startswith("ending"):
            parameter.data.mul_(0.1)
    return network


def moved(network, by=0.03, seed=1):
    """The parameters of a network a little elsewhere, by name."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: p.detach() + by * torch.randn(p.shape, generator=generator)
        for name, p in network.named_parameters()
    }


def write_base(path: Path, network, storage="float32", **tensors) -> Path:
    state = {name: t.numpy() for name, t in {**network.state_dict(), **tensors}.items()}
    header = ModelHeader(backbone="nafnet", config=dict(BACKBONES["nafnet"].example))
    write_model(path, state, header, storage)
    return path


def made_up(network, model: Path, mean=lambda name: 1.0) -> Profile:
    """A profile in which each parameter has the contribution that `mean` gives its name."""
    kinds = parameter_kinds(network)
    counts = {name: p.numel() for name, p in network.named_parameters()}
    order = execution_order(network, torch.rand(3, 16, 16))
    facts = {"pictures": 1, "psnr_baseline": 20.0, "psnr_target": 25.0, "accounted": 1.0}
    return Profile(
        base=base_facts(read_model(model)),
        steps=1,
        rule="midpoint",
        normalise="task",
        tasks=[TaskFacts(name="made up", data="", target="", **facts)],
        units=units_of(network, order),
        parameters={
            name: ParameterScore(kind=kinds[name], count=counts[name], mean=mean(name))
            for name in order
        },
    )
