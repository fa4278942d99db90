"""VeRA, DoRA, squares and routed ranks against their formulas, written out."""

import hashlib

import numpy as np
import pytest
import torch
from networks import Bare, TokenNet, random_images, shaken, shaken_adapter
from torch import nn
from torch.nn import functional as F
from world import network_of, write_network, write_random

from urushi.adapters import attach, create_adapter
from urushi.adapters.fold import fold
from urushi.adapters.stored import header_of, load_adapter, tensors_of
from urushi.adapters.vera import random_matrix
from urushi.backbones import BACKBONES
from urushi.errors import AdapterError, EngineError
from urushi.files.adapter import read_adapter, write_adapter
from urushi.inference.restorer import Restorer


@pytest.fixture
def network():
    """Convolutions of every kind."""
    torch.manual_seed(0)
    return Bare(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 12, 2, stride=2, bias=False),
        nn.ConvTranspose2d(12, 6, 2, stride=2),
        nn.Conv2d(6, 3, 1),
    ).eval()


WEIGHTS = [f"layers/{i}/weight" for i in range(5)]
# Rows and columns of the weights as matrices.
SIZES = [(8, 27), (8, 9), (12, 32), (12, 24), (3, 6)]


def base_of(network):
    return dict(network.named_parameters())


def test_vera_is_two_vectors_around_corners_of_two_matrices(network):
    adapter = shaken(create_adapter(network, {"method": "vera", "rank": 7, "seed": 5}), 1)
    deltas = adapter.deltas(base_of(network))
    for key, (rows, columns) in zip(WEIGHTS, SIZES, strict=True):
        name = key.replace("/", ".")
        # Bounds of Kaiming for each layer: 1 / root of the inputs.
        first = torch.tensor(random_matrix(5, "A", 7, columns)) / columns**0.5
        second = torch.tensor(random_matrix(5, "B", rows, 7)) / 7**0.5
        b, d = adapter.outer[key], adapter.inner[key]
        expected = b.diag() @ second @ d.diag() @ first
        torch.testing.assert_close(deltas[name], expected.reshape(deltas[name].shape))
    trained = attach(network, adapter).report()
    assert trained.trainable == trained.stored == sum(rows + 7 for rows, _ in SIZES)
    fresh = create_adapter(network, {"method": "vera", "initial": 0.3})
    assert all((d == 0.3).all() for d in fresh.inner.values())


def test_veras_matrices_are_the_same_everywhere():
    """The numbers of every version and processor: the digest is of one run for all time."""
    first = random_matrix(7, "A", 33, 65)
    assert hashlib.sha256(first.astype("<f4").tobytes()).hexdigest() == DIGEST
    np.testing.assert_array_equal(random_matrix(7, "A", 40, 70)[:33, :65], first)
    assert first.min() >= -1
    assert first.max() < 1
    assert abs(float(first.mean())) < 0.05
    assert float(first.std()) == pytest.approx(3**-0.5, abs=0.02)
    others = [random_matrix(7, "B", 33, 65), random_matrix(8, "A", 33, 65)]
    for other in (*others, np.roll(first, 1, 0), np.roll(first, 1, 1)):
        assert abs(float((first * other).mean())) < 0.03
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0


DIGEST = "94cb0a245d8a774e268ffa2ea4fdb89934ebb1d2de2e456201b1ea5f2da2309e"


@pytest.mark.parametrize("norm", ["row", "column"])
@pytest.mark.parametrize("layout", ["flat", "loralib"])
def test_dora_is_a_magnitude_and_a_direction(network, norm, layout):
    settings = {"rank": 2, "norm": norm, "layout": layout, "alpha": 3.0}
    adapter = shaken_adapter(network, method="dora", **settings)
    base = base_of(network)
    deltas = adapter.deltas(base)
    dim = 1 if norm == "row" else 0
    for key, (rows, columns) in zip(WEIGHTS, SIZES, strict=True):
        name = key.replace("/", ".")
        plain = base[name].reshape(rows, columns)
        turned = plain + 1.5 * (adapter.up[key] @ adapter.down[key]).reshape(rows, columns)
        m = plain.norm(dim=dim, keepdim=True) + adapter.magnitude[key].unsqueeze(dim)
        expected = m * turned / turned.norm(dim=dim, keepdim=True)
        torch.testing.assert_close((base[name] + deltas[name]).reshape(rows, columns), expected)
        lengths = (base[name] + deltas[name]).reshape(rows, columns).norm(dim=dim)
        torch.testing.assert_close(lengths, m.flatten().abs())
    if layout == "flat":
        count = sum((2 * (r + c)) + (r if norm == "row" else c) for r, c in SIZES)
        assert attach(network, adapter).report().trainable == count


