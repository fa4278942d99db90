"""What trainers write beside plain state dicts: lists, averages, products, spread weights."""

import argparse
import gzip
import json
import pickle
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import run
from named_tensors import moved, under
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune

from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.checkpoints import read_network
from urushi.backbones.swinir_released import to_released as swinir_to_released
from urushi.convert.importing import import_released
from urushi.errors import BackboneError, FileFormatError
from urushi.files.model import read_model

SMALL = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}


@pytest.fixture(scope="module")
def net() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = create_backbone("nafnet", SMALL)
    return {name: tensor + 0.1 for name, tensor in network.state_dict().items()}


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(4, 4)}}, "param_groups": [{"lr": 0.1}]}
HOLDING = {
    "a tuple": lambda n: (n, {"lr": 0.1}),
    "a tuple that ends with it": lambda n: (3, argparse.Namespace(lr=0.1), n),
    "a list of one": lambda n: [n],
    "a tuple with an optimizer": lambda n: (n, OPTIMIZER),
    "a list in a mapping": lambda n: {"state": [n], "optimizer": [OPTIMIZER]},
    "a list with a discriminator": lambda n: [{"net_d.weight": torch.ones(4, 3)}, n],
    "names and tensors": lambda n: {"params": list(n.items())},
    "numbers for names": lambda n: {0: n, 1: OPTIMIZER},
    "one copy twice": lambda n: {"a.b": n, "a": {"b": dict(n)}},
    "equal copies": lambda n: [n, dict(n)],
    "Lightning, averaging": lambda n: {
        "state_dict": under("net.", n), "current_model_state": under("net.", moved(n)),
        "averaging_state": {"n_averaged": torch.tensor(4)},
    },
    "Lightning, a callback's average": lambda n: {
        "state_dict": under("net.", moved(n)),
        "callbacks": {"EMA{'decay': 0.9}": {"ema_state_dict": under("net.", n)}},
    },
    "what averages holds what it averages": lambda n: {
        "model": moved(n),
        "ema": {**under("online_model.", moved(n)), **under("ema_model.", n)},
    },
    "MMEngine": lambda n: {
        "message_hub": {"runtime_info": {"iter": 4}},
        "state_dict": under("generator.", n),
        "ema_state_dict": {**under("module.generator.", moved(n)), "steps": torch.tensor(3)},
    },
    "an average without names": lambda n: {
        "model": moved(n), "ema": {"decay": 0.9, "shadow_params": list(n.values())},
    },
    "DeepSpeed": lambda n: {
        "module": under("module.", n), "buffer_names": [], "optimizer": None,
        "param_shapes": [{name: tensor.shape for name, tensor in n.items()}],
    },
    "FSDP's optimizer": lambda n: {
        "model": n, "optim": {"state": {k: {"exp_avg": n[k]} for k in n}, "param_groups": [{}]},
    },
    "states of layers": lambda n: {**n, "intro._extra_state": torch.zeros(9, dtype=torch.uint8)},
    "an expanded tensor": lambda n: {
        "model": n, "loss": {"weight": torch.zeros(1).expand(4)},
    },
}  # fmt: skip


@pytest.mark.parametrize("how", HOLDING)
def test_the_network_is_found(tmp_path, net, how):
    torch.save(HOLDING[how](net), tmp_path / "a.pth")
    found = read_network(tmp_path / "a.pth").tensors
    assert list(found) == list(net)
    for name, tensor in net.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("a list with a discriminator", "1 tensor, the first is 0.net_d.weight"),
        ("equal copies", "one copy of the weights is taken (0), and an equal one left out (1)"),
        ("MMEngine", "saves the averaged copy of the weights as state_dict"),
        ("an average without names", "taken in the order of the others"),
        ("what averages holds what it averages", "averaged copy of the weights is taken (ema.ema_"),
    ],
)
def test_what_was_chosen_is_noted(tmp_path, net, how, words):
    torch.save(HOLDING[how](net), tmp_path / "a.pth")
    assert words in " ".join(read_network(tmp_path / "a.pth").notes)


