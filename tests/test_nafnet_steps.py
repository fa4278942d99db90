"""Training steps of NAFNets: every gradient is that of the plain form."""

import pytest
import torch
from torch import nn

from urushi.adapters import attach, create_adapter
from urushi.backbones import create_backbone, nafnet_block
from urushi.backbones.factors import Factors, factors_of, leave_factors
from urushi.backbones.nafnet import NAFBlock, NAFNet
from urushi.backbones.nafnet_steps import widen_of

CONFIG = {"width": 8, "enc_blk_nums": [1, 1], "middle_blk_num": 2, "dec_blk_nums": [1, 0]}
METHODS = [
    {"method": "full"},
    {"method": "bitfit"},
    {"method": "norm"},
    {"method": "decoder"},
    {"method": "ssf"},
    {"method": "adaptformer"},
    {"method": "lora", "rank": 1},
    {"method": "lora", "rank": 1, "layout": "loralib", "tune": ["bias", "norm", "scale"]},
    {"method": "lora", "rank": 0, "dense": ["*.conv2"], "tune": ["scale"]},
    {"method": "colora", "budget": 0.3},
    {"method": "lora", "rank": 1, "ranks": {"intro": 0, "encoders.0.0.conv1": 0}},
]


def name_of(settings):
    return "-".join(str(value) for value in settings.values())


def stirred(module, generator):
    """Gives all parameters values, so that no gradient is zero because a factor is."""
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(0.2 * noise)
    return module


def gradients(network, x, wanted):
    network.zero_grad()
    x.grad = None
    result = network(x)
    (result * wanted).sum().backward()
    found = {name: p.grad for name, p in network.named_parameters()}
    return {"result": result.detach(), "x": x.grad, **found}


def both(network, x, wanted, monkeypatch):
    """What a step gives, and what it gives in the plain form."""
    fast = gradients(network, x, wanted)
    fast = {name: None if value is None else value.clone() for name, value in fast.items()}
    with monkeypatch.context() as patch:
        patch.setattr(nafnet_block, "_takes_steps", lambda _x: False)
        patch.setattr(NAFBlock, "_undisturbed", lambda _self: False)
        plain = gradients(network, x, wanted)
    return fast, plain


