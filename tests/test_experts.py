"""Routed experts against numbers measured from the authors' code, and all their options."""

import pytest
import torch
from networks import (
    Bare,
    TokenNet,
    below,
    random_images,
    read_golden,
    shaken_adapter,
    shaken_network,
)
from torch import nn

from urushi.adapters import Host, attach, create_adapter
from urushi.adapters.experts import depthwise_layers, split, top_weights
from urushi.adapters.released_lora_ir import lora_ir_from
from urushi.backbones import create_backbone
from urushi.errors import AdapterError

TINY = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
SMALL = {"method": "experts", "expert": {"method": "lora", "rank": 2}}
CASES = ["k1", "k3", "k3dw", "k2s2", "k1nobias"]


def nafnet():
    return shaken_network("nafnet", TINY)


@pytest.mark.parametrize("k", [1, 2])
@torch.no_grad()
def test_equals_the_authors_network(golden_lora_ir, k):
    found = lora_ir_from(below(golden_lora_ir, "state."), "golden")
    assert found.experts is not None
    adapted = attach(found.backbone, found.guidance, found.experts).eval()
    x, vector = golden_lora_ir["input"], golden_lora_ir["de_prior"]
    weights = top_weights(golden_lora_ir["probs"], k)
    for mode in (True, False):
        result = adapted.train(mode)(x, vector=vector, weights=weights)
        expected = golden_lora_ir[f"output_topk{k}"]
        assert (result - expected).abs().max() <= 1e-4 * expected.std()
    expected = golden_lora_ir[f"output_b1_topk{k}"]
    for row in range(3):
        own = slice(row, row + 1)
        # A batch of one in training: the authors' code leaves its experts out.
        for mode in (True, False):
            result = adapted.train(mode)(x[own], vector=vector[own], weights=weights[own])
            assert (result - expected[own]).abs().max() <= 1e-4 * expected.std()
        fixed = adapted.fixed(vector=vector[own], weights=weights[row].tolist())
        assert (fixed(x[own]) - expected[own]).abs().max() <= 1e-4 * expected.std()


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_equals_the_authors_convolution(case):
    tensors, config = read_golden("loralib_conv")
    settings, values = config["cases"][case], below(tensors, f"conv2dmix.{case}.")
    state = below(values, "state.")
    layer = nn.Conv2d(
        settings["in_channels"],
        settings["out_channels"],
        settings["kernel_size"],
        settings["stride"],
        settings["padding"],
        groups=settings["groups"],
        bias=settings["bias"],
    )
    layer.load_state_dict(below(state, "conv."))
    backbone = Bare(layer).eval()
    experts = create_adapter(
        backbone,
        {"method": "experts", "expert": {"method": "lora", "rank": 3}, "freeze": "base"},
    )
    for index, expert in enumerate(experts.members):
        down, up = state["lora_A_list"][index], state["lora_B_list"][index]
        expert.load_state_dict({"down.layers/0/weight": down, "up.layers/0/weight": up})
    adapted = attach(backbone, experts).eval()
    for k in (1, 2):
        weights = top_weights(values["probs"], k)
        torch.testing.assert_close(weights, values[f"gate_topk{k}"])
        expected = values[f"output_topk{k}"]
        result = adapted(values["input"], weights=weights)
        assert (result - expected).abs().max() <= 1e-4 * expected.std()


def paper(config):
    """LoRA-IR's network of its first setting, without numbers."""
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
        guidance = create_adapter(backbone, {"method": "guidance"})
        experts = create_adapter(Host(backbone, guidance), {"method": "experts", **config})
    return backbone, guidance, experts


def test_counts_of_the_paper():
    backbone, guidance, experts = paper({})
    sizes = [sum(p.numel() for p in expert.parameters()) for expert in experts.members]
    assert [round(size / 1e6, 3) for size in sizes] == [4.262] * 3
    assert all(set(e._scales.values()) == {2.0} for e in experts.members)
    adapted = attach(backbone, guidance, experts)
    assert round(adapted.report().trainable / 1e6, 2) == 12.98
    assert not any(p.requires_grad for p in guidance.parameters())
    adapted.detach()
    assert all(p.requires_grad for p in guidance.parameters())


