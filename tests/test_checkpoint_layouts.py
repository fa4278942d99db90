"""The network in a checkpoint is found among copies, wrappings, losses and counters."""

import argparse
import collections
import datetime
import functools
import json
import shutil
import sys
import types
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from named_tensors import moved, under
from safetensors.torch import save_file
from world import EXAMPLE

from urushi.backbones import BACKBONES, create_backbone
from urushi.backbones.checkpoints import read_checkpoint, read_network
from urushi.convert.importing import import_released
from urushi.errors import FileFormatError
from urushi.files.model import read_model
from urushi.inference.restorer import Restorer


@pytest.fixture(scope="module")
def net() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = create_backbone("nafnet", EXAMPLE)
    return {name: tensor + 0.1 for name, tensor in network.state_dict().items()}


def counted(net):
    layers = {name.rpartition(".")[0] for name in net if name.endswith("weight")}
    counts = {f"{n}.{w}": torch.zeros(1) for n in layers for w in ("total_ops", "total_params")}
    return {**net, **counts, "total_ops": torch.zeros(1)}


FLAT = {
    "plain": lambda n: n,
    "compiled": lambda n: under("_orig_mod.", n),
    "both ways": lambda n: under("_orig_mod.module.", n),
    "and back": lambda n: under("module._orig_mod.net_g.", n),
    "in the middle": lambda n: {k.replace("encoders.", "encoders._orig_mod."): n[k] for k in n},
    "generator_ema": lambda n: {**under("generator.", moved(n)), **under("generator_ema.", n)},
    "netG": lambda n: {**under("netG.", n), **under("netD.", {"0.weight": torch.ones(4, 3)})},
    "averaged": lambda n: {**under("module.", n), "n_averaged": torch.tensor(7)},
    "params": lambda n: {**under("params.", moved(n)), **under("params_ema.", n)},
    "ema first": lambda n: {**under("ema_model.module.", n), **under("model.", moved(n))},
    "lightning": lambda n: {
        **under("net.", n), "loss_fn.vgg.0.weight": torch.zeros(4, 3, 3, 3),
        "psnr.total": torch.tensor(3.0),
    },
    "own name": lambda n: under("my_restorer.inner.", n),
    "thop": counted,
    "per tensor": lambda n: {
        f"{('', 'module.', '_orig_mod.module.')[i % 3]}{k}": n[k] for i, k in enumerate(n)
    },
    "bare beside losses": lambda n: {
        **n, "net_d.conv0.weight": torch.ones(4, 3), "cri_perceptual.vgg.mean": torch.zeros(3),
        "log_vars": torch.zeros(2),
    },
    "copies in a wrapping that says ema": lambda n: {
        **under("best_ema.net.", moved(n)), **under("best_ema.generator_ema.", n)
    },
}  # fmt: skip
NESTED = {
    "params-ema": lambda n: {"params": moved(n), "params-ema": n},
    "model_ema": lambda n: {"model": moved(n), "model_ema": n, "epoch": 3, "args": {"lr": 0.1}},
    "ema": lambda n: {"ema": {"decay": 0.999, "shadow": n}, "state_dict": moved(n)},
    "state_dict_ema": lambda n: {"state_dict_ema": under("module.", n), "state_dict": moved(n)},
    "optimizer": lambda n: {
        "net": n, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [1]},
    },
    "ema without names": lambda n: {"model": n, "ema": {"shadow_params": [torch.zeros(3)]}},
    "a part averaged": lambda n: {"model": n, "ema": dict(list(moved(n).items())[:9])},
    "unknown wrapping": lambda n: {
        "netG_state_dict": {"model": under("core.net_g.", n), "optimizer": {"a": {"b": 1}}}
    },
    "bare beside an optimizer": lambda n: {**n, "optimizer": {"param_groups": {"lr": 0.1}}},
    "twice": lambda n: {"checkpoint": {"model": {"state_dict": n}}},
}  # fmt: skip


