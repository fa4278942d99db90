"""The format of Hugging Face PEFT: what `peft` itself makes of our adapters, and we of its."""

import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from safetensors.torch import load_file, save_file
from world import network_of, random_adapter, write_random, write_tiny

from urushi.adapters import attach
from urushi.adapters.fold import fold
from urushi.adapters.peft import CONFIG_NAME, TENSORS_NAME, read_peft, write_peft
from urushi.adapters.stored import header_of, load_adapter, tensors_of
from urushi.app.output import EXIT_FAILED, EXIT_WELL
from urushi.errors import AdapterError, FileFormatError
from urushi.files.adapter import LoadedAdapter, read_adapter, write_adapter
from urushi.files.model import LoadedModel, read_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

CONV = ["intro", "encoders.0.0.conv1", "encoders.0.0.sca.1", "downs.1", "ups.0.0", "ending"]
PLAIN = {"rank": 0, "ranks": dict.fromkeys(CONV, 2)}
MIXED = {"rank": 0, "ranks": dict(zip(CONV, (1, 2, 2, 3, 2, 4), strict=True))}
KINDS = [
    PLAIN,
    {**PLAIN, "alpha": 6.0},
    {**PLAIN, "alpha": 3.0, "scaling": "alpha/sqrt(r)"},
    MIXED,
    {**MIXED, "alpha": 5.0},
    {**MIXED, "alpha": 5.0, "scaling": "alpha/sqrt(r)"},
    {**MIXED, "alpha": 0.5, "scaling": "alpha"},
    {"rank": 2, "layers": ["*.conv1", "*.conv4"], "alpha": 2.0, "layout": "loralib"},
]


