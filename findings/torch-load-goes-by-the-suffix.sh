#!/usr/bin/env bash
# torch.load read a file by what is in it, whatever it was called. That of torch 2.13 hands a path
# that ends in .safetensors to the library safetensors before anything is looked at: what torch.save
# wrote under such a name is refused with "header too large", which tells nobody that the name is
# at fault, and loads as an open file. The other way round nothing is looked at either: safetensors
# under the name .pth are refused as a pickle. One would guess that both load, or that the name does
# not matter. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Any build of torch will do; PIP_CONSTRAINT or PIP_EXTRA_INDEX_URL choose a small one.
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 torch==2.13.0 safetensors==0.8.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from safetensors.torch import save_file

print("torch", torch.__version__)
weights = {"a": torch.ones(3)}
torch.save(weights, "archive.pth")
torch.save(weights, "archive.safetensors")
save_file(weights, "tensors.safetensors")
save_file(weights, "tensors.pth")


def told(read):
    try:
        return "loads" if torch.equal(read()["a"], weights["a"]) else "differs"
    except Exception as error:
        return f"refused: {str(error).splitlines()[0][:90]}"


found = {}
for name in ("archive.pth", "archive.safetensors", "tensors.safetensors", "tensors.pth"):
    found[name] = told(lambda: torch.load(name, weights_only=True))
    print(f"{name}: {found[name]}")
with open("archive.safetensors", "rb") as file:
    found["open"] = told(lambda: torch.load(file, weights_only=True))
print("archive.safetensors, as an open file:", found["open"])
assert found["archive.pth"] == found["tensors.safetensors"] == found["open"] == "loads"
assert "header too large" in found["archive.safetensors"]
assert found["tensors.pth"].startswith("refused")
PYTHON
