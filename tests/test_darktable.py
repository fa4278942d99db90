"""The caller from within darktable: the commands it forms, and what it does with the answers.

A stand-in for darktable has the part of its interface that is used, and behaves as that was seen
to.
"""

import os
from pathlib import Path

import lupa.lua54 as lupa
from callers import FOLDER, NASTY, POSIX, program, tasks

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


def test_darktable_has_every_task(tmp_path):
    assert set(Darktable(tmp_path).module.tasks.values()) == tasks()
