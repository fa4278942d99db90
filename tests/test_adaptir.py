"""AdaptIR against numbers measured from the authors' code, and in every layout."""

import pytest
import torch
from networks import TokenNet, below, random_images, read_golden, shaken_adapter
from torch import nn
from torch.nn import functional as F

from urushi.adapters import attach, create_adapter
from urushi.adapters.adaptir import AdaptIR, AdaptIRBranch, AdaptIRSettings
from urushi.adapters.layouts import from_map, grid_of, to_map
from urushi.backbones import FeedForwardSite, RestorationNetwork, Sites

NAMES = {
    "head": "down",
    "BN": "norm",
    "conv_weight_A": "local.left",
    "conv_weight_B": "local.right",
    "conv_bias": "local.bias",
    "amp_fuse": "frequency.amplitude",
    "pha_fuse": "frequency.phase",
    "compress": "channel.mask",
    "proj": "channel.layers",
    "channel_interaction.1": "channel_gate.0",
    "channel_interaction.3": "channel_gate.2",
    "spatial_interaction": "spatial_gate",
    "tail": "up",
}
IPT = {"reduction": 24, "gate_reduction": 8}
EDT = {"reduction": 14, "gate_reduction": 4}


ALL = ("local", "frequency", "channel")


def branch_of(state, width, **config):
    """The branch with the authors' tensors."""
    branch = AdaptIRBranch(width, AdaptIRSettings(**config))
    own = branch.state_dict()
    renamed = {}
    for name, tensor in state.items():
        if name == "BN.num_batches_tracked":
            continue
        old = max((n for n in NAMES if name == n or name.startswith(f"{n}.")), key=len)
        new = NAMES[old] + name.removeprefix(old)
        renamed[new] = tensor.reshape(own[new].shape)
    branch.load_state_dict(renamed)
    return branch.eval()


def assert_close(result, expected, tolerance=1e-4):
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= tolerance * expected.std()


@pytest.mark.parametrize(
    ("name", "layout", "settings"),
    [
        ("adaptir_ipt", "lbc", IPT),
        ("adaptir_ipt_even", "lbc", IPT),
        ("adaptir_edt", "bhwc", EDT),
        ("adaptir_edt_even", "bhwc", EDT),
    ],
)
@torch.inference_mode()
def test_equals_the_authors_adapter(name, layout, settings):
    tensors, config = read_golden(name)
    x, state = tensors["input"], below(tensors, "state.")
    branch = branch_of(state, config["d_model"], **settings)
    site = FeedForwardSite("norm", (), "output", None, config["d_model"], layout)
    grid = grid_of(x, site, None)
    assert list(grid) == config["grid"]
    maps = to_map(x, layout, grid)
    assert_close(from_map(branch(maps), layout), tensors["output"])
    wide = branch.double()(maps.double())
    assert_close(from_map(wide, layout).float(), tensors["output"], 1e-5)
    if "output_alt_pha_bias" in tensors:
        state = {**state, "pha_fuse.bias": tensors["alt.pha_fuse.bias"]}
        branch = branch_of(state, config["d_model"], **settings)
        assert_close(from_map(branch(maps), layout), tensors["output_alt_pha_bias"])


class Layers(RestorationNetwork):
    """IPT's encoder layer and decoder layer on a map of tokens, without the adapters in them."""

    size_multiple = 1

    def __init__(self, width, heads, hidden, query):
        super().__init__()
        self.width, self.heads = width, heads
        self.encoder_layer = self.layer(hidden, norms=2)
        self.decoder_layer = self.layer(hidden, norms=3)
        self.register_buffer("query", query)

    def layer(self, hidden, norms):
        c = self.width
        parts = {f"norm{index}": nn.LayerNorm(c) for index in range(1, norms + 1)}
        for name in ("self_attn", "multihead_attn")[: norms - 1]:
            parts[name] = nn.ModuleDict({"out_proj": nn.Linear(c, c, bias=False)})
            parts[name].register_parameter("in_proj_weight", nn.Parameter(torch.empty(3 * c, c)))
        parts["linear1"], parts["linear2"] = nn.Linear(c, hidden), nn.Linear(hidden, c)
        return nn.ModuleDict(parts)

    def attend(self, part, *inputs):
        heads = []
        for x, weight in zip(inputs, part.in_proj_weight.chunk(3), strict=True):
            heads.append((x @ weight.T).unflatten(2, (self.heads, -1)).permute(1, 2, 0, 3))
        mixed = F.scaled_dot_product_attention(*heads)
        return part["out_proj"](mixed.permute(2, 0, 1, 3).flatten(2))

    def forward(self, x):
        e, d, query = self.encoder_layer, self.decoder_layer, self.query
        u = to_tokens(x)
        z = e["norm1"](u)
        u = u + self.attend(e["self_attn"], z, z, z)
        memory = u + e["linear2"](e["linear1"](e["norm2"](u)).relu())
        u = to_tokens(x)
        z = d["norm1"](u)
        u = u + self.attend(d["self_attn"], z + query, z + query, z)
        z = d["norm2"](u)
        u = u + self.attend(d["multihead_attn"], z + query, memory, memory)
        u = u + d["linear2"](d["linear1"](d["norm3"](u)).relu())
        return from_tokens(u, x.shape)

    @property
    def sites(self):
        return Sites(
            tuple(
                FeedForwardSite(
                    f"{layer}.{norm}",
                    (f"{layer}.linear1", f"{layer}.linear2"),
                    f"{layer}.linear2",
                    None,
                    self.width,
                    "lbc",
                    (7, 7),
                )
                for layer, norm in (("encoder_layer", "norm2"), ("decoder_layer", "norm3"))
            ),
            (),
            (),
            (),
        )


