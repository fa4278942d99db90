#!/usr/bin/env python3
"""Mends a layer, or what is seen of an image, with Urushi, from within GIMP 3.

Filters > Enhance > Restore with Urushi writes the pixels as PNG, of 16 bits where the image has
more than 8, runs `urushi restore` on that and puts the result above, as a layer of its own. It can
be undone in one step. What went wrong is shown, and nothing is changed then.

Install: put this file into a folder of its own name within a folder of plug-ins (Edit >
Preferences > Folders > Plug-ins), so `plug-ins/urushi_gimp/urushi_gimp.py`, make it executable,
and start GIMP anew. Where the program `urushi` is not found, name it in the dialog.

SPDX-License-Identifier: Apache-2.0
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NAME = "plug-in-urushi-restore"
# Those of the file that ships, and what the dialog calls them.
TASKS = {
    "auto": "What the picture needs",
    "none": "No expert: the base alone",
    "noise": "Noise",
    "jpeg": "JPEG",
    "blur": "Blur",
    "rain": "Rain",
    "raindrop": "Raindrops",
    "snow": "Snow",
    "haze": "Haze",
    "low-light": "Low light",
}
SOURCES = {"layer": "The selected layer", "visible": "What is seen of the image"}
# GIMP sets these for its own Python; another one, that of Urushi, would not start with them.
OF_GIMP = ("PYTHONHOME", "PYTHONPATH", "GI_TYPELIB_PATH", "LD_LIBRARY_PATH")


class RestoreError(Exception):
    """Nothing was restored; the message says why."""


@dataclass(frozen=True)
class Restored:
    """What `urushi restore` says of one picture.

    Attributes:
        reason: what was seen in it, and so done.
        notes: sentences that the user must read.
    """

    reason: str
    notes: list[str]


def restore_command(
    program: str,
    source: str,
    target: str,
    *,
    task: str = "auto",
    strength: float = 1.0,
    router: str = "",
) -> list[str]:
    """The words of the command that restores a file."""
    # White is known here. A dark picture of 16 bits could else be one of which only 14 are used.
    command = [program or "urushi", "restore", "--json", "--white", "65535", "--task", task]
    if strength < 1:
        command += ["--strength", f"{strength:g}"]
    if router:
        command += ["--router", router]
    return [*command, "-o", target, source]


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what GIMP sets for itself."""
    return {name: value for name, value in environment.items() if name not in OF_GIMP}


def read_outcome(code: int, stdout: str, stderr: str) -> Restored:
    """What a finished command says.

    Raises:
        RestoreError: it did not restore the picture.
    """
    try:
        (result,) = json.loads(stdout)["files"]
        status = result["status"]
    except (ValueError, KeyError, TypeError):
        said = [line for line in stderr.splitlines() if line.strip()]
        raise RestoreError(said[-1] if said else f"urushi ended with code {code}") from None
    if status != "restored":
        raise RestoreError(result.get("message") or f"the picture was {status}")
    choice = result.get("router") or {}
    return Restored(choice.get("reason", ""), list(result.get("notes", ())))


def run_command(command: list[str], on_wait: Callable[[], object]) -> Restored:
    """Runs a command; `on_wait` is called about five times a second meanwhile.

    Raises:
        RestoreError: it cannot be started, or failed.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**clean_environment(os.environ), "PYTHONIOENCODING": "utf-8"},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        raise RestoreError(
            f"the program {command[0]!r} cannot be started ({error.strerror}): install Urushi, or "
            "name its program with its folder in the dialog"
        ) from None
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                stdout, stderr = process.communicate(timeout=0.2)
                return read_outcome(process.returncode, stdout, stderr)
            on_wait()
    finally:
        if process.poll() is None:
            process.kill()


@functools.cache
def modules() -> Any:
    """What only GIMP's own Python has: Gimp, GimpUi, Gio, GLib and GObject."""
    import gi  # pyright: ignore[reportMissingImports]

    gi.require_version("Gimp", "3.0")
    gi.require_version("GimpUi", "3.0")
    from gi.repository import (  # pyright: ignore[reportMissingImports]
        Gimp,
        GimpUi,
        Gio,
        GLib,
        GObject,
    )

    return SimpleNamespace(Gimp=Gimp, GimpUi=GimpUi, Gio=Gio, GLib=GLib, GObject=GObject)


def copy_of(image: Any, layer: Any, source: str) -> Any:
    """A new image of what is to be restored: one layer, sRGB-like values of 8 or 16 bits."""
    gimp = modules().Gimp
    if source == "visible":
        made = image.duplicate()
        made.merge_visible_layers(gimp.MergeType.CLIP_TO_IMAGE)
    else:
        made = gimp.Image.new_with_precision(
            layer.get_width(), layer.get_height(), image.get_base_type(), image.get_precision()
        )
        profile = image.get_color_profile()
        if profile is not None:
            made.set_color_profile(profile)
        copied = gimp.Layer.new_from_drawable(layer, made)
        made.insert_layer(copied, None, 0)
        if copied.get_mask() is not None:
            copied.remove_mask(gimp.MaskApplyMode.DISCARD)
        copied.set_offsets(0, 0)
        copied.set_visible(True)
        copied.set_opacity(100.0)
        copied.set_mode(gimp.LayerMode.NORMAL)
    if made.get_precision() != gimp.Precision.U8_NON_LINEAR:
        made.convert_precision(gimp.Precision.U16_NON_LINEAR)
    return made


