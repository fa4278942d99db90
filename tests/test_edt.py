"""EDT against numbers measured from the authors' code, its heads, windows and adapters."""

import pytest
import torch
from networks import (
    below,
    load_released,
    parameters,
    random_images,
    read_golden,
    shaken_network,
)

from urushi.adapters import attach, create_adapter
from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.edt import EDT, WindowAttention, window_mask
from urushi.backbones.edt_released import configuration_of, from_released, to_released
from urushi.backbones.network import mirrored
from urushi.backbones.released_networks import load_strictly
from urushi.errors import BackboneError

TINY = BACKBONES["edt"].example
HEADS = ["sr_x2", "sr_x3", "sr_x4", "dn_g15", "dr_L", "dr_H"]
BASE = {"num_feat": 32, "embed_dim": 180, "depths": [6] * 6}
ADAPTIR = {"method": "adaptir", "hidden": 12, "gate_reduction": 4}
CPU = torch.device("cpu")


def golden():
    """The golden's tensors, and those of the authors' network by the authors' names."""
    tensors, _ = read_golden("edt")
    return tensors, below(tensors, "state.")


def from_golden(state, head):
    config = {**configuration_of(state), "num_heads": [3, 2], "head": head}
    network = create_backbone("edt", config)
    load_strictly(network, from_released(state), "golden")
    return network.eval()


def tiny(seed=0, **change):
    return shaken_network("edt", {**TINY, **change}, seed)


@pytest.mark.parametrize("head", ["sr_x2", "dn_g15"])
@torch.inference_mode()
def test_equals_the_authors_network(head):
    tensors, state = golden()
    network, expected = from_golden(state, head), tensors[f"output_{head}"]
    assert network.size_multiple == (12 if head == "sr_x2" else 48)
    result = network(tensors[f"input_{head}"])
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("head", ["sr_x2", "dn_g15"])
@torch.inference_mode()
def test_bfloat16_stays_near(head):
    tensors, state = golden()
    network, expected = from_golden(state, head), tensors[f"output_{head}"]
    with torch.autocast("cpu", torch.bfloat16):
        error = (network(tensors[f"input_{head}"]) - expected).square().mean().sqrt()
    assert error < 0.05 * expected.std()


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffledirect"])
@pytest.mark.parametrize("head", HEADS)
@torch.inference_mode()
def test_every_head(head, upsampler):
    """All heads are in the state, whichever is in use; only that one acts."""
    network = tiny(heads=HEADS, head=head, upsampler=upsampler)
    scale = int(head[-1]) if head.startswith("sr") else 1
    assert network.scale == scale
    x = random_images(2, 13, 19)
    result = network(x)
    assert result.shape == (2, 3, 13 * scale, 19 * scale)
    own, state = network.state_dict(), tiny(1, heads=HEADS, upsampler=upsampler).state_dict()
    for name in state:
        if name.startswith(("body.", f"head_{head}.", f"tail_{head}.")):
            state[name] = own[name]
    network.load_state_dict(state)
    assert torch.equal(network(x), result)
    single = torch.cat([network(x[:1]), network(x[1:])])
    assert (single - result).abs().max() < 1e-5 * result.abs().max()


@pytest.mark.parametrize("head", ["sr_x2", "dn_g15"])
@pytest.mark.parametrize("size", [(1, 1), (5, 26), (24, 9)])
@torch.inference_mode()
def test_other_sizes_are_filled_up_by_mirroring(head, size):
    network = tiny(heads=[head])
    x = random_images(1, *size)
    padded = mirrored(x, network.size_multiple)
    expected = network(padded)[..., : network.scale * size[0], : network.scale * size[1]]
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(
    ("size", "window"), [((4, 8), (2, 4)), ((12, 4), (4, 2)), ((6, 24), (6, 24)), ((6, 15), (3, 5))]
)
def test_masks_of_any_size(size, window):
    """Two places see each other if they share a window of those moved down and to the right."""
    (height, width), (rows, columns) = size, window
    mask = window_mask(height, width, window, CPU)
    shift = (rows // 2, columns // 2)
    place = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    sides = torch.tensor([rows, columns]).view(2, 1, 1)
    moved = (place - sides // 2).div(sides, rounding_mode="floor")
    moved = moved.roll((-shift[0], -shift[1]), (1, 2))
    number = 0
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            inside = moved[:, top : top + rows, left : left + columns].flatten(1)
            torn = (inside[:, :, None] != inside[:, None]).any(0)
            assert torch.equal(mask[number] < 0, torn)
            number += 1
    assert number == len(mask)
    assert set(mask.unique().tolist()) <= {0.0, -100.0}


@torch.inference_mode()
def test_windows_do_not_see_beyond_their_borders():
    """A change inside one window of a map that is no square stays in that window."""
    torch.manual_seed(0)
    qkv = torch.randn(2, 4, 12, 3, 6)
    for shift in ((0, 0), (1, 2)):
        attention = WindowAttention(6, 2, (2, 4), shift)
        mask = window_mask(4, 12, (2, 4), CPU)
        before = attention(qkv, mask)
        changed = qkv.clone()
        changed[1, 1, 3] += 1
        rows, columns = slice(0, 2), slice(0, 4)
        if shift[0]:
            rows, columns = slice(1, 3), slice(2, 6)
        moved = (attention(changed, mask) - before).abs().amax(-1) > 1e-6
        assert not moved[0].any()
        assert moved[1, rows, columns].all()
        assert moved.sum() == 8


@torch.inference_mode()
def test_tall_windows_are_flat_ones_of_the_turned_map():
    torch.manual_seed(0)
    flat, tall = WindowAttention(6, 2, (2, 4), (1, 2)), WindowAttention(6, 2, (4, 2), (2, 1))
    with torch.no_grad():
        tall.lepe.weight.copy_(flat.lepe.weight.transpose(2, 3))
        tall.lepe.bias.copy_(flat.lepe.bias)
    qkv = torch.randn(1, 4, 8, 3, 6)
    turned = tall(qkv.transpose(1, 2), window_mask(8, 4, (4, 2), CPU)).transpose(1, 2)
    torch.testing.assert_close(flat(qkv, window_mask(4, 8, (2, 4), CPU)), turned)


def test_the_released_layout_comes_and_goes():
    _, state = golden()
    again = to_released(from_golden(state, None), image_size=24)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"heads": ["dn_g15", "dn_g50", "dr_H", "dr_L"]},
        {"heads": ["dn_g15"], "downsample": False},
        {"heads": ["sr_x3"], "upsampler": "pixelshuffledirect", "window_size": [3, 5]},
        {"depths": [2, 1, 4], "head_depth": 3, "mlp_ratio": 1.5},
    ],
)
def test_sizes_are_read_off_the_tensors(change):
    config = {
        "num_feat": 2,
        "embed_dim": 60,
        "depths": [2, 3],
        "heads": ["sr_x2", "sr_x4", "dn_g5", "dn_g15"],
        "window_size": [2, 6],
        "mlp_ratio": 2.0,
        "head_depth": 2,
        "upsampler": "pixelshuffle",
        "downsample": True,
        **change,
    }
    network = EDT(**config)
    side = 30 if config["window_size"] == [3, 5] else 12
    found = configuration_of(to_released(network, image_size=side))
    assert found == config
    # Without masks nothing tells the window.
    own = configuration_of(network.state_dict())
    assert own == {**config, "window_size": [6, 24]}


