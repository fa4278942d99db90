#!/usr/bin/env bash
# A floating-point TIFF of three channels is linear light in 0..1 for libvips (scRGB) and gets
# sRGB's curve when it is saved as PNG: 0.5 becomes 188. The same numbers in one channel are "b-w"
# in 0..255: 0.5 becomes 0, a black picture, without an error.
# Guess beforehand: both are taken as linear light, so both become 188.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install pyvips==3.2.0 pyvips-binary==8.18.7 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import pyvips

print("libvips", ".".join(str(pyvips.version(i)) for i in range(3)), "numpy", np.__version__)
seen = {}
for bands in (1, 3):
    pyvips.Image.new_from_array(np.full((8, 8, bands), 0.5, np.float32)).tiffsave(f"{bands}.tif")
    picture = pyvips.Image.new_from_file(f"{bands}.tif")
    picture.pngsave(f"{bands}.png")
    seen[bands] = pyvips.Image.new_from_file(f"{bands}.png").getpoint(0, 0)[0]
    print(f"{bands} channels of 0.5: {picture.interpretation}, as PNG {seen[bands]:.0f}")
assert seen == {1: 0.0, 3: 188.0}, seen
PY
