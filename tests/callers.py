"""What the tests of callers from within other programs share."""

import functools
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from commands import ROOT

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


class Object:
    """What Lua may read and set."""

    def __init__(self, **values):
        self.__dict__.update(values)


@functools.cache
def tasks() -> set[str]:
    """Of the file that ships, and those without an expert."""
    return {"auto", "none", *urushi.AutoRestorer(find_all_in_one()).tasks}


def loaded(name):
    """A caller, as its program loads it."""
    path = FOLDER / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module