def test_an_average_that_does_not_fit_is_left_out_and_noted(tmp_path, net):
    torch.save({"model": net, "ema": {"shadow_params": [torch.zeros(3)]}}, tmp_path / "a.pth")
    found = read_network(tmp_path / "a.pth")
    assert torch.equal(found.tensors["intro.weight"], net["intro.weight"])
    assert "left out: an averaged copy without names (ema.shadow_params)" in found.notes[0]


@pytest.mark.parametrize("named", [True, False])
def test_averages_of_what_is_trained_alone_are_whole(tmp_path, named):
    torch.manual_seed(0)
    network = create_backbone("swinir", BACKBONES["swinir"].example)
    state = swinir_to_released(network, 16)
    average = {n: t + 1 for n, t in state.items() if not n.endswith(("_mask", "_index"))}
    assert len(average) < len(state)
    kept = average if named else list(average.values())
    torch.save({"model": state, "ema": {"shadow_params": kept}}, tmp_path / "a.pth")
    made = import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert "averaged copy of the weights is taken (ema.shadow_params)" in made.notes[0]
    found = read_model(tmp_path / "b.safetensors").tensors
    expected = network.conv_first.weight.detach().numpy() + 1
    np.testing.assert_array_equal(found["conv_first.weight"], expected)


@pytest.mark.parametrize(
    ("content", "copies"),
    [
        (lambda a, b: [a, b], {"0": 0, "1": 1}),
        (lambda a, b: {"state": [a, b]}, {"state.0": 0, "state.1": 1}),
        (lambda a, b: {"1.10": a, "no": b}, {"1.10": 0, "no": 1}),
        (lambda a, b: {**a, **under("x.", b)}, {".": 0, "x": 1}),
        (lambda a, b: {"a": a, **under("a.b.", b)}, {"a": 0, "a.b": 1}),
        (lambda a, b: {"a": a, "b": {**b, "mean": torch.zeros(3)}}, {"a": 0}),
        (
            lambda a, b: {**a, **{f"ema_{k.replace('.', '_')}": b[k] for k in b}},
            {".": 0, "ema_": 1},
        ),
    ],
)
def test_of_copies_that_nothing_tells_apart_the_user_says_which(tmp_path, net, content, copies):
    both = (net, moved(net))
    torch.save(content(*both), tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match=r"networks alike .*--set copy=(\S+)") as refused:
        read_network(tmp_path / "a.pth")
    advised = str(refused.value).partition("copy=")[2].split()[0]
    for copy in {*copies, advised}:
        found = read_network(tmp_path / "a.pth", copy).tensors
        if copy in copies:
            assert torch.equal(found["intro.weight"], both[copies[copy]]["intro.weight"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda a, b: {"a.b": a, "a": {"b": b}}, r"at \['a.b'\]\['\S+'\] and \['a'\]\['b'\]"),
        (lambda a, b: {**under("a.", a), "a": b}, r"at \['a\.intro\.weight'\] and \['a'\]"),
        (lambda a, b: {0: a, "0": b}, r"at \[0\]\S+ and \['0'\]"),
        (
            lambda a, b: {**a, **{k.replace("encoders.", "encoders._orig_mod."): b[k] for k in b}},
            "once with and once without .* _orig_mod",
        ),
    ],
)
def test_two_tensors_of_one_name_are_refused(tmp_path, net, content, words):
    torch.save(content(net, moved(net)), tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match=f"two tensors of one name, .*{words}"):
        read_network(tmp_path / "a.pth")


def test_two_of_one_name_beside_the_network_do_not_matter(tmp_path, net):
    beside = {"loss": {0: {"w": torch.zeros(2)}, "0": {"w": torch.ones(2)}}}
    torch.save({"params": net, **beside}, tmp_path / "a.pth")
    assert read_network(tmp_path / "a.pth").tensors.keys() == net.keys()