def test_dense_deltas_of_depthwise_layers_halve_an_expert():
    _, _, experts = paper({"count": 1, "depthwise": "dense", "freeze": "base"})
    assert round(sum(p.numel() for p in experts.parameters()) / 1e6, 2) == 2.15
    backbone, _, _ = paper({"count": 1})
    layers = depthwise_layers(backbone)
    assert len(layers) == 36
    assert experts.config.each[0]["dense"] == layers
    # Rank 8 of the paper's layout: 8 * (3 * 3 c + 3 * 3) numbers against 9 c.
    c = 128
    factors = 8 * 3 * (3 * c) + 3 * 8 * 3
    assert 8 <= factors / (9 * c) < 8.1


@pytest.mark.parametrize(
    ("freeze", "shared"), [("paper", "bias"), ("released", "all"), ("base", "")]
)
def test_what_trains(freeze, shared):
    backbone = nafnet()
    experts = create_adapter(backbone, {**SMALL, "freeze": freeze})
    adapted = attach(backbone, experts)
    adapted(
        random_images(2, 8, 8), weights=torch.tensor([[0, 1.0, 0], [0, 0, 1.0]])
    ).mean().backward()
    grads = {n for n, p in experts.named_parameters() if p.grad is not None}
    assert {n[:9] for n in grads if not n.startswith("shared")} == {"experts.1", "experts.2"}
    names = {n.removeprefix("shared.value.").replace("/", ".") for n in grads if "shared" in n}
    own = dict(backbone.named_parameters())
    biases = {name for name in own if name.endswith(".bias")}
    assert names == {"bias": biases, "all": set(own), "": set()}[shared]


@pytest.mark.parametrize("backbone", [nafnet(), TokenNet().eval()], ids=["nafnet", "tokens"])
@torch.no_grad()
def test_pictures_are_grouped_by_route(backbone):
    experts = shaken_adapter(backbone, **SMALL)
    adapted, x = attach(backbone, experts).eval(), random_images(5, 8, 12)
    weights = torch.tensor([[0, 1.0, 0], [0.3, 0, 0.7], [0, 0, 0], [0, 1.0, 0], [0.31, 0, 0.69]])
    calls = []
    handle = next(backbone.children()).register_forward_hook(lambda _m, i, _o: calls.append(i[0]))
    result = adapted(x, weights=weights)
    handle.remove()
    assert [len(given) for given in calls] == [2, 1, 1, 1]
    for row in range(5):
        own = slice(row, row + 1)
        torch.testing.assert_close(adapted(x[own], weights=weights[own]), result[own])
        fixed = adapted.fixed(weights=weights[row].tolist())
        torch.testing.assert_close(fixed(x[own]), result[own])
    assert torch.equal(result[2:3], backbone(x[2:3]))
    assert torch.equal(adapted(x), backbone(x))
    adapted.detach()


def test_gradients_are_those_of_the_dense_mixture():
    """What a step learns does not depend on how the batch was divided."""
    backbone, x = nafnet(), random_images(3, 8, 8)
    experts = shaken_adapter(backbone, **SMALL)
    adapted = attach(backbone, experts)
    weights = torch.tensor([[0, 1.0, 0], [0.25, 0, 0.75], [0, 1.0, 0]])
    adapted(x, weights=weights).square().sum().backward()
    found = {n: p.grad.clone() for n, p in experts.named_parameters()}
    adapted.zero_grad()
    base = dict(backbone.named_parameters())
    for row in range(3):
        tensors = dict(base)
        route = [*weights[row], 1.0]
        for expert, weight in zip([*experts.members, experts.shared], route, strict=True):
            for name, delta in expert.deltas(base).items():
                tensors[name] = tensors[name] + weight * delta
        result = torch.func.functional_call(backbone, tensors, (x[row : row + 1],))
        result.square().sum().backward()
    for name, parameter in experts.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_route_into_the_weights():
    backbone, x = nafnet(), random_images(1, 9, 12)
    experts = shaken_adapter(backbone, **SMALL)
    adapted = attach(backbone, experts).eval()
    route = [0.5, 0.0, 0.75]
    expected = adapted(x, weights=torch.tensor([route]))
    with pytest.raises(AdapterError, match="a mixture without its weights"):
        adapted.merge()
    torch.testing.assert_close(adapted.merge(route)(x), expected)