CASES = [(how, "pth") for how in (*FLAT, *NESTED)] + [(how, "safetensors") for how in FLAT]


@pytest.mark.parametrize(("how", "kind"), CASES)
def test_the_network_is_found(tmp_path, net, how, kind):
    path = tmp_path / f"a.{kind}"
    content = (FLAT.get(how) or NESTED[how])(net)
    if kind == "pth":
        torch.save(content, path)
    else:
        save_file({name: tensor.clone() for name, tensor in content.items()}, path)
    state = read_checkpoint(path)
    assert state.keys() == net.keys()
    for name, tensor in net.items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("params", ["averaged copy of the weights is taken (params_ema)", "left out (params)"]),
        ("generator_ema", ["averaged copy", "(generator_ema)", "(generator)"]),
        ("lightning", ["1 tensor, the first is loss_fn.vgg.0.weight", "1 counter, the first is"]),
        ("averaged", ["1 counter, the first is n_averaged"]),
        ("netG", ["1 tensor, the first is netD.0.weight"]),
        (
            "bare beside losses",
            [
                "first is net_d.conv0.weight",
                "first is cri_perceptual.vgg.mean",
                "first is log_vars",
            ],
        ),
    ],
)
def test_what_is_left_out_is_noted(tmp_path, net, how, words):
    torch.save(FLAT[how](net), tmp_path / "a.pth")
    made = import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    for word in words:
        assert word in " ".join(made.notes)
    assert read_model(tmp_path / "b.safetensors").tensors.keys() == net.keys()


def test_a_plain_file_has_no_notes(tmp_path, net):
    torch.save({"params": net}, tmp_path / "a.pth")
    assert import_released(tmp_path / "a.pth", tmp_path / "b.safetensors").notes == ()


def test_a_mapping_that_holds_itself_ends(tmp_path, net):
    content = {"params": dict(net)}
    content["again"] = content
    torch.save(content, tmp_path / "a.pth")
    assert read_checkpoint(tmp_path / "a.pth").keys() == net.keys()


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_short_floats_become_float32(tmp_path, net, dtype, kind):
    short = {name: tensor.to(getattr(torch, dtype)) for name, tensor in net.items()}
    path = tmp_path / f"a.{kind}"
    torch.save(short, path) if kind == "pth" else save_file(short, path)
    made = import_released(path, tmp_path / "b.safetensors")
    assert any("float8" in note for note in made.notes) == ("8" in dtype)
    for name, tensor in read_model(tmp_path / "b.safetensors").tensors.items():
        np.testing.assert_array_equal(tensor, short[name].float().numpy())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.to("meta"), "device 'meta', which holds no numbers"),
        (lambda t: (t * 100).to(torch.int8), r"of torch\.int8: whole numbers are no weights"),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "plain numbers"),
        (lambda t: t.to_sparse(), "plain numbers"),
        (lambda t: t[:1].expand(10**9, *t.shape[1:]), "claims .* elements"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_holds_no_weights_is_refused(tmp_path, net, change, words):
    torch.save({**net, "intro.weight": change(net["intro.weight"])}, tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match=words) as caught:
        import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert "'intro.weight'" in str(caught.value)
    assert not (tmp_path / "b.safetensors").exists()


def test_tensors_that_share_what_they_claim_are_refused(tmp_path):
    shared = torch.zeros(1 << 16)
    torch.save({f"layer.{i}": shared.view(-1) for i in range(4000)}, tmp_path / "b.pth")
    with pytest.raises(FileFormatError, match=r"its tensors claim .* and share"):
        read_checkpoint(tmp_path / "b.pth")


def test_packed_files_that_unpack_to_far_more_are_not_unpacked(tmp_path, net, monkeypatch):
    monkeypatch.setattr("urushi.backbones.checkpoints._SPARE_BYTES", 1000)
    torch.save({"params": {"a": torch.zeros(500_000)}}, tmp_path / "plain.pth")
    packed = tmp_path / "packed.pth"
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert packed.stat().st_size < 20_000
    with pytest.raises(FileFormatError, match="would unpack to"):
        read_checkpoint(packed)
    assert read_checkpoint(tmp_path / "plain.pth").keys() == {"a"}


def sharded(folder, net):
    names = list(net)
    parts = {
        "m-00001-of-00002.safetensors": names[::2],
        "m-00002-of-00002.safetensors": names[1::2],
    }
    for file, held in parts.items():
        save_file({name: net[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in parts.items() for name in held}
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index, weight_map


def test_the_index_of_several_parts_is_read(tmp_path, net):
    index, _ = sharded(tmp_path, net)
    state = read_checkpoint(index)
    assert state.keys() == net.keys()
    assert all(torch.equal(state[name], net[name]) for name in net)
    with pytest.raises(FileFormatError, match=r"one of 2 parts .*m\.safetensors\.index\.json"):
        read_checkpoint(tmp_path / "m-00001-of-00002.safetensors")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "weight_map"),
        ('{"weight_map": {}}', "weight_map"),
        ('{"weight_map": {"a": "../b.safetensors"}}', "not beside it"),
        ('{"weight_map": {"a": "/b.safetensors"}}', "not beside it"),
        ('{"weight_map": {"a": ".."}}', "not beside it"),
        ('{"weight_map": {"a": 3}}', "3 cannot be read"),
        ('{"weight_map": {"a": "none.safetensors"}}', "cannot be read"),
        ('{"weight_map": {"other": "m-00001-of-00002.safetensors"}}', "does not have it"),
    ],
)
def test_an_index_that_is_none(tmp_path, net, text, words):
    index, _ = sharded(tmp_path, net)
    index.write_text(text)
    with pytest.raises(FileFormatError, match=words):
        read_checkpoint(index)


