"""IPT against numbers measured from the authors' code, its heads, squares and adapters."""

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
from test_adaptir import branch_of

from urushi.adapters import attach, create_adapter
from urushi.adapters.context import Context
from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.ipt import IPT, DecoderLayer, EncoderLayer
from urushi.backbones.ipt_released import configuration_of, from_released, to_released
from urushi.backbones.network import mirrored
from urushi.backbones.released_networks import load_strictly
from urushi.errors import BackboneError

TINY = BACKBONES["ipt"].example
SIX = {"x2": 2, "x3": 3, "x4": 4, "derain": 1, "denoise30": 1, "denoise50": 1}
ADAPTIR = {"method": "adaptir", "hidden": 24}


def golden():
    """The golden's tensors, and those of the authors' network by the authors' names."""
    tensors, _ = read_golden("ipt")
    return tensors, below(tensors, "state.")


def from_golden(state, head):
    network = create_backbone("ipt", {**configuration_of(state), "num_heads": 4, "head": head})
    load_strictly(network, from_released(state), "golden")
    return network.eval()


def assert_close(result, expected):
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 1e-4 * expected.std()


def tiny(seed=0, **change):
    return shaken_network("ipt", {**TINY, **change}, seed)


@pytest.mark.parametrize(
    ("head", "output"), [("x2", "output_sr_x2"), ("restore", "output_denoise")]
)
@torch.inference_mode()
def test_equals_the_authors_network(head, output):
    tensors, state = golden()
    network = from_golden(state, head)
    assert network.scale == (2 if head == "x2" else 1)
    assert_close(255 * network(tensors["input"] / 255), tensors[output])


@torch.inference_mode()
def test_bfloat16_stays_near():
    tensors, state = golden()
    network = from_golden(state, "x2")
    with torch.autocast("cpu", torch.bfloat16):
        result = 255 * network(tensors["input"] / 255)
    error = (result - tensors["output"]).square().mean().sqrt()
    assert error < 0.05 * tensors["output"].std()