def test_a_file_of_the_authors_layout_is_loaded(tmp_path):
    network = tiny()
    torch.save({"state_dict": to_released(network, image_size=8)}, tmp_path / "net.pth")
    again = load_released(tmp_path / "net.pth", "edt", num_heads=[2]).eval()
    with torch.inference_mode():
        assert torch.equal(again(random_images(1, 13, 19)), network(random_images(1, 13, 19)))


def test_released_files_that_are_no_edt_are_refused():
    _, state = golden()
    with pytest.raises(BackboneError, match="not an EDT's"):
        configuration_of({"head_sr_x2.0.weight": torch.zeros(4, 3, 3, 3)})
    with pytest.raises(BackboneError, match="num_heads is None"):
        create_backbone("edt", configuration_of(state))


@pytest.mark.parametrize(
    ("heads", "change", "count", "tensors"),
    [
        (["sr_x2"], {}, 11_479_355, 726),
        (["sr_x3"], {}, 11_663_995, 726),
        (["sr_x4"], {}, 11_627_067, 728),
        (["sr_x2", "sr_x3", "sr_x4"], {}, 14_576_937, 800),
        (["dn_g15"], {}, 11_503_163, 726),
        (["sr_x2", "sr_x3", "dn_g15"], {}, 14_453_033, None),
        (["dn_g15"], {"downsample": False}, 11_331_643, None),
        (["sr_x2"], {"num_feat": 8, "embed_dim": 60, "depths": [6] * 4}, 924_899, None),
        (
            ["sr_x3"],
            {
                "num_feat": 8,
                "embed_dim": 60,
                "depths": [6] * 4,
                "upsampler": "pixelshuffledirect",
            },
            919_099,
            None,
        ),
        (["sr_x2"], {"num_feat": 64, "embed_dim": 240, "depths": [6] * 12}, 39_927_395, None),
    ],
)
def test_released_counts(heads, change, count, tensors):
    with torch.device("meta"):
        network = EDT(**{**BASE, **change}, heads=heads)
    assert parameters(network) == count
    if tensors is not None:
        # The released files hold a mask for each direction of every second block.
        assert len(network.state_dict()) + 36 == tensors


def test_counts_of_adaptir():
    with torch.device("meta"):
        network = EDT(**BASE, heads=["sr_x4"])
        adapter = create_adapter(network, ADAPTIR)
        report = attach(network, adapter).report()
    assert len(adapter.branches) == 36
    assert report.trainable == 173_412
    assert report.share == pytest.approx(0.015, abs=0.0002)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_feat": 0}, "num_feat 0"),
        ({"depths": []}, "one group"),
        ({"window_size": [4]}, "height and width"),
        ({"window_size": [0, 4]}, "each must be positive"),
        ({"num_heads": None}, "num_heads is None"),
        ({"num_heads": [2, 2]}, "each of 1 group "),
        ({"num_heads": [3]}, "half of embed_dim 8"),
        ({"heads": []}, "at least one"),
        ({"heads": ["sr_x2", "sr_x2"]}, "each name once"),
        ({"heads": ["sr_x5"]}, "names are sr_x2"),
        ({"head": "dr_L"}, "this network has dn_g15"),
        ({"upsampler": "nearest"}, "pixelshuffle or pixelshuffledirect"),
        ({"num_feats": 3}, "num_feats"),
    ],
)
def test_impossible_configurations_are_refused(change, words):
    with pytest.raises(BackboneError, match=words) as caught:
        create_backbone("edt", {**TINY, **change})
    assert "\n" not in str(caught.value)
