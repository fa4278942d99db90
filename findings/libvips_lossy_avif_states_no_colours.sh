#!/usr/bin/env bash
# libvips writes a 'colr' box with nclx (primaries, curve, matrix) into lossless AVIF only; into a
# lossy one without an ICC profile it writes none, so its colours and the matrix of its YCbCr are
# left to what each decoder assumes or finds in the bitstream.
# Guess beforehand: both have the box, since sRGB is what is encoded in both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install pyvips==3.2.0 pyvips-binary==8.18.7 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import pyvips

print("libvips", ".".join(str(pyvips.version(i)) for i in range(3)), "numpy", np.__version__)
pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
picture = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
seen = {}
for name, options in {"lossy": {"Q": 90}, "lossless": {"lossless": True}}.items():
    data = picture.heifsave_buffer(compression="av1", effort=0, **options)
    seen[name] = b"colrnclx" in data
    print(f"{name}: {len(data)} bytes, {'nclx' if seen[name] else 'no colr box'}")
assert seen == {"lossy": False, "lossless": True}, seen
PY
