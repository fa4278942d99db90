"""A gate in an adapter file: it says which share of the adapter's change is taken."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import run
from pictures import picture
from torch.nn import functional as F
from world import write_random, write_tiny_model

from urushi.app.output import EXIT_FAILED
from urushi.errors import AdapterError
from urushi.files.adapter import read_adapter, write_adapter
from urushi.files.model import read_model
from urushi.inference.adapted_weights import notes_of_graphs
from urushi.inference.change_gate import Gate, GateNetwork
from urushi.inference.restorer import Restorer

WIDE = (4, 5, 6)
RNG = np.random.default_rng(4)
PHOTO = np.rint(255 * picture(24, 32)).astype(np.uint8)
TILE = RNG.random((3, 21, 30), dtype=np.float32)


def tensors(bias: float | None = None, seed: int = 1, deep: int = 2) -> dict[str, np.ndarray]:
    """Of a gate with blocks in its middle; with a bias it gives that share of everything."""
    rng = np.random.default_rng(seed)
    shapes = {"stem": (WIDE[0], 28, 3, 3), "head": (4, WIDE[0], 3, 3)}
    for level in (0, 1):
        shapes[f"down.{level}"] = (WIDE[level + 1], 4 * WIDE[level], 1, 1)
        shapes[f"up.{level}"] = (4 * WIDE[level], WIDE[level + 1], 1, 1)
    middle = [f"middle.{number}" for number in range(deep)]
    for block in ("enter.0", "enter.1", *middle, "leave.1", "leave.0"):
        channels = WIDE[2] if block.startswith("middle") else WIDE[int(block[-1])]
        for part in ("first", "second"):
            shapes[f"{block}.{part}"] = (channels, channels, 3, 3)
    made = {}
    for name, shape in shapes.items():
        made[f"{name}.weight"] = rng.normal(0, 0.2, shape).astype(np.float32)
        made[f"{name}.bias"] = rng.normal(0, 0.2, shape[:1]).astype(np.float32)
    if bias is not None:
        made["head.weight"][:], made["head.bias"][:] = 0, bias
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny base, and an adapter of it: with no gate, with an open one, with a closed one."""
    root = tmp_path_factory.mktemp("gated")
    base = read_model(write_tiny_model(root / "base.safetensors"))
    write_random(root / "plain.safetensors", base, size=0.25)
    plain = read_adapter(root / "plain.safetensors")
    header = plain.header.model_copy(update={"gate": True})
    for name, bias in (("open", 30.0), ("closed", -30.0)):
        gate = {f"gate.{key}": value for key, value in tensors(bias).items()}
        write_adapter(root / f"{name}.safetensors", {**plain.tensors, **gate}, header, "float32")
    return root


def restored(folder, name, engine="torch"):
    path = folder / f"{name}.safetensors"
    model = folder / "base.safetensors"
    made = Restorer(model, adapters=[path], engine=engine).restore(PHOTO)
    return made.astype(int)


def test_an_open_gate_takes_the_change_and_a_closed_one_leaves_what_is_large(folder):
    seen = PHOTO.astype(int)
    plain, opened, closed = (restored(folder, name) for name in ("plain", "open", "closed"))
    change = np.abs(plain - seen).max(2)
    assert (change > 8).mean() > 0.05
    assert np.abs(opened - plain).max() <= 1
    assert np.abs(closed - seen).max() <= 4
    small = change < 2
    assert small.any()
    assert np.abs(closed - plain)[small].max() <= 1


def test_a_file_without_a_gate_says_nothing_of_one(folder):
    plain = read_adapter(folder / "plain.safetensors")
    assert not plain.header.gate
    assert "gate" not in plain.header.model_dump()
    assert plain.own.keys() == plain.tensors.keys()
    gated = read_adapter(folder / "open.safetensors")
    assert gated.header.model_dump()["gate"] is True
    assert gated.own.keys() == plain.tensors.keys()
    assert gated.gate.keys() == tensors().keys()


