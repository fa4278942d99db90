"""Restormer against numbers measured from the authors' code, and what is its own."""

import pytest
import torch
from networks import below, close, load_released, random_images, read_golden, shaken_network
from torch.nn import functional as F

from urushi.adapters import create_adapter
from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.released_networks import load_strictly
from urushi.backbones.restormer import BiasFreeNorm, configuration_of
from urushi.errors import AdapterError, BackboneError

GOLDENS = ["restormer", "restormer_withbias"]
EXAMPLE = BACKBONES["restormer"].example


def build(**options):
    return shaken_network("restormer", {**EXAMPLE, **options}, by=0.05)


@pytest.mark.parametrize("golden", GOLDENS)
@torch.inference_mode()
def test_equals_the_authors_network(golden):
    tensors, config = read_golden(golden)
    state = below(tensors, "state.")
    assert configuration_of(state) == config
    network = create_backbone("restormer", config).eval()
    load_strictly(network, state, golden)
    assert close(network(tensors["input"]), tensors["output"])
    network.to(memory_format=torch.channels_last)
    again = network(tensors["input"].contiguous(memory_format=torch.channels_last))
    assert close(again, tensors["output"])


@torch.inference_mode()
def test_released_files_load(tmp_path):
    tensors, config = read_golden("restormer")
    torch.save({"params": below(tensors, "state.")}, tmp_path / "x")
    network = load_released(tmp_path / "x", "restormer").eval()
    assert close(network(tensors["input"]), tensors["output"])
    assert network.output.bias is None
    assert config["bias"] is False


@pytest.mark.parametrize(
    ("options", "parameters", "tensors"),
    [
        ({}, 26_126_644, 494),
        ({"inp_channels": 6, "dual_pixel_task": True}, 26_132_548, 495),
        ({"LayerNorm_type": "BiasFree"}, 26_111_668, 406),
        (
            {"inp_channels": 1, "out_channels": 1, "LayerNorm_type": "BiasFree"},
            26_109_076,
            406,
        ),
    ],
)
def test_released_parameter_counts(options, parameters, tensors):
    with torch.device("meta"):
        network = create_backbone("restormer", options)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors
    assert configuration_of(network.state_dict()) == {
        "inp_channels": 3,
        "out_channels": 3,
        "dim": 48,
        "num_blocks": [4, 6, 6, 8],
        "num_refinement_blocks": 4,
        "heads": [1, 2, 4, 8],
        "ffn_expansion_factor": 2.66,
        "bias": False,
        "LayerNorm_type": "WithBias",
        "dual_pixel_task": False,
        **options,
    }


@torch.inference_mode()
def test_sides_that_are_no_multiples_of_8_are_reflected():
    network, x = build(), random_images(2, 13, 22)
    padded = F.pad(x, (0, 2, 0, 3), mode="reflect")
    assert torch.equal(network(x), network(padded)[..., :13, :22])
    assert network(random_images(1, 2, 3)).isfinite().all()


@torch.inference_mode()
def test_two_views_make_one_picture():
    network = build(inp_channels=6, dual_pixel_task=True)
    views = torch.cat([random_images(1, 9, 16), random_images(1, 9, 16, seed=1)], 1)
    assert network(views).shape == (1, 3, 9, 16)
    assert "skip_conv" in network.sites.decoder
    for parameter in network.output.parameters():
        parameter.zero_()
    assert not network(views).any()  # nothing of the input is added


@torch.inference_mode()
def test_the_norm_without_bias_divides_and_does_not_centre():
    x = random_images(1, 4, 5) + 10
    norm = BiasFreeNorm(5)
    assert close(norm(x), x / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt())


@torch.inference_mode()
def test_a_picture_without_anything_gives_numbers():
    """Channels of length zero are not divided by it."""
    network = create_backbone("restormer", {**EXAMPLE, "bias": False}).eval()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert network.to(dtype)(torch.zeros(1, 3, 8, 8, dtype=dtype)).isfinite().all()


def test_attention_sites_are_thirds_of_one_projection():
    network = build()
    sites = network.sites
    assert len(sites.attention) == len(sites.feed_forward) == 8
    assert [stage.width for stage in sites.stages] == [4, 8, 16, 32, 16, 8, 8, 8]
    assert [stage.downscale for stage in sites.stages] == [1, 2, 4, 8, 4, 2, 1, 1]
    for site in sites.attention:
        rows = [site.query, site.key, site.value]
        assert [row[1:] for row in rows] == [
            (i * site.width, (i + 1) * site.width) for i in range(3)
        ]
        assert len(network.get_parameter(f"{site.query[0]}.weight")) == 3 * site.width


def test_methods_that_need_biases_say_so():
    network = create_backbone("restormer", {**EXAMPLE, "bias": False})
    with pytest.raises(AdapterError, match="no bias parameters"):
        create_adapter(network, {"method": "bitfit"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": 5}, "even number"),
        ({"dim": 0}, "even number"),
        ({"num_blocks": [1, 1, 1]}, "four levels"),
        ({"num_blocks": [1, 0, 1, 1]}, "needs a block"),
        ({"num_refinement_blocks": -1}, "negative"),
        ({"heads": [3, 1, 1, 1]}, "cannot be divided among 3"),
        ({"inp_channels": 6}, "as many channels"),
        ({"out_channels": 0}, "positive"),
        ({"LayerNorm_type": "None"}, "WithBias or BiasFree"),
        ({"ffn_expansion_factor": 0.2}, "ffn_expansion_factor 0.2"),
        ({"width": 4}, "width"),
    ],
)
def test_impossible_configurations_are_refused(change, words):
    with pytest.raises(BackboneError, match=words):
        create_backbone("restormer", {**EXAMPLE, **change})


def test_tensors_of_another_network_are_refused():
    state = build().state_dict()
    with pytest.raises(BackboneError, match=r"latent\.0\.attn\.temperature was expected"):
        configuration_of({k: v for k, v in state.items() if not k.startswith("latent.")})
    state["latent.0.ffn.project_out.weight"] = torch.zeros(32, 7, 1, 1)
    with pytest.raises(BackboneError, match="no factor"):
        configuration_of(state)
