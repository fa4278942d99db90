"""The contract of every method on every backbone."""

import copy

import pytest
import torch
from networks import Bare, TokenNet, close, random_images, same, shaken, shaken_adapter
from torch import nn

from urushi.adapters import METHODS, Adapted, create_adapter
from urushi.backbones import BACKBONES, create_backbone
from urushi.errors import AdapterError

SMALL = {
    "lora": {"rank": 2},
    "dora": {"rank": 2},
    "vera": {"rank": 6},
    # Squares of squares of random weights leave float32; the choice of all slots has no jumps.
    "vora": {"rank": 2, "quadratic_rank": 1, "scale": 1e-3},
    "mor": {"rank": 3, "shared": 1, "empty": 1, "active": 3},
    "fact": {"rank": 2},
    "adaptir": {"hidden": 4},
    "houlsby": {"hidden": 2},
    "adaptformer": {"hidden": 2, "scale": 1.0},
    "moe": {"hidden": 2},
    "vpt": {"tokens": 3},
    "guidance": {"vector": 5, "hidden": 4, "reduction": 2, "decoder": True},
    "experts": {"count": 2, "expert": {"method": "lora", "rank": 2}},
}


class Informed(Adapted):
    """Tells guidance and experts of the pictures, as a router would."""

    def forward(self, x):
        known = {"vector": torch.linspace(-1, 1, 5)[None], "weights": torch.tensor([[0.6, 0.8]])}
        return super().forward(
            x,
            **{name: known[name].expand(len(x), -1).to(x) for name in self.reads},
        )


def attach(backbone, *adapters, save_memory=False):
    return Informed(backbone, adapters, save_memory)


def build(name):
    torch.manual_seed(0)
    if name == "tokens":
        return shaken(TokenNet(), 0).eval()
    return shaken(create_backbone(name, BACKBONES[name].example), 0).eval()


NAMES = [*BACKBONES, "tokens"]


def lacks(method, sites):
    """Whether a backbone with these sites cannot take the method."""
    if method == "vpt":
        return not sites.tokens
    if method == "guidance":
        return not sites.stages
    if method in ("adaptir", "adaptformer", "moe"):
        return not sites.feed_forward
    if method in ("houlsby", "fact"):
        return not sites.feed_forward and not sites.attention
    return method == "decoder" and not sites.decoder


# Beside weight layers of any network, these ask for nothing: layers of every kind are enough.
ENOUGH = {
    "dora": ["nafnet"],
    "vera": ["nafnet"],
    "vora": ["nafnet", "tokens"],
    "mor": ["nafnet", "tokens"],
}
PAIRS = [
    pytest.param(method, name, id=f"{method}-{name}")
    for name in NAMES
    for method in METHODS
    if name in ENOUGH.get(method, NAMES) and not lacks(method, build(name).sites)
]
BRANCHES = [pair for pair in PAIRS if not METHODS[pair.values[0]].mergeable]
each_pair = pytest.mark.parametrize(("method", "name"), PAIRS)
each_branch = pytest.mark.parametrize(("method", "name"), BRANCHES)


def config_of(method):
    return {"method": method, **SMALL.get(method, {})}


def trained(backbone, method, seed=1):
    return shaken_adapter(backbone, seed, **config_of(method))


