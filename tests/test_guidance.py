"""Guidance against numbers measured from the authors' code, and on other networks."""

import pytest
import torch
from networks import (
    TokenNet,
    below,
    random_images,
    read_golden,
    shaken,
    shaken_adapter,
    shaken_network,
)
from torch import nn
from torch.nn import functional as F
from world import network_of, write_tiny

from urushi.adapters import Host, attach, create_adapter
from urushi.adapters.guidance import StageGate, settle
from urushi.adapters.released_lora_ir import lora_ir_from
from urushi.adapters.stored import header_of, load_adapter, tensors_of
from urushi.backbones import RestorationNetwork, Sites, Stage, create_backbone
from urushi.errors import AdapterError
from urushi.files.adapter import read_adapter, write_adapter
from urushi.files.model import read_model

TINY = {"width": 4, "enc_blk_nums": [0, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 0]}
SMALL = {"method": "guidance", "vector": 5, "hidden": 4, "reduction": 2}
KINDS = ["weight", "bias", "norm", "scale"]


def nafnet():
    """With stages that have no block, as the shipped base has."""
    return shaken_network("nafnet", TINY)


def vectors(count, seed=3):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_equals_the_authors_network():
    tensors, _ = read_golden("lora_ir_stage1")
    found = lora_ir_from(below(tensors, "state."), "golden")
    adapted = attach(found.backbone, found.guidance).eval()
    expected = tensors["output"]
    result = adapted(tensors["input"], vector=tensors["de_prior"])
    assert (result - expected).abs().max() <= 1e-4 * expected.std()
    assert (adapted(tensors["input"]) - expected).abs().max() > 1e-2 * expected.std()
    one = adapted.fixed(vector=tensors["de_prior"][:1])(tensors["input"][:1])
    assert (one - expected[:1]).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize(("decoder", "millions"), [(False, 68.870), (True, 69.238)])
def test_counts_of_the_paper(decoder, millions):
    with torch.device("meta"):
        backbone = create_backbone(
            "nafnet",
            {
                "width": 64,
                "enc_blk_nums": [1, 1, 1, 28],
                "middle_blk_num": 1,
                "dec_blk_nums": [1, 1, 1, 1],
            },
        )
        guidance = create_adapter(backbone, {"method": "guidance", "decoder": decoder})
    report = attach(backbone, guidance).report()
    assert round((report.backbone + report.trainable) / 1e6, 3) == millions


@torch.no_grad()
def test_it_stands_in_front_of_every_stage():
    backbone, x, vector = nafnet(), random_images(2, 8, 12), vectors(2)
    guidance = shaken_adapter(backbone, **SMALL, decoder=True)
    assert guidance.config.stages == [stage.name for stage in backbone.sites.stages]
    seen = {}

    def watch(name):
        def hook(_module, inputs, output):
            seen[name] = (inputs[0], output)

        return hook

    for name in ("intro", "downs.0", "encoders.1.0"):
        backbone.get_submodule(name).register_forward_hook(watch(name))
    attach(backbone, guidance)(x, vector=vector)
    (gates, second), (given, _) = guidance.stages[:2], seen["downs.0"]
    embedded = guidance.embed(vector)
    for gate, before, after in (
        (gates, seen["intro"][1], given),
        (second, seen["downs.0"][1], seen["encoders.1.0"][0]),
    ):
        opened = gate.gate(embedded)[:, :, None, None]
        normed = gate.norm(before.movedim(1, -1)).movedim(-1, 1)
        expected = before + gate.beta[:, None, None] * (normed * opened)
        torch.testing.assert_close(after, expected)
        assert not torch.equal(before, after)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("bchw", (4, 6, 2, 3)), ("bhwc", (4, 2, 3, 6)), ("blc", (4, 5, 6)), ("lbc", (5, 4, 6))],
)
@torch.no_grad()
def test_orders_of_axes(layout, shape):
    gate = shaken(StageGate(5, 4, 6, 2), 1)
    x, opened = torch.randn(shape), torch.rand(4, 6)
    batch, channels = layout.index("b"), layout.index("c")
    added = gate.added(x, opened, layout)
    for index in range(4):
        own = x.select(batch, index).movedim(channels - (channels > batch), -1)
        normed = F.layer_norm(own, (6,), gate.norm.weight, gate.norm.bias, 1e-6)
        expected = opened[index] * gate.beta * normed
        torch.testing.assert_close(
            added.select(batch, index).movedim(channels - (channels > batch), -1), expected
        )
    # Squares of the same picture stand one after the other.
    halves = gate.added(x, opened[:2], layout)
    torch.testing.assert_close(halves, gate.added(x, opened[[0, 0, 1, 1]], layout))
    whole = gate.added(x, opened[:1], layout)
    torch.testing.assert_close(whole, gate.added(x, opened[[0, 0, 0, 0]], layout))