MIXED = [
    {"method": "adaptformer", "hidden": 2, "scale": 1.0},
    {"method": "vpt", "tokens": 2},
    {"method": "lora", "rank": 1},
    {"method": "guidance", "vector": 5, "hidden": 4, "reduction": 2},
    {"method": "ssf"},
]


@torch.no_grad()
def test_adapters_of_any_method_are_experts():
    backbone, x = TokenNet().eval(), random_images(2, 8, 12)
    vector = torch.ones(2, 5)
    experts = shaken_adapter(backbone, method="experts", each=MIXED, freeze="base")
    adapted = attach(backbone, experts).eval()
    assert adapted.reads == {"vector", "weights"}
    both = adapted(x, vector=vector, weights=torch.tensor([[0.5, 0.7, 0, 1.0, 0]] * 2))
    alone = [
        adapted(x, vector=vector, weights=row[None].expand(2, -1)) for row in torch.eye(len(MIXED))
    ]
    adapted.detach()
    for expert, expected in zip(experts.members, alone, strict=True):
        single = attach(backbone, expert).eval()
        known = {"vector": vector} if "vector" in single.reads else {}
        torch.testing.assert_close(single(x, **known), expected)
        assert not torch.equal(expected, backbone(x))
        single.detach()
    for expert, weight in zip(experts.members, [0.5, 0.7, 0, 1.0, 0], strict=True):
        expert.strength = weight
    together = attach(backbone, *experts.members).eval()
    torch.testing.assert_close(together(x, vector=vector), both)


def test_contribution_budgets_for_experts():
    backbone = nafnet()
    config = {"method": "experts", "count": 2, "expert": {"method": "colora", "budget": "60%"}}
    experts = create_adapter(backbone, config)
    assert [e.method for e in experts.members] == ["colora", "colora"]
    assert all(one["ranks"] for one in experts.config.each)
    again = create_adapter(backbone, experts.describe())
    again.load_state_dict(experts.state_dict())
    assert again.describe() == experts.describe()


@pytest.mark.parametrize("freeze", ["base", "paper"])
@torch.no_grad()
def test_experts_come_apart(freeze):
    backbone, x = nafnet(), random_images(1, 8, 8)
    experts = shaken_adapter(backbone, **SMALL, freeze=freeze)
    adapted = attach(backbone, experts).eval()
    results = [adapted(x, weights=row[None]) for row in torch.eye(3)]
    adapted.detach()
    singles = split(experts, backbone)
    for single, expected in zip(singles, results, strict=True):
        assert single.method == "lora"
        adapted = attach(backbone, single).eval()
        torch.testing.assert_close(adapted(x), expected)
        adapted.detach()


def test_experts_of_guided_layers_belong_to_the_guidance():
    backbone = nafnet()
    config = {"method": "guidance", "vector": 5, "hidden": 4, "reduction": 2}
    guidance = shaken_adapter(backbone, **config)
    host = Host(backbone, guidance)
    assert {n for n, _ in backbone.named_parameters()} < {n for n, _ in host.named_parameters()}
    assert torch.equal(host(random_images(1, 8, 8)), backbone(random_images(1, 8, 8)))
    experts = create_adapter(host, SMALL)
    with pytest.raises(AdapterError, match=r"changes guidance\..* does not have"):
        attach(backbone, experts)
    adapted = attach(backbone, guidance, experts)
    weights, vector = torch.eye(3)[:1], torch.ones(1, 5)
    for _ in range(2):  # the second factor is zero at first
        adapted(random_images(1, 8, 8), vector=vector, weights=weights).square().sum().backward()
        for parameter in experts.parameters():
            if parameter.grad is not None:
                parameter.data -= 0.01 * parameter.grad
    key = "guidance/stages/0/reduce/weight"
    assert experts.members[0].down[key].grad.abs().max() > 0
    assert experts.shared.value["guidance/stages/1/excite/bias"].grad.abs().max() > 0
    assert all(p.grad is None for p in guidance.parameters())
    with pytest.raises(AdapterError, match="guidance is there already"):
        Host(backbone, guidance, guidance)


