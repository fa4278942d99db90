#!/usr/bin/env bash
# ssimulacra2 0.3: of pictures with a side below 8 pixels no scale is compared, and the score is
# 100, "equal", for black against white. Its blur pads the top and the bottom with zeros and the
# left and the right by mirroring: the same two pictures, transposed, score otherwise, by tens of
# its 100 on a narrow picture.
# pypiqe 1.2 documents its input as RGB and converts it as OpenCV's BGR: red is weighted as blue. A
# black picture is divided by its largest value, 0, with a warning of numpy.
# Guess beforehand: an error for tiny pictures; the same score, up to rounding, for transposed ones;
# the score of luma for an RGB picture.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install ssimulacra2==0.3.0 pypiqe==1.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import warnings
from io import BytesIO

import numpy as np
from PIL import Image
from pypiqe import piqe
from ssimulacra2 import compute_ssimulacra2


def score(reference, picture):
    files = []
    for pixels in (reference, picture):
        files.append(BytesIO())
        Image.fromarray(pixels).save(files[-1], "PNG")
        files[-1].seek(0)
    return compute_ssimulacra2(*files)


rng = np.random.default_rng(5)
black, white = (np.full((7, 40, 3), value, np.uint8) for value in (0, 255))
tiny = score(black, white)
print(f"ssimulacra2 of black against white, 40x7: {tiny:.1f}")
y, x = np.mgrid[:100, :37]
plain = np.repeat((128 + 70 * np.sin(x / 5) * np.cos(y / 7))[..., None], 3, axis=2)
both = [np.clip(p, 0, 255).astype(np.uint8) for p in (plain, plain + rng.normal(0, 25, plain.shape))]
upright, turned = score(*both), score(*(p.transpose(1, 0, 2) for p in both))
print(f"ssimulacra2 of noise, upright {upright:.1f}, transposed {turned:.1f}")

y, x = np.mgrid[:128, :128]
plane = np.clip(128 + 80 * np.sin(x / 5) * np.cos(y / 7), 0, 255)
rgb = np.stack([np.clip(plane + rng.normal(0, 20, plane.shape), 0, 255), plane, plane], axis=2)
rgb = np.rint(rgb).astype(np.uint8)
luma, swapped = (
    piqe(np.rint(rgb @ weights).astype(np.uint8))[0]
    for weights in ([0.299, 0.587, 0.114], [0.114, 0.587, 0.299])
)
found = piqe(rgb)[0]
print(f"pypiqe of RGB {found:.1f}, of its luma {luma:.1f}, with red taken for blue {swapped:.1f}")
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    print(f"pypiqe of black {piqe(np.zeros((64, 64), np.uint8))[0]:.0f}, warnings {len(told)}")
assert tiny == 100
assert abs(upright - turned) > 5
assert abs(found - swapped) < abs(found - luma)
assert told
PY
