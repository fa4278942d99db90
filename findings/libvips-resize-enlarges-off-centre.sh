#!/usr/bin/env bash
# libvips' `resize` by more than 1 with the kernels linear, cubic or lanczos3 (cubic and lanczos3 in
# its own words the choice for quality) moves the picture: by a quarter of a pixel of the source at
# 2, a sixth at 3, up and to the left. Reducing does not, and nor does enlarging with `nearest`; so a
# picture that is reduced and enlarged again, or compared with one that another library enlarged, is
# out of place. `affine` with idx = idy = (s - 1) / (2 s) puts it where it belongs. Exits 0 as long
# as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  pyvips==3.2.0 pyvips-binary==8.18.7 numpy==2.4.6
"$folder/venv/bin/python" -W error - <<'PYTHON'
import sys

import numpy as np
import pyvips

print("Python", sys.version.split()[0], "libvips", ".".join(str(pyvips.version(i)) for i in range(3)))
WIDTH = 32
# A ramp whose value at a place is the place: what is moved shows by how much.
ramp = np.tile(np.arange(WIDTH, dtype=np.float32), (8, 1))[..., None]
image = pyvips.Image.new_from_array(ramp)


def moved(result, scale):
    values = result.numpy().reshape(result.height, result.width)[result.height // 2]
    places = (np.arange(result.width) + 0.5) / scale - 0.5
    return round(float(np.median(places - values)), 3)


found = {}
for kernel in ("nearest", "linear", "cubic", "lanczos3"):
    for scale in (2, 3, 0.5):
        found[kernel, scale] = moved(image.resize(scale, kernel=kernel), scale)
for scale in (2, 3):
    idx = (scale - 1) / (2 * scale)
    way = pyvips.Interpolate.new("bicubic")
    given = {"idx": idx, "idy": idx, "oarea": [0, 0, WIDTH * scale, 8 * scale], "extend": "copy"}
    right = image.affine([scale, 0, 0, scale], interpolate=way, **given)
    found["affine, idx", scale] = moved(right, scale)
for (way, scale), offset in found.items():
    print(f"{way:12} x{scale:<4} moved by {offset:+.3f} pixels of the source")
wrong = [found[kernel, 2] for kernel in ("linear", "cubic", "lanczos3")]
right = [found["linear", 0.5], found["cubic", 0.5], found["lanczos3", 0.5], found["nearest", 2]]
if wrong != [0.25] * 3 or max(map(abs, right)) > 0.01 or abs(found["affine, idx", 2]) > 0.01:
    sys.exit("behaviour changed")
PYTHON
