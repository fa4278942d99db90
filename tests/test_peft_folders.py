"""Folders of PEFT: what they may say and hold, and what our own must leave out for PEFT to run."""

import dataclasses
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import run
from safetensors.torch import load_file, save_file
from world import network_of, random_adapter, write_tiny

from urushi.adapters import attach
from urushi.adapters.layers import weight_layers
from urushi.adapters.peft import CONFIG_NAME, TENSORS_NAME, read_peft, write_peft
from urushi.adapters.peft_patterns import first_key
from urushi.adapters.stored import header_of, load_adapter, tensors_of
from urushi.backbones import BACKBONES, create_backbone
from urushi.errors import AdapterError, FileFormatError
from urushi.files.adapter import LoadedAdapter
from urushi.files.model import LoadedModel, ModelHeader, read_model, write_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import peft

LAYERS = {"rank": 0, "ranks": {"intro": 2, "downs.1": 2, "encoders.0.0.conv1": 2}}
# Every option of PEFT's LoRA: what decides nothing once it is trained, what is read, and what is
# refused. One that a newer version adds stands in none of them, and fails a test.
WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_dropout", "megatron_config", "megatron_core", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "runtime_config", "target_modules", "task_type",
}  # fmt: skip
READ = {"alpha_pattern", "init_lora_weights", "lora_alpha", "peft_type", "use_rslora"}
REFUSED = {
    "alora_invocation_tokens", "arrow_config", "bias", "fan_in_fan_out", "kasa_config",
    "layer_replication", "lora_bias", "lora_ga_config", "modules_to_save", "monteclora_config",
    "target_parameters", "trainable_token_indices", "use_bdlora", "use_dora", "use_qalora",
    "velora_config",
}  # fmt: skip
FIELDS = {field.name for field in dataclasses.fields(peft.LoraConfig)}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LoadedModel:
    return read_model(write_tiny(tmp_path_factory.mktemp("base") / "base.safetensors"))


@pytest.fixture
def folder(model, tmp_path) -> Path:
    write_peft(stored(random_adapter(model, **LAYERS), model), tmp_path / "peft")
    return tmp_path / "peft"


def stored(adapter, model) -> LoadedAdapter:
    return LoadedAdapter(header_of(adapter, model), tensors_of(adapter), Path("mine.safetensors"))


def setting(folder: Path, **values) -> None:
    path = folder / CONFIG_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_every_option_of_the_installed_version_is_known():
    assert not FIELDS - WITHOUT_EFFECT - READ - REFUSED


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_option_changes_nothing_or_is_refused_by_its_name(model, folder, name):
    expected, _ = read_peft(folder, model)
    setting(folder, **{name: ["something"]})
    if name in WITHOUT_EFFECT:
        found, _ = read_peft(folder, model)
        for key, tensor in expected.items():
            np.testing.assert_array_equal(found[key], tensor)
    elif name == "use_rslora":
        found, header = read_peft(folder, model)
        assert header.config["scaling"] != "alpha/r" or any(
            (found[key] != tensor).any() for key, tensor in expected.items()
        )
    else:
        with pytest.raises(AdapterError, match=name):
            read_peft(folder, model)


@pytest.fixture(scope="module")
def linear(tmp_path_factory) -> LoadedModel:
    """A network with linear layers, for which PEFT has most options."""
    config: Any = BACKBONES["swinir"].example
    torch.manual_seed(0)
    tensors = {n: t.numpy() for n, t in create_backbone("swinir", config).state_dict().items()}
    path = tmp_path_factory.mktemp("linear") / "m.safetensors"
    write_model(path, tensors, ModelHeader(backbone="swinir", config=config))
    return read_model(path)


