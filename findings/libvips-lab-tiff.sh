#!/bin/bash
# libvips 8.18 and the three kinds of 8-bit Lab in a TIFF.
#
# TIFF has three numbers for Lab (PhotometricInterpretation): 8 CIELab, 9 ICCLab, 10 ITULab. One would expect one
# answer for all three. But CIELab in 8 bits, which Photoshop writes, cannot be opened ("bad labq format"), while
# ICCLab and ITULab open without a word: as three channels without a meaning, which `colourspace("srgb")` hands on
# unchanged. So a green leaf (L 128, a 200, b 60) goes into a PNG as the *RGB* colour 128, 200, 60.
# Pillow does it the other way round: it reads CIELab as LAB and knows neither of the others.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'pyvips[binary]==3.2.0' pyvips-binary==8.18.7 pillow==13.0.0
cat > "$folder/lab.py" <<'PYTHON'
import io
import struct

import PIL
import pyvips
from PIL import Image, UnidentifiedImageError


def tiff(photometric):
    """8 x 8 pixels of one colour, 8 bits, uncompressed."""
    start = 8 + 2 + 12 * 9 + 4
    entries = [
        (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, start), (259, 3, 1, 1), (262, 3, 1, photometric),
        (273, 4, 1, start + 6), (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, 192),
    ]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, 9) + packed + bytes(4) + struct.pack("<3H", 8, 8, 8) + bytes((128, 200, 60)) * 64


def by_libvips(data):
    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="warning")
        png = image.colourspace("srgb").pngsave_buffer()
    except pyvips.Error as error:
        return str(error.detail).strip().splitlines()[0]
    with Image.open(io.BytesIO(png)) as picture:
        return image.interpretation, picture.mode, picture.getpixel((0, 0))


def by_pillow(data):
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.mode
    except UnidentifiedImageError:
        return "unidentified"


print("libvips", ".".join(str(pyvips.version(i)) for i in range(3)), "Pillow", PIL.__version__)
seen = {name: (by_libvips(tiff(n)), by_pillow(tiff(n))) for name, n in (("RGB", 2), ("CIELab", 8), ("ICCLab", 9), ("ITULab", 10))}
for name, (vips, pillow) in seen.items():
    print(f"{name:7} libvips: {vips}; Pillow: {pillow}")
assert seen["RGB"] == (("srgb", "RGB", (128, 200, 60)), "RGB")
assert seen["CIELab"] == ("image: bad labq format", "LAB")
for name in ("ICCLab", "ITULab"):
    assert seen[name] == (("multiband", "RGB", (128, 200, 60)), "unidentified"), "it behaves otherwise now"
PYTHON
"$folder/venv/bin/python" "$folder/lab.py"