def write_copy(image: Any, layer: Any, source: str, path: Path) -> None:
    """Writes what is to be restored as a file."""
    gimp, file = modules().Gimp, modules().Gio.File.new_for_path(str(path))
    copied = copy_of(image, layer, source)
    try:
        if not gimp.file_save(gimp.RunMode.NONINTERACTIVE, copied, file, None):
            raise RestoreError("GIMP cannot write the layer as PNG")
    finally:
        copied.delete()


def put(image: Any, layer: Any, source: str, path: Path, name: str) -> None:
    """Puts a restored file into an image, as a layer above what it was made from."""
    gimp, file = modules().Gimp, modules().Gio.File.new_for_path(str(path))
    made = gimp.file_load_layer(gimp.RunMode.NONINTERACTIVE, image, file)
    if made is None:
        raise RestoreError("GIMP cannot read what was restored")
    made.set_name(name)
    if source == "visible":
        image.insert_layer(made, None, 0)
    else:
        image.insert_layer(made, layer.get_parent(), image.get_item_position(layer))
        _, x, y = layer.get_offsets()
        made.set_offsets(x, y)


def restore(image: Any, layer: Any, config: Any) -> None:
    """Does all that was asked for, in one step of undoing."""
    gimp, source = modules().Gimp, config.get_property("source")
    if source == "layer" and layer.is_group():
        raise RestoreError("a group of layers has no pixels: choose what is seen instead")
    with tempfile.TemporaryDirectory(prefix="urushi-") as folder:
        before, after = Path(folder, "before.png"), Path(folder, "after.png")
        write_copy(image, layer, source, before)
        command = restore_command(
            config.get_property("program"),
            str(before),
            str(after),
            task=config.get_property("task"),
            strength=config.get_property("strength"),
            router=config.get_property("router"),
        )
        gimp.progress_init("Restoring with Urushi")
        restored = run_command(command, gimp.progress_pulse)
        image.undo_group_start()
        try:
            reason = f" ({restored.reason})" if restored.reason else ""
            put(image, layer, source, after, f"Urushi{reason}")
        finally:
            image.undo_group_end()
        gimp.displays_flush()
        for note in restored.notes:
            gimp.message(note.replace(str(before), "the picture"))


def describe(procedure: Any, name: str) -> None:
    """Says where a procedure stands in the menu, and what its dialog asks."""
    gimp = modules().Gimp
    procedure.set_image_types("RGB*, GRAY*")
    procedure.set_sensitivity_mask(gimp.ProcedureSensitivityMask.DRAWABLE)
    procedure.set_menu_label("Restore with _Urushi...")
    procedure.add_menu_path("<Image>/Filters/Enhance")
    procedure.set_documentation(
        "Mends noise, blur, rain, haze and more",
        "Runs urushi restore and adds the result as a layer.",
        name,
    )
    procedure.set_attribution("Urushi", "Urushi", "2026")
    flags = modules().GObject.ParamFlags.READWRITE
    for key, label, blurb, values in (
        ("task", "_Task", "What is wrong with the picture", TASKS),
        ("source", "_Restore", "What is restored", SOURCES),
    ):
        choice = gimp.Choice.new()
        for number, (value, said) in enumerate(values.items()):
            choice.add(value, number, said, "")
        procedure.add_choice_argument(key, label, blurb, choice, next(iter(values)), flags)
    procedure.add_double_argument(
        "strength", "_Strength", "0 leaves all as it was, 1 keeps all that is changed",
        0.0, 1.0, 1.0, flags,
    )  # fmt: skip
    procedure.add_string_argument(
        "router", "R_outer", "An all-in-one file; empty: the one that ships", "", flags
    )
    procedure.add_string_argument(
        "program", "_Program", "The program urushi, with its folder", "urushi", flags
    )


def is_agreed(procedure: Any, config: Any) -> bool:
    """Shows the dialog; whether it was not cancelled."""
    ui = modules().GimpUi
    ui.init("urushi")
    dialog = ui.ProcedureDialog.new(procedure, config, "Restore with Urushi")
    dialog.fill(None)
    chosen = dialog.run()
    dialog.destroy()
    return bool(chosen)


def run(procedure: Any, run_mode: Any, image: Any, drawables: Any, config: Any) -> Any:
    """What the menu does; gives GIMP what it wants to know of that."""
    gimp, glib_error = modules().Gimp, modules().GLib.Error
    status = gimp.PDBStatusType
    if run_mode == gimp.RunMode.INTERACTIVE and not is_agreed(procedure, config):
        return procedure.new_return_values(status.CANCEL, glib_error())
    try:
        if len(drawables) != 1 or not isinstance(drawables[0], gimp.Layer):
            raise RestoreError("select one layer, and not its mask or a channel")
        restore(image, drawables[0], config)
    except RestoreError as error:
        return procedure.new_return_values(status.EXECUTION_ERROR, glib_error(str(error)))
    return procedure.new_return_values(status.SUCCESS, glib_error())


def main() -> None:
    """Registers the plug-in with GIMP, which started this file."""
    gimp = modules().Gimp

    class Urushi(gimp.PlugIn):
        """What GIMP asks for procedures."""

        def do_set_i18n(self, name: str) -> bool:
            return False

        def do_query_procedures(self) -> list[str]:
            return [NAME]

        def do_create_procedure(self, name: str) -> Any:
            plug_in = gimp.PDBProcType.PLUGIN
            procedure = gimp.ImageProcedure.new(self, name, plug_in, self.run, None)
            describe(procedure, name)
            return procedure

        def run(
            self, procedure: Any, run_mode: Any, image: Any, drawables: Any, config: Any, data: Any
        ) -> Any:
            return run(procedure, run_mode, image, drawables, config)

    gimp.main(Urushi.__gtype__, sys.argv)


if __name__ == "__main__":
    main()