def test_edt_with_three_convolutions_behind_its_body(tmp_path):
    torch.manual_seed(0)
    config = {**BACKBONES["edt"].example, "resi_connection": "3conv"}
    network = create_backbone("edt", config).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    options = {"num_heads": [2], "window_size": [2, 4]}
    made = import_released(tmp_path / "a.pth", tmp_path / "b.safetensors", options=options)
    assert made.config["resi_connection"] == "3conv"
    picture = np.random.default_rng(0).random((24, 32, 3), dtype=np.float32)
    restored = Restorer(tmp_path / "b.safetensors", engine="torch").restore(picture)
    with torch.no_grad():
        expected = network(torch.from_numpy(picture.transpose(2, 0, 1).copy())[None])[0]
    np.testing.assert_allclose(restored, expected.permute(1, 2, 0).clamp(0, 1), atol=1e-5)


class Options(dict):
    """A configuration of a trainer's own class."""


def saved_beside(net):
    number = np.float64(31.2)
    times = {"saved": datetime.datetime(2026, 1, 2), "path": PurePosixPath("a/b")}
    options = Options(rate=0.1, sizes=[1, 2])
    options.name = "mine"
    return {
        "args": {"args": argparse.Namespace(lr=1e-3), "state_dict": net},
        "numbers": {"params": net, "best": number, "losses": np.zeros(3), **times},
        "options": {"options": options, "model": net},
        "what all have": {
            "losses": collections.defaultdict(list, train=[0.1]),
            "seen": frozenset({1, 2}),
            "optimizer": torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))]),
            "rate": functools.partial(int, base=2),
            "state_dict": net,
        },
        "weights in a class of their own": {"model": Options(net), "step": 3},
    }


@pytest.mark.parametrize("how", list(saved_beside({})))
@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_weights_are_left_out(tmp_path, net, how, zipped):
    torch.save(saved_beside(net)[how], tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    made = import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    tensors = read_model(tmp_path / "b.safetensors").tensors
    for name, tensor in net.items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())
    told = {"args": "argparse.Namespace", "numbers": "NumPy"}.get(how, "")
    assert told in " ".join(made.notes)


