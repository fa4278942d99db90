"""SwinIR against numbers measured from the authors' code, and what is its own."""

import pytest
import torch
from networks import below, close, load_released, random_images, read_golden, shaken_network
from torch.nn import functional as F

from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.released_networks import load_strictly
from urushi.backbones.swinir_released import configuration_of, from_released, to_released
from urushi.errors import BackboneError

GOLDENS = ["swinir", "swinir_denoise", "swinir_light", "swinir_real"]
EXAMPLE = BACKBONES["swinir"].example


def build(**options):
    return shaken_network("swinir", {**EXAMPLE, **options}, by=0.1)


def from_golden(golden):
    tensors, config = read_golden(golden)
    state = below(tensors, "state.")
    network = create_backbone("swinir", configuration_of(state)).eval()
    load_strictly(network, from_released(state), golden)
    return network, tensors, state, config


@pytest.mark.parametrize("golden", GOLDENS)
@torch.inference_mode()
def test_equals_the_authors_network(golden):
    network, tensors, state, config = from_golden(golden)
    read = configuration_of(state)
    assert read.pop("patch_norm") is True
    side = config.pop("img_size")
    assert read == config
    assert network.scale == config["upscale"]
    assert close(network(tensors["input"]), tensors["output"])
    network.to(memory_format=torch.channels_last)
    again = network(tensors["input"].contiguous(memory_format=torch.channels_last))
    assert close(again, tensors["output"])
    written = to_released(network, side)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_released_files_load(tmp_path):
    """Their masks and indices are no parameters; those of a real-world network are wrapped."""
    tensors, _ = read_golden("swinir_real")
    state = below(tensors, "state.")
    torch.save({"params_ema": state}, tmp_path / "net.pth")
    network = load_released(tmp_path / "net.pth", "swinir").eval()
    with torch.inference_mode():
        assert close(network(tensors["input"]), tensors["output"])
    torch.save({**state, "other": torch.zeros(1)}, tmp_path / "net.pth")
    with pytest.raises(BackboneError, match="unexpected, the first is other"):
        load_released(tmp_path / "net.pth", "swinir")


