#!/usr/bin/env bash
# A checkpoint that holds a trainer's options in a dict of a class of its own (as many configuration
# libraries have them) is refused by torch.load(weights_only=True), and the message advises to allow
# the class with safe_globals. One would guess that this is enough. It is not: the class is then
# made, but entries are only put into dict, OrderedDict and Counter by exact type, so the file is
# refused again, now without advice. A list of a class of its own fares the same; a class that is no
# container, and holds the same options as attributes, loads. So whoever wants a checkpoint that
# others can read has to make plain dicts and lists of its options. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Any build of torch will do; PIP_CONSTRAINT or PIP_EXTRA_INDEX_URL choose a small one.
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pickle import UnpicklingError

import torch
from torch.serialization import safe_globals


class Options(dict):
    """Options by key."""


class Sizes(list):
    """Options in a row."""


class Plain:
    """Options as attributes."""


print("torch", torch.__version__)
options = Options(rate=0.1)
options.name = "mine"
plain = Plain()
plain.rate = 0.1
told = {}
for name, value, allowed in [
    ("dict, allowed", options, [Options]),
    ("list, allowed", Sizes([1, 2]), [Sizes]),
    ("no container, allowed", plain, [Plain]),
]:
    torch.save({"options": value, "weights": torch.ones(2)}, "a.pth")
    try:
        with safe_globals(allowed):
            told[name] = f"loads, as {type(torch.load('a.pth', weights_only=True)['options']).__name__}"
    except UnpicklingError as error:
        lines = [line for line in str(error).splitlines() if line.startswith("Can only")]
        told[name] = f"refused: {lines[0] if lines else error}"
    print(f"{name}: {told[name]}")
assert told["dict, allowed"].startswith("refused: Can only SETITEM")
assert told["list, allowed"].startswith("refused: Can only extend lists")
assert told["no container, allowed"] == "loads, as Plain"
PYTHON
