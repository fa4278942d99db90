"""A route in weights: what numpy does with files is what torch does with a network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_images, shaken, shaken_adapter
from torch.nn import functional as F
from world import network_of, write_random, write_tiny

from urushi.adapters import Host, attach, create_adapter
from urushi.adapters.joining import split
from urushi.adapters.stored import header_of, load_adapter, tensors_of
from urushi.errors import AdapterError
from urushi.files.adapter import LoadedAdapter, read_adapter, write_adapter
from urushi.files.model import read_model, weights_hash
from urushi.files.route import experts_of, fold_route

GUIDANCE = {"method": "guidance", "vector": 5, "hidden": 4, "reduction": 2}
EXPERTS = {"method": "experts", "expert": {"method": "lora", "rank": 2}}
VECTOR = np.linspace(-1, 2, 5, dtype=np.float32)
ROUTES = [[0, 1, 0], [0.25, 0, 0.75], [0, 0, 0]]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return read_model(write_tiny(tmp_path_factory.mktemp("base") / "base.safetensors"))


def stored(adapter, model, name="mine"):
    return LoadedAdapter(
        header_of(adapter, model), tensors_of(adapter), Path(f"{name}.safetensors")
    )


def assert_same(folded, expected):
    for name, tensor in expected.items():
        np.testing.assert_allclose(folded.tensors[name], tensor, rtol=1e-6, atol=1e-6)
        assert folded.tensors[name].dtype == np.float32


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("freeze", ["paper", "released", "base"])
def test_a_route_folds_as_torch_merges(base, freeze, route):
    backbone = network_of(base)
    experts = shaken_adapter(backbone, **EXPERTS, freeze=freeze)
    merged = attach(backbone, experts).merge(route)
    found = fold_route(base, stored(experts, base), route)
    assert found.gates == ()
    assert_same(found.model, merged.state_dict())
    if not any(route):
        assert found.model is base
    else:
        assert found.model.header.weights_hash == weights_hash(found.model.tensors)
        assert "mine.safetensors#" in found.model.folded[0]


def test_one_file_for_each_expert(base):
    """The joint form, its members, and single files give the same weights."""
    backbone = network_of(base)
    experts = shaken_adapter(backbone, **EXPERTS, freeze="base")
    joint = stored(experts, base)
    singles = [stored(e, base, f"e{i}") for i, e in enumerate(split(experts, backbone))]
    assert [e.header.method for e in experts_of(joint)] == ["lora"] * 3
    assert [e.name for e in experts_of(joint)] == ["mine 0", "mine 1", "mine 2"]
    first = fold_route(base, joint, ROUTES[1]).model.tensors
    for others in (singles, experts_of(joint)):
        found = fold_route(base, others, ROUTES[1]).model.tensors
        for name, tensor in first.items():
            np.testing.assert_array_equal(found[name], tensor)
    assert experts_of(singles[0]) == [singles[0]]


@pytest.mark.parametrize("route", ROUTES)
@torch.no_grad()
def test_gates_of_a_route(base, route):
    """Experts that change the guidance, too; and deltas of a guided pre-training below."""
    backbone = network_of(base)
    guidance = shaken_adapter(backbone, **GUIDANCE, tune=["weight", "scale"])
    experts = shaken_adapter(Host(backbone, guidance), **EXPERTS)
    adapted = attach(backbone, guidance, experts).eval()
    files = stored(experts, base, "e"), stored(guidance, base, "g")
    found = fold_route(base, files[0], route, files[1], VECTOR)
    x, vector = random_images(2, 8, 12), torch.tensor(VECTOR)[None]
    expected = adapted.fixed(vector=vector, weights=route)(x)
    adapted.detach()
    folded = network_of(found.model)
    for gate in found.gates:
        gain, offset = torch.tensor(gate.gain), torch.tensor(gate.offset)

        def hook(_module, inputs, gain=gain, offset=offset):
            rows = inputs[0].movedim(1, -1)
            normed = F.layer_norm(rows, rows.shape[-1:], eps=1e-6)
            return (rows + gain * normed + offset).movedim(-1, 1)

        folded.get_submodule(gate.stage).register_forward_pre_hook(hook)
    assert [gate.stage for gate in found.gates] == guidance.config.stages
    torch.testing.assert_close(folded(x), expected)
    assert fold_route(base, files[0], route, files[1]).gates == ()


def test_files_give_the_adapters_back(base, tmp_path):
    backbone = network_of(base)
    guidance = shaken_adapter(backbone, **GUIDANCE)
    host = Host(backbone, guidance)
    for network, adapter in ((backbone, guidance), (host, shaken_adapter(host, **EXPERTS))):
        path = tmp_path / "a.safetensors"
        write_adapter(path, tensors_of(adapter), header_of(adapter, base), "float32")
        again = load_adapter(network, read_adapter(path))
        assert again.describe() == adapter.describe()
        for name, tensor in adapter.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor)


def test_what_does_not_fit_is_refused(base, tmp_path):
    backbone = network_of(base)
    guidance = stored(shaken_adapter(backbone, **GUIDANCE), base, "g")
    experts = stored(shaken_adapter(backbone, **EXPERTS), base, "e")
    with pytest.raises(AdapterError, match=r"3 experts have the weights \[1, 0\]"):
        fold_route(base, experts, [1, 0])
    with pytest.raises(AdapterError, match="expected one number for each"):
        fold_route(base, experts, [1, 0, float("nan")])
    with pytest.raises(AdapterError, match="but no guidance"):
        fold_route(base, experts, [1, 0, 0], vector=VECTOR)
    with pytest.raises(AdapterError, match="'experts', not guidance"):
        fold_route(base, experts, [1, 0, 0], experts, VECTOR)
    with pytest.raises(AdapterError, match="expected 5 numbers of its router"):
        fold_route(base, experts, [1, 0, 0], guidance, VECTOR[:3])
    for name in ("embed.0.weight", "stages.1.squeeze.bias", "stages.0.beta"):
        tensors = {key: tensor for key, tensor in guidance.tensors.items() if key != name}
        with pytest.raises(AdapterError, match=r"g.safetensors: not a sound adapter.*missing"):
            fold_route(base, experts, [1, 0, 0], replace(guidance, tensors=tensors), VECTOR)
    guided = create_adapter(Host(backbone, shaken_adapter(backbone, **GUIDANCE)), EXPERTS)
    with pytest.raises(AdapterError, match=r"changes 'guidance\..*', which its base does not have"):
        fold_route(base, stored(shaken(guided, 1), base), [1, 0, 0])
    branches = stored(shaken_adapter(backbone, method="adaptir", hidden=4), base)
    with pytest.raises(AdapterError, match="a branch of its own"):
        fold_route(base, [branches], [1])
    other = read_model(write_tiny(tmp_path / "other.safetensors", seed=5))
    foreign = write_random(tmp_path / "foreign.safetensors", other)
    with pytest.raises(AdapterError, match="made for the base 'other'"):
        fold_route(base, [foreign], [1])
    header = experts.header.model_copy(update={"config": {}})
    with pytest.raises(AdapterError, match="do not state the experts"):
        fold_route(base, replace(experts, header=header), [1, 0, 0])
