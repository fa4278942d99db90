"""Callers from within other programs: the commands they form, and what they do with the answers.

The programs themselves are not here. Small stand-ins have the part of their interfaces that a
caller uses, and behave as those were seen to.
"""

import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
import types
from pathlib import Path

import lupa.lua54 as lupa
import numpy as np
import pytest
import torch
from commands import ROOT, environment
from PIL import Image

import urushi
from urushi.inference.zoo import find_all_in_one

FOLDER = ROOT / "integrations"
# Names that shells take apart, if they are let.
NASTY = [
    "plain", "two  words", "it's", 'a "quote"', "$HOME", "`id`", "a;b&c|d", "100%", "%PATH%",
    "-o", "ümläut 絵", "back\\slash\\", "(x) [y] {z}", "!bang^", "#x", "*?",
]  # fmt: skip
POSIX = pytest.mark.skipif(os.name == "nt", reason="runs sh")
# Writes the words that it gets, a line each, and does as it is told by its name.
SAYS = """#!/bin/sh
for word; do printf '%s\\n' "$word" >> "{said}"; done
{then}
"""


def program(folder: Path, then: str) -> tuple[Path, Path]:
    """A program in place of `urushi`, and the file into which it writes its words."""
    path, said = folder / "a program", folder / "said"
    path.write_text(SAYS.format(said=said, then=then))
    path.chmod(0o755)
    return path, said


# --- darktable ---


class Object:
    """What Lua may read and set."""

    def __init__(self, **values):
        self.__dict__.update(values)


# A table has no order, so darktable may set the value before the limits, and loses it.
WIDGET = """function(of)
  assert(of.value == nil and of.selected == nil, "set before what limits it")
  return setmetatable({}, {
    __index = function(_, key)
      if key == "value" and of.value == nil then return of[of.selected] end
      return of[key]
    end,
    __newindex = function(_, key, value)
      if key == "value" and of.hard_max and not of.soft_max then error("no limits yet") end
      of[key] = value
    end,
  })
end"""


class Darktable:
    """A stand-in for darktable's Lua interface, as versions 4.2 and 5.0 have it."""

    def __init__(self, tmp, running_os="linux", execute=None):
        self.lua = lupa.LuaRuntime(unpack_returned_tuples=True)
        self.kept, self.printed, self.errors, self.imported = {}, [], [], []
        self.commands, self.libs, self.selected = [], [], []
        self.execute = execute or (lambda line: os.system(line))
        table, widget = self.lua.table_from, self.lua.eval(WIDGET)
        self.broken = set()
        self.interface = table(
            {
                "configuration": table(
                    {"running_os": running_os, "tmp_dir": str(tmp), "has_gui": True}
                ),
                "control": table({"execute": self.run, "ending": False}),
                "preferences": table(
                    {
                        "read": lambda _, key, kind: self.kept.get(key, ""),
                        "write": lambda _, key, kind, value: self.kept.update({key: value}),
                        "register": lambda *_: None,
                    }
                ),
                "gui": table(
                    {
                        "current_view": lambda: table({"id": "lighttable"}),
                        "views": table({"lighttable": "view of the lighttable"}),
                        "selection": lambda: table(self.selected),
                        "create_job": lambda *_: table({"valid": True}),
                    }
                ),
                "database": table({"import": self.import_}),
                "new_widget": lambda _: widget,
                "new_format": lambda _: table({"write_image": self.write_image}),
                "register_lib": lambda *words: self.libs.append(words),
                "register_event": lambda *_: None,
                "print": self.printed.append,
                "print_log": lambda _: None,
                "print_error": self.errors.append,
            }
        )
        self.lua.globals().package.loaded["darktable"] = self.interface
        source = (FOLDER / "darktable_urushi.lua").read_text("utf-8")
        self.module = self.lua.execute(source)

    def run(self, line):
        self.commands.append(line)
        return self.execute(line)

    def write_image(self, format, image, path, upscale):
        """False is success, which is what darktable returns."""
        assert format["bpp"] == 16
        if image["filename"] not in self.broken:
            Path(path).write_bytes(b"exported " + image["filename"].encode())
        return image["filename"] in self.broken

    def import_(self, path):
        assert Path(path).is_file()
        made = {"path": path}
        made["group_with"] = lambda _, other: made.update(group=other["filename"])
        self.imported.append(made)
        return self.lua.table_from(made)

    def select(self, folder, names):
        """Selects files, which are there, and in a film roll, as any selected picture is."""
        folder.mkdir(exist_ok=True, parents=True)
        table = self.lua.table_from
        film = table([table({"filename": name}) for name in names])
        for name in names:
            (folder / name).write_bytes(b"original")
            values = {"path": str(folder), "filename": name, "film": film}
            self.selected.append(table(values))

    def press(self):
        self.module.shown.button.clicked_callback()