def test_top_weights():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    assert top_weights(logits, 1).tolist() == [[0, 1, 0]]
    torch.testing.assert_close(top_weights(logits, 3), logits.softmax(1))
    for k in (0, 4):
        with pytest.raises(AdapterError, match="choose 1 to 3"):
            top_weights(logits, k)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"count": 0}, "count is 0"),
        ({"each": [{"method": "lora"}], "count": 2}, "leave count no effect"),
        ({"each": [{"method": "experts"}]}, "an expert of method experts"),
        ({"expert": {"method": "lroa"}}, "did you mean 'lora'"),
        ({"expert": {"rank": 2}}, "method '' is unknown"),
        ({"expert": {"method": "ssf"}, "depthwise": "dense"}, "depthwise is dense"),
        ({"freeze": "none"}, "freeze is 'none'"),
    ],
)
def test_errors(config, message):
    with pytest.raises(AdapterError, match=message):
        create_adapter(nafnet(), {"method": "experts", **config})


def test_weights_that_do_not_fit_are_refused():
    backbone, x = nafnet(), random_images(2, 8, 8)
    adapted = attach(backbone, create_adapter(backbone, SMALL))
    with pytest.raises(AdapterError, match="2 weights for 3 experts"):
        adapted(x, weights=torch.ones(2, 2))
    with pytest.raises(AdapterError, match="for 2 pictures: give every picture"):
        adapted(x, weights=torch.ones(1, 3))
    with pytest.raises(AdapterError, match="expected numbers"):
        adapted.fixed(weights=[1, float("nan"), 0])
    with pytest.raises(AdapterError, match="no experts are attached"):
        attach(backbone, create_adapter(backbone, {"method": "ssf"})).fixed(weights=[1.0])


def test_what_cannot_come_apart_or_together():
    backbone = nafnet()
    with pytest.raises(AdapterError, match="freeze: released share changes"):
        split(create_adapter(backbone, {**SMALL, "freeze": "released"}), backbone)
    mixed = {"method": "experts", "each": [{"method": "ssf"}]}
    with pytest.raises(AdapterError, match="method ssf cannot hold"):
        split(create_adapter(backbone, mixed), backbone)


def test_weights_of_a_route_are_not_kept_for_the_way_back():
    """They are formed again, from parameters that must not have changed."""
    backbone, x = nafnet(), random_images(2, 8, 8)
    experts = shaken_adapter(backbone, **SMALL)
    adapted = attach(backbone, experts)
    weights = torch.eye(3)[:2]
    loss = adapted(x, weights=weights).square().sum()
    loss.backward(retain_graph=True)
    first = [None if p.grad is None else p.grad.clone() for p in experts.parameters()]
    adapted.zero_grad()
    loss.backward()
    for gradient, parameter in zip(first, experts.parameters(), strict=True):
        assert (gradient is None) == (parameter.grad is None)
        if gradient is not None:
            assert torch.equal(gradient, parameter.grad)
    loss = adapted(x, weights=weights).square().sum()
    with torch.no_grad():
        next(experts.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="changed between a pass and its way back"):
        loss.backward()


def test_saving_memory_with_several_routes():
    x, weights, results = random_images(3, 8, 8), torch.eye(3), []
    for save_memory in (False, True):
        backbone = nafnet()
        experts = shaken_adapter(backbone, **SMALL)
        adapted = attach(backbone, experts, save_memory=save_memory)
        adapted(x, weights=weights).square().sum().backward()
        results.append([p.grad for p in experts.parameters()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
