"""Adapters in weights: what numpy does with a file is what torch does with a network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from world import network_of, random_adapter, write_random, write_tiny

from urushi.adapters import METHODS, attach
from urushi.adapters.fold import fold, folded_deltas, is_foldable
from urushi.adapters.low_rank_formula import LowRankSettings, product_scale, scale_of
from urushi.adapters.stored import header_of, load_adapter, tensors_of
from urushi.errors import AdapterError
from urushi.files.adapter import LoadedAdapter
from urushi.files.model import LoadedModel, read_model, weights_hash

LAYERS = ["intro", "encoders.0.0.conv1", "encoders.0.0.conv2", "downs.0", "ups.0.0"]
LOW_RANK = [
    {"rank": 3},
    {"rank": 2, "alpha": 5.0},
    {"rank": 0, "ranks": dict(zip(LAYERS, (1, 2, 3, 4, 2), strict=True)), "alpha": 3.0},
    {"rank": 2, "alpha": 3.0, "scaling": "alpha/sqrt(r)"},
    {"rank": 2, "alpha": 0.5, "scaling": "alpha"},
    {"rank": 2, "alpha": 4.0, "layout": "loralib"},
    {"rank": 1, "layers": ["intro"], "dense": ["ending"], "tune": ["bias", "norm", "scale"]},
]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> LoadedModel:
    return read_model(write_tiny(tmp_path_factory.mktemp("base") / "base.safetensors"))


@pytest.fixture
def mine(base, tmp_path) -> LoadedAdapter:
    facts = {"description": "Rain.", "degradations": ["rain"], "licence": "MIT", "data": "Mine."}
    return write_random(tmp_path / "mine.safetensors", base, facts)


def stored(adapter, model: LoadedModel, name: str = "mine") -> LoadedAdapter:
    return LoadedAdapter(
        header_of(adapter, model), tensors_of(adapter), Path(f"{name}.safetensors")
    )


def assert_folds_like_torch(model, *adapters, strengths=(1.0, 1.0)):
    for adapter, strength in zip(adapters, strengths, strict=False):
        adapter.strength = strength
    pairs = [(stored(a, model), a.strength) for a in adapters]
    folded = fold(model, pairs)
    merged = attach(network_of(model), *adapters).merge().state_dict()
    assert folded.tensors.keys() == merged.keys()
    for name, expected in merged.items():
        np.testing.assert_allclose(folded.tensors[name], expected.numpy(), rtol=1e-5, atol=1e-6)
        assert folded.tensors[name].dtype == np.float32
    return folded


def foldable_methods():
    return [name for name, method in METHODS.items() if method.mergeable]


@pytest.mark.parametrize("method", foldable_methods())
def test_every_method_folds_as_torch_merges(base, method):
    adapter = random_adapter(base, method=method)
    folded = assert_folds_like_torch(base, adapter)
    changed = [n for n, t in folded.tensors.items() if not np.array_equal(t, base.tensors[n])]
    assert bool(changed) == (method != "frozen")
    assert_folds_like_torch(base, adapter, strengths=(-0.5,))


@pytest.mark.parametrize("config", LOW_RANK, ids=str)
def test_every_kind_of_low_rank_folds_as_torch_merges(base, config):
    assert_folds_like_torch(base, random_adapter(base, **config))


def test_several_add_up_with_their_strengths(base):
    first, second = random_adapter(base), random_adapter(base, method="ssf")
    assert_folds_like_torch(base, first, second, strengths=(0.5, 1.5))


def test_strength_zero_and_no_adapters_leave_the_base(base, mine):
    assert fold(base, []) is base
    folded = fold(base, [(mine, 0.0)])
    for name, tensor in base.tensors.items():
        np.testing.assert_array_equal(folded.tensors[name], tensor)


def test_what_is_folded_says_so(base, mine):
    folded = fold(base, [(mine, 1), (mine, 0.25)])
    assert folded.folded == ("mine.safetensors", "mine.safetensors:0.25")
    assert folded.header.weights_hash == weights_hash(folded.tensors) != base.header.weights_hash
    assert (folded.path, folded.graph) == (base.path, base.graph)
    assert folded.header.description == "Rain. (with mine.safetensors and mine.safetensors:0.25)"
    assert (folded.header.degradations, folded.header.scores) == (["rain"], {})
    assert (folded.header.licence, folded.header.data) == ("MIT", "Mine.")
    assert base.folded == ()
    np.testing.assert_array_equal(
        base.tensors["intro.weight"], read_model(base.path).tensors["intro.weight"]
    )


def test_torch_and_mending_share_the_scale():
    for scaling in ("alpha/r", "alpha/sqrt(r)", "alpha"):
        settings = LowRankSettings(scaling=scaling, alpha=6.0)
        assert scale_of(settings, 4) == product_scale(scaling, 6.0, 4)
    assert product_scale("alpha/r", None, 4) == product_scale("alpha", None, 4) == 1
    assert [product_scale(s, 6.0, 4) for s in ("alpha/r", "alpha/sqrt(r)", "alpha")] == [1.5, 3, 6]


def test_what_cannot_be_folded_says_so(base, mine):
    branch = replace(mine, header=mine.header.model_copy(update={"method": "adaptir"}))
    assert is_foldable(mine)
    assert not is_foldable(branch)
    with pytest.raises(AdapterError, match=r"'adaptir'.*weights cannot hold.*engine torch"):
        fold(base, [(branch, 1)])
    with pytest.raises(AdapterError, match="strength is nan"):
        fold(base, [(mine, float("nan"))])
    with pytest.raises(AdapterError, match="too large: choose a smaller strength"):
        fold(base, [(mine, 1e200)])


def without(name):
    return lambda tensors: {k: t for k, t in tensors.items() if k != name}


def with_one(name, shape=(1, 1), dtype=np.float32):
    return lambda tensors: {**tensors, name: np.zeros(shape, dtype)}


INTRO = "intro/weight"


@pytest.mark.parametrize(
    ("method", "change", "words"),
    [
        ("lora", without(f"up.{INTRO}"), "one of the two factors for 'intro.weight' is missing"),
        ("lora", without(f"down.{INTRO}"), "one of the two factors"),
        ("lora", with_one("gain.intro"), "unknown tensor 'gain.intro'"),
        ("lora", with_one("down"), "unknown tensor 'down'"),
        ("lora", with_one("down.intro.weight"), "unknown tensor"),
        ("lora", with_one(f"down.{INTRO}", (3, 27)), "do not make 'intro.weight'"),
        ("lora", with_one(f"up.{INTRO}", (2, 4)), "do not make 'intro.weight'"),
        ("lora", with_one(f"up.{INTRO}", (4, 2, 1)), "factors of shape"),
        ("lora", with_one(f"up.{INTRO}", (4, 2), np.int64), "unknown tensor"),
        ("lora", with_one(f"value.{INTRO}", (4, 3, 3, 3)), "factors and a whole delta"),
        ("lora", with_one("value.nothing/bias", (4,)), "which its base does not have"),
        ("lora", with_one("value.intro/bias", (5,)), "by the shape"),
        ("loralib", with_one(f"up.{INTRO}", (5, 6)), "do not make 'intro.weight'"),
        ("loralib", with_one(f"down.{INTRO}", (1, 9)), "do not make 'intro.weight'"),
        ("ssf", without("gain.intro"), "an offset of 'intro' without a gain"),
        ("ssf", without("shift.intro"), "the offset of 'intro' is missing"),
        ("ssf", with_one("gain.intro", (5,)), "a gain of shape"),
        ("ssf", with_one("shift.intro", (5,)), "an offset of shape"),
        ("ssf", with_one("gain.nothing", (5,)), "for 'nothing'"),
        ("bitfit", with_one("down.intro/bias", (4,)), "unknown tensor"),
        ("fact", with_one("core.encoders/0/0/conv5/weight", (3, 1, 16, 16)), "without factors"),
        ("fact", with_one("core.encoders/0/0/conv5/weight", (4, 4)), "a core of shape"),
        ("fact", with_one("rows.4", (4, 3)), "factors of shape"),
        ("fact", without("columns.4"), "without factors"),
    ],
)  # fmt: skip
def test_unsound_adapters_are_refused(base, method, change, words):
    config = {"layout": "loralib"} if method == "loralib" else {}
    config |= {"rank": 2} if "lora" in method else {"method": method}
    good = stored(random_adapter(base, **config), base)
    bad = replace(good, tensors=change(dict(good.tensors)))
    with pytest.raises(AdapterError, match=words) as refused:
        folded_deltas(bad, base.tensors)
    assert "mine.safetensors: not a sound adapter" in str(refused.value)
    folded_deltas(good, base.tensors)
    kinds = {tensor.dtype for tensor in bad.tensors.values()}
    if method != "loralib" and kinds == {np.dtype("float32")}:  # as where torch attaches it
        with pytest.raises(AdapterError, match=r"mine\.safetensors"):
            load_adapter(network_of(base), bad)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"alpha": -1}, "alpha"), ({"alpha": "x" * 500}, "alpha"), ({"layout": "other"}, "layout")],
)
def test_settings_are_checked(base, mine, settings, words):
    header = mine.header.model_copy(update={"config": {**mine.header.config, **settings}})
    with pytest.raises(AdapterError, match=words) as refused:
        fold(base, [(replace(mine, header=header), 1)])
    assert len(str(refused.value)) < 400


def test_a_file_says_all_settings_and_gives_the_adapter_back(base, tmp_path):
    adapter = random_adapter(base, rank=2, tune=["bias"])
    header = header_of(adapter, base, name="mine")
    assert header.config == adapter.config.model_dump(mode="json")
    assert header.config["scaling"] == "alpha/r"
    again = load_adapter(network_of(base), stored(adapter, base), 0.5)
    assert again.strength == 0.5
    for name, tensor in adapter.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), tensor.numpy())


@pytest.mark.parametrize("method", ["colora", "experts"])
def test_a_file_cannot_make_another_be_read(base, mine, method):
    named = {"method": "colora", "profile": "/etc/hostname"}
    inner = {"each": [named]} if method == "experts" else {"profile": named["profile"]}
    header = mine.header.model_copy(update={"method": method, "config": inner})
    with pytest.raises(AdapterError, match="name the profile '/etc/hostname'"):
        load_adapter(network_of(base), replace(mine, header=header))
