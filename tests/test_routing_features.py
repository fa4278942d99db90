"""A router that reads a frozen network's features: what it reads, how it learns, how it runs."""

import signal

import numpy as np
import pytest
import torch
from test_routing_training import TINY, make_pack
from world import NATIVE, write_tiny_model

from urushi.backbones import create_backbone
from urushi.convert.router_graph import export_router
from urushi.errors import AdapterError, FileFormatError, RecipeError
from urushi.files.model import read_model
from urushi.files.router_file import FeatureFacts, RouterHeader, read_router
from urushi.inference.router_engine import open_router
from urushi.inference.zoo import find_model
from urushi.routing.features import FeatureEncoder
from urushi.routing.router import load_router
from urushi.settings import parse_settings
from urushi.training.router.router_recipe import FeatureSettings, RouterRecipe
from urushi.training.router.router_training import RouterData, build_router, train_router

CONFIG = {"width": 4, "enc_blk_nums": [0, 1], "middle_blk_num": 4, "dec_blk_nums": [1, 0]}


def network(seed=0):
    torch.manual_seed(seed)
    made = create_backbone("nafnet", CONFIG).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(("beta", "gamma")):
                parameter.normal_()
    return made


def encoder(middle=3, places=None, **changes):
    state, config = network().state_dict(), {**CONFIG, **changes}
    return FeatureEncoder.of_network(config, state, middle=middle, width=8, places=places)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("train", "validation")]
    return RouterData(*(make_pack(folder, seed) for seed, folder in enumerate(folders)))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("base") / "tiny.safetensors")


def recipe(base, places=None, **changes):
    settings = {"kind": "features", "base": str(base), "middle": 1, "width": 8, "pictures": 30,
                "batch": 8, "dropout": 0.1, "places": places}  # fmt: skip
    content = {**TINY, "steps": 30, "encoder": settings, **changes}
    return parse_settings(content, RouterRecipe, RecipeError, "test")


# --- the encoder ---


def test_it_reads_the_features_that_the_network_has():
    views = torch.rand(2, 3, 16, 16)
    whole, seen = network(), {}
    names = {"encoders.0": 0, "encoders.1": 1, "middle_blks.0": 2, "middle_blks.2": 3}
    for name, index in names.items():
        module = whole.get_submodule(name)
        module.register_forward_hook(lambda _m, _i, out, index=index: seen.update({index: out}))
    with torch.no_grad():
        whole(views)
    rows = encoder().read(views).statistics
    expected = []
    for index in range(4):
        expected += [seen[index].mean((2, 3)), (seen[index].var((2, 3), False) + 1e-4).log()]
    # Two numbers of blockiness and six of colours come first.
    torch.testing.assert_close(rows[:, 8:], torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows[:, 2:5], views.mean((2, 3)))
    assert rows.shape[1] == encoder().numbers
    # Place by place: the features of the last block.
    made = encoder(places=5)
    reading = made.read(views)
    torch.testing.assert_close(reading.statistics, rows)
    torch.testing.assert_close(reading.places, seen[3].flatten(2))


def test_one_place_that_stands_out_is_told():
    torch.manual_seed(0)
    made = encoder(places=5).eval()
    reading = made.read(torch.rand(1, 3, 16, 16))
    other = reading.places.clone()
    other[:, :, 3] += 20 * torch.randn(other.shape[1])
    with torch.no_grad():
        changed = made.embedded(reading._replace(places=other)) - made.embedded(reading)
        # Which place it is does not matter.
        turned = made.embedded(reading._replace(places=other.roll(1, -1)))
    assert changed.abs().max() > 0.01
    torch.testing.assert_close(turned, made.embedded(reading._replace(places=other)))


def test_the_projection_alone_is_trained_and_strange_pictures_go_no_farther():
    made = encoder()
    assert [n for n, p in made.named_parameters() if p.requires_grad] == [
        "project.weight",
        "project.bias",
    ]
    torch.manual_seed(0)
    reading = made.read(torch.rand(40, 3, 16, 16))
    made.standardise(reading.statistics)
    torch.nn.init.eye_(made.project.weight)
    torch.nn.init.zeros_(made.project.bias)
    with torch.no_grad():
        assert made.embedded(reading).mean(0).abs().max() < 0.05
        far = made.embedded(reading._replace(statistics=1e6 * reading.statistics))
    assert far.abs().max() == 5
    assert not made.train().training


