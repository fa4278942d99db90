#!/usr/bin/env bash
# Pillow writes a TIFF of several pages, each with EXIF of its own: all pages then show the first
# one's dates. Strips of later pages are moved to where they belong, the pointer to EXIF (tag 34665)
# is not: it leads to what stands at that place of the first page, which is its EXIF where pages are
# alike, and any bytes where they are not. No warning is given when the file is written. The same
# EXIF in a file of one page comes back. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pillow==13.0.0
"$folder/venv/bin/python" - <<'PYTHON'
import io
import sys
import warnings

import PIL
from PIL import Image

DATE = 0x9003  # DateTimeOriginal, in the EXIF directory
warnings.simplefilter("ignore")


def exif(date):
    block = Image.Exif()
    block.get_ifd(0x8769)[DATE] = date
    return block.tobytes()


def dates(file):
    found = []
    with Image.open(file) as picture:
        for page in range(picture.n_frames):
            picture.seek(page)
            found.append(picture.getexif().get_ifd(0x8769).get(DATE))
    return found


print("Python", sys.version.split()[0], "Pillow", PIL.__version__)
given = ["2020:01:02 03:04:05", "2021:12:24 18:00:00", "2022:06:07 08:09:10"]
frames = [Image.new("RGB", (40, 30), (k * 60, 20, 90)) for k in range(3)]
alone = []
for frame, date in zip(frames, given):
    file = io.BytesIO()
    frame.save(file, "TIFF", exif=exif(date))
    alone += dates(file)
for frame, date in zip(frames, given):
    frame.encoderinfo = {"exif": exif(date)}
file = io.BytesIO()
frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:], exif=exif(given[0]))
together = dates(file)
print("given:            ", given)
print("one file each:    ", alone)
print("one file together:", together)
assert alone == given, "a single page no longer keeps its EXIF"
assert together[0] == given[0], "the first page no longer keeps its EXIF"
if together == given:
    sys.exit("behaviour changed: later pages keep their EXIF")
PYTHON