@pytest.mark.parametrize("constant", [True, False])
def test_gradients_of_doras_norm(constant):
    """Equation 11: with a constant norm the direction's gradient is that of the sum, scaled."""
    torch.manual_seed(1)
    network = Bare(nn.Linear(6, 4, bias=False))
    settings = {"rank": 2, "constant_norm": constant}
    adapter = shaken_adapter(network, method="dora", **settings).double()
    plain = network.layers[0].weight.detach().double()
    key = WEIGHTS[0]
    wanted = torch.randn(4, 6, dtype=torch.float64)
    (adapter.deltas({"layers.0.weight": plain})["layers.0.weight"] * wanted).sum().backward()
    down, up = (
        group[key].detach().clone().requires_grad_() for group in (adapter.down, adapter.up)
    )
    turned = plain + up @ down
    norms = turned.norm(dim=1, keepdim=True)
    m = plain.norm(dim=1, keepdim=True) + adapter.magnitude[key].detach()[:, None]
    (m * turned / (norms.detach() if constant else norms) * wanted).sum().backward()
    torch.testing.assert_close(adapter.down[key].grad, down.grad)
    torch.testing.assert_close(adapter.up[key].grad, up.grad)


def test_dora_of_rows_of_zeros():
    network = Bare(nn.Linear(6, 4, bias=False))
    nn.init.zeros_(network.layers[0].weight)
    adapter = create_adapter(network, {"method": "dora", "rank": 2, "constant_norm": False})
    adapted, x = attach(network, adapter), torch.ones(1, 6)
    assert torch.equal(adapter.deltas(base_of(network))["layers.0.weight"], torch.zeros(4, 6))
    nn.init.ones_(adapter.up[WEIGHTS[0]])
    nn.init.ones_(adapter.magnitude[WEIGHTS[0]])
    (adapted.effective_parameters()["layers.0.weight"] @ x.T).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in adapter.parameters())
    assert adapter.down[WEIGHTS[0]].grad.abs().sum() > 0


def inputs_of(network, x):
    """What each layer of a sequence of plain ones reads."""
    seen = []
    for layer in network.layers:
        seen.append(x)
        x = layer(x)
    return seen


@torch.no_grad()
def test_squares_beside_layers(network):
    adapter = shaken_adapter(network, method="vora", rank=2, quadratic_rank=3, scale=0.5)
    adapter.strength = 0.8
    dense = [WEIGHTS[0], WEIGHTS[2], WEIGHTS[4]]
    assert list(adapter.branch_down) == dense
    x = random_images(1, 8, 12)
    base, deltas = base_of(network), adapter.deltas(base_of(network))
    adapted = attach(network, adapter).eval()
    expected = x
    for index, layer in enumerate(network.layers):
        key, name = WEIGHTS[index], f"layers.{index}.weight"
        low_rank = (adapter.up[key] @ adapter.down[key]).reshape(base[name].shape)
        torch.testing.assert_close(deltas[name], low_rank)
        weight, call = base[name] + 0.8 * low_rank, F.conv2d
        options = {"stride": layer.stride, "padding": layer.padding, "groups": layer.groups}
        if isinstance(layer, nn.ConvTranspose2d):
            call = F.conv_transpose2d
        result = call(expected, weight, layer.bias, **options)
        if key in dense:
            down = adapter.branch_down[key].reshape(3, *weight.shape[1:])
            hidden = F.conv2d(expected, down, stride=layer.stride, padding=layer.padding)
            up = adapter.branch_up[key]
            result = result + 0.8 * torch.einsum("or,brhw->bohw", up, 0.5 * hidden**2)
        expected = result
    torch.testing.assert_close(adapted(x), expected)
    linear = sum(2 * (r + c) for r, c in SIZES)
    squares = sum(3 * (r + c) for r, c in (SIZES[0], SIZES[2], SIZES[4]))
    assert adapted.report().trainable == linear + squares


@torch.no_grad()
def test_every_place_has_its_own_ranks():
    torch.manual_seed(0)
    network = Bare(nn.Conv2d(3, 4, 3, padding=1, bias=False))
    sizes = {"rank": 6, "shared": 2, "empty": 3, "active": 3}
    adapter = shaken_adapter(network, method="mor", **sizes)
    x, key = random_images(2, 5, 7), WEIGHTS[0]
    added = attach(network, adapter).eval()(x) - network(x)
    hidden = F.conv2d(x, adapter.branch_down[key].reshape(6, 3, 3, 3), padding=1)
    normed = hidden / (hidden.square().mean(1, keepdim=True) + 1e-6).sqrt()
    logits = torch.einsum("sr,brhw->bshw", adapter.route[key], normed)
    logits = logits + adapter.route_bias[key].reshape(-1, 1, 1)
    acting = set()
    for place in np.ndindex(2, 5, 7):
        b, i, j = place
        order = logits[b, :, i, j].argsort(descending=True)[:3]
        weights = torch.zeros(7)
        weights[order] = 3 * logits[b, order, i, j].softmax(0)
        ranks = torch.cat([torch.ones(2), weights[:4]])
        expected = adapter.branch_up[key] @ (ranks * hidden[b, :, i, j])
        torch.testing.assert_close(added[b, :, i, j], expected, rtol=1e-4, atol=1e-5)
        acting.add(int((weights[:4] > 0).sum()))
    assert len(acting) > 1  # empty slots let the number vary
    count = 6 * (27 + 4) + 7 * 6 + 7
    assert attach(network, adapter).report().trainable == count