NORMS = {
    "weight": nn.utils.weight_norm,
    "weight, one length": lambda layer: nn.utils.weight_norm(layer, dim=None),
    "weight, another axis": lambda layer: nn.utils.weight_norm(layer, dim=1),
    "weight, parametrized": parametrizations.weight_norm,
    "spectral": nn.utils.spectral_norm,
    "spectral, parametrized": parametrizations.spectral_norm,
    "spectral, another axis": lambda layer: nn.utils.spectral_norm(layer, dim=1),
    "pruning": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
}


@pytest.mark.parametrize("how", NORMS)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_kept_as_products_become_plain(tmp_path, net, how):
    network = create_backbone("nafnet", SMALL)
    network.load_state_dict(net)
    names = ("intro", "downs.0", "encoders.0.0.conv2", "encoders.0.0.conv3")
    layers = {name: network.get_submodule(name) for name in names}
    for layer in layers.values():
        NORMS[how](layer)
    # Lengths and singular vectors that are no longer those of the beginning.
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    network.train()(torch.rand(1, 3, 8, 8, generator=generator))
    network.eval()(torch.rand(1, 3, 8, 8, generator=generator))
    torch.save({"params": network.state_dict()}, tmp_path / "a.pth")
    found = read_network(tmp_path / "a.pth")
    assert found.tensors.keys() == net.keys()
    for name, layer in layers.items():
        torch.testing.assert_close(found.tensors[f"{name}.weight"], layer.weight.detach())
    told = {"w": "weight normalisation", "s": "spectral normalisation", "p": "pruning"}[how[0]]
    assert found.notes == (
        f"plain weights were made of {told} in 4 layers, the first is intro.weight",
    )


def parts_of(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"weight_orig": weight, "weight_u": torch.ones(5), "weight_v": torch.ones(3)}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (parts_of, "spectral normalisation whose parts do not go together"),
        (lambda w: {"weight_orig": w, "weight_u": torch.ones(len(w))}, "without its v"),
        (lambda w: {"weight_v": w, "weight_g": torch.ones(2)}, "weight normalisation whose parts"),
        (lambda w: {"weight_v": w.to("meta"), "weight_g": torch.ones(len(w), 1, 1, 1)}, "whose"),
        (
            lambda w: {"parametrizations.weight.original": w, "parametrizations.weight.0.base": w},
            "a parametrization that is unknown",
        ),
    ],
)
def test_products_that_cannot_be_computed_are_refused_by_name(tmp_path, net, parts, words):
    weight = net["downs.0.weight"]
    made = {f"downs.0.{end}": tensor for end, tensor in parts(weight).items()}
    rest = {name: tensor for name, tensor in net.items() if name != "downs.0.weight"}
    torch.save({"params": rest | made}, tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match=rf"'downs\.0\.\S+' is of .*{words}"):
        read_network(tmp_path / "a.pth")
    # A discriminator's are its own affair.
    torch.save({"params": net, "net_d": made}, tmp_path / "b.pth")
    assert read_network(tmp_path / "b.pth").tensors.keys() == net.keys()


