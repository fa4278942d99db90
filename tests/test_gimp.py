"""The plug-in of GIMP: the commands it forms, and what it does with the answers."""

import json
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
from callers import POSIX, loaded, program, tasks
from commands import ROOT, environment
from PIL import Image


@pytest.fixture(scope="module")
def gimp():
    """The plug-in, without GIMP."""
    return loaded("urushi_gimp")


def test_gimp_forms_a_command(gimp):
    words = ["restore", "--json", "--white", "65535", "--task"]
    plain = gimp.restore_command("", "-a b.png", "o.png")
    assert plain == ["urushi", *words, "auto", "-o", "o.png", "-a b.png"]
    full = gimp.restore_command("p q", "a", "b", task="haze", strength=0.25, router="r s")
    more = ["--strength", "0.25", "--router", "r s"]
    assert full == ["p q", *words, "haze", *more, "-o", "b", "a"]


def test_gimp_restores_through_the_command(gimp, tmp_path, monkeypatch):
    """By the real command, also where the environment is one in which it could not start."""
    source, target = tmp_path / 'it\'s "x" $y.png', tmp_path / "ä b.png"
    pixels = np.random.default_rng(0).integers(0, 65536, (24, 32), np.uint16)
    Image.fromarray(pixels).save(source)
    command = gimp.restore_command(sys.executable, str(source), str(target), task="none")
    command[1:1] = ["-m", "urushi"]
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    waited = []
    restored = gimp.run_command(command, lambda: waited.append(1))
    assert restored.notes == []
    assert waited
    with Image.open(target) as made:
        assert made.mode == "I;16"
        assert made.size == (32, 24)


def test_gimp_says_why_nothing_was_restored(gimp):
    with pytest.raises(gimp.RestoreError, match="'/no where/urushi' cannot be started"):
        gimp.run_command(["/no where/urushi"], print)
    with pytest.raises(gimp.RestoreError, match=r"^task is 'x', did you mean"):
        gimp.read_outcome(1, "", "a warning\ntask is 'x', did you mean y?\n\n")
    with pytest.raises(gimp.RestoreError, match="ended with code -9"):
        gimp.read_outcome(-9, "{", "")
    failed = {"status": "failed", "message": "it is damaged", "notes": [], "router": None}
    with pytest.raises(gimp.RestoreError, match=r"^it is damaged$"):
        gimp.read_outcome(1, json.dumps({"files": [failed]}), "failed: it is damaged")


class Host:
    """What stands in for GIMP: it writes and reads files, and notes what it is asked for."""

    def __init__(self, monkeypatch, gimp):
        self.modules = MagicMock()
        layer = type("Layer", (MagicMock,), {"new_from_drawable": staticmethod(MagicMock())})
        self.modules.Gimp.Layer = layer
        self.modules.Gio.File.new_for_path = lambda path: path
        self.modules.GLib.Error = lambda text="": text
        monkeypatch.setattr(gimp, "modules", lambda: self.modules)
        self.image, self.procedure = MagicMock(), MagicMock()
        self.procedure.new_return_values = lambda status, error: (status, error)
        self.layer = self.modules.Gimp.Layer()
        self.layer.is_group.return_value = False
        self.layer.get_offsets.return_value = (True, 3, 4)

    def run(self, gimp, drawables, **values):
        values = {"task": "haze", "strength": 1.0, "router": "", "source": "layer", **values}
        config = MagicMock(get_property=lambda name: values[name])
        return gimp.run(self.procedure, "not shown", self.image, drawables, config)


@POSIX
@pytest.mark.parametrize("source", ["layer", "visible"])
def test_gimp_puts_the_result_above_the_layer(gimp, tmp_path, monkeypatch, source):
    answer = {"files": [{"status": "restored", "notes": ["a note"], "router": {"reason": "haze"}}]}
    path, said = program(tmp_path, f"cat <<'END'\n{json.dumps(answer)}\nEND")
    host = Host(monkeypatch, gimp)
    status = host.modules.Gimp.PDBStatusType
    assert host.run(gimp, [host.layer], program=str(path), source=source) == (status.SUCCESS, "")
    words = said.read_text().splitlines()
    assert words[words.index("--task") + 1] == "haze"
    (saved,), (loaded_from,) = (
        [call.args[at] for call in named.call_args_list]
        for named, at in ((host.modules.Gimp.file_save, 2), (host.modules.Gimp.file_load_layer, 2))
    )
    assert words[-3:] == ["-o", loaded_from, saved]
    made = host.modules.Gimp.file_load_layer.return_value
    made.set_name.assert_called_once_with("Urushi (haze)")
    above = (None, 0)
    if source == "layer":
        above = host.layer.get_parent(), host.image.get_item_position(host.layer)
        made.set_offsets.assert_called_once_with(3, 4)
    host.image.insert_layer.assert_called_once_with(made, *above)
    host.image.undo_group_end.assert_called_once()
    host.modules.Gimp.message.assert_called_once_with("a note")


def test_gimp_leaves_the_image_where_nothing_was_restored(gimp, monkeypatch):
    host = Host(monkeypatch, gimp)
    failed = host.modules.Gimp.PDBStatusType.EXECUTION_ERROR
    status, said = host.run(gimp, [host.layer], program="/no where/urushi")
    assert (status, "cannot be started" in said) == (failed, True)
    status, said = host.run(gimp, [host.layer, host.layer])
    assert (status, "select one layer" in said) == (failed, True)
    host.layer.is_group.return_value = True
    status, said = host.run(gimp, [host.layer])
    assert (status, "a group of layers has no pixels" in said) == (failed, True)
    host.image.insert_layer.assert_not_called()


def test_gimp_asks_for_every_option_of_its_command(gimp, monkeypatch):
    host = Host(monkeypatch, gimp)
    gimp.describe(host.procedure, gimp.NAME)
    asked = {
        call.args[0]
        for name in ("choice", "double", "string")
        for call in getattr(host.procedure, f"add_{name}_argument").call_args_list
    }
    assert asked == {"task", "source", "strength", "router", "program"}
    told = [call.args[0] for call in host.modules.Gimp.Choice.new().add.call_args_list]
    assert told == [*gimp.TASKS, *gimp.SOURCES]


def test_gimp_has_every_task(gimp):
    assert set(gimp.TASKS) == tasks()