@pytest.mark.parametrize("deep", [2, 4])
def test_arrays_calculate_what_torch_does(deep):
    own = {key: torch.from_numpy(value) for key, value in tensors(deep=deep).items()}
    change = (RNG.random((3, 21, 30), dtype=np.float32) - 0.5) / 10

    def layer(name, x, dilation=1):
        weight, bias = own[f"{name}.weight"], own[f"{name}.bias"]
        padding = dilation if weight.shape[-1] == 3 else 0
        return F.conv2d(x, weight, bias, padding=padding, dilation=dilation)

    def block(name, x, dilation=1):
        return x + layer(f"{name}.second", F.relu(layer(f"{name}.first", x, dilation)))

    tile, moved = torch.from_numpy(TILE), torch.from_numpy(change)
    largest = (20 * moved.abs().amax(0, keepdim=True)).clamp(max=2)
    read = torch.cat([tile - 0.5, (8 * moved).clamp(-1.5, 1.5), largest]).numpy()
    read = torch.from_numpy(np.pad(read, ((0, 0), (0, 3), (0, 2)), mode="symmetric"))[None]
    halves = block("enter.0", F.relu(layer("stem", F.pixel_unshuffle(read, 2))))
    quarters = block("enter.1", layer("down.0", F.pixel_unshuffle(halves, 2)))
    x = layer("down.1", F.pixel_unshuffle(quarters, 2))
    for number, reach in zip(range(deep), (1, 2, 4, 1), strict=False):
        x = block(f"middle.{number}", x, reach)
    x = block("leave.1", quarters + F.pixel_shuffle(layer("up.1", x), 2))
    x = block("leave.0", halves + F.pixel_shuffle(layer("up.0", x), 2))
    expected = F.pixel_shuffle(layer("head", x), 2).sigmoid()[0, 0, :21, :30].numpy()
    share = GateNetwork(tensors(deep=deep), "it")(TILE, change)
    assert share.std() > 0.01
    np.testing.assert_allclose(share, expected, atol=1e-5)


def test_the_gate_sees_the_change_as_it_is_at_full_strength(folder):
    adapter = read_adapter(folder / "open.safetensors")
    adapter = replace(
        adapter, tensors={f"gate.{key}": value for key, value in tensors(seed=2).items()}
    )
    change = (RNG.random((3, 21, 30), dtype=np.float32) - 0.5) / 5
    whole = Gate(adapter, 1.0)(TILE, TILE + change) - TILE
    half = Gate(adapter, 0.5)(TILE, TILE + change / 2) - TILE
    np.testing.assert_allclose(half, whole / 2, atol=1e-5)


def test_beside_other_adapters_it_does_not_act_and_that_is_told(folder, tmp_path):
    base = read_model(folder / "base.safetensors")
    write_random(tmp_path / "other.safetensors", base, seed=5)
    files = [folder / "closed.safetensors", (tmp_path / "other.safetensors", 0)]
    restorer = Restorer(base.path, adapters=files, engine="torch")
    result = restorer.restore(PHOTO).astype(int)
    assert np.abs(result - restored(folder, "plain")).max() <= 1
    assert [note for note in restorer.notes if note.startswith("closed.safetensors acts without")]


def test_what_holds_no_gate_says_so(folder, tmp_path):
    closed = folder / "closed.safetensors"
    words = ("export", closed, "--model", folder / "base.safetensors")
    result = run(*words, "--merged", tmp_path / "merged.safetensors")
    assert result.exit_code == EXIT_FAILED
    assert "its gate looks at what the adapter changed" in result.stderr
    restorer = Restorer(folder / "base.safetensors", adapters=[closed], engine="torch")
    (note,) = notes_of_graphs(restorer.adapters)
    assert "acts here without its check" in note


@pytest.mark.parametrize("spoilt", ["missing", "shape", "unknown"])
def test_an_unsound_gate_is_told(folder, tmp_path, spoilt):
    found = read_adapter(folder / "open.safetensors")
    held = dict(found.tensors)
    if spoilt == "missing":
        del held["gate.middle.1.first.bias"]
    elif spoilt == "shape":
        held["gate.middle.1.first.bias"] = np.zeros(3, np.float32)
    else:
        held["gate.middle.1.first.bia"] = np.zeros(3, np.float32)
    write_adapter(tmp_path / "bad.safetensors", held, found.header, "float32")
    with pytest.raises(AdapterError, match=r"bad\.safetensors: not a sound gate at 'middle\.1"):
        Restorer(folder / "base.safetensors", adapters=[tmp_path / "bad.safetensors"])


def test_inspect_tells_of_the_gate(folder):
    result = run("inspect", folder / "open.safetensors", "--json")
    assert json.loads(result.stdout)["header"]["gate"] is True