class Pair(torch.nn.Module):
    """A network with a linear layer, and names of which one ends with another."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(5, 4)
        self.b = torch.nn.Sequential()
        self.b.a = torch.nn.Linear(4, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LoadedModel:
    return read_model(write_tiny(tmp_path_factory.mktemp("base") / "base.safetensors"))


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(1, 3, 21, 18, generator=torch.Generator().manual_seed(0))


def stored(adapter, model) -> LoadedAdapter:
    return LoadedAdapter(header_of(adapter, model), tensors_of(adapter), Path("mine.safetensors"))


@torch.no_grad()
def by_peft(model: LoadedModel, folder: Path, picture: torch.Tensor) -> torch.Tensor:
    wrapped = peft.PeftModel.from_pretrained(network_of(model), str(folder))
    return wrapped.eval()(picture)


@torch.no_grad()
def by_us(model: LoadedModel, adapter, picture: torch.Tensor) -> torch.Tensor:
    return attach(network_of(model), adapter).eval()(picture)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_peft_gives_the_same_output(model, picture, tmp_path, config):
    adapter = random_adapter(model, size=0.2, **config)
    write_peft(stored(adapter, model), tmp_path / "peft")
    ours, plain = by_us(model, adapter, picture), network_of(model)(picture).detach()
    torch.testing.assert_close(by_peft(model, tmp_path / "peft", picture), ours, atol=1e-5, rtol=0)
    assert (ours - plain).abs().max() > 1e-2
    # And back again.
    tensors, header = read_peft(tmp_path / "peft", model)
    again = load_adapter(network_of(model), LoadedAdapter(header, tensors, tmp_path))
    torch.testing.assert_close(by_us(model, again, picture), ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"r": 2},
        {"r": 4, "lora_alpha": 3, "use_rslora": True},
        {"r": 2, "rank_pattern": {"conv1": 3}, "alpha_pattern": {"intro": 5, "0.conv1": 7}},
        {
            "r": 2,
            "rank_pattern": {"^intro": 3},
            "use_rslora": True,
            "alpha_pattern": {"downs.0": 9},
        },
        # A dot is any character there, unless it is escaped.
        {"r": 2, "alpha_pattern": {"conv.": 32}},
        {"r": 2, "alpha_pattern": {"encoders.0.0.conv.": 32, "downs.0$": 3}},
        {"r": 2, "alpha_pattern": {r"encoders\.0\.0\.conv1": 32, r"^.ntro": 5}},
        {"r": 2, "alpha_pattern": {"in.ro": 2, "0.conv.": 64, "conv.": 32}},
        {"r": 2, "init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_what_peft_trained_gives_the_same_here(model, picture, tmp_path, options):
    config = peft.LoraConfig(target_modules=["intro", "conv1", "conv5", "downs.0"], **options)
    wrapped = peft.get_peft_model(network_of(model), config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    wrapped.save_pretrained(str(tmp_path))
    expected = wrapped.eval()(picture).detach()
    result = run("import-peft", tmp_path, "-o", tmp_path / "mine.safetensors", "-m", model.path)
    assert result.exit_code == EXIT_WELL, result.stderr
    adapter = read_adapter(tmp_path / "mine.safetensors")
    assert adapter.header.base.name == "base"
    loaded = load_adapter(network_of(model), adapter)
    # Of the largest numbers, which an alpha of 64 makes large, float32 keeps seven digits.
    near = 1e-5 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(by_us(model, loaded, picture), expected, atol=near, rtol=0)
    folded = fold(model, [(adapter, 1)])
    output = network_of(folded)(picture).detach()
    torch.testing.assert_close(output, expected, atol=near, rtol=0)


def test_there_and_back_is_exact(model, tmp_path):
    for config in (PLAIN, MIXED, {**PLAIN, "alpha": 6.0}):
        adapter = random_adapter(model, **config)
        write_peft(stored(adapter, model), tmp_path)
        tensors, header = read_peft(tmp_path, model, description="Back.")
        assert header.description == "Back."
        assert (header.config["ranks"], header.config["rank"]) == (config["ranks"], 0)
        for name, tensor in tensors_of(adapter).items():
            np.testing.assert_array_equal(tensors[name], tensor)


def test_names_of_which_one_ends_with_another():
    from urushi.adapters.peft import _alpha, _targets, _with_pattern

    network = Pair()
    assert _targets(network, {"a": 1, "b.a": 2}) == ["a", "b.a"]
    assert _targets(network, {"b.a": 2}) == ["b.a"]
    regular = _targets(network, {"a": 1})
    assert regular == "a"
    config = peft.LoraConfig(target_modules=regular, r=1)
    names = [n for n, _ in peft.get_peft_model(Pair(), config).named_modules() if "lora_A." in n]
    assert names == ["base_model.model.a.lora_A.default"]
    default, pattern = _with_pattern({"a": 1, "b.a": 2, "c": 1})
    assert default == 1
    assert list(pattern) == ["b.a", "a", "c"]
    found = {name: _alpha({"alpha_pattern": pattern}, name, Path()) for name in ("a", "b.a")}
    assert found == {"a": 1, "b.a": 2}


def test_bfloat16_is_read(model, tmp_path):
    write_peft(stored(random_adapter(model, **PLAIN), model), tmp_path)
    path = tmp_path / TENSORS_NAME
    full = load_file(path)
    save_file({name: tensor.bfloat16() for name, tensor in full.items()}, path)
    tensors, _ = read_peft(tmp_path, model)
    expected = full["base_model.model.intro.lora_B.weight"].bfloat16().float()[:, :, 0, 0]
    np.testing.assert_array_equal(tensors["up.intro/weight"], expected.numpy())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"rank": 2}, "convolution in 8 groups.*leave such layers out"),
        ({**PLAIN, "tune": ["bias"]}, "whole parameters, such as .*bias.*tune"),
        ({**PLAIN, "dense": ["downs.0"]}, "1 whole parameters.*dense"),
        ({**PLAIN, "layout": "loralib"}, "intro has factors of the layout loralib"),
        ({"method": "ssf"}, "method 'lora' alone, this is 'ssf'"),
    ],
    ids=str,
)
def test_what_has_no_place_in_the_format_is_refused(model, tmp_path, config, words):
    with pytest.raises(AdapterError, match=words):
        write_peft(stored(random_adapter(model, **config), model), tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def change_config(**values):
    def change(folder: Path) -> None:
        path = folder / CONFIG_NAME
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def change_tensors(rename=None, shape=None, value=None, drop=False):
    def change(folder: Path) -> None:
        tensors = load_file(folder / TENSORS_NAME)
        name = "base_model.model.intro.lora_A.weight"
        tensor = tensors.pop(name)
        if shape is not None:
            tensor = torch.zeros(shape)
        if value is not None:
            tensor = torch.full_like(tensor, value)
        if not drop:
            tensors[rename or name] = tensor
        save_file(tensors, folder / TENSORS_NAME)

    return change


def write_text(text: str):
    return lambda folder: (folder / CONFIG_NAME).write_text(text)


def cut(folder: Path) -> None:
    path = folder / TENSORS_NAME
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_config(peft_type="IA3"), "peft_type is 'IA3'"),
        (change_config(bias="all"), "bias is 'all'"),
        (change_config(use_dora=True), "use_dora is True"),
        (change_config(modules_to_save=["ending"]), "modules_to_save"),
        (change_config(fan_in_fan_out=True), "fan_in_fan_out"),
        (change_config(some_new_thing={"a": 1}), "some_new_thing"),
        (change_config(init_lora_weights="pissa"), "changes the base's weights"),
        (change_config(alpha_pattern={"(a+)+b": 2}), "only names of layers"),
        (change_config(alpha_pattern=["intro"]), "alpha_pattern"),
        (change_config(alpha_pattern={"intro": "x"}), "the alpha of intro is 'x'"),
        (change_config(lora_alpha=True), "expected a number above 0"),
        (change_config(lora_alpha=-1), "expected a number above 0"),
        (write_text("{"), "not valid JSON"),
        (write_text("[" * 100_000), "not valid JSON"),
        (write_text('{"r": NaN}'), "not valid JSON"),
        (write_text("[]"), "peft_type is"),
        (write_text(" " * 5_000_000), "too many"),
        (lambda folder: (folder / CONFIG_NAME).unlink(), "cannot be read"),
        (lambda folder: (folder / TENSORS_NAME).unlink(), "missing"),
        (cut, "cut short"),
        (change_tensors(drop=True), "one of the two factors for 'intro'"),
        (change_tensors(rename="base_model.model.outro.lora_A.weight"), "outro|intro"),
        (change_tensors(rename="other"), "no factor of a layer"),
        (change_tensors(shape=(2, 3, 5, 5)), "factors of shape"),
        (change_tensors(shape=(3, 3, 3, 3)), "factors of shape"),
        (change_tensors(shape=(0, 3, 3, 3)), "no factor of a layer"),
        (change_tensors(value=math.nan), "finite floats"),
    ],
)
def test_what_is_not_plain_lora_is_refused(model, tmp_path, change, words):
    write_peft(stored(random_adapter(model, **PLAIN), model), tmp_path)
    read_peft(tmp_path, model)
    change(tmp_path)
    with pytest.raises((AdapterError, FileFormatError), match=words) as refused:
        read_peft(tmp_path, model)
    assert len(str(refused.value)) < 500


def test_grouped_layers_of_peft_are_refused(model, tmp_path):
    config = peft.LoraConfig(target_modules=["encoders.0.0.conv2"], r=8)
    with pytest.warns(UserWarning, match="Merging is not supported"):
        wrapped = peft.get_peft_model(network_of(model), config)
    wrapped.save_pretrained(str(tmp_path))
    with pytest.raises(AdapterError, match="groups"):
        read_peft(tmp_path, model)


def test_commands(model, tmp_path):
    mine = write_random(tmp_path / "mine.safetensors", model, **PLAIN).path
    result = run("export", mine, "--peft", tmp_path / "peft", "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert json.loads(result.stdout) == {"peft": str(tmp_path / "peft")}
    back = tmp_path / "back.safetensors"
    words = ["import-peft", tmp_path / "peft", "-o", back, "--model", model.path]
    result = run(*words, "--licence", "MIT", "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert json.loads(result.stdout)["base"] == "base"
    assert read_adapter(back).header.licence == "MIT"
    for name, tensor in read_adapter(mine).tensors.items():
        np.testing.assert_array_equal(read_adapter(back).tensors[name], tensor)
    again = run(*words)
    assert again.exit_code == EXIT_FAILED
    assert "exists" in again.stderr
    assert run(*words, "--overwrite").exit_code == EXIT_WELL
    wrong = run("import-peft", tmp_path / "none", "-o", tmp_path / "x.safetensors")
    assert wrong.exit_code == EXIT_FAILED
    assert "expected a folder of PEFT" in wrong.stderr
    model_instead = run("export", model.path, "--peft", tmp_path / "p")
    assert "a model file, expected an adapter file" in model_instead.stderr


def test_imported_numbers_keep_all_their_digits(model, tmp_path):
    adapter = random_adapter(model, **PLAIN)
    write_adapter(tmp_path / "a.safetensors", tensors_of(adapter), header_of(adapter, model))
    write_peft(read_adapter(tmp_path / "a.safetensors"), tmp_path / "peft")
    run("import-peft", tmp_path / "peft", "-o", tmp_path / "b.safetensors", "-m", model.path)
    first, second = (read_adapter(tmp_path / f"{n}.safetensors").tensors for n in "ab")
    for name, tensor in first.items():
        np.testing.assert_array_equal(second[name], tensor)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"padding_mode": "reflect"}, "intro pads by reflect"),
        ({"dilation": (2, 2)}, "intro is dilated by 2"),
    ],
)
def test_no_adapter_of_layers_whose_places_peft_does_not_keep(
    model, tmp_path, monkeypatch, change, said
):
    adapter = random_adapter(model, **PLAIN)
    write_peft(stored(adapter, model), tmp_path / "peft")

    def changed(*_):
        network = network_of(model)
        for name, value in change.items():
            setattr(network.intro, name, value)
        return network

    monkeypatch.setattr("urushi.adapters.peft.create_backbone", changed)
    monkeypatch.setattr("urushi.adapters.peft.create_claimed", changed)
    with pytest.raises(AdapterError, match=f"{said}.*leave such layers out"):
        read_peft(tmp_path / "peft", model)
    with pytest.raises(AdapterError, match=f"{said}.*leave such layers out"):
        write_peft(stored(adapter, model), tmp_path / "again")
