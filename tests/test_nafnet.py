"""NAFNet against numbers measured from the authors' code, and the contract of every backbone."""

import json
from pathlib import Path

import pytest
import torch
from networks import load_released
from safetensors import safe_open
from torch import nn

from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.nafnet import NAFBlock, configuration_of
from urushi.backbones.released_networks import load_strictly
from urushi.errors import BackboneError, FileFormatError

GOLDEN = Path(__file__).parent / "golden"


def read_golden(name):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    return tensors, {k: v.float() for k, v in state.items()}, config


def from_golden(state, **options):
    network = create_backbone("nafnet", {**configuration_of(state), **options})
    load_strictly(network, state, "golden")
    return network.eval()


def assert_close(result, expected):
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@torch.inference_mode()
def test_equals_the_authors_network():
    tensors, state, config = read_golden("nafnet")
    assert configuration_of(state) == config
    assert_close(from_golden(state)(tensors["input"]), tensors["output"])


@pytest.mark.parametrize("which", ["", "2"])
@torch.inference_mode()
def test_local_pooling_equals_the_authors_network(which):
    tensors, state, config = read_golden("nafnet_local")
    network = from_golden(state)
    picture = tensors[f"input{which}"]
    assert_close(network(picture), tensors[f"output{which}_plain_nafnet"])
    network.set_pooling_patch(config["train_size"][-2:])
    assert_close(network(picture), tensors[f"output{which}"])
    network.set_pooling_window(None)
    assert_close(network(picture), tensors[f"output{which}_plain_nafnet"])


@pytest.mark.parametrize(
    ("patch", "windows"),
    [
        (256, [(384, 384), (192, 192), (96, 96)]),
        ((16, 32), [(24, 48), (12, 24), (6, 12)]),
        # Padded to 20, and 27 // 18 of it: the authors count the padding in.
        (18, [(30, 30), (15, 15), (7, 7)]),
    ],
)
def test_the_authors_window_for_a_training_patch(patch, windows):
    network = create_backbone("nafnet", {**BACKBONES["nafnet"].example, "pooling_patch": patch})
    for stage in network.sites.stages:
        block = network.get_submodule(stage.blocks[0])
        level = stage.downscale.bit_length() - 1
        assert block.pooling.window == windows[level]


@torch.inference_mode()
def test_local_pooling_keeps_its_digits_on_large_bright_pictures():
    network = create_backbone("nafnet", {**BACKBONES["nafnet"].example, "pooling_window": 24})
    pooling = network.get_submodule("encoders.0.0.sca.0")
    features = 100 + torch.rand(1, 2, 40, 3000, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.functional.avg_pool2d(features.double(), 24, 1)
    assert (pooling(features)[..., 11:-12, 11:-12] - exact).abs().max() < 1e-4


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(1, 1), (17, 30), (33, 8)])
@torch.inference_mode()
def test_any_size_in_same_size_out(name, size):
    network = create_backbone(name, BACKBONES[name].example).eval()
    pictures = torch.rand(2, 3, *size)
    result = network(pictures)
    assert result.shape == pictures.shape
    assert torch.isfinite(result).all()


def channels(layer):
    """Those that a convolution or a linear layer takes and gives."""
    outputs, inputs = layer.weight.shape[:2]
    return inputs, outputs


@pytest.mark.parametrize("name", BACKBONES)
def test_sites_name_what_exists(name):
    network = create_backbone(name, BACKBONES[name].example)
    sites = network.sites
    parameters = dict(network.named_parameters())
    assert sites.feed_forward
    for site in sites.feed_forward:
        assert network.get_submodule(site.norm) is not None
        assert site.output in site.modules
        assert channels(network.get_submodule(site.modules[0]))[0] == site.width
        assert channels(network.get_submodule(site.output))[1] == site.width
        assert site.scale is None or site.scale in parameters
    roles = [stage.role for stage in sites.stages]
    assert roles == sorted(roles, key=["encoder", "middle", "decoder"].index)
    seen = {}
    for stage in sites.stages:
        for block in stage.blocks:
            network.get_submodule(block).register_forward_hook(
                lambda _m, _i, out, key=block: seen.update({key: out.shape})
            )
    height, width = 4 * network.size_multiple, 8 * network.size_multiple
    network(torch.rand(1, 3, height, width))
    for stage in sites.stages:
        rows, columns = height // stage.downscale, width // stage.downscale
        shape = {"b": 1, "c": stage.width, "h": rows, "w": columns, "l": rows * columns}
        if network.fixed_patch:
            shape["b"], shape["l"] = 32, rows * columns // 32
        for block in stage.blocks:
            assert seen[block] == tuple(shape[axis] for axis in stage.layout)
    for module in sites.decoder:
        assert network.get_submodule(module) is not None