@torch.inference_mode()
def test_equals_the_authors_layers_with_adaptir():
    tensors, config = read_golden("adaptir_ipt_block")
    width, heads, hidden = (config[k] for k in ("d_model", "nhead", "dim_feedforward"))
    network = IPT(n_feats=12, patch_size=28, patch_dim=4, num_layers=1, num_heads=heads)
    state = below(tensors, "state.")
    layers = {"encoder": EncoderLayer, "decoder": DecoderLayer}
    plain = from_released({k: v for k, v in state.items() if ".adaptir." not in k})
    for part, layer in layers.items():
        own = layer(width, heads, hidden)
        own.load_state_dict(below(plain, f"{part}_layer."))
        network.body.get_submodule(part).layers[0] = own
    settings = {"hidden": width // 24, "gate_reduction": 8}
    adapter = create_adapter(network, {"method": "adaptir", **settings})
    for part in layers:
        branch = branch_of(below(state, f"{part}_layer.adaptir."), width, **settings)
        adapter.branches[f"body/{part}/layers/0/linear2"].load_state_dict(branch.state_dict())
    attach(network, adapter).eval()
    adapter.context = Context((28, 28))
    encoder, decoder = (network.body.get_submodule(part).layers[0] for part in layers)
    memory = encoder(tensors["input"])
    assert_close(memory, tensors["output_encoder"])
    # The golden's query is another one for each picture, ours the same for all.
    for index in range(2):
        only = slice(index, index + 1)
        query = tensors["query_pos"][:, only]
        result = decoder(tensors["input"][:, only], memory[:, only], query)
        assert_close(result, tensors["output"][:, only])


@pytest.mark.parametrize("head", SIX)
@torch.inference_mode()
def test_every_head_of_the_pre_trained_network(head):
    """All heads are in the state, whichever is in use; only that one and its query act."""
    network = tiny(heads=list(SIX), head=head)
    assert network.scale == SIX[head]
    result = network(random_images(2, 13, 19))
    assert result.shape == (2, 3, 13 * SIX[head], 19 * SIX[head])
    other = tiny(1, heads=list(SIX))
    state = other.state_dict()
    place = list(SIX).index(head)
    own = network.state_dict()
    for name in state:
        if name.startswith((f"head.{place}.", f"tail.{place}.")):
            state[name] = own[name]
        elif name == "body.query_embed.weight":
            state[name][place] = own[name][place]
        elif name.startswith("body."):
            state[name] = own[name]
    network.load_state_dict(state)
    assert torch.equal(network(random_images(2, 13, 19)), result)


@torch.inference_mode()
def test_squares_are_restored_one_by_one():
    network = tiny(heads=["x2"])
    side = network.fixed_patch
    assert side == network.size_multiple == 12
    whole = random_images(2, 2 * side, 3 * side)
    result = network(whole)
    for row in range(2):
        for column in range(3):
            square = whole[..., row * side :, column * side :][..., :side, :side]
            part = result[..., 2 * row * side :, 2 * column * side :][..., : 2 * side, : 2 * side]
            torch.testing.assert_close(network(square), part)


@pytest.mark.parametrize("size", [(1, 1), (5, 30), (25, 12)])
@torch.inference_mode()
def test_other_sizes_are_filled_up_by_mirroring(size):
    network, x = tiny(), random_images(1, *size)
    padded = mirrored(x, 12)
    assert padded.shape[2] % 12 == padded.shape[3] % 12 == 0
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    if size[0] == 5:
        assert torch.equal(padded[:, :, 5:10], padded[:, :, :5].flip(2))
        assert torch.equal(padded[:, :, 10:12], padded[:, :, :2])
    torch.testing.assert_close(network(x), network(padded)[..., : size[0], : size[1]])


def test_the_released_layout_comes_and_goes():
    _, state = golden()
    network = from_golden(state, None)
    again = to_released(network)
    assert again.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(again[name], tensor)
    # Old files may lack the constants.
    assert from_released(network.state_dict()).keys() == network.state_dict().keys()
    inner = IPT(**TINY)
    assert configuration_of(to_released(inner))["rgb_range"] == 1.0


@pytest.mark.parametrize("heads", [list(SIX), ["x4"], ["x3", "x2"]])
def test_sizes_are_read_off_the_tensors(heads):
    config = {"n_feats": 2, "patch_size": 8, "patch_dim": 2, "num_layers": 2, "heads": heads}
    network = IPT(**config, num_heads=2, num_queries=7)
    found = configuration_of(to_released(network))
    assert found == {**config, "num_queries": 7, "rgb_range": 255.0}
    assert configuration_of(network.state_dict()) == found


def test_heads_without_a_known_task_are_named_apart():
    network = IPT(n_feats=2, patch_size=6, num_layers=1, num_heads=2, heads=["a", "x2", "b", "c"])
    assert configuration_of(network.state_dict())["heads"] == [
        "restore",
        "x2",
        "restore2",
        "restore3",
    ]


def test_a_file_of_the_authors_layout_is_loaded(tmp_path):
    network = tiny()
    torch.save({"state_dict": to_released(network)}, tmp_path / "net.pth")
    again = load_released(tmp_path / "net.pth", "ipt", num_heads=3, heads=["denoise30"]).eval()
    with torch.inference_mode():
        assert torch.equal(again(random_images(1, 13, 19)), network(random_images(1, 13, 19)))


def test_released_files_that_are_no_ipt_are_refused():
    _, state = golden()
    with pytest.raises(BackboneError, match="not an IPT's"):
        configuration_of({"head.0.0.weight": torch.zeros(4, 3, 3, 3)})
    with pytest.raises(BackboneError, match=r"add_mean\.bias"):
        from_released({**state, "add_mean.bias": torch.ones(3)})
    with pytest.raises(BackboneError, match="num_heads is None"):
        create_backbone("ipt", configuration_of(state))


def test_released_counts():
    for heads, count, tensors in [
        (list(SIX), 118_892_394, 381),
        (["x3"], 115_645_083, 315),
        (["x4"], 115_608_155, 317),
        (["derain"], 115_312_731, 313),
    ]:
        with torch.device("meta"):
            network = IPT(heads=heads)
        # The constants of the released files: two shifts of 12 numbers, and position ids.
        assert parameters(network) + 24 == count
        assert len(network.state_dict()) + 5 == tensors


@pytest.fixture(scope="module")
def released():
    with torch.device("meta"):
        return IPT()


NORMS, LINEAR = ["body.*.norm?"], ["body.*.in_proj", "body.*.out_proj", "body.*.linear?"]


@pytest.mark.parametrize(
    ("config", "modules", "trained"),
    # AdaptIR's adapter, and the baselines of its tables with the sizes that give their counts.
    [
        (ADAPTIR, 24, 697_656),
        ({"method": "vpt", "tokens": 64}, 24, 884_736),
        (
            {"method": "houlsby", "hidden": 12, "sites": ["*.self_attn.out_proj", "*.linear2"]},
            48,
            691_776,
        ),
        ({"method": "lora", "rank": 12, "layers": ["*.in_proj"]}, 36, 995_328),
        ({"method": "lora", "rank": 18, "layers": ["*.self_attn.in_proj"]}, 24, 995_328),
        ({"method": "adaptformer", "hidden": 24}, 24, 677_952),
        ({"method": "ssf", "layers": NORMS + LINEAR, "offsets": "all"}, 60 + 120, 373_248),
        ({"method": "full"}, 376, 118_892_370),
    ],
    ids=lambda value: value["method"] if isinstance(value, dict) else None,
)
def test_counts_of_adaptirs_tables(released, config, modules, trained):
    with torch.device("meta"):
        adapted = attach(released, create_adapter(released, config))
    adapter = adapted.adapters[0]
    holders = {"vpt": "prompts", "lora": "down", "ssf": "gain", "full": "value"}
    holder = getattr(adapter, holders.get(config["method"], "branches"))
    try:
        assert len(holder) == modules
        assert adapted.report().trainable == trained
        assert adapted.report().backbone == 118_892_370
    finally:
        adapted.detach()


def test_adaptir_learns_from_squares():
    network = tiny(heads=["x2", "denoise30"], head="denoise30")
    adapted = attach(network, create_adapter(network, {**ADAPTIR, "hidden": 4})).train()
    x = random_images(2, 24, 12)
    optimizer = torch.optim.SGD(adapted.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = (adapted(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_feats": 0}, "n_feats 0"),
        ({"rgb_range": 0.0}, "rgb_range 0"),
        ({"patch_size": 13}, "no multiple of patch_dim 3"),
        ({"num_heads": 4}, "9 channels, which it must divide"),
        ({"num_heads": None}, "num_heads is None"),
        ({"heads": []}, "at least one"),
        ({"heads": ["x2", "x2"]}, "each name once"),
        ({"heads": ["x8"]}, "x2, x3 or x4"),
        ({"head": "derain"}, "this network has denoise30"),
        ({"heads": ["x2", "x3"], "num_queries": 1}, "at least as many"),
        ({"n_feat": 3}, "n_feat"),
    ],
)
def test_impossible_configurations_are_refused(change, words):
    with pytest.raises(BackboneError, match=words) as caught:
        create_backbone("ipt", {**TINY, **change})
    assert "\n" not in str(caught.value)
