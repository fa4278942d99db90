#!/usr/bin/env bash
# EXIF that is filled in by `Exif.get_ifd(0x8769)[tag] = value` is written by Pillow into JPEG, PNG
# and WebP, and left out of a TIFF without a word. `exif.tobytes()` of the same object, given in its
# place, is written into the TIFF as well: the object passed on is what is lost, not the format.
# Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0
"$folder/venv/bin/python" -W error - <<'PYTHON'
import io
import sys

import PIL
from PIL import Image

MAKE, EXIF, DATE = 271, 0x8769, 0x9003
print("Python", sys.version.split()[0], "Pillow", PIL.__version__)
exif = Image.Exif()
exif[MAKE] = "Maker"
exif.get_ifd(EXIF)[DATE] = "2020:01:02 03:04:05"


def written(format, block):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format, exif=block)
    with Image.open(file) as picture:
        found = picture.getexif()
        return found.get(MAKE), found.get_ifd(EXIF).get(DATE)


kept = ("Maker", "2020:01:02 03:04:05")
seen = {format: written(format, exif) for format in ("JPEG", "PNG", "WEBP", "TIFF")}
seen["TIFF, from bytes"] = written("TIFF", exif.tobytes())
for name, values in seen.items():
    print(f"{name:17} {values}")
assert all(values == kept for name, values in seen.items() if name != "TIFF"), "others changed"
if seen["TIFF"] != ("Maker", None):
    sys.exit("behaviour changed: the TIFF holds " + repr(seen["TIFF"]))
PYTHON