@pytest.mark.parametrize("method", ["vera", "dora", "vora", "mor"])
def test_gradients_reach_every_parameter(network, method):
    """After one step, with which what was zero at first stands in nobody's way any more."""
    backbones = [network, TokenNet()]
    for backbone in backbones:
        adapter = shaken_adapter(backbone, method=method, rank=3, **OPTIONS.get(method, {}))
        attach(backbone, adapter).train()(random_images(3, 12, 8)).square().mean().backward()
        without = [
            name
            for name, p in adapter.named_parameters()
            if p.grad is None or not p.grad.abs().sum() > 0 or not p.grad.isfinite().all()
        ]
        assert not without


OPTIONS = {"mor": {"shared": 1, "empty": 1, "active": 2}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "vera", "rank": 0}, "rank is 0"),
        ({"method": "vera", "rank": 10**9}, "rank is 1000000000"),
        ({"method": "vera", "seed": -1}, "seed is -1"),
        ({"method": "vera", "layers": ["nothing"]}, "matches nothing"),
        ({"method": "dora", "rank": 0}, "rank is 0"),
        ({"method": "dora", "norm": "both"}, "norm is 'both'"),
        ({"method": "dora", "alpha": 0}, "alpha is 0"),
        ({"method": "vora", "quadratic_rank": 0}, "quadratic_rank is 0"),
        ({"method": "vora", "layers": ["layers.1", "layers.3"]}, "vora needs linear layers"),
        ({"method": "mor", "layers": ["layers.1"]}, "mor needs linear layers"),
        ({"method": "mor", "rank": 4, "shared": 4}, "leaves none of 4 ranks"),
        ({"method": "mor", "rank": 4, "active": 5}, "active is 5, and there are 4"),
        ({"method": "mor", "rnak": 3}, "did you mean 'rank'"),
    ],
)
def test_settings_are_checked(network, settings, words):
    with pytest.raises(AdapterError, match=words):
        create_adapter(network, settings)


def test_other_padding_is_refused():
    network = Bare(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(AdapterError, match=r"layers\.0 pads by reflect"):
        create_adapter(network, {"method": "vora"})


@pytest.mark.parametrize("method", ["mor", "vora"])
@pytest.mark.parametrize("backbone", ["ipt", "edt"])
def test_branches_on_networks_of_tokens(backbone, method, tmp_path):
    """They are built, trained by two steps, stored, and say that weights cannot hold them."""
    model = write_network(tmp_path / "base.safetensors", backbone, BACKBONES[backbone].example)
    torch.manual_seed(0)
    adapter = create_adapter(network_of(model), {"method": method})
    adapted = attach(network_of(model), adapter).train()
    x, wanted = random_images(1, 16, 16), random_images(1, 16, 16).flip(3)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(3):
        loss = (adapted(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]
    untouched = [name for name, p in adapter.named_parameters() if not p.grad.abs().sum() > 0]
    assert not untouched
    write_adapter(
        tmp_path / "mine.safetensors", tensors_of(adapter), header_of(adapter, model), "float32"
    )
    stored = read_adapter(tmp_path / "mine.safetensors")
    again = attach(network_of(model), load_adapter(network_of(model), stored)).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x), adapted.eval()(x), rtol=0, atol=0)
    with pytest.raises(AdapterError, match="weights cannot hold"):
        again.merge()
    with pytest.raises(AdapterError, match="weights cannot hold"):
        fold(model, [(stored, 1.0)])


def test_squares_that_leave_the_range_of_numbers_are_refused(tmp_path):
    """Between Restormer's levels no norm stands: squares are squared again."""
    model = write_network(
        tmp_path / "base.safetensors", "restormer", BACKBONES["restormer"].example
    )
    write_random(tmp_path / "wild.safetensors", model, method="vora", size=30.0)
    picture = random_images(1, 24, 24)[0].permute(1, 2, 0).numpy()
    options = {"engine": "torch", "device": "cpu"}
    wild = Restorer(model.path, adapters=[tmp_path / "wild.safetensors"], **options)
    with pytest.raises(EngineError, match=r"NaN or infinite values.*adapters at a lesser strength"):
        wild.restore(picture)
    tame = Restorer(model.path, adapters=[(tmp_path / "wild.safetensors", 1e-9)], **options)
    assert np.isfinite(tame.restore(picture)).all()