def trained(model: LoadedModel, folder: Path, plain: bool, **options) -> torch.Tensor:
    """What a LoRA of these options makes of `PICTURE`, as PEFT runs it; written into the folder."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        # On options that it ignores, and files that it writes by itself.
        warnings.simplefilter("ignore")
        chosen = peft.LoraConfig(**{"r": 2, "target_modules": ["fc1", "proj"], **options})
        wrapped = peft.get_peft_model(network_of(model), chosen)
        more = {}
        if plain:
            wrapped.save_pretrained(str(folder / "begun"))
            more["path_initial_model_for_weight_conversion"] = str(folder / "begun")
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape)
        wrapped.save_pretrained(str(folder / "peft"), **more)
    with torch.no_grad():
        return wrapped.eval()(PICTURE)


PICTURE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"rank_pattern": {"fc1": 3}}, False),
        ({"rank_pattern": {r"layers\.\d+\..*fc1": 3}}, False),
        ({"alpha_pattern": {r".*blocks\.\d+\.mlp\.fc[12]|qkv": 3}, "use_rslora": True}, False),
        ({"use_rslora": True, "lora_alpha": 5}, False),
        ({"layers_to_transform": [0], "layers_pattern": "blocks"}, False),
        ({"exclude_modules": ["layers.0.blocks.0.mlp.fc1"]}, False),
        ({"target_modules": r".*\.fc[12]"}, False),
        ({"target_modules": "all-linear"}, False),
        ({"lora_dropout": 0.5}, False),
        ({"fan_in_fan_out": True}, False),  # which PEFT takes back
        ({"init_lora_weights": False}, False),
        ({"init_lora_weights": "orthogonal"}, False),
        ({"init_lora_weights": "mica"}, False),
        # As PEFT writes what began with the base's own weights, where it is told to.
        ({"init_lora_weights": "pissa"}, True),
        ({"init_lora_weights": "olora"}, True),
    ],
    ids=str,
)
def test_options_load_as_peft_runs_them(linear, tmp_path, options, plain):
    expected = trained(linear, tmp_path, plain, **options)
    found, header = read_peft(tmp_path / "peft", linear)
    adapter = load_adapter(network_of(linear), LoadedAdapter(header, found, tmp_path))
    with torch.no_grad():
        ours = attach(network_of(linear), adapter).eval()(PICTURE)
        assert (network_of(linear).eval()(PICTURE) - expected).abs().max() > 1e-4
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["norm1"]}, "modules_to_save"),
        ({"use_qalora": True, "qalora_group_size": 2}, "use_qalora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"init_lora_weights": "pissa_niter_2"}, "init_lora_weights"),
        ({"init_lora_weights": "olora"}, "init_lora_weights"),
        ({"velora_config": {}}, "velora_config"),
        ({"kasa_config": {}}, "kasa_config"),
    ],
    ids=str,
)
def test_options_that_are_more_are_refused_as_peft_writes_them(linear, tmp_path, options, name):
    trained(linear, tmp_path, False, **options)
    with pytest.raises(AdapterError, match=rf"adapter_config\.json: {name} is "):
        read_peft(tmp_path / "peft", linear)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_that_a_compiler_or_trainer_prefixed_are_read(model, folder, prefix):
    expected, _ = read_peft(folder, model)
    setting(folder, alpha_pattern={rf"^{prefix}intro": 64, "downs.1": 2})
    before, _ = read_peft(folder, model)
    full, start = load_file(folder / TENSORS_NAME), "base_model.model."
    save_file({n.replace(start, start + prefix): t for n, t in full.items()}, folder / TENSORS_NAME)
    found, _ = read_peft(folder, model)
    assert found.keys() == expected.keys()
    # By its whole name, as PEFT looks for it.
    assert (found["up.intro/weight"] != before["up.intro/weight"]).any()
    np.testing.assert_array_equal(found["up.downs/1/weight"], before["up.downs/1/weight"])


def test_a_network_within_a_trainers_is_found(model, folder):
    expected, _ = read_peft(folder, model)
    full, start = load_file(folder / TENSORS_NAME), "base_model.model."
    inside = {name.replace(start, f"{start}model.net."): full[name] for name in full}
    save_file(inside, folder / TENSORS_NAME)
    setting(folder, alpha_pattern={"^model.net.intro": 64, "net.downs.1": 2})
    found, _ = read_peft(folder, model)
    assert found.keys() == expected.keys()
    ratio = found["up.intro/weight"] / expected["up.intro/weight"]
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)
    assert ratio[0, 0] == 32 * (found["up.downs/1/weight"] / expected["up.downs/1/weight"])[0, 0]
    inside[f"{start}model.other.lora_A.weight"] = torch.ones(1, 1)
    inside[f"{start}model.other.lora_B.weight"] = torch.ones(1, 1)
    save_file(inside, folder / TENSORS_NAME)
    with pytest.raises(AdapterError, match=r"adapts 'model\.net\.\S+', which base"):
        read_peft(folder, model)


def test_the_name_of_an_adapter_within_tensors_is_left_out(model, folder):
    expected, _ = read_peft(folder, model)
    full = load_file(folder / TENSORS_NAME)
    named = {name.replace(".weight", ".mine.weight"): full[name] for name in full}
    save_file(named, folder / TENSORS_NAME)
    found, _ = read_peft(folder, model)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
    save_file({**full, **{name: t.clone() for name, t in named.items()}}, folder / TENSORS_NAME)
    with pytest.raises(AdapterError, match=r"several adapters \(mine, one without a name\)"):
        read_peft(folder, model)


@pytest.mark.parametrize(
    "key",
    [
        "conv1|conv2", r"encoders\.\d+\.\d+\.conv1", ".*conv1", "conv[12]", "^encoders.*1", "nv1",
        "c[^x]+1", "intro|^conv1", r"\w+1", "0?.conv1$", "conv1a*", "en.+?1", "[a-z]+", "0*conv1",
    ],
)  # fmt: skip
def test_plain_regular_expressions_match_as_those_of_peft(key):
    for layer in ("encoders.0.0.conv1", "conv1", "intro", "encoders.10.2.conv12", "a-b.conv1"):
        by_peft = peft.utils.other.get_pattern_key(["never", key], layer)
        expected = key if by_peft == key else None
        assert first_key(["never", key], layer, Path()) == expected, layer


@pytest.mark.parametrize(
    "key", ["(a|b)c", "a{2}", "[b-a]", "a++", r"\bconv", "a*" * 200, "a|", "("], ids=lambda k: k[:8]
)
def test_other_regular_expressions_are_refused_by_the_options_name(key):
    with pytest.raises(AdapterError, match=r"alpha_pattern has the key .*, without groups"):
        first_key([key], "conv1", Path())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_peft_runs_what_is_exported_of_every_backbone(tmp_path, backbone):
    config: Any = dict(BACKBONES[backbone].example)
    torch.manual_seed(0)
    network = create_backbone(backbone, config).eval()
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_model(tmp_path / "m.safetensors", tensors, ModelHeader(backbone=backbone, config=config))
    model = read_model(tmp_path / "m.safetensors")
    taken = [
        layer.name
        for layer in weight_layers(network)
        if layer.groups == 1 and not layer.transposed and not layer.name.endswith("in_proj")
    ]
    adapter = random_adapter(model, size=0.1, rank=0, ranks=dict.fromkeys(taken, 1))
    write_peft(stored(adapter, model), tmp_path / "peft")
    side = network.size_multiple
    picture = torch.rand(1, 3, side, side)
    with torch.no_grad():
        ours = attach(network_of(model), adapter).eval()(picture)
        wrapped = peft.PeftModel.from_pretrained(network_of(model), str(tmp_path / "peft"))
        torch.testing.assert_close(wrapped.eval()(picture), ours, atol=1e-4, rtol=1e-4)


def test_projections_in_one_weight_are_refused_by_name(tmp_path):
    config: Any = dict(BACKBONES["ipt"].example)
    network = create_backbone("ipt", config)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_model(tmp_path / "m.safetensors", tensors, ModelHeader(backbone="ipt", config=config))
    model = read_model(tmp_path / "m.safetensors")
    with pytest.raises(AdapterError, match=r"in_proj holds several projections .*rank 0"):
        write_peft(stored(random_adapter(model, rank=1), model), tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_names_that_are_patterns_of_others_are_escaped():
    from urushi.adapters.peft import _alpha, _with_pattern

    ranks = {"a.b": 1, "acb": 2, "x.a.b": 3}
    default, pattern = _with_pattern(ranks)
    assert next(iter(pattern)) == r"^x\.a\.b"
    facts = {"alpha_pattern": pattern, "lora_alpha": default}
    assert {name: _alpha(facts, name, Path()) for name in ranks} == ranks
    for name, rank in ranks.items():
        assert pattern[peft.utils.other.get_pattern_key(list(pattern), name)] == rank


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float16", "float64"])
def test_floats_of_other_lengths_are_read(model, folder, dtype):
    full = load_file(folder / TENSORS_NAME)
    other = {name: tensor.to(getattr(torch, dtype)) for name, tensor in full.items()}
    save_file(other, folder / TENSORS_NAME)
    found, _ = read_peft(folder, model)
    expected = other["base_model.model.intro.lora_B.weight"].float()[:, :, 0, 0]
    np.testing.assert_array_equal(found["up.intro/weight"], expected.numpy())


def test_whole_numbers_are_refused(model, folder):
    full = load_file(folder / TENSORS_NAME)
    save_file({name: tensor.to(torch.int8) for name, tensor in full.items()}, folder / TENSORS_NAME)
    with pytest.raises(FileFormatError, match=r"is of torch\.int8, expected floats"):
        read_peft(folder, model)


def as_pickle(folder: Path) -> Path:
    (folder / TENSORS_NAME).rename(folder / "adapter_model.bin")
    return folder


def in_folders(folder: Path) -> Path:
    for name in ("first", "second"):
        (folder / name).mkdir()
        (folder / name / CONFIG_NAME).write_bytes((folder / CONFIG_NAME).read_bytes())
    (folder / CONFIG_NAME).unlink()
    return folder


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (as_pickle, r"in adapter_model\.bin, a pickle, .*safe_serialization=True"),
        (in_folders, r"in its folders first, second: give one of them, such as .*first"),
        (lambda folder: folder / TENSORS_NAME, "a file, expected a folder of PEFT"),
        (lambda folder: folder / CONFIG_NAME, "a file, expected a folder of PEFT"),
    ],
)
def test_what_is_given_in_the_place_of_a_folder(model, folder, tmp_path, place, words):
    given = place(folder)
    with pytest.raises(FileFormatError, match=words):
        read_peft(given, model)
    done = run("import-peft", given, "-o", tmp_path / "a.safetensors", "-m", model.path)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("begun", "words"), [("pissa", "changes the base's weights"), ("lora_ga", "lora_ga"), (3, "3")]
)
def test_beginnings_that_change_the_base_are_refused(model, folder, begun, words):
    setting(folder, init_lora_weights=begun)
    with pytest.raises(AdapterError, match=f"init_lora_weights is .*{words}"):
        read_peft(folder, model)