def test_the_shipped_base_makes_a_small_router():
    model = read_model(find_model("base"))
    state = {name: torch.tensor(tensor) for name, tensor in model.tensors.items()}
    own = FeatureSettings()
    made = FeatureEncoder.of_network(
        model.header.config, state, middle=own.middle, width=own.width, places=128
    )
    assert sum(p.numel() for p in made.parameters()) < 2_000_000


def test_networks_that_cannot_be_read_are_refused():
    with pytest.raises(AdapterError, match="9 middle blocks of a network with 4"):
        encoder(middle=9)
    state = create_backbone("nafnet", {**CONFIG, "img_channel": 1}).state_dict()
    with pytest.raises(AdapterError, match="grey pictures"):
        FeatureEncoder.of_network(CONFIG, state, middle=1, width=8)
    with pytest.raises(FileFormatError, match="nowhere"):
        build_router(recipe("nowhere"))


# --- its training ---


@pytest.mark.parametrize("places", [None, 6])
def test_it_learns_and_its_file_runs_without_torch(data, base, tmp_path, places):
    own = recipe(base, places, steps=120, optimizer={"learning_rate": 1e-2})
    result = train_router(own, data, tmp_path / "run", device="cpu")
    assert result.header.scores["validation"]["accuracy"] > 0.6
    stored = read_router(result.path)
    facts = FeatureFacts(channels=4, levels=[1, 1], middle=1, width=8, places=places)
    assert stored.header.encoder == facts
    export_router(result.path)
    picture = np.random.default_rng(0).random((50, 37, 3), dtype=np.float32)
    fast, plain = (open_router(result.path, engine=name) for name in ("openvino", "torch"))
    np.testing.assert_allclose(
        fast.read(picture).logits, plain.read(picture).logits, rtol=1e-3, atol=1e-4
    )
    assert load_router(stored).encoder.facts == stored.header.encoder


@pytest.mark.parametrize("stop", ["pictures", "steps"])
@pytest.mark.parametrize("places", [None, 6])
def test_a_resumed_training_ends_where_an_unbroken_one_does(data, base, tmp_path, stop, places):
    whole = train_router(recipe(base, places), data, tmp_path / "whole", device="cpu")

    def interrupt(*_told):
        signal.raise_signal(signal.SIGINT)

    told = {"on_pictures" if stop == "pictures" else "on_progress": interrupt}
    own = recipe(base, places, validation={"per_class": 4, "every": 10})
    first = train_router(own, data, tmp_path / "parts", device="cpu", **told)
    assert not first.finished
    assert first.step == (0 if stop == "pictures" else 1)
    files = sorted((tmp_path / "parts").rglob("statistics-*/*.safetensors"))
    written = [path.stat().st_mtime_ns for path in files]
    second = train_router(recipe(base, places), data, tmp_path / "parts", device="cpu", resume=True)
    assert second.header.tensors_hash == whole.header.tensors_hash
    assert [path.stat().st_mtime_ns for path in files] == written


def test_other_pictures_are_read_anew(data, base, tmp_path):
    train_router(recipe(base, steps=1), data, tmp_path, device="cpu")
    before = len(list(tmp_path.glob("statistics-*")))
    changed = {**TINY["classes"], "noise": {"degradation": {"name": "gaussian_noise"}}}
    other = recipe(base, steps=1, classes=changed)
    for checkpoint in tmp_path.glob("checkpoints/*"):
        checkpoint.unlink()
    train_router(other, data, tmp_path, device="cpu", resume=True)
    assert len(list(tmp_path.glob("statistics-*"))) == 2 * before


def test_headers_say_what_they_need():
    facts = encoder().facts.model_dump()
    with pytest.raises(ValueError, match="middle"):
        RouterHeader(classes=("a",), views=NATIVE, encoder={**facts, "middle": 0})