@pytest.mark.parametrize("name", BACKBONES)
def test_fresh_blocks_are_the_identity_and_gradients_reach_every_tensor(name):
    torch.manual_seed(0)
    network = create_backbone(name, BACKBONES[name].example)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    network(torch.rand(1, 3, 16, 16)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_released_parameter_counts():
    layouts = [
        (32, [2, 2, 4, 8], 12, [2, 2, 2, 2], 29_159_715),
        (64, [1, 1, 1, 28], 1, [1, 1, 1, 1], 67_888_835),
    ]
    for width, encoder, middle, decoder, parameters in layouts:
        with torch.device("meta"):
            network = create_backbone(
                "nafnet",
                {
                    "width": width,
                    "enc_blk_nums": encoder,
                    "middle_blk_num": middle,
                    "dec_blk_nums": decoder,
                },
            )
        assert sum(p.numel() for p in network.parameters()) == parameters
        assert len(network.state_dict()) == 664


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 0}, "width 0"),
        ({"dec_blk_nums": [1]}, "2 levels"),
        ({"pooling_window": 1}, "at least 4 pixels"),
        ({"pooling_patch": [16, 3]}, "at least 4 pixels"),
        ({"pooling_patch": 16, "pooling_window": 24}, "exclude each other"),
        ({"widht": 4}, "widht"),
    ],
)
def test_impossible_configurations_are_refused(change, words):
    with pytest.raises(BackboneError, match=words):
        create_backbone("nafnet", {**BACKBONES["nafnet"].example, **change})


def test_unknown_backbone_names_the_known_ones():
    with pytest.raises(BackboneError, match="known are nafnet"):
        create_backbone("nefnet", {})


@pytest.mark.parametrize("wrap", [lambda s: {"params": s}, lambda s: s])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_files_load_strictly(tmp_path, wrap, prefix):
    tensors, state, _ = read_golden("nafnet")
    torch.save(wrap({prefix + k: v for k, v in state.items()}), tmp_path / "net.pth")
    network = load_released(tmp_path / "net.pth", "nafnet").eval()
    with torch.inference_mode():
        assert_close(network(tensors["input"]), tensors["output"])


def test_released_files_that_do_not_fit_are_refused(tmp_path):
    _, state, _ = read_golden("nafnet")
    path = tmp_path / "net.pth"

    def refuse(changed, error, words):
        torch.save(changed, path)
        with pytest.raises(error, match=words):
            load_released(path, "nafnet")

    refuse({k: v for k, v in state.items() if k != "ending.bias"}, BackboneError, "ending.bias")
    refuse({**state, "other": torch.zeros(1)}, BackboneError, "unexpected")
    refuse({**state, "ending.bias": torch.zeros(5)}, BackboneError, "misshapen")
    refuse({**state, "ending.bias": torch.full((3,), torch.nan)}, FileFormatError, "finite")
    refuse({"params": {"a": "text"}}, FileFormatError, "no named tensors")
    refuse({"a": torch.zeros(1)}, BackboneError, "not a NAFNet")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FileFormatError, match="pointer of Git LFS"):
        load_released(path, "nafnet")
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_released(tmp_path / "absent.pth", "nafnet")


class RunsCode:
    def __reduce__(self):
        return (Path.touch, (Path("was-run"),))


def test_a_pickle_that_wants_to_run_code_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"params": RunsCode()}, tmp_path / "net.pth")
    with pytest.raises(FileFormatError, match="could run code"):
        load_released(tmp_path / "net.pth", "nafnet")
    assert not (tmp_path / "was-run").exists()


def test_a_block_in_training_has_the_gradients_of_its_plain_form():
    torch.manual_seed(0)
    block = NAFBlock(6).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 6, 9, 7, dtype=torch.float64, requires_grad=True)

    def told():
        result = block(x)
        result.square().sum().backward()
        found = [result.detach(), *(p.grad.clone() for p in (x, *block.parameters()))]
        block.zero_grad()
        x.grad = None
        return found

    fast = told()
    # Whoever listens to a layer is given what the layer itself makes.
    heard = []
    block.conv3.register_forward_hook(lambda _module, _inputs, output: heard.append(output))
    plain = told()
    assert len(heard) == 1
    for own, expected in zip(fast, plain, strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(own, expected)