def to_tokens(maps):
    return maps.flatten(2).permute(2, 0, 1)


def from_tokens(tokens, shape):
    return tokens.permute(1, 2, 0).reshape(shape)


@torch.inference_mode()
def test_equals_the_authors_layers():
    tensors, config = read_golden("adaptir_ipt_block")
    width = config["d_model"]
    network = Layers(width, config["nhead"], config["dim_feedforward"], tensors["query_pos"])
    state = below(tensors, "state.")
    plain = {name: tensor for name, tensor in state.items() if ".adaptir." not in name}
    network.load_state_dict({**plain, "query": tensors["query_pos"]})
    adapter = create_adapter(network, {"method": "adaptir", **IPT})
    assert isinstance(adapter, AdaptIR)
    for layer in ("encoder_layer", "decoder_layer"):
        own = branch_of(below(state, f"{layer}.adaptir."), width, **IPT)
        adapter.branches[f"{layer}/linear2"].load_state_dict(own.state_dict())
    x = from_tokens(tensors["input"], (2, width, 7, 7))
    assert_close(to_tokens(attach(network, adapter).eval()(x)), tensors["output"])


@pytest.mark.parametrize(
    ("width", "settings", "trained", "buffers"), [(576, IPT, 29_069, 48), (180, EDT, 4_817, 24)]
)
def test_counts_of_the_paper(width, settings, trained, buffers):
    branch = AdaptIRBranch(width, AdaptIRSettings(**settings))
    assert sum(p.numel() for p in branch.parameters()) == trained
    assert sum(b.numel() for b in branch.buffers()) == buffers


def test_the_papers_formula():
    """2dh + (hr + rK^2) + 2h + (h + 2h^2/a) + (h + 2h^2/b), biases omitted; b is 8."""
    d, h, r, a, b, k = 576, 24, 12, 2, 8, 3
    count = 2 * d * h + h * r + r * k**2 + 2 * h + h + 2 * h * h // a + h + 2 * h * h // b
    branch = AdaptIRBranch(d, AdaptIRSettings(variant="paper"))
    biases = sum(p.numel() for n, p in branch.named_parameters() if n.endswith("bias"))
    scale = h  # its gains: eq. 4 has them, the formula does not count them
    assert sum(p.numel() for p in branch.parameters()) - biases - scale == count == 28_860


def test_variants_differ_where_they_are_said_to():
    torch.manual_seed(0)
    released = AdaptIRBranch(48, AdaptIRSettings())
    paper = AdaptIRBranch(48, AdaptIRSettings(variant="paper"))
    only = set(released.state_dict()) ^ set(paper.state_dict())
    assert only == {
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "local.bias",
        "frequency.scale.weight",
        "frequency.scale.bias",
    }
    mixed = AdaptIRSettings(variant="paper", batch_norm=True, up_bias=True).resolved()
    assert mixed.batch_norm
    assert not mixed.rectify
    assert mixed.fft_norm == "forward"
    assert "up.bias" in AdaptIRBranch(48, mixed).state_dict()


