"""Callers from within ComfyUI and digiKam: what they ask for, and what they do with the answers.

The programs themselves are not here. Small stand-ins have the part of their interfaces that a
caller uses, and behave as those were seen to.
"""

import os
import py_compile
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from callers import FOLDER, NASTY, POSIX, Object, loaded, program, tasks

import urushi
from urushi.inference.zoo import find_all_in_one

# --- ComfyUI ---


@pytest.fixture
def comfy(tmp_path, monkeypatch):
    """The nodes in a stand-in for ComfyUI, with a folder of models."""
    own = tmp_path / "urushi"
    own.mkdir()
    shutil.copyfile(find_all_in_one().with_name("haze.safetensors"), own / "my haze.safetensors")
    (own / "notes.txt").write_text("not a model")
    modules = {name: types.ModuleType(name) for name in ("folder_paths", "comfy")}
    paths = modules["folder_paths"]
    paths.models_dir, paths.added = str(tmp_path), {}
    paths.add_model_folder_path = lambda name, path: paths.added.update({name: path})
    paths.get_filename_list = lambda name: sorted(os.listdir(paths.added[name]))

    def full_path(name, file):
        path = Path(paths.added[name]) / file
        return str(path) if path.is_file() else None

    paths.get_full_path = full_path
    modules["comfy.utils"] = types.ModuleType("comfy.utils")
    modules["comfy.utils"].ProgressBar = lambda total: Object(update=lambda _: None)
    modules["comfy.model_management"] = types.ModuleType("comfy.model_management")
    modules["comfy.model_management"].throw_exception_if_processing_interrupted = lambda: None
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return loaded("comfyui_urushi")


def values_of(node):
    """The values that ComfyUI sends for widgets that nobody touched."""
    inputs = node.INPUT_TYPES()
    found = {}
    for name, (kind, *more) in {**inputs["required"], **inputs.get("optional", {})}.items():
        if name != "image":
            given = more[0].get("default") if more else None
            found[name] = given if given is not None else kind[0]
    return found


def test_comfyui_restores_a_batch_as_python_does(comfy):
    node = comfy.NODE_CLASS_MAPPINGS["UrushiRestore"]
    assert set(node.INPUT_TYPES()["required"]["task"][0]) == tasks()
    batch = torch.rand(2, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    before, values = batch.clone(), values_of(node)
    assert (values["task"], values["strength"]) == ("auto", 1.0)
    values["task"] = "haze"
    images, seen = getattr(node(), node.FUNCTION)(image=batch, **values)
    assert seen == "haze, as told\nhaze, as told"
    assert images.dtype == torch.float32
    whole = [urushi.restore(picture.numpy(), task="haze") for picture in batch]
    assert np.array_equal(images.numpy(), np.clip(whole, 0, 1))
    assert torch.equal(batch, before)
    values["strength"] = 0.5
    (image,), _ = getattr(node(), node.FUNCTION)(image=batch[:1], **values)
    between = (batch[0].numpy() + whole[0]) / 2
    assert np.abs(image.numpy() - between.clip(0, 1)).max() < 1e-5


def test_comfyui_asks_the_router(comfy):
    node = comfy.NODE_CLASS_MAPPINGS["UrushiRestore"]
    batch = torch.rand(1, 24, 32, 3, generator=torch.Generator().manual_seed(0))
    (image,), seen = getattr(node(), node.FUNCTION)(image=batch, **values_of(node))
    restorer = urushi.AutoRestorer()
    assert np.array_equal(image.numpy(), restorer.restore(batch[0].numpy()).clip(0, 1))
    assert seen == restorer.last.reason


def test_comfyui_takes_adapters_and_own_files(comfy):
    node = comfy.NODE_CLASS_MAPPINGS["UrushiRestoreWithAdapters"]
    inputs = node.INPUT_TYPES()["required"]
    assert inputs["model"][0] == ["base", "my haze.safetensors"]
    picture = torch.rand(1, 24, 32, 4, generator=torch.Generator().manual_seed(1))
    values = {**values_of(node), "adapters": "\n my haze.safetensors:0.5 \n\n"}
    (images,) = getattr(node(), node.FUNCTION)(image=picture, **values)
    expected = urushi.restore(picture[0].numpy(), adapters=[("haze", 0.5)])
    assert np.array_equal(images[0].numpy(), expected.clip(0, 1))
    assert images.shape == picture.shape
    with pytest.raises(urushi.UrushiError, match="nothing"):
        getattr(node(), node.FUNCTION)(image=picture, **{**values, "adapters": "nothing"})


# --- digiKam ---


def as_digikam(text, source, target):
    """Runs a script as digiKam does: paths in quotes, whatever is in them, are put into it."""
    text = text.replace("$INPUT", f'"{source}"').replace("$OUTPUT", f'"{target}"')
    return subprocess.run(["/bin/sh", "-c", text], capture_output=True, text=True, check=False)


@POSIX
@pytest.mark.parametrize("name", NASTY)
def test_digikam_passes_any_path(tmp_path, name, monkeypatch):
    path, said = program(tmp_path, 'echo made > "$6"')
    monkeypatch.setenv("URUSHI", str(path))
    source, target = tmp_path / f"{name}.jpg", tmp_path / f"{name} out.jpg"
    target.touch()
    shutil.copy(FOLDER / "digikam_urushi.sh", tmp_path / "script.sh")
    script = f"sh '{tmp_path}/script.sh' --task haze <<'END'\n$INPUT\n$OUTPUT\nEND\n"
    done = as_digikam(script, source, target)
    assert (done.returncode, done.stderr) == (0, "")
    words = ["restore", "--overwrite", "--task", "haze", "-o", str(target), str(source)]
    assert said.read_text().splitlines() == words
    assert target.read_text() == "made\n"


@POSIX
def test_digikam_is_told_of_failures(tmp_path, monkeypatch):
    path, _ = program(tmp_path, "exit 1")
    monkeypatch.setenv("URUSHI", str(path))
    target = tmp_path / "out.jpg"
    target.touch()
    script = f"sh '{FOLDER}/digikam_urushi.sh' <<'END'\n$INPUT\n$OUTPUT\nEND\n"
    assert as_digikam(script, tmp_path / "in.jpg", target).returncode == 127
    assert not target.exists()
    done = as_digikam(f"sh '{FOLDER}/digikam_urushi.sh' </dev/null", tmp_path, target)
    assert done.returncode == 127
    assert "expected two lines" in done.stderr


# --- all ---


def test_all_are_of_their_language(tmp_path):
    found = {path.suffix for path in FOLDER.iterdir() if path.is_file()}
    assert found == {".lua", ".py", ".sh"}
    for path in FOLDER.glob("*.py"):
        py_compile.compile(str(path), cfile=str(tmp_path / "made.pyc"), doraise=True)
    if os.name != "nt":
        for path in FOLDER.glob("*.sh"):
            subprocess.run(["/bin/sh", "-n", str(path)], check=True)