def after_cmd(line):
    """What is left of a line that cmd.exe is given after /C."""
    assert (line[0], line[-1]) == ('"', '"')
    text, inside, plain, at = line[1:-1], False, "", 0
    # Variables go first, quoted or not: that of this name would be replaced.
    assert "%PATH%" not in text
    while at < len(text):
        if text[at] == "^" and not inside:
            at += 1
        else:
            inside ^= text[at] == '"'
            assert inside or text[at] not in "&|()"
        plain += text[at]
        at += 1
    return plain


def words_of_windows(text):
    """The words of a command line by the rules of C: 2n backslashes and a quote are n and its end,
    and one more is a quote that stays."""
    words, word, inside, at = [], None, False, 0
    while at < len(text):
        slashes = len(text[at:]) - len(text[at:].lstrip("\\"))
        at += slashes
        next_one = text[at : at + 1]
        if slashes and next_one == '"':
            word = (word or "") + "\\" * (slashes // 2)
            if slashes % 2:
                word, at = word + '"', at + 1
        elif slashes:
            word = (word or "") + "\\" * slashes
        elif next_one == '"':
            word, inside, at = word or "", not inside, at + 1
        elif next_one == " " and not inside:
            words += [] if word is None else [word]
            word, at = None, at + 1
        else:
            word, at = (word or "") + next_one, at + 1
    assert not inside
    return words if word is None else [*words, word]


def settings(host, **values):
    plain = {"program": "urushi", "task": "auto", "strength": 1, "router": "", **values}
    return host.lua.table_from(plain)


@POSIX
def test_darktable_quotes_for_sh(tmp_path):
    host = Darktable(tmp_path)
    path, said = program(tmp_path, "echo done; echo and more >&2")
    sources = [f"/pictures/{name}.tif" for name in NASTY]
    router, log = '/it\'s a "router".safetensors', tmp_path / "the log"
    asked = settings(host, program=str(path), task="haze", strength=0.7, router=router)
    line = host.module.command(asked, host.lua.table_from(sources), "/out $HOME", str(log))
    assert os.system(line) == 0
    words = ["restore", "--white", "65535", "--task", "haze", "--strength", "0.70", "--router"]
    assert said.read_text().splitlines() == [*words, router, "-o", "/out $HOME", *sources]
    assert log.read_text() == "done\nand more\n"


def test_darktable_quotes_for_windows(tmp_path):
    host = Darktable("C:\\tmp", "windows")
    names = [name for name in NASTY if not set(name) & set('"*?|')]
    sources = [f"C:\\{name}\\{name}.tif" for name in names]
    asked = settings(host, program="C:\\Program Files\\urushi.exe", strength=0.996)
    line = host.module.command(asked, host.lua.table_from(sources), "D:\\", "C:\\tmp\\log")
    line = line.replace(' > "C:\\tmp\\log" 2>&1', "")
    start = ["C:\\Program Files\\urushi.exe", "restore", "--white", "65535", "--task", "auto"]
    assert words_of_windows(after_cmd(line)) == [*start, "-o", "D:\\", *sources]


@POSIX
def test_darktable_restores_what_is_selected(tmp_path):
    host = Darktable(tmp_path)
    # Copies what it is given into the folder that -o names, but for one; of it, it complains.
    path, said = program(
        tmp_path,
        """while [ "$1" != -o ]; do shift; done; out=$2; shift 2
for file; do
  case $file in
    *bad*) echo "failed: '$file' is no picture" >&2; code=1;;
    *) cp "$file" "$out";;
  esac
done
echo "note: $file: a note"; exit ${code:-0}""",
    )
    host.kept["program"], host.module.shown.strength.value = str(path), 0.5
    folders = [tmp_path / name for name in ("it's $HOME", 'a "b" %c%')]
    host.select(folders[0], ["one.jpg", "two.CR2", "bad.png", "unread.jpg"])
    host.select(folders[1], ["one.jpg", "one_urushi.tif"])
    host.broken.add("unread.jpg")
    (folders[0] / "two_urushi.tif").write_bytes(b"of yesterday")
    host.press()

    made = [
        (folders[0] / "one_urushi.tif", "one.jpg"),
        (folders[0] / "two_urushi_1.tif", "two.CR2"),
        (folders[1] / "one_urushi_1.tif", "one.jpg"),
        (folders[1] / "one_urushi_urushi.tif", "one_urushi.tif"),
    ]
    assert [(Path(one["path"]), one["group"]) for one in host.imported] == made
    assert (folders[0] / "two_urushi.tif").read_bytes() == b"of yesterday"
    assert (folders[0] / "two_urushi_1.tif").read_bytes() == b"exported two.CR2"
    assert said.read_text().count("--strength\n0.50") == 2
    text = host.printed[-1]
    assert text.startswith("urushi: 4 of 6 pictures restored\n")
    assert "failed: 'bad_urushi.tif' is no picture" in text
    assert "failed: unread.jpg: darktable cannot export it" in text
    assert "note: one_urushi_urushi.tif: a note" in text
    assert host.errors == [text]
    assert host.module.shown.said.tooltip == text
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a program", "said", *(folder.name for folder in folders)}


@POSIX
def test_darktable_says_that_there_is_no_program(tmp_path):
    host = Darktable(tmp_path)
    host.press()
    assert host.printed == ["urushi: select the pictures that are to be restored"]
    host.kept["program"] = str(tmp_path / "nowhere")
    host.select(tmp_path / "roll", ["one.jpg"])
    host.press()
    assert "0 of 1" in host.printed[-1]
    assert "not found" in host.printed[-1]
    assert "preferences" in host.printed[-1]


def test_darktable_remembers(tmp_path):
    host = Darktable(tmp_path)
    shown = host.module.shown
    assert (shown.task[shown.task.selected], shown.strength.value) == ("auto", 1)
    shown.task.value, shown.strength.value, shown.router.text = "own task", 0.35, "/r.safetensors"
    host.press()
    later = Darktable(tmp_path)
    later.kept = host.kept
    shown = later.module.widgets()
    assert (shown.task[shown.task.selected], shown.strength.value) == ("own task", 0.35)
    assert shown.router.text == "/r.safetensors"


def test_many_pictures_are_several_commands(tmp_path):
    host = Darktable(tmp_path)
    host.select(tmp_path / "roll", [f"{number}.jpg" for number in range(19)])
    calls = host.module.calls_for(host.lua.table_from(host.selected))
    assert [len(calls[index]["items"]) for index in (1, 2, 3)] == [8, 8, 3]
    names = [f"{'long' * 50}{number}.jpg" for number in range(8)]
    windows = Darktable("C:\\" + "deep\\" * 200, "windows")
    windows.select(tmp_path / "windows", names)
    calls = windows.module.calls_for(windows.lua.table_from(windows.selected))
    lengths = [len(calls[index]["items"]) for index in range(1, len(list(calls)) + 1)]
    assert sum(lengths) == 8
    assert max(lengths) == 5


# --- GIMP ---


def loaded(name):
    path = FOLDER / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def gimp():
    """The plug-in, without GIMP."""
    return loaded("urushi_gimp")


@pytest.fixture(scope="module")
def tasks():
    """Of the file that ships."""
    return {"auto", "none", *urushi.AutoRestorer(find_all_in_one()).tasks}


def test_every_caller_has_every_task(gimp, tasks, tmp_path):
    assert set(gimp.TASKS) == tasks
    assert set(Darktable(tmp_path).module.tasks.values()) == tasks


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


def test_comfyui_restores_a_batch_as_python_does(comfy, tasks):
    node = comfy.NODE_CLASS_MAPPINGS["UrushiRestore"]
    assert set(node.INPUT_TYPES()["required"]["task"][0]) == tasks
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