class Own(torch.Tensor):
    """A tensor of a class of its own."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda n: OPTIMIZER, "state of an optimizer .* give the file with the weights"),
        (lambda n: {"iter": 3, "optimizers": [OPTIMIZER]}, "state of an optimizer"),
        (lambda n: n["intro.weight"], "one tensor without a name"),
        (lambda n: [*n.values()], "a list of tensors without names"),
        (lambda n: {k: n[k].numpy() for k in n}, "arrays of NumPy"),
        (lambda n: {"model": nn.Sequential()}, r"at 'model' an object of the class .*Sequential"),
        (lambda n: {k: torch.zeros(0) for k in n}, r"'intro.weight' is empty, .*zero_to_fp32"),
        (lambda n: {"_flat_param": torch.ones(9)}, "flat parameters of FSDP"),
        (lambda n: {k: n[k].as_subclass(Own) for k in n}, "classes of their own"),
        (
            lambda n: {**n, "intro.base_layer.weight": n["intro.weight"]},
            r"adapters of PEFT within, .*merge_and_unload\(\)",
        ),
        (
            lambda n: {"base_model.model.intro.lora_A.weight": torch.ones(2, 3)},
            "an adapter of PEFT and no network",
        ),
        (lambda n: {**n, "intro.bias": torch.tensor(1.0)}, r"intro.bias \(\(\) instead of \(4,"),
    ],
)
def test_what_holds_no_network_is_called_by_its_name(tmp_path, net, content, words):
    torch.save(content(net), tmp_path / "a.pth")
    with pytest.raises((FileFormatError, BackboneError), match=words) as refused:
        import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert "\n" not in str(refused.value)


def packed(net, path: Path) -> None:
    inside = path.with_name("in.pth")
    torch.save(net, inside)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(inside.read_bytes()))
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as archive:
            archive.add(inside, inside.name)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inside, inside.name)
    else:
        path.write_bytes(pickle.dumps(net, protocol=2))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.gz", r"packed \(gzip\): unpack it"),
        ("a.tar", r"packed \(tar\)"),
        ("a.zip", r"packed \(zip, with in\.pth in it\)"),
        ("a.pkl", r"a pickle that torch\.save did not write"),
        ("a.distcp", "dcp_to_torch"),
    ],
)
def test_files_in_other_wrappings_are_told(tmp_path, net, name, words):
    packed(net, tmp_path / name)
    with pytest.raises(FileFormatError, match=words):
        read_network(tmp_path / name)


def test_files_are_read_by_what_is_in_them(tmp_path, net):
    save_file(net, tmp_path / "tensors.pth")
    torch.save(net, tmp_path / "archive.safetensors")
    for name in ("tensors.pth", "archive.safetensors"):
        assert read_network(tmp_path / name).tensors.keys() == net.keys()


def test_a_few_values_that_stand_for_millions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("urushi.backbones.checkpoint_leaves._MOST_ENTRIES", 1000)
    content: Any = {"weight": torch.zeros(2, 2)}
    for _ in range(6):
        content = [content] * 10
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match="millions of times"):
        read_network(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["copy="], "copy is '', expected .*copy=netG"),
        (["copi=a"], r"no network takes a setting 'copi' \(did you mean 'copy'\?\)"),
        (["copy=a", "copy=b"], "--set gives 'copy' twice, 'a' and 'b'"),
        (["copy.x=a"], "copy is {'x': 'a'}"),
        (["head=x4", "copy=a"], r"read as nafnet, takes no setting 'head': it takes width"),
        (["xyzzy=3"], "no network takes a setting 'xyzzy': leave it out"),
    ],
)
def test_settings_that_say_nothing_are_told(tmp_path, net, words, said):
    torch.save({"a": net, "b": moved(net)}, tmp_path / "a.pth")
    options = [word for text in words for word in ("--set", text)]
    done = run("import", tmp_path / "a.pth", "-o", tmp_path / "b.safetensors", *options)
    # What a setting may be hangs on the file in one case alone.
    assert done.exit_code == (1 if "read as" in said else 2)
    assert done.stderr.count("\n") == 1
    assert re.search(said, done.stderr), done.stderr


def test_a_copy_is_called_as_it_is_written(tmp_path, net):
    torch.save({"1.10": net, "no": moved(net)}, tmp_path / "a.pth")
    for name, expected in (("1.10", net), ("no", moved(net))):
        target = tmp_path / f"{name}.safetensors"
        done = run("import", tmp_path / "a.pth", "-o", target, "--set", f"copy={name}", "--json")
        assert done.exit_code == 0, done.stderr
        assert f"is taken ({name})" in json.loads(done.stdout)["notes"][0]
        found = read_model(target).tensors["intro.weight"]
        np.testing.assert_array_equal(found, expected["intro.weight"].numpy())