CLASSICAL = {"embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6}
LIGHT = {"embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4}
LARGE = {"embed_dim": 240, "depths": [6] * 9, "num_heads": [8] * 9, "resi_connection": "3conv"}
JPEG = {**CLASSICAL, "window_size": 7, "img_range": 255.0}
DIRECT, REAL = {"upsampler": "pixelshuffledirect"}, {"upsampler": "nearest+conv"}


@pytest.mark.parametrize(
    ("options", "parameters", "tensors"),
    [
        ({**CLASSICAL, "upsampler": "pixelshuffle", "upscale": 2}, 11_752_487, 548),
        ({**CLASSICAL, "upsampler": "pixelshuffle", "upscale": 3}, 11_937_127, 548),
        ({**CLASSICAL, "upsampler": "pixelshuffle", "upscale": 4}, 11_900_199, 550),
        ({**CLASSICAL, "upsampler": "pixelshuffle", "upscale": 8}, 12_047_911, 552),
        ({**LIGHT, **DIRECT, "upscale": 2}, 910_152, 366),
        ({**LIGHT, **DIRECT, "upscale": 3}, 918_267, 366),
        ({**LIGHT, **DIRECT, "upscale": 4}, 929_628, 366),
        ({**CLASSICAL, **REAL, "upscale": 4}, 11_715_559, 552),
        ({**CLASSICAL, **REAL, "upscale": 2}, 11_678_631, None),
        ({**LARGE, **REAL, "upscale": 4}, 28_013_059, 859),
        ({**CLASSICAL, "in_chans": 1}, 11_497_681, 544),
        (CLASSICAL, 11_504_163, 544),
        ({**JPEG, "in_chans": 1}, 11_485_585, 544),
        (JPEG, 11_492_067, 544),
    ],
)
def test_released_parameter_counts(options, parameters, tensors):
    with torch.device("meta"):
        network = create_backbone("swinir", options)
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == parameters
    blocks = sum(options["depths"])
    tables = blocks + blocks // 2  # an index in every block, a mask in every other
    assert tensors is None or len(state) + tables == tensors
    read = configuration_of(state)
    assert {key: read[key] for key in options} == options


@torch.inference_mode()
def test_windows_that_do_not_fit_are_filled_up_by_reflection():
    network, x = build(), random_images(2, 9, 14)
    padded = F.pad(x, (0, 2, 0, 3), mode="reflect")
    assert torch.equal(network(x), network(padded)[..., :9, :14])


@pytest.mark.parametrize(
    ("upsampler", "scale"),
    [
        ("", 1),
        ("pixelshuffle", 3),
        ("pixelshuffle", 4),
        ("pixelshuffledirect", 5),
        ("nearest+conv", 2),
        ("nearest+conv", 4),
    ],
)
@pytest.mark.parametrize("options", [{}, {"resi_connection": "3conv", "patch_norm": False}])
def test_every_end(upsampler, scale, options):
    network = build(upsampler=upsampler, upscale=scale, **options)
    with torch.inference_mode():
        for sides in ((1, 1), (3, 10)):
            assert network(random_images(2, *sides)).shape == (
                2,
                3,
                sides[0] * scale,
                sides[1] * scale,
            )
        x = random_images(2, 5, 8)
        parts = torch.cat([network(x[:1]), network(x[1:])])
        assert close(network(x), parts)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x)
        assert close(half.float(), parts, 0.05)
    network(x.clone()).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    state = network.state_dict()
    again = create_backbone("swinir", configuration_of(to_released(network, 8))).eval()
    load_strictly(again, from_released(to_released(network, 8)), "itself")
    with torch.inference_mode():
        assert torch.equal(again(x), network(x))
    names = [name for name in state if name.startswith(tuple(network.sites.decoder))]
    body = ("conv_first", "patch_embed", "layers", "norm")
    assert len(names) == len([name for name in state if not name.startswith(body)])


@torch.inference_mode()
def test_a_shift_does_not_mix_what_lies_apart():
    """Sides of the picture that a cyclic shift brings together do not see one another."""
    network = build(depths=[2], window_size=4)
    attention = network.get_submodule("layers.0.residual_group.blocks.1.attn")
    x = torch.rand(1, 8, 12, 8, generator=torch.Generator().manual_seed(0))
    before = attention(x)
    x[:, :2] += 1  # the first rows, which the shift puts beside the last
    changed = (attention(x) - before).abs().amax((0, 2, 3)) > 1e-6
    assert changed.tolist() == [True] * 2 + [False] * 6


@torch.inference_mode()
def test_jpeg_networks_calculate_in_0_to_255():
    network, plain = build(window_size=7, img_range=255.0), build(window_size=7)
    x = random_images(1, 8, 8)
    plain.conv_first.weight *= 255
    assert close((network(x) - x) * 255, plain(x) - x, 1e-4)
    gray = build(in_chans=1)
    assert gray(x[:, :1]).shape == (1, 1, 8, 8)
    assert not gray.mean.any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"embed_dim": 0}, "embed_dim 0"),
        ({"mlp_ratio": 0.01}, "mlp_ratio 0"),
        ({"window_size": 1}, "expected 2 to 48 pixels"),
        ({"img_range": 0.0}, "img_range 0"),
        ({"depths": [2, 2]}, "as many of one"),
        ({"depths": [], "num_heads": []}, "at least one"),
        ({"num_heads": [3]}, "each must divide embed_dim"),
        ({"upsampler": "pixelshufle"}, "'pixelshuffledirect'"),
        ({"upscale": 2}, "upsampler '' gives 1"),
        ({"upsampler": "pixelshuffle", "upscale": 6}, "3 or a power of two"),
        ({"upsampler": "pixelshuffledirect"}, "2 or more"),
        ({"upsampler": "nearest+conv", "upscale": 3}, "2 or 4"),
        ({"resi_connection": "2conv"}, "1conv or 3conv"),
        ({"embed_dim": 2, "resi_connection": "3conv"}, "at least 4, not 2"),
        ({"img_size": 64}, "img_size"),
    ],
)
def test_impossible_configurations_are_refused(change, words):
    with pytest.raises(BackboneError, match=words):
        create_backbone("swinir", {**EXAMPLE, **change})


def test_tensors_that_do_not_belong_are_refused():
    state = to_released(build(), 8)
    with pytest.raises(BackboneError, match=r"not a SwinIR's: conv_first\.weight"):
        configuration_of({k: v for k, v in state.items() if k != "conv_first.weight"})
    index = "layers.0.residual_group.blocks.0.attn.relative_position_index"
    mask = "layers.0.residual_group.blocks.1.attn_mask"
    for name, tensor in ((index, state[index] + 1), (mask, torch.zeros(4, 9, 9))):
        with pytest.raises(BackboneError, match="windows of 4 pixels"):
            from_released({**state, name: tensor})


def test_a_network_made_in_inference_mode_does_not_spoil_a_later_training():
    config = {"embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 5, "mlp_ratio": 1.0}
    random_images = torch.rand(1, 3, 10, 10)
    with torch.inference_mode():
        create_backbone("swinir", config)(random_images)
    network = create_backbone("swinir", config)
    network(random_images).mean().backward()
    assert network.conv_first.weight.grad is not None