def clone(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def gradients(adapted, x):
    adapted.zero_grad()
    adapted(x).square().mean().backward()
    return {n: p.grad.clone() for n, p in adapted.named_parameters()}


@each_pair
@torch.no_grad()
def test_a_fresh_one_is_the_identity(method, name):
    backbone = build(name)
    pictures = [random_images(1, 13, 19), random_images(2, 16, 12)]
    plain = [backbone(x) for x in pictures]
    adapted = attach(backbone, create_adapter(backbone, config_of(method)))
    for mode in (True, False):
        adapted.train(mode)
        for x, before in zip(pictures, plain, strict=True):
            assert torch.equal(adapted(x), before) == METHODS[method].identity
            assert torch.equal(backbone(x), before)


@each_pair
def test_only_its_parameters_train(method, name):
    backbone = build(name)
    before, x = clone(backbone), random_images(2, 16, 12)
    with torch.no_grad():
        plain = backbone(x)
    target = plain + 0.3 * random_images(2, 16, 12, seed=1)
    adapted = attach(backbone, create_adapter(backbone, config_of(method))).train()
    assert not backbone.training
    parameters = list(adapted.parameters())
    losses = []
    if method != "frozen":
        optimizer = torch.optim.Adam(parameters, 1e-5)
        for _ in range(5):
            optimizer.zero_grad()
            loss = (adapted(x) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
    report = adapted.report()
    assert report.trainable == sum(p.numel() for p in parameters)
    assert report.backbone == sum(p.numel() for p in backbone.parameters())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert adapted.detach() is backbone
    assert same(clone(backbone), before)
    assert all(p.requires_grad for p in backbone.parameters())
    assert not any(m._forward_hooks or "forward" in vars(m) for m in backbone.modules())
    with torch.no_grad():
        assert torch.equal(backbone(x), plain)


@each_pair
@torch.no_grad()
def test_its_state_makes_it_again(method, name):
    backbone, x = build(name), random_images(1, 13, 19)
    adapter = trained(backbone, method)
    adapted = attach(backbone, adapter)
    adapted.train()(x)  # running statistics belong to the state
    before = adapted.eval()(x)
    state = clone(adapter)
    assert all(tensor.is_floating_point() for tensor in state.values())
    assert adapted.report().stored == sum(tensor.numel() for tensor in state.values())
    again = create_adapter(adapted.detach(), adapter.describe())
    again.load_state_dict(state)
    assert torch.equal(attach(backbone, again).eval()(x), before)


@each_pair
@torch.no_grad()
def test_merged_equals_attached(method, name):
    backbone, x = build(name), random_images(1, 13, 19)
    adapter = trained(backbone, method)
    adapter.strength = 0.7
    assert adapter.mergeable == METHODS[method].mergeable
    adapted, before = attach(backbone, adapter).eval(), clone(backbone)
    expected = adapted(x)
    if adapter.mergeable:
        assert close(adapted.merge()(x), expected)
    else:
        with pytest.raises(AdapterError, match="run it attached"):
            adapted.merge()
        assert same(clone(backbone), before)
        assert torch.equal(adapted(x), expected)


@each_pair
@torch.no_grad()
def test_pictures_of_any_size_and_precision(method, name):
    backbone = build(name)
    adapted = attach(backbone, trained(backbone, method)).eval()
    x = random_images(2, 13, 22)
    result = adapted(x)
    assert result.shape == x.shape
    assert result.isfinite().all()
    if method != "frozen":
        assert not close(result, backbone(x))
    assert close(torch.cat([adapted(x[:1]), adapted(x[1:])]), result)
    with torch.autocast("cpu", torch.bfloat16):
        half = adapted(x)
    assert half.isfinite().all()
    assert close(half.float(), result, 0.05)
    adapted.double()
    assert close(adapted(x.double()).float(), result)


@each_pair
@torch.no_grad()
def test_strength(method, name):
    backbone, x = build(name), random_images(1, 13, 19)
    adapter = trained(backbone, method)
    adapted = attach(backbone, adapter).eval()
    whole, results = adapted(x), {}
    for strength in (0.0, 0.999, 0.5):
        adapter.strength = strength
        results[strength] = adapted(x)
    assert torch.equal(results[0.0], backbone(x))
    assert close(results[0.999], whole, 0.02)
    if method != "frozen":
        assert not close(results[0.5], whole)
        assert not close(results[0.5], results[0.0])


@each_pair
@torch.no_grad()
def test_two_at_once(method, name):
    """Deltas add up exactly, and a branch does not mind deltas beside it."""
    backbone, x = build(name), random_images(1, 13, 19)
    one, other = trained(backbone, method), trained(backbone, "lora", seed=2)
    other.strength = 0.5
    adapted = attach(backbone, one, other).eval()
    base = dict(backbone.named_parameters())
    effective = adapted.effective_parameters()
    for key, tensor in effective.items():
        expected = base[key]
        for adapter in (one, other):
            deltas = adapter.deltas(base)
            expected = expected + adapter.strength * deltas[key] if key in deltas else expected
        assert torch.equal(tensor, expected)
    result = adapted(x)
    adapted.detach()
    if not METHODS[method].mergeable:
        merged = attach(backbone, other).merge()
        assert close(attach(merged, one).eval()(x), result)


@each_branch
@torch.no_grad()
def test_two_branches_at_one_site_add_up(method, name):
    backbone, x = build(name), random_images(1, 13, 19)
    adapter = trained(backbone, method)
    twin = copy.deepcopy(adapter)
    adapted = attach(backbone, adapter, twin).eval()
    result = adapted(x)
    twin.strength = 0.0
    adapter.strength = 2.0
    if method not in ("vpt", "guidance"):  # those stand in front of one another
        assert close(adapted(x), result)


@each_pair
def test_saving_memory_changes_no_gradient(method, name):
    if method == "frozen":
        return
    x = random_images(2, 16, 12)
    results = []
    for save_memory in (False, True):
        backbone = build(name)
        adapter = trained(backbone, method)
        adapted = attach(backbone, adapter, save_memory=save_memory).train()
        results.append({**gradients(adapted, x), **dict(adapter.named_buffers())})
        with torch.no_grad():
            assert torch.equal(backbone(x), build(name)(x))
            adapted.detach()
            assert torch.equal(backbone(x), build(name)(x))
    assert results[0].keys() == results[1].keys()
    assert all(close(results[1][key], results[0][key]) for key in results[0])


def test_saving_memory_calculates_twice():
    backbone, calls = build("tokens"), []
    backbone.get_submodule("blocks.0.fc1").register_forward_hook(lambda *_: calls.append(1))
    adapted = attach(backbone, trained(backbone, "adaptir"), save_memory=True)
    loss = adapted(random_images(1, 12, 8)).square().mean()
    assert len(calls) == 1
    loss.backward()
    assert len(calls) == 2
    with torch.no_grad():
        adapted(random_images(1, 8, 8))
    assert len(calls) == 3


def test_two_sizes_before_the_way_back():
    """Saved memory and tokens: each part is calculated again with the grid that it had."""
    results = []
    for save_memory in (False, True):
        backbone = build("tokens")
        adapted = attach(backbone, trained(backbone, "adaptir"), save_memory=save_memory)
        sum(
            adapted(random_images(1, *sides)).square().mean() for sides in [(12, 8), (8, 12)]
        ).backward()
        results.append({n: p.grad for n, p in adapted.named_parameters()})
    assert all(close(results[1][key], results[0][key]) for key in results[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_backbone_without_its_site_is_refused(method):
    for backbone in (Bare(nn.Conv2d(3, 3, 1)), *map(build, BACKBONES)):
        if not lacks(method, backbone.sites):
            continue
        with pytest.raises(AdapterError, match="this backbone") as caught:
            create_adapter(backbone, {"method": method})
        assert method in str(caught.value)
        assert "\n" not in str(caught.value)


def test_settings_are_checked():
    backbone = build("tokens")
    with pytest.raises(AdapterError, match="did you mean 'adaptir'"):
        create_adapter(backbone, {"method": "adaptr"})
    with pytest.raises(AdapterError, match="did you mean 'hidden'"):
        create_adapter(backbone, {"method": "houlsby", "hiden": 3})
    with pytest.raises(AdapterError, match="matches nothing in this backbone"):
        create_adapter(backbone, {"method": "moe", "sites": ["layers.*"]})
    with pytest.raises(AdapterError, match="must be odd"):
        create_adapter(backbone, {"method": "adaptir", "kernel": 2})


def test_branches_go_where_they_are_wanted():
    backbone = build("tokens")
    houlsby = create_adapter(backbone, {"method": "houlsby", "sites": ["*.proj", "blocks.1.fc2"]})
    assert list(houlsby.branches) == ["blocks/0/proj", "blocks/1/proj", "blocks/1/fc2"]
    fact = create_adapter(backbone, {"method": "fact", "layers": ["*.qkv", "*.fc2"]})
    assert {k: tuple(v.shape) for k, v in fact.core.items()} == {
        f"blocks/{i}/{layer}/weight": (*blocks, 16, 16)
        for i in range(2)
        for layer, blocks in (("qkv", (3, 1)), ("fc2", (1, 2)))
    }
    assert list(fact.rows) == list(fact.columns) == ["8"]


@pytest.mark.parametrize("method", ["lora", "houlsby", "vpt"])
def test_an_adapter_of_another_backbone_is_refused(method):
    adapter = create_adapter(build("tokens"), {"method": method})
    other = build("nafnet")
    with pytest.raises(AdapterError, match="made for another"):
        attach(other, adapter)
    assert all(p.requires_grad for p in other.parameters())


def test_a_sequence_that_is_no_grid_is_refused():
    backbone = build("tokens")
    adapters = [create_adapter(backbone, config_of(method)) for method in ("vpt", "adaptir")]
    with pytest.raises(AdapterError, match="gives 15 tokens"):
        attach(backbone, *adapters)(random_images(1, 12, 16))


@pytest.mark.parametrize(
    ("method", "settings", "count"),
    # Counts of the tables of AdaptIR's paper, per module of a width of 576.
    [
        ("houlsby", {"hidden": 12}, 691_776 // 48),
        ("adaptformer", {"hidden": 24}, 677_952 // 24),
        ("vpt", {"tokens": 64}, 884_736 // 24),
    ],
)
def test_counts_of_the_papers(method, settings, count):
    backbone = TokenNet(576)
    adapter = create_adapter(backbone, {"method": method, **settings})
    modules = {"houlsby": 4, "adaptformer": 2, "vpt": 2}[method]
    assert attach(backbone, adapter).report().trainable == modules * count
