"""What the folder of the page is made of: programs of a known release, networks of their own."""

import gzip
import io
import json
import re
import tarfile
from urllib.parse import unquote

import pytest
from PIL import Image
from world import write_random, write_tiny_model

from urushi.errors import FileFormatError
from urushi.files.model import read_model
from urushi.inference.cache_folder import CACHE_VARIABLE
from urushi.serve import browser_folder, browser_runtime
from urushi.serve.browser_folder import write_browser_folder


def packed(path, **files):
    """A package as npm packs it, with these files."""
    with tarfile.open(path, "w:gz") as pack:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            pack.addfile(entry, io.BytesIO(content))
    return path


def test_only_the_release_that_is_known_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    name, expected = (
        "program.wasm",
        "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    )
    monkeypatch.setattr(browser_runtime, "FILES", {name: expected})
    other = packed(tmp_path / "other.tgz", **{name: b"bar"})
    with pytest.raises(FileFormatError, match=re.escape(f"{name} is not that of")):
        browser_runtime.runtime_folder(other)
    Image.new("RGB", (9, 9)).save(tmp_path / "picture.png")
    for broken in (packed(tmp_path / "empty.tgz"), tmp_path / "picture.png"):
        with pytest.raises(FileFormatError, match="as npm packs it"):
            browser_runtime.runtime_folder(broken)
    folder = browser_runtime.runtime_folder(packed(tmp_path / "right.tgz", **{name: b"foo"}))
    assert [path.name for path in folder.iterdir()] == ["program.wasm.gz"]
    monkeypatch.setenv("PATH", "")
    assert browser_runtime.runtime_folder() == folder  # from the cache
    (folder / "program.wasm.gz").write_bytes(b"damaged")
    with pytest.raises(
        FileFormatError, match="npm, which fetches onnxruntime-web, is not installed"
    ):
        browser_runtime.runtime_folder()


def test_adapters_of_one_file_name_are_networks_of_their_own(tmp_path, monkeypatch):
    """Also one that is called as the network is, or has letters that addresses have not."""
    (tmp_path / "programs").mkdir()
    monkeypatch.setattr(browser_folder, "runtime_folder", lambda given: tmp_path / "programs")

    def export(_model, graph, adapters):
        graph.write_bytes(repr(adapters).encode())

    monkeypatch.setattr(browser_folder, "export_standalone", export)
    model, paths = read_model(write_tiny_model(tmp_path / "tiny.safetensors")), []
    for seed, name in enumerate(("a/mine", "b/Mine", "c/tiny", "d/50 % #1")):
        paths.append(tmp_path / f"{name}.safetensors")
        paths[-1].parent.mkdir()
        write_random(paths[-1], model, {"description": name}, seed=seed)
    made = write_browser_folder(model, tmp_path / "site", paths, tile=64)
    assert made.networks == ("tiny", "mine", "Mine-2", "tiny-2", "50 % #1")
    told = json.loads((made.path / "networks.json").read_text())["networks"]
    assert told[-1]["file"] == "networks/50%20%25%20%231.onnx.gz"
    graphs = {
        gzip.decompress((made.path / unquote(one["file"])).read_bytes()).decode() for one in told
    }
    assert graphs == {"()", *(repr([path]) for path in paths)}
