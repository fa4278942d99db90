"""CoLoRA as an adapter: a profile and a budget become ordinary low-rank settings."""

import json

import pytest
import torch
from world import made_up, moved, tiny_network, write_base

from urushi.adapters import attach
from urushi.adapters.colora import CoLoRASettings, allocation, parse_budget
from urushi.adapters.contribution_profile import write_profile
from urushi.adapters.layers import parameter_kinds, weight_layers
from urushi.adapters.low_rank import CoLoRA
from urushi.errors import AdapterError
from urushi.settings import parse_settings


def make(backbone, **options):
    return CoLoRA(backbone, parse_settings(options, CoLoRASettings, AdapterError, "colora"))


def count(adapter):
    return sum(p.numel() for p in adapter.parameters())


@pytest.fixture(scope="module")
def network():
    return tiny_network()


@pytest.fixture(scope="module")
def profile(network, tmp_path_factory):
    """The decoder contributes ten times what the rest does."""
    folder = tmp_path_factory.mktemp("profile")
    model = write_base(folder / "base.safetensors", network)
    path = folder / "base.profile.json"
    made = made_up(network, model, lambda name: 10.0 if name.startswith("decoders") else 1.0)
    write_profile(path, made)
    return path


def test_the_trained_parameters_are_the_budget(network, profile):
    total = sum(p.numel() for p in network.parameters())
    for options in ({}, {"profile": str(profile)}, {"profile": str(profile), "by": "block"}):
        for budget in (0.6, "80%"):
            adapter = make(network, budget=budget, **options)
            spent = round(parse_budget(budget) * total) - count(adapter)
            assert 0 <= spent < 64  # the network is tiny: a rank of a layer is that large
            found = allocation(network, CoLoRASettings(budget=budget, **options))
            assert found.parameters == count(adapter)


def test_contribution_gets_the_ranks(network, profile):
    config = make(network, budget=0.6, profile=str(profile)).config
    layers = {layer.name: layer for layer in weight_layers(network)}
    share = {
        name: config.ranks.get(name, 99) * (layer.rows + layer.columns) / layer.rows / layer.columns
        for name, layer in layers.items()
    }
    assert share["decoders.1.0.conv1"] > 2 * share["encoders.0.0.conv1"]
    everything = make(network, budget=1).config
    assert set(everything.dense) == set(layers)


def test_without_a_profile_ranks_are_uniform(network):
    ranks = make(network, budget=0.6).config.ranks
    assert max(ranks.values()) - min(ranks.values()) <= 1


def test_a_tiny_backbone_gets_the_least_by_default(network):
    assert set(make(network).config.ranks.values()) == {1}


@pytest.mark.parametrize("layout", ["flat", "loralib"])
def test_a_finished_adapter_states_its_ranks(network, profile, layout):
    adapter = make(network, budget=0.7, profile=str(profile), layout=layout, reach=0.9)
    description = json.loads(json.dumps(adapter.describe()))
    assert description.pop("method") == "colora"
    assert "profile" not in description
    for said in (description, adapter.config.model_dump(mode="json")):
        again = make(network, **said)
        assert again.state_dict().keys() == adapter.state_dict().keys()
        again.load_state_dict(adapter.state_dict())
        assert again.config == adapter.config


def test_attached_trained_and_merged(network, profile):
    picture = torch.rand(2, 3, 19, 16)
    plain = network(picture)
    adapted = attach(network, make(network, budget=0.7, profile=str(profile)))
    assert torch.equal(adapted(picture), plain)
    adapted(picture).square().sum().backward()
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter -= 1e-3 * (parameter.grad if parameter.grad is not None else 0)
    changed = adapted(picture).detach()
    assert (changed - plain).abs().max() > 1e-4
    adapted.detach()
    own = tiny_network()
    own.load_state_dict(network.state_dict())
    with pytest.raises(AdapterError, match="other weights"):
        make(tiny_network(seed=3), profile=str(profile))
    again = CoLoRA(own, adapted.adapters[0].config)
    again.load_state_dict(adapted.adapters[0].state_dict())
    assert (attach(own, again).merge()(picture) - changed).abs().max() < 1e-5


def test_reach_ends_back_propagation_early(network, profile):
    adapter = make(network, budget=0.25, profile=str(profile), reach=0.7)
    assert adapter.down
    kinds = parameter_kinds(network)
    trained = [name.replace("/", ".") for name in (*adapter.down, *adapter.value)]
    starts = ("decoders", "ups", "ending")
    assert {name for name in trained if not name.startswith(starts)} == set()
    # What is trained whole is trained whole behind that point.
    behind = [n for n in kinds if n.startswith("decoders.1") and kinds[n] != "weight"]
    assert set(behind) <= set(trained)
    grown = []
    blocks = ("encoders.1.0", "middle_blks.0", "decoders.1.0")
    for block in blocks:
        network.get_submodule(block).register_forward_hook(
            lambda _m, _i, out: grown.append(out.requires_grad)
        )
    attach(network, adapter)(torch.rand(1, 3, 16, 16))
    assert grown == [False, False, True]
    with pytest.raises(AdapterError, match=r"from where reach 0.7 lets them begin 29.64%"):
        make(network, budget=0.5, profile=str(profile), reach=0.7)
    everything = make(network, budget=0.7, profile=str(profile), reach=1.0)
    assert len(everything.value) + len(everything.down) == len(kinds)


def test_a_base_stored_in_half_precision_knows_its_profile(tmp_path):
    network = tiny_network().half().float()
    model = write_base(tmp_path / "base.safetensors", network, "float16")
    write_profile(tmp_path / "p.json", made_up(network, model))
    assert make(network, profile=str(tmp_path / "p.json")).config.ranks


def test_a_profile_of_another_base_is_refused(profile, network):
    other = tiny_network()
    other.load_state_dict(moved(other))
    with pytest.raises(AdapterError, match=r"measured on 'base', which has other weights"):
        make(other, profile=str(profile))
    assert make(other, profile=str(profile), other_weights=True).config.ranks
    smaller = type(network)(width=2, enc_blk_nums=[1], middle_blk_num=1, dec_blk_nums=[1])
    with pytest.raises(AdapterError, match=r"has other parameters than this backbone"):
        make(smaller, profile=str(profile))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": "7"}, "budget is '7': expected a share of the parameters, such as 7% or 0.07"),
        ({"budget": "much"}, "such as 7%"),
        ({"budget": 0}, "such as 7%"),
        ({"budget": "101%"}, "such as 7%"),
        ({"budget": True}, "such as 7%"),
        ({"budget": "1%"}, r"1.00% cannot be had: rank 1 for .* take \d\d.\d\d% of this"),
        ({"rank": 4}, "state a budget instead"),
        ({"reach": 0.5}, "reach has no effect without a profile"),
        ({"ranks": {"intro": 1}, "budget": 0.5}, "leave budget no effect"),
        ({"budget": 0.5, "delta": {"alpha": 1, "beta": 0}}, "leave a budget no effect"),
        ({"delta": {"map": "power", "beta": -1}}, "beta is negative"),
        ({"ranks": {"nothing": 1}}, "no layer of this backbone"),
        ({"profile": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_settings_without_sense_are_refused(network, options, words):
    with pytest.raises(Exception, match=words) as caught:
        make(network, **options)
    assert type(caught.value).__module__ == "urushi.errors"


def test_budgets_of_people():
    assert parse_budget("7%") == pytest.approx(0.07)
    assert parse_budget(" 12.5 % ".replace(" ", "")) == 0.125
    assert parse_budget("0.07") == parse_budget(0.07) == 0.07
    assert parse_budget(1) == 1.0