@pytest.mark.parametrize("settings", METHODS, ids=name_of)
def test_every_method_has_the_gradients_of_the_plain_form(settings, monkeypatch):
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    backbone = stirred(create_backbone("nafnet", CONFIG), generator)
    network = attach(backbone, create_adapter(backbone, dict(settings)))
    stirred(network, generator)
    # Deltas of low rank are formed in float32, whatever the network is in.
    network.double()
    shape = (2, 3, 12, 20)
    x = torch.rand(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(shape, generator=generator, dtype=torch.float64)
    fast, plain = both(network, x, wanted, monkeypatch)
    rounded = settings["method"] in ("lora", "colora")
    for name, expected in plain.items():
        assert (fast[name] is None) == (expected is None), name
        if expected is not None:
            bound = (1e-5 if rounded else 1e-11) * float(expected.abs().max() + 1)
            torch.testing.assert_close(fast[name], expected, rtol=0, atol=bound)


@pytest.mark.parametrize("sides", [(8, 12), (7, 9)])
@pytest.mark.parametrize("frozen", [(), ("conv1", "conv4"), ("norm1", "beta", "conv2", "sca")])
def test_a_block_whose_weights_are_frozen_in_part(sides, frozen, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    block = stirred(NAFBlock(6).double(), generator)
    for name, parameter in block.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    x = torch.randn((3, 6, *sides), generator=generator, dtype=torch.float64, requires_grad=True)
    wanted = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    fast, plain = both(block, x, wanted, monkeypatch)
    for name, expected in plain.items():
        assert (fast[name] is None) == (expected is None), name
        if expected is not None:
            torch.testing.assert_close(fast[name], expected, rtol=1e-10, atol=1e-10)


class Thin(nn.Module):
    """A block whose first layers are sums with products of two factors."""

    def __init__(self, block, generator, left):
        super().__init__()
        self.block, self.left = [block], left
        self.factors = nn.ParameterDict()
        for name in ("conv1", "conv4"):
            rows, columns = getattr(block, name).weight.shape[:2]
            down = torch.randn(2, columns, generator=generator, dtype=torch.float64)
            up = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
            self.factors[f"{name}_down"] = nn.Parameter(down)
            self.factors[f"{name}_up"] = nn.Parameter(up)

    def forward(self, x):
        block, sums = self.block[0], {}
        for name in ("conv1", "conv4"):
            down, up = self.factors[f"{name}_down"], self.factors[f"{name}_up"]
            weight = getattr(block, name).weight
            sums[f"{name}.weight"] = weight + 0.5 * (up @ down)[..., None, None]
            if self.left:
                leave_factors(sums[f"{name}.weight"], Factors(down, up, 0.5))
        return torch.func.functional_call(block, sums, (x,))


def test_factors_have_the_gradients_that_the_whole_weight_gives_them():
    def told(left):
        torch.manual_seed(2)
        generator = torch.Generator().manual_seed(2)
        block = stirred(NAFBlock(24).double(), generator)
        network = Thin(block, generator, left)
        x = torch.randn((2, 24, 6, 5), generator=generator, dtype=torch.float64, requires_grad=True)
        wanted = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        found = gradients(network, x, wanted)
        own = {n: p.grad for n, p in block.named_parameters() if "conv1.w" not in n}
        return {**found, **{n: g for n, g in own.items() if "conv4.w" not in n}}

    fast, plain = told(True), told(False)
    for name, expected in plain.items():
        torch.testing.assert_close(fast[name], expected, rtol=1e-9, atol=1e-9)


def test_thin_factors_are_used_and_thick_ones_are_not():
    gain, offset, bias = torch.ones(16), torch.zeros(16), torch.zeros(32)
    for rank, used in ((1, True), (2, True), (3, False), (16, False)):
        weight = torch.zeros(32, 16, 1, 1, requires_grad=True) * 1
        leave_factors(weight, Factors(torch.zeros(rank, 16), torch.zeros(32, rank), 1.0))
        found = widen_of(gain, offset, weight, bias)
        assert (found.down is not None) == used
        assert found.weight.requires_grad != used
    assert factors_of(torch.zeros(1)) is None


@pytest.mark.parametrize("layout", ["flat", "loralib"])
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_sums_of_deltas_are_those_that_are_added_one_by_one(layout, strength):
    torch.manual_seed(3)
    backbone = create_backbone("nafnet", CONFIG).requires_grad_(False)
    settings = {"method": "lora", "rank": 2, "layout": layout, "alpha": 3.0, "tune": ["bias"]}
    adapter = stirred(create_adapter(backbone, settings), torch.Generator().manual_seed(3))
    adapter.strength = strength
    base = dict(backbone.named_parameters())
    before = {"intro.bias": base["intro.bias"] + 1}

    def told(sums):
        adapter.zero_grad(set_to_none=True)
        parts = [(index + 1) * t.square().sum() for index, t in enumerate(sums.values())]
        torch.stack(parts).sum().backward()
        return {**sums, **{name: p.grad for name, p in adapter.named_parameters()}}

    own = told(adapter.added_to(base, before))
    deltas = adapter.deltas(base)
    below = {**base, **before}
    plain = told(
        {name: below[name] + strength * deltas[name] for name in adapter.added_to(base, before)}
    )
    assert set(deltas) <= set(own)
    for name, expected in plain.items():
        bound = 1e-5 * float(expected.detach().abs().max())
        torch.testing.assert_close(own[name], expected, rtol=0, atol=bound)


def test_whoever_listens_to_the_attention_hears_it():
    block = NAFBlock(4)
    heard = []
    block.get_submodule("sca.1").register_forward_hook(
        lambda _module, _inputs, output: heard.append(output.shape)
    )
    block(torch.rand(2, 4, 6, 6))
    assert heard == [(2, 4, 1, 1)]


def test_a_window_smaller_than_the_picture_is_kept_to_in_training():
    torch.manual_seed(4)
    network = stirred(create_backbone("nafnet", CONFIG), torch.Generator().manual_seed(4))
    x = torch.rand(1, 3, 32, 32)
    whole = network(x)
    assert isinstance(network, NAFNet)
    network.set_pooling_window(12)
    with torch.no_grad():
        expected = network(x)
    torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
    assert (whole - expected).abs().max() > 1e-4