class Harm:
    """Would call what it names when it is read."""

    def __init__(self, called, *given):
        self.called, self.given = called, given

    def __reduce__(self):
        return self.called, self.given


def test_nothing_that_a_file_names_is_imported_or_called(tmp_path, net, monkeypatch):
    calls = []
    own = types.ModuleType("a_module_of_the_file")
    own.note = lambda *given: calls.append(given)
    own.note.__module__, own.note.__qualname__ = own.__name__, "note"
    monkeypatch.setitem(sys.modules, own.__name__, own)
    torch.save({"x": Harm(own.note, "read"), "params": net}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, own.__name__)
    assert read_checkpoint(tmp_path / "a.pth").keys() == net.keys()
    assert not calls
    assert own.__name__ not in sys.modules


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_another_pickle_protocol_is_named(tmp_path, net):
    torch.save(net, tmp_path / "a.pth", pickle_protocol=4)
    with pytest.raises(FileFormatError, match=r"pickle_protocol that torch does not read"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("called", [len, shutil.which, Path.cwd])
def test_functions_of_python_do_not_belong_into_a_checkpoint(tmp_path, net, called):
    torch.save({"x": Harm(called, "a"), "params": net}, tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match="could run code"):
        read_checkpoint(tmp_path / "a.pth")


class Whole(torch.nn.Module):
    def forward(self, pixels):
        return pixels


@pytest.mark.filterwarnings("ignore:.*jit.*:DeprecationWarning")
def test_what_is_no_checkpoint_is_called_by_its_name(tmp_path, net):
    torch.save(Whole(), tmp_path / "whole.pth")
    torch.jit.save(torch.jit.script(Whole()), tmp_path / "script.pt")
    np.savez(tmp_path / "arrays.npz", **{name: t.numpy() for name, t in net.items()})
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(60))
    (tmp_path / "x.onnx").write_bytes(bytes([8, 7]))
    (tmp_path / "folder").mkdir()
    words = {
        "whole.pth": r"one whole object of the class \S*Whole, .* state_dict\(\)",
        "script.pt": "is TorchScript",
        "arrays.npz": "an archive of NumPy's arrays",
        "x.gguf": "a GGUF file",
        "x.onnx": "an ONNX model",
        "folder": "is a folder",
    }
    for name, expected in words.items():
        with pytest.raises(FileFormatError, match=expected):
            read_checkpoint(tmp_path / name)


def test_of_networks_alike_the_user_says_which(tmp_path, net):
    other = {name: tensor + 1 for name, tensor in net.items()}
    both = {f"denoiser.{n}": t for n, t in net.items()} | {
        f"deblur.{n}": t for n, t in other.items()
    }
    torch.save(both, tmp_path / "a.pth")
    with pytest.raises(FileFormatError, match=r"alike under .* --set copy=de"):
        import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    with pytest.raises(FileFormatError, match="no network under 'den'"):
        import_released(tmp_path / "a.pth", tmp_path / "b.safetensors", options={"copy": "den"})
    made = import_released(
        tmp_path / "a.pth", tmp_path / "b.safetensors", options={"copy": "denoiser"}
    )
    assert "(denoiser)" in made.notes[0]
    assert "(deblur)" in made.notes[0]
    tensors = read_model(tmp_path / "b.safetensors").tensors
    np.testing.assert_array_equal(tensors["intro.weight"], net["intro.weight"].numpy())


def test_averages_without_dots_are_found(tmp_path, net):
    other = {f"model.{name}": tensor + 1 for name, tensor in net.items()}
    average = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in net.items()}
    counters = {"model_ema.decay": torch.tensor(0.99), "model_ema.num_updates": torch.tensor(3)}
    torch.save({"state_dict": {**other, **average, **counters}}, tmp_path / "a.ckpt")
    found = read_network(tmp_path / "a.ckpt")
    assert torch.equal(found.tensors["intro.weight"], net["intro.weight"])
    assert "averaged copy of the weights is taken" in found.notes[0]
