"""What can be adapted in a backbone: layers and kinds of parameters, and what names match."""

import pytest
import torch
from networks import Bare, random_images, shaken_adapter
from torch import nn

from urushi.adapters import METHODS, attach, create_adapter
from urushi.adapters.fold import fold
from urushi.adapters.layers import choose, parameter_kinds, weight_layers
from urushi.adapters.stored import header_of, tensors_of
from urushi.backbones import BACKBONES, create_backbone
from urushi.errors import AdapterError
from urushi.files.adapter import read_adapter, write_adapter
from urushi.files.model import ModelHeader, read_model, write_model


def network():
    """One that has transposed convolutions: EDT's tail for denoising."""
    torch.manual_seed(0)
    config = {**BACKBONES["edt"].example, "head_depth": 2}
    return config, create_backbone("edt", config).eval()


def transposed(backbone):
    return [layer for layer in weight_layers(backbone) if layer.transposed]


def test_transposed_convolutions_are_weight_layers():
    _, backbone = network()
    found = transposed(backbone)
    assert len(found) == 2
    kinds = parameter_kinds(backbone)
    for layer in found:
        module = backbone.get_submodule(layer.name)
        assert isinstance(module, nn.ConvTranspose2d)
        assert layer.rows == module.in_channels
        assert layer.columns == module.out_channels * 4
        assert (kinds[layer.weight], kinds[f"{layer.name}.bias"]) == ("weight", "bias")


@pytest.mark.parametrize(
    "config",
    [
        {"method": "lora", "rank": 2},
        {"method": "lora", "rank": 2, "layout": "loralib"},
        {"method": "colora", "budget": 0.5},
        {"method": "ssf"},
        {"method": "ssf", "offsets": "all"},
        {"method": "bitfit"},
    ],
)
@torch.no_grad()
def test_they_are_adapted_merged_and_folded_alike(tmp_path, config):
    settings, backbone = network()
    tensors = {name: tensor.numpy() for name, tensor in backbone.state_dict().items()}
    header = ModelHeader(backbone="edt", config=settings)
    write_model(tmp_path / "m.safetensors", tensors, header)
    model = read_model(tmp_path / "m.safetensors")
    adapter = shaken_adapter(backbone, **config)
    deltas = adapter.deltas(dict(backbone.named_parameters()))
    changed = {layer.name for layer in transposed(backbone) if layer.weight in deltas}
    assert len(changed) == (2 if "lora" in config["method"] else 0)
    x = random_images(1, 24, 32)
    attached = attach(backbone, adapter).eval()
    expected = attached(x)
    if adapter.mergeable:
        path = tmp_path / "a.safetensors"
        write_adapter(path, tensors_of(adapter), header_of(adapter, model), "float32")
        folded = fold(model, [(read_adapter(path), 1.0)])
        attached.merge()
        for name, tensor in backbone.state_dict().items():
            torch.testing.assert_close(torch.tensor(folded.tensors[name]), tensor)
        torch.testing.assert_close(backbone(x), expected, atol=1e-4, rtol=1e-4)


def test_scale_and_shift_says_which_layers_it_knows():
    _, backbone = network()
    name = transposed(backbone)[0].name
    with pytest.raises(AdapterError, match="matches nothing in this backbone: names look like"):
        create_adapter(backbone, {"method": "ssf", "layers": [name]})


class Empty(Bare):
    """A network that only passes pictures on."""


@pytest.mark.parametrize("method", METHODS)
def test_a_backbone_without_parameters_is_told(method):
    with pytest.raises(AdapterError) as caught:
        create_adapter(Empty(nn.Identity()), {"method": method})
    assert "\n" not in str(caught.value)


def test_patterns():
    names = ["a.x", "a.y", "b.x"]
    assert choose(names, ["*.x", "a.*"], "layers") == names
    assert choose(names, ["b.*"], "layers") == ["b.x"]
    with pytest.raises(
        AdapterError, match="layers 'c' matches nothing in this backbone: names look like 'a"
    ):
        choose(names, ["c"], "layers")
    with pytest.raises(AdapterError, match="this backbone has no layers that could be chosen"):
        choose([], ["*"], "layers")