@pytest.mark.parametrize("norm", ["ortho", "forward", "backward"])
@torch.no_grad()
def test_the_frequency_branch_begins_as_the_identity_or_its_amount(norm):
    x = torch.randn(2, 8, 7, 10)
    for rectify in (True, False):
        config = AdaptIRSettings(variant="paper", fft_norm=norm, rectify=rectify)
        result = AdaptIRBranch(48, config).frequency(x)
        torch.testing.assert_close(result, x.abs() if rectify else x, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_gates():
    """Straight gates are crossed ones with the branches exchanged in what they multiply."""
    torch.manual_seed(0)
    results = []
    x = torch.randn(1, 48, 6, 7)
    for gates in ("crossed", "straight"):
        branch = AdaptIRBranch(48, AdaptIRSettings(gates=gates)).eval()
        torch.manual_seed(1)
        for parameter in branch.parameters():
            nn.init.normal_(parameter)
        inner = branch.norm(branch.down(x), False)
        local, spread = branch.local(inner), branch.frequency(inner)
        channel = branch.channel_gate(spread.mean((2, 3), keepdim=True)).sigmoid()
        spatial = branch.spatial_gate(local).sigmoid()
        first, second = (channel, spatial) if gates == "crossed" else (spatial, channel)
        expected = branch.up(branch.channel(inner) * (first * local + second * spread))
        results.append(branch(x))
        torch.testing.assert_close(results[-1], expected)
    assert not torch.allclose(*results)


def test_only_the_last_layer_learns_at_first():
    branch = AdaptIRBranch(48, AdaptIRSettings())
    (branch(torch.randn(2, 48, 5, 6)) * torch.randn(2, 48, 5, 6)).sum().backward()
    assert {n for n, p in branch.named_parameters() if p.grad.abs().max() > 0} == {"up.weight"}


class OneBranch(RestorationNetwork):
    """A feed-forward branch of nothing but its norm and a zero output, in one layout."""

    size_multiple = 1

    def __init__(self, layout):
        super().__init__()
        self.layout, self.norm, self.output = layout, nn.Identity(), nn.Identity()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        y = from_map(x, self.layout)
        return to_map(self.output(self.weight * self.norm(y)), self.layout, tuple(x.shape[2:]))

    @property
    def sites(self):
        return Sites((FeedForwardSite("norm", (), "output", None, 12, self.layout),), (), (), ())


@pytest.mark.parametrize("method", ["adaptir", "adaptformer", "houlsby", "moe"])
@torch.no_grad()
def test_layouts_give_the_same(method):
    x = torch.randn(2, 12, 6, 9)
    results = []
    for layout in ("bchw", "bhwc", "blc", "lbc"):
        backbone = OneBranch(layout)
        adapter = shaken_adapter(backbone, method=method, hidden=4)
        results.append(attach(backbone, adapter).eval()(x))
        torch.testing.assert_close(results[-1], results[0])
    assert results[0].abs().max() > 1e-3


@torch.no_grad()
def test_tokens_of_a_picture_that_is_no_square():
    """They take the proportions of the padded picture; a site that states its grid knows better."""
    site = FeedForwardSite("norm", (), "output", None, 8, "blc")
    assert grid_of(torch.zeros(1, 6, 8), site, (8, 12)) == (2, 3)
    assert grid_of(torch.zeros(1, 96, 8), site, (8, 12)) == (8, 12)
    assert grid_of(torch.zeros(1, 16, 8), site, (8, 12)) == (4, 4)
    assert grid_of(torch.zeros(1, 16, 8), site, None) == (4, 4)
    stated = FeedForwardSite("norm", (), "output", None, 8, "lbc", (8, 2))
    assert grid_of(torch.zeros(16, 1, 8), stated, (4, 4)) == (8, 2)
    backbone = TokenNet()
    adapted = attach(backbone, shaken_adapter(backbone, method="adaptir", hidden=4)).eval()
    assert adapted(random_images(1, 9, 21)).shape == (1, 3, 9, 21)


def test_running_statistics_are_stored_and_used():
    backbone = TokenNet()
    adapter = shaken_adapter(backbone, method="adaptir", hidden=4)
    adapted, x = attach(backbone, adapter), random_images(2, 16, 12)
    before = {n: b.clone() for n, b in adapter.named_buffers()}
    assert len(before) == 4
    adapted.train()(x)
    after = dict(adapter.named_buffers())
    assert all(not torch.equal(before[n], after[n]) for n in before)
    assert set(before) < set(adapter.state_dict())
    adapted.eval()
    with torch.no_grad():
        both = adapted(x)
        torch.testing.assert_close(adapted(x[:1]), both[:1])


def test_gradients_where_an_amplitude_is_negative():
    branch = AdaptIRBranch(48, AdaptIRSettings(hidden=2, rectify=False)).double().frequency
    with torch.no_grad():
        branch.amplitude.weight.fill_(-0.5)
        branch.phase.weight.fill_(0.9)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(branch, (x,))


def test_a_branch_can_be_left_out():
    x = torch.randn(2, 48, 6, 7)
    whole = AdaptIRBranch(48, AdaptIRSettings())
    assert (
        whole.state_dict().keys()
        == AdaptIRBranch(48, AdaptIRSettings(branches=list(ALL))).state_dict().keys()
    )
    for missing in ALL:
        kept = [name for name in ALL if name != missing]
        branch = AdaptIRBranch(48, AdaptIRSettings(branches=kept)).eval()
        assert not any(name.startswith(f"{missing}.") for name in branch.state_dict())
        # Gates are made by one branch for the other.
        gated = any("_gate" in name for name in branch.state_dict())
        assert gated == (missing == "channel")
        assert not branch(x).any()
        torch.nn.init.normal_(branch.up.weight)
        assert branch(x).std() > 0
    frequency = AdaptIRBranch(48, AdaptIRSettings(branches=["frequency"], batch_norm=False)).eval()
    torch.nn.init.normal_(frequency.up.weight)
    expected = frequency.up(frequency.frequency(frequency.down(x)))
    assert torch.allclose(frequency(x), expected)


@pytest.mark.parametrize("branches", [[], ["channel"], ["local", "local"], ["spatial"]])
def test_a_choice_without_a_branch_is_refused(branches):
    with pytest.raises(ValueError, match=r"branches"):
        AdaptIRSettings(branches=branches)
