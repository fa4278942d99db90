"""Each baseline against its formula, written out."""

import pytest
import torch
from networks import TokenNet, random_images, shaken, shaken_adapter
from torch.nn import functional as F

from urushi.adapters import attach
from urushi.backbones import BACKBONES, create_backbone


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return shaken(TokenNet(), 0).eval()


def outputs(module, run):
    """Inputs and output of a module of the backbone during a pass."""
    seen = {}

    def keep(_module, inputs, output):
        seen.update(input=inputs[0], output=output)

    handle = module.register_forward_hook(keep)
    run()
    handle.remove()
    return seen["input"], seen["output"]


def bottleneck(branch, x, activation):
    return branch.up(activation(branch.down(x)))


@torch.no_grad()
def test_houlsby_stands_behind_attention_and_feed_forward(backbone):
    x = random_images(1, 12, 8)
    adapter = shaken_adapter(backbone, method="houlsby", hidden=2)
    adapted = attach(backbone, adapter).eval()
    assert list(adapter.branches) == [f"blocks/{i}/{n}" for n in ("proj", "fc2") for i in (0, 1)]
    for name in ("proj", "fc2"):
        layer = backbone.get_submodule(f"blocks.0.{name}")
        given, result = outputs(layer, lambda: adapted(x))
        plain = F.linear(given, layer.weight, layer.bias)
        expected = plain + bottleneck(adapter.branches[f"blocks/0/{name}"], plain, F.gelu)
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    ("settings", "scale"), [({}, 0.1), ({"scale": 2.0}, 2.0), ({"learn_scale": True}, None)]
)
@torch.no_grad()
def test_adaptformer_stands_beside_the_feed_forward_branch(backbone, settings, scale):
    x = random_images(1, 12, 8)
    adapter = shaken_adapter(backbone, method="adaptformer", hidden=3, **settings)
    adapter.strength = 0.5
    adapted = attach(backbone, adapter).eval()
    branch = adapter.branches["blocks/0/fc2"]
    if scale is None:
        scale = branch.scale
        assert scale.requires_grad
    else:
        assert "scale" not in dict(branch.named_parameters())
    _, normed = outputs(backbone.get_submodule("blocks.0.norm2"), lambda: adapted(x))
    layer = backbone.get_submodule("blocks.0.fc2")
    given, result = outputs(layer, lambda: adapted(x))
    expected = layer.weight @ given.unsqueeze(-1)
    expected = expected.squeeze(-1) + layer.bias
    expected = expected + 0.5 * scale * bottleneck(branch, normed, F.relu)
    torch.testing.assert_close(result, expected)


@torch.no_grad()
def test_the_classic_mixture_is_a_sum_of_identical_branches(backbone):
    adapter = shaken_adapter(backbone, method="moe", experts=3, hidden=2)
    branch = adapter.branches["blocks/1/fc2"]
    x = torch.randn(5, 1, 8)
    expected = branch.up.bias
    for expert in range(3):
        own = slice(2 * expert, 2 * expert + 2)
        inner = F.gelu(F.linear(x, branch.down.weight[own], branch.down.bias[own]))
        expected = expected + F.linear(inner, branch.up.weight[:, own])
    torch.testing.assert_close(branch(x), expected)


@torch.no_grad()
def test_fact_cuts_weights_into_squares_of_shared_factors(backbone):
    adapter = shaken_adapter(backbone, method="fact", rank=2, scale=3.0)
    deltas = adapter.deltas(dict(backbone.named_parameters()))
    assert set(deltas) == {
        f"blocks.{i}.{n}.weight" for i in (0, 1) for n in ("qkv", "proj", "fc1", "fc2")
    }
    left, right = adapter.rows["8"], adapter.columns["8"]
    for name, delta in deltas.items():
        core = adapter.core[name.replace(".", "/")]
        for down in range(delta.shape[0] // 8):
            for across in range(delta.shape[1] // 8):
                block = delta[8 * down : 8 * down + 8, 8 * across : 8 * across + 8]
                torch.testing.assert_close(block, 3.0 * left @ core[down, across] @ right.T)
    counted = attach(backbone, adapter).report().trainable
    assert counted == 2 * 8 * 2 + 2 * (3 + 1 + 2 + 2) * 2**2


@torch.no_grad()
def test_prompts_stand_in_front_of_a_blocks_tokens(backbone):
    x = random_images(2, 12, 8)
    adapter = shaken_adapter(backbone, method="vpt", tokens=3)
    adapted = attach(backbone, adapter).eval()
    block = backbone.get_submodule("blocks.1")
    seen = {}
    norm = block.norm1.register_forward_hook(lambda _m, inputs, _o: seen.update(longer=inputs[0]))
    tokens, result = outputs(block, lambda: adapted(x))
    norm.remove()
    assert tokens.shape == result.shape == (6, 2, 8)
    prompts = adapter.prompts["blocks/1"][:, None].expand(-1, 2, -1)
    longer = torch.cat([prompts, tokens])
    torch.testing.assert_close(seen["longer"], longer)
    positions = torch.linspace(-1, 1, 6)[:, None, None].expand(-1, 1, 8)
    adapted.detach()
    nothing = torch.zeros(3, 1, 8)
    torch.testing.assert_close(block(longer, torch.cat([nothing, positions]))[3:], result)
    adapted = attach(backbone, adapter).eval()
    adapter.strength = 0.25
    tokens, mixed = outputs(block, lambda: adapted(x))
    adapted.detach()
    longer = torch.cat([prompts, tokens])
    whole = block(longer, torch.cat([nothing, positions]))[3:]
    torch.testing.assert_close(mixed, 0.75 * block(tokens, positions) + 0.25 * whole)


@torch.no_grad()
def test_ssf_shifts_layers_without_a_bias_where_it_is_asked_to():
    torch.manual_seed(0)
    network = shaken(create_backbone("nafnet", BACKBONES["nafnet"].example), 0).eval()
    x = random_images(1, 16, 24)
    adapter = shaken_adapter(network, method="ssf", offsets="all", layers=["ups.0.0"])
    adapter.strength = 0.5
    adapted = attach(network, adapter).eval()
    layer = network.get_submodule("ups.0.0")
    assert layer.bias is None
    given, result = outputs(layer, lambda: adapted(x))
    gain, shift = adapter.gain["ups/0/0"], adapter.shift["ups/0/0"]
    weight = layer.weight * (1 + 0.5 * gain).view(-1, 1, 1, 1)
    torch.testing.assert_close(result, F.conv2d(given, weight) + 0.5 * shift.view(-1, 1, 1))
    assert not adapter.mergeable
    assert shaken_adapter(network, method="ssf", layers=["ups.0.0"]).mergeable
