"""How a process starts: what is imported, read and hashed; and what --dry-run says of memory."""

import json
import subprocess
import sys
from weakref import WeakValueDictionary

import numpy as np
import pytest
from commands import run

from urushi.adapters import fold
from urushi.app import cli
from urushi.errors import FileFormatError
from urushi.files import container
from urushi.files import model as model_files
from urushi.files.model import read_model
from urushi.files.tensors import Tensors
from urushi.image import write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.estimate import Restoring, estimate_memory
from urushi.inference.zoo import ZOO


def test_restoring_imports_neither_torch_nor_what_it_does_not_need(tmp_path):
    picture = np.random.default_rng(0).random((32, 40, 3)).astype(np.float32)
    write_picture(tmp_path / "a.png", picture)
    code = (
        "import sys\n"
        "from urushi.app.cli import main\n"
        f"sys.argv = ['urushi', 'restore', {str(tmp_path / 'a.png')!r}, '--task', 'noise']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "unneeded = {'torch', 'yaml', 'PIL.ImageDraw', 'urushi.app.train', 'urushi.app.adapt',\n"
        "            'openvino.tools.ovc.convert', 'scipy', 'huggingface_hub'}\n"
        "print(sorted(unneeded & {n for n, m in sys.modules.items() if m is not None}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "a_restored.png").is_file()


def test_each_command_is_there_alone_and_among_all():
    whole = {command.name for command in cli.app.registered_commands}
    whole |= {group.name for group in cli.app.registered_groups}
    assert whole == set(cli._HOMES)
    for name in cli._HOMES:
        alone = cli.command_line([name])
        found = [*alone.registered_commands, *alone.registered_groups]
        assert [one.name for one in found] == [name]


def read_experts(auto):
    tensors = {name: one.adapter.tensors for name, one in auto.members.experts.items()}
    return [n for n, one in tensors.items() if not isinstance(one, Tensors) or one.ready]


def test_each_file_is_hashed_once_and_no_other_expert_is_read(monkeypatch):
    hashed, plain = [], container.weights_hash

    def count(tensors):
        hashed.append(len(tensors))
        return plain(tensors)

    monkeypatch.setattr(container, "weights_hash", count)
    monkeypatch.setattr(fold, "weights_hash", count)
    monkeypatch.setattr(model_files, "_SETTLED_NS", 0)
    # Another test may hold the base still.
    monkeypatch.setattr(model_files, "_held", WeakValueDictionary())
    auto = AutoRestorer(task="none", threads=1)
    assert len(hashed) == 2  # the router and the base
    assert read_experts(auto) == []
    auto.restore(np.zeros((32, 32, 3), np.float32))
    assert len(hashed) == 2
    auto = AutoRestorer(task="noise", threads=1)
    auto.restore(np.zeros((32, 32, 3), np.float32))
    auto.restore(np.zeros((32, 32, 3), np.float32))
    assert len(hashed) == 2 + 2  # the router and one expert: the base is held
    assert read_experts(auto) == ["noise"]


def test_a_base_that_is_held_is_read_once(tmp_path, monkeypatch):
    hashed, plain = [], container.weights_hash
    monkeypatch.setattr(container, "weights_hash", lambda own: hashed.append(1) or plain(own))
    path = tmp_path / "base.safetensors"
    path.write_bytes((ZOO / "base.safetensors").read_bytes())
    read_model(path)
    assert read_model(path) is not read_model(path)  # written a moment ago: it may change unseen
    monkeypatch.setattr(model_files, "_SETTLED_NS", 0)
    del hashed[:]
    held = read_model(path)
    assert read_model(path) is held
    assert len(hashed) == 1
    (tmp_path / "base.onnx").write_bytes((ZOO / "base.onnx").read_bytes())
    assert read_model(path).graph is not None
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="hash"):
        read_model(path)


def restoring(**options):
    found = Restoring.of_files(ZOO / "base.safetensors", engine="openvino", **options)
    assert found is not None
    return found


def test_memory_depends_on_the_width_and_not_on_the_height():
    base = restoring()
    once, twice = estimate_memory(base, 4000, 3000), estimate_memory(base, 4000, 6000)
    assert abs(twice.usual / once.usual - 1) < 0.03
    assert estimate_memory(base, 12000, 3000).usual > 1.3 * once.usual
    assert estimate_memory(base, 64, 64).usual < once.usual
    assert once.most == once.usual


def test_memory_of_tiles():
    small, large = restoring(tile=128), restoring(tile=640)
    assert estimate_memory(small, 4000, 3000) < estimate_memory(large, 4000, 3000)
    wide = restoring(degradations=[["haze"], ["noise"]], chosen=True)
    found = estimate_memory(wide, 4000, 3000)
    assert found.most > found.usual == estimate_memory(restoring(), 4000, 3000).usual
    told = restoring(degradations=[["haze"]])
    assert estimate_memory(told, 4000, 3000).usual == found.most


@pytest.mark.parametrize("options", [(), ("--task", "none"), ("--adapter", "noise")])
def test_dry_run_tells_memory(tmp_path, options):
    write_picture(tmp_path / "a.png", np.zeros((40, 60, 3), np.float32))
    write_picture(tmp_path / "b.png", np.zeros((40, 900, 3), np.float32))
    (tmp_path / "c.png").write_bytes(b"no picture")
    words = ("restore", tmp_path, "-o", tmp_path / "out", "--dry-run", *options)
    said = run(*words).stdout
    assert "memory: about " in said
    assert "b.png of 900 x 40 pixels" in said
    found = json.loads(run(*words, "--json").stdout)
    rows = {row["source"].rpartition("/")[2]: row["memory"] for row in found["files"]}
    assert rows["c.png"] is None
    assert rows["a.png"]["usual"] < rows["b.png"]["usual"] <= found["memory"]["most"]
    assert not (tmp_path / "out").exists()
