"""Low-rank deltas against numbers measured from the authors' code, and all their options."""

import math

import pytest
import torch
from networks import Bare, TokenNet, below, read_golden, shaken_adapter
from torch import nn

from urushi.adapters import attach, create_adapter
from urushi.adapters.layers import weight_layers
from urushi.adapters.low_rank_formula import LowRankSettings, factor_shapes, scale_of
from urushi.errors import AdapterError

CASES = ["k1", "k3", "k3dw", "k2s2", "k1nobias"]
WEIGHT = "layers/0/weight"


def network(case, settings, state):
    """One convolution with the authors' weights."""
    side = settings["kernel_size"]
    convolution = nn.Conv2d(
        settings["in_channels"],
        settings["out_channels"],
        side,
        settings["stride"],
        settings["padding"],
        groups=settings["groups"],
        bias=settings["bias"],
    )
    convolution.load_state_dict(below(state, "conv."))
    return Bare(convolution).eval()


def adapter_with(backbone, down, up, layout="loralib"):
    config = {"method": "lora", "rank": 3, "alpha": 6.0, "layout": layout}
    adapter = create_adapter(backbone, config)
    adapter.load_state_dict({f"down.{WEIGHT}": down, f"up.{WEIGHT}": up})
    return adapter


def delta_of(adapter, backbone):
    return adapter.deltas(dict(backbone.named_parameters()))["layers.0.weight"]


# For 1x1 convolutions both layouts have the same factors.
BOTH = [*((case, "loralib") for case in CASES), ("k1", "flat"), ("k1nobias", "flat")]


@pytest.mark.parametrize(("case", "layout"), BOTH)
@torch.no_grad()
def test_equals_the_authors_convolution(case, layout):
    tensors, config = read_golden("loralib_conv")
    values = below(tensors, f"convlora.{case}.")
    state = below(values, "state.")
    backbone = network(case, config["cases"][case], state)
    adapter = adapter_with(backbone, state["lora_A"], state["lora_B"], layout)
    torch.testing.assert_close(delta_of(adapter, backbone), values["delta_weight"])
    adapted = attach(backbone, adapter)
    weight = adapted.effective_parameters()["layers.0.weight"]
    torch.testing.assert_close(weight, values["merged_weight"])
    expected = values["output"]
    assert (adapted(values["input"]) - expected).abs().max() <= 1e-4 * expected.std()
    assert (adapted.merge()(values["input"]) - expected).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_equals_the_authors_experts(case):
    """One expert at a time, and all of a picture weighted: adapters that are attached at once."""
    tensors, config = read_golden("loralib_conv")
    values = below(tensors, f"conv2dmix.{case}.")
    state = below(values, "state.")
    backbone = network(case, config["cases"][case], state)
    experts = [
        adapter_with(backbone, down, up)
        for down, up in zip(state["lora_A_list"], state["lora_B_list"], strict=True)
    ]
    for expert, delta in zip(experts, values["delta_weight_per_expert"], strict=True):
        torch.testing.assert_close(delta_of(expert, backbone), delta)
    adapted = attach(backbone, *experts)
    for top in ("topk1", "topk2"):
        expected = values[f"output_{top}"]
        for index, gates in enumerate(values[f"gate_{top}"]):
            for expert, gate in zip(experts, gates.tolist(), strict=True):
                expert.strength = gate
            result = adapted(values["input"][index : index + 1])
            assert (result - expected[index]).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize(
    ("layer", "flat", "loralib"),
    [
        (nn.Conv2d(6, 8, 1), ((2, 6), (8, 2)), ((2, 6), (8, 2))),
        (nn.Conv2d(5, 7, 3), ((2, 45), (7, 2)), ((6, 15), (21, 6))),
        (nn.Conv2d(6, 6, 3, groups=6), ((2, 9), (6, 2)), ((6, 18), (3, 6))),
        (nn.Conv2d(6, 4, 3, groups=2), ((2, 27), (4, 2)), ((6, 18), (6, 6))),
        (nn.Conv2d(4, 8, 2, stride=2), ((2, 16), (8, 2)), ((4, 8), (16, 4))),
        (nn.Conv2d(3, 3, (1, 3)), ((2, 9), (3, 2)), None),
        (nn.Linear(5, 7), ((2, 5), (7, 2)), ((2, 5), (7, 2))),
    ],
)
def test_shapes_of_the_factors(layer, flat, loralib):
    (found,) = weight_layers(Bare(layer))
    assert factor_shapes(found, 2, "flat") == flat
    if loralib is None:
        with pytest.raises(AdapterError, match="1x3: the loralib layout needs square ones"):
            factor_shapes(found, 2, "loralib")
    else:
        assert factor_shapes(found, 2, "loralib") == loralib
        assert math.prod(found.shape) == loralib[1][0] * loralib[0][1]


