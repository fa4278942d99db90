"""`urushi import`: checkpoints in the authors' layouts become model files, or a sentence."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from commands import run
from networks import below, load_released, read_golden
from pictures import write_pictures
from safetensors.torch import save_file
from world import tiny_clip

from urushi.adapters.host import Host
from urushi.adapters.stored import load_adapter
from urushi.backbones import create_backbone
from urushi.backbones.checkpoints import read_checkpoint
from urushi.backbones.edt_released import to_released as edt_to_released
from urushi.backbones.ipt_released import to_released as ipt_to_released
from urushi.backbones.swinir_released import to_released as swinir_to_released
from urushi.convert.importing import import_released
from urushi.errors import BackboneError, FileFormatError, TargetError
from urushi.files.adapter import read_adapter
from urushi.files.model import read_model
from urushi.files.router_file import read_router
from urushi.image import inspect_picture, read_picture
from urushi.inference.restorer import Restorer

# Golden files and what tensors cannot tell of each; the backbone and how much it enlarges.
LAYOUTS = {
    "nafnet": ({}, "nafnet", 1),
    "restormer": ({}, "restormer", 1),
    "restormer_withbias": ({}, "restormer", 1),
    "swinir": ({}, "swinir", 2),
    "swinir_denoise": ({}, "swinir", 1),
    "swinir_light": ({}, "swinir", 3),
    "swinir_real": ({}, "swinir", 4),
    "ipt": ({"num_heads": 4}, "ipt", 2),
    "edt": ({"num_heads": [2, 2]}, "edt", 2),
}


def released(name):
    return below(read_golden(name)[0], "state.")


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_becomes_a_model_with_the_same_weights(tmp_path, name):
    options, backbone, scale = LAYOUTS[name]
    state = released(name)
    torch.save({"params": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a")
    made = import_released(tmp_path / "a", tmp_path / "b.safetensors", options=options)
    model = read_model(tmp_path / "b.safetensors")
    assert (made.backbone, model.header.backbone) == (backbone, backbone)
    network = create_backbone(backbone, model.header.config)
    assert network.scale == scale
    network.load_state_dict({key: torch.tensor(value) for key, value in model.tensors.items()})
    back = {
        "swinir": lambda n: swinir_to_released(n, 16),
        "ipt": ipt_to_released,
        "edt": edt_to_released,
    }.get(backbone, lambda n: n.state_dict())(network)
    kept = {key: value for key, value in state.items() if "mask" not in key}
    assert {key for key in back if "mask" not in key} == set(kept)
    for key, value in kept.items():
        assert torch.equal(back[key], value), key


@pytest.mark.parametrize("name", ["nafnet", "swinir", "ipt"])
def test_the_command_imports_and_what_it_wrote_restores(tmp_path, name):
    options, _, scale = LAYOUTS[name]
    source, target = tmp_path / f"{name}.pth", tmp_path / "mine.safetensors"
    torch.save(released(name), source)
    settings = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    done = run("import", source, "-o", target, "--json", *settings)
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["files"] == [str(target)]
    assert said["parameters"] == sum(array.size for array in read_model(target).tensors.values())
    (picture,) = write_pictures(tmp_path, 1, height=20, width=28)
    done = run("restore", picture, "-o", tmp_path / "out.png", "--model", target)
    assert done.exit_code == 0, done.stderr
    info = inspect_picture(tmp_path / "out.png")
    assert (info.width, info.height) == (28 * scale, 20 * scale)
    assert run("import", source, "-o", target, *settings).exit_code == 1
    assert run("import", source, "-o", target, "--overwrite", *settings).exit_code == 0


def test_another_head_is_chosen(tmp_path):
    torch.save(released("ipt"), tmp_path / "a.pt")
    options = {"num_heads": 4, "head": "restore"}
    made = import_released(tmp_path / "a.pt", tmp_path / "b.safetensors", options=options)
    assert any("heads x2, restore, of which restore is in use" in note for note in made.notes)
    assert Restorer(tmp_path / "b.safetensors", engine="torch").scale == 1


@pytest.mark.parametrize("wrapping", ["params_ema", "state_dict", "net", None])
def test_safetensors_and_wrappings(tmp_path, wrapping):
    state = released("nafnet")
    start = "" if wrapping is None else f"{wrapping}."
    save_file({start + key: value for key, value in state.items()}, tmp_path / "a.safetensors")
    torch.save({wrapping: state, "epoch": 3} if wrapping else state, tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        assert set(read_checkpoint(tmp_path / name)) == set(state)


@pytest.mark.parametrize(("name", "local"), [("NAFNet-GoPro-width8", True), ("SIDD-8", False)])
def test_local_pooling_is_told_by_the_name(tmp_path, name, local):
    torch.save(released("nafnet"), tmp_path / f"{name}.pth")
    made = import_released(tmp_path / f"{name}.pth", tmp_path / "b.safetensors")
    assert made.config.get("pooling_patch") == (256 if local else None)
    assert any("pools locally" in note for note in made.notes) == local
    options = {"pooling_patch": 64}
    made = import_released(tmp_path / f"{name}.pth", tmp_path / "c.safetensors", options=options)
    assert made.config["pooling_patch"] == 64


def test_lora_ir_becomes_a_model_and_two_adapters(tmp_path):
    tensors = read_golden("lora_ir_stage2")[0] | read_golden("lora_ir_stage2_vector")[0]
    torch.save({"params": below(tensors, "state.")}, tmp_path / "ir.pth")
    made = import_released(tmp_path / "ir.pth", tmp_path / "ir.safetensors")
    names = [path.name for path in made.files]
    assert names == ["ir.safetensors", "ir.guidance.safetensors", "ir.experts.safetensors"]
    model = read_model(made.files[0])
    adapters = [read_adapter(path) for path in made.files[1:]]
    assert [adapter.header.method for adapter in adapters] == ["guidance", "experts"]
    assert {a.header.base.weights_hash for a in adapters} == {model.header.weights_hash}
    network = create_backbone("nafnet", model.header.config)
    guidance = load_adapter(network, adapters[0])
    experts = load_adapter(Host(network, guidance), adapters[1])
    assert sum(p.numel() for p in experts.parameters()) == adapters[1].parameters
    with pytest.raises(TargetError, match="exists"):
        import_released(tmp_path / "ir.pth", tmp_path / "ir.safetensors")
    (tmp_path / "ir.safetensors").unlink()
    with pytest.raises(TargetError, match=r"ir\.guidance\.safetensors' exists"):
        import_released(tmp_path / "ir.pth", tmp_path / "ir.safetensors")
    assert not (tmp_path / "ir.safetensors").exists()


def test_its_router_becomes_a_router(tmp_path):
    state = below(read_golden("lora_ir_router_head")[0], "state.")
    tower = tiny_clip(projection=64).state_dict()
    torch.save({**state, **{f"clip.{key}": t for key, t in tower.items()}}, tmp_path / "r.pth")
    made = import_released(tmp_path / "r.pth", tmp_path / "r.safetensors")
    assert made.backbone == "router"
    assert read_router(tmp_path / "r.safetensors").header.classes == ("snow", "rain", "raindrop")
    options = {"classes": ["fog", "hail"]}
    with pytest.raises(
        FileFormatError, match="a router of 3 classes and does not hold their names"
    ):
        import_released(tmp_path / "r.pth", tmp_path / "s.safetensors", options=options)
    with pytest.raises(BackboneError, match="takes no setting 'head'"):
        import_released(tmp_path / "r.pth", tmp_path / "s.safetensors", options={"head": "x2"})


class Stranger:
    def __reduce__(self):
        return os.system, ("true",)


def broken(state, how):
    """The checkpoint with one fault."""
    name = "encoders.1.0.conv2.weight"
    state = dict(state)
    if how == "missing":
        del state[name]
    elif how == "extra":
        state["encoders.1.0.other"] = torch.zeros(1)
    elif how == "misshapen":
        state[name] = torch.zeros(5, 5)
    elif how == "nan":
        state[name] = torch.full_like(state[name], torch.nan)
    elif how == "axes":
        state["intro.weight"] = torch.zeros(3)
    elif how == "first":
        del state["intro.weight"]
    elif how == "deep":
        state["encoders.0.99999999.beta"] = torch.zeros(1)
    elif how == "complex":
        state[name] = torch.zeros(2, dtype=torch.complex64)
    elif how == "nested":
        state[name] = {"a": 1}
    else:
        state = {"some.thing.weight": torch.zeros(3)}
    return state


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ("missing", r"a.pth, read as nafnet, .*1 tensor is missing.*encoders.1.0.conv2.weight"),
        ("extra", "1 tensor is unexpected, the first is encoders.1.0.other"),
        ("misshapen", r"misshapen, the first is encoders.1.0.conv2.weight \(\(5, 5\) instead of"),
        ("nan", "'encoders.1.0.conv2.weight' holds values that are not finite"),
        ("axes", "nearest is nafnet, .* number of axes"),
        ("first", "nearest is nafnet, with 9.% of the names in common, .*intro.weight"),
        ("deep", "'encoders.0.99999999.beta' has a number in its name"),
        ("complex", "'encoders.1.0.conv2.weight' is of the kind torch.complex64"),
        ("nested", "'encoders.1.0.conv2.weight.a' is no tensor"),
        ("foreign", "none of nafnet, .* has tensors with names such as 'some.thing.weight'"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_written(tmp_path, how, match):
    torch.save(broken(released("nafnet"), how), tmp_path / "a.pth")
    with pytest.raises((FileFormatError, BackboneError), match=match) as caught:
        import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("truncated", "damaged or cut off"),
        ("code", r"asks for \w+.system\).* could run code"),
        ("pickle", r"a pickle that torch\.save did not write"),
        ("pointer", "pointer of Git LFS .* git lfs pull"),
        ("page", "is a web page"),
        ("empty", "is empty"),
        ("list", "holds no named tensors"),
        ("cut.safetensors", "no safetensors file, or is cut off"),
        ("nosuch", "cannot be read: No such file"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, name, match):
    path = tmp_path / name
    state = released("nafnet")
    contents = {
        "pickle": pickle.dumps({"a": Stranger()}),
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "page": b"\n<!DOCTYPE html><html>sign in</html>",
        "empty": b"",
    }
    if name in contents:
        path.write_bytes(contents[name])
    elif name == "code":
        torch.save({"a": Stranger()}, path)
    elif name == "list":
        torch.save([torch.zeros(1)], path)
    elif name == "cut.safetensors":
        save_file(state, path)
        path.write_bytes(path.read_bytes()[:-100])
    elif name == "truncated":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:-500])
    before = sorted(tmp_path.iterdir())
    done = run("import", path, "-o", tmp_path / "b.safetensors")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    with pytest.raises(FileFormatError, match=match):
        import_released(path, tmp_path / "b.safetensors")
    assert sorted(tmp_path.iterdir()) == before


def test_files_of_ours_are_not_imported_again(tmp_path):
    torch.save(released("nafnet"), tmp_path / "a.pth")
    import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    with pytest.raises(FileFormatError, match="is already a file of Urushi"):
        import_released(tmp_path / "b.safetensors", tmp_path / "c.safetensors")
    with pytest.raises(TargetError, match="must end in"):
        import_released(tmp_path / "a.pth", tmp_path / "c.pth")


@pytest.mark.parametrize("name", ["nafnet", "restormer", "swinir", "ipt", "edt"])
def test_tensors_of_any_number_of_axes_raise_errors_for_people(tmp_path, name):
    state = released(name)
    for flat in (lambda t: t.flatten(), lambda t: t.flatten()[:1].reshape(())):
        torch.save({key: flat(value) for key, value in state.items()}, tmp_path / "a.pth")
        with pytest.raises((BackboneError, FileFormatError)):
            load_released(tmp_path / "a.pth", name)


def test_grey_networks_restore_each_colour(tmp_path):
    config = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
    network = create_backbone("nafnet", {**config, "img_channel": 1})
    torch.save(network.state_dict(), tmp_path / "grey.pth")
    import_released(tmp_path / "grey.pth", tmp_path / "b.safetensors")
    picture = np.random.default_rng(0).random((12, 16, 3), dtype=np.float32)
    restored = Restorer(tmp_path / "b.safetensors", engine="torch").restore(picture)
    alone = network(torch.from_numpy(picture.transpose(2, 0, 1).copy())[:, None]).detach()
    expected = alone[:, 0].permute(1, 2, 0).clamp(0, 1).numpy()
    np.testing.assert_allclose(restored, expected, atol=1e-5)


def test_half_keeps_the_picture(tmp_path):
    torch.save(released("nafnet"), tmp_path / "a.pth")
    for name, words in (("whole", []), ("half", ["--half"])):
        run("import", tmp_path / "a.pth", "-o", tmp_path / f"{name}.safetensors", *words)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    (path,) = write_pictures(tmp_path, 1)
    results = [
        Restorer(tmp_path / f"{name}.safetensors", engine="torch").restore(read_picture(path))
        for name in ("whole", "half")
    ]
    assert np.abs(results[0] - results[1]).max() < 0.02


def test_scripts_find_it_at_its_former_place():
    from urushi.convert import importing
    from urushi.inference.importing import Imported, import_released

    assert (Imported, import_released) == (importing.Imported, importing.import_released)
    with pytest.raises(ImportError, match="nothing_such"):
        from urushi.inference.importing import nothing_such  # noqa: F401