@torch.no_grad()
def test_each_picture_has_its_vector():
    backbone, x, vector = nafnet(), random_images(3, 8, 12), vectors(3)
    adapted = attach(backbone, shaken_adapter(backbone, **SMALL)).eval()
    result = adapted(x, vector=vector)
    for row in range(3):
        own = slice(row, row + 1)
        torch.testing.assert_close(adapted(x[own], vector=vector[own]), result[own])
        torch.testing.assert_close(adapted.fixed(vector=vector[own])(x[own]), result[own])
    assert not torch.allclose(result[1:], adapted(x, vector=vector[:1])[1:], atol=1e-3)
    assert torch.equal(adapted(x), backbone(x))


def test_guided_pre_training_and_what_stays_of_it():
    """Backbone and gates train together; then the backbone's part goes into its weights."""
    backbone, x, vector = nafnet(), random_images(2, 8, 12), vectors(2)
    adapter = create_adapter(backbone, {**SMALL, "tune": KINDS})
    adapted = attach(backbone, adapter)
    own = sum(p.numel() for p in backbone.parameters())
    assert adapted.report().trainable == own + sum(
        p.numel() for n, p in adapter.named_parameters() if not n.startswith("value.")
    )
    optimizer = torch.optim.SGD(adapted.parameters(), 0.05)
    for _ in range(2):
        optimizer.zero_grad()
        (adapted(x, vector=vector) - 0.5).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None for p in adapted.parameters())
    with torch.no_grad():
        before = adapted(x, vector=vector)
        backbone = adapted.detach()
        settled = settle(backbone, adapter)
        assert settled.describe() == {**SMALL, "stages": adapter.config.stages}
        assert not settled.deltas({})
        torch.testing.assert_close(attach(backbone, settled)(x, vector=vector), before)


def test_a_stage_that_is_never_called_is_guided_at_its_first_block():
    backbone = TokenNet()
    changes = create_adapter(backbone, SMALL).block_changes()
    assert [change.module for change in changes] == ["blocks.0"]


class Lists(RestorationNetwork):
    """A stage that holds nothing and is never called."""

    size_multiple = 1

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList()

    def forward(self, x):
        return x

    @property
    def sites(self):
        return Sites((), (), (Stage("layers", "middle", (), 4, 1),), ())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"reduction": 16}, "encoders.0 has 4 channels, which a reduction of 16 leaves none of"),
        ({"stages": ["layers.*"]}, "matches nothing in this backbone"),
        ({"vector": 0}, "vector is 0"),
        ({"tune": ["weights"]}, "tune.0 is 'weights'"),
    ],
)
def test_errors(config, message):
    with pytest.raises(AdapterError, match=message):
        create_adapter(nafnet(), {**SMALL, **config})


def test_a_stage_without_anything_is_refused():
    with pytest.raises(AdapterError, match="stage layers has no block to guide"):
        create_adapter(Lists(), SMALL)


def test_vectors_that_do_not_fit_are_refused():
    backbone, x = nafnet(), random_images(2, 8, 8)
    adapted = attach(backbone, create_adapter(backbone, SMALL))
    assert adapted.reads == {"vector"}
    with pytest.raises(AdapterError, match="of 4 numbers, but this guidance is made for 5"):
        adapted(x, vector=torch.zeros(2, 4))
    with pytest.raises(AdapterError, match="for 2 pictures: give one for each"):
        adapted(x, vector=torch.zeros(3, 5))
    with pytest.raises(AdapterError, match="no experts are attached"):
        adapted(x, weights=torch.ones(2, 3))
    adapted.detach()
    plain = attach(backbone, create_adapter(backbone, {"method": "bitfit"}))
    with pytest.raises(AdapterError, match="no guidance is attached"):
        plain(x, vector=torch.zeros(2, 5))


def test_files_give_guidance_and_experts_back(tmp_path):
    """Experts that change the guidance, too."""
    base = read_model(write_tiny(tmp_path / "base.safetensors"))
    backbone = network_of(base)
    guidance = shaken_adapter(backbone, **SMALL)
    host = Host(backbone, guidance)
    experts = shaken_adapter(host, method="experts", expert={"method": "lora", "rank": 2})
    for network, adapter in ((backbone, guidance), (host, experts)):
        path = tmp_path / "a.safetensors"
        write_adapter(path, tensors_of(adapter), header_of(adapter, base), "float32")
        again = load_adapter(network, read_adapter(path))
        assert again.describe() == adapter.describe()
        for name, tensor in adapter.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor)
