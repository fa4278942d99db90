#!/usr/bin/env bash
# A TIFF with associated (premultiplied) transparency that libvips reads and writes again with
# `premultiply=True` is not the same file: each round takes about a level of 8 bits off, because both
# the division on reading and the multiplication on writing round down. Ten rounds without any edit
# darken a half transparent grey ramp by more than ten levels. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 pyvips==3.2.0 pyvips-binary==8.18.7
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np
import pyvips

print("pyvips", pyvips.__version__, "libvips", *(pyvips.version(k) for k in range(3)))
ramp = np.arange(256, dtype=np.uint8)[None].repeat(16, axis=0)
alpha = np.full_like(ramp, 140)
given = np.dstack([ramp, ramp, ramp, alpha])
image = pyvips.Image.new_from_array(given).copy(interpretation="srgb")
means = []
for _ in range(10):
    content = image.tiffsave_buffer(compression="none", premultiply=True)
    image = pyvips.Image.tiffload_buffer(content).copy_memory()
    pixels = image.numpy().astype(int)
    assert (pixels[..., 3] == 140).all(), "the transparency itself changed"
    means.append(float((pixels[..., 0] - ramp).mean()))
print("mean change after each round:", [round(mean, 2) for mean in means])
straight = pyvips.Image.new_from_array(given).copy(interpretation="srgb")
for _ in range(10):
    content = straight.tiffsave_buffer(compression="none")
    straight = pyvips.Image.tiffload_buffer(content).copy_memory()
assert np.array_equal(straight.numpy(), given), "straight transparency is no longer kept"
print("straight transparency, ten rounds: the same")
falling = all(later < sooner - 0.3 for sooner, later in zip(means, means[1:]))
if not falling or means[-1] > -8:
    sys.exit("behaviour changed: rounds no longer darken")
PYTHON