@torch.no_grad()
def test_flat_deltas_have_the_rank():
    backbone = Bare(nn.Conv2d(6, 12, 3, stride=2, groups=2), nn.Conv2d(12, 12, 3, groups=12))
    adapter = shaken_adapter(backbone, method="lora", rank=2)
    for name, delta in adapter.deltas(dict(backbone.named_parameters())).items():
        assert delta.shape == backbone.get_parameter(name).shape
        assert torch.linalg.matrix_rank(delta.flatten(1)) == 2


@pytest.mark.parametrize(
    ("scaling", "alpha", "expected"),
    [
        ("alpha/r", None, 1.0),
        ("alpha/r", 8.0, 2.0),
        ("alpha/sqrt(r)", None, 1.0),
        ("alpha/sqrt(r)", 8.0, 4.0),
        ("alpha", None, 1.0),
        ("alpha", 8.0, 8.0),
    ],
)
@torch.no_grad()
def test_scaling(scaling, alpha, expected):
    settings = LowRankSettings(rank=4, scaling=scaling, alpha=alpha)
    assert scale_of(settings, 4) == expected
    backbone = Bare(nn.Linear(5, 7))
    adapter = shaken_adapter(backbone, method="lora", rank=4, scaling=scaling, alpha=alpha)
    product = expected * (adapter.up[WEIGHT] @ adapter.down[WEIGHT])
    torch.testing.assert_close(delta_of(adapter, backbone), product)


def test_ranks_dense_and_tuned():
    backbone = TokenNet()
    adapter = create_adapter(
        backbone,
        {
            "method": "lora",
            "rank": 3,
            "layers": ["blocks.*"],
            "ranks": {"blocks.0.fc1": 0, "blocks.1.proj": 2, "embed": 1},
            "dense": ["head", "*.0.qkv"],
            "tune": ["norm", "bias"],
        },
    )
    ranks = {name.replace("/", "."): len(factor) for name, factor in adapter.down.items()}
    assert ranks == {
        "embed.weight": 1,
        "blocks.0.proj.weight": 3,
        "blocks.0.fc2.weight": 3,
        "blocks.1.qkv.weight": 3,
        "blocks.1.proj.weight": 2,
        "blocks.1.fc1.weight": 3,
        "blocks.1.fc2.weight": 3,
    }
    whole = {name.replace("/", ".") for name in adapter.value}
    small = {n for n, p in backbone.named_parameters() if p.ndim == 1}
    assert whole == {"head.weight", "blocks.0.qkv.weight"} | small
    assert set(adapter.deltas(dict(backbone.named_parameters()))) == whole | set(ranks)
    config = adapter.describe()
    assert create_adapter(backbone, config).describe() == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"ranks": {"blocks.9": 2}}, "ranks names 'blocks.9'"),
        ({"dense": ["blocks.9"]}, "dense 'blocks.9' matches nothing"),
        ({"ranks": {"head": 2}, "dense": ["head"]}, "head is both in ranks and in dense"),
        ({"layers": ["nothing.*"]}, "names look like 'embed'"),
        ({"rank": 0}, "nothing would train"),
        ({"rank": -1}, "rank is -1"),
        ({"alpha": 0}, "alpha is 0"),
        ({"scaling": "r"}, "scaling is 'r'"),
        ({"tune": ["weights"]}, "tune.0 is 'weights'"),
        ({"rnak": 3}, "did you mean 'rank'"),
    ],
)
def test_errors(config, message):
    with pytest.raises(AdapterError, match=message):
        create_adapter(TokenNet(), {"method": "lora", **config})
