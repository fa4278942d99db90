#!/bin/bash
# A PNG or TIFF opened by name with sequential access is closed after its header and opened by name
# again for its pixels: where the file is replaced in between, the pixels are those of the second
# file, without an error, and what the image says of itself changes under the caller's hands. A JPEG
# or WebP stays the first file, since that is mapped into memory.
# Through a custom source (one open file) all formats stay with the first file.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'pyvips[binary]==3.2.0' numpy==2.3.5
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import os
import sys

import numpy as np
import pyvips

pyvips.cache_set_max(0)
print("pyvips", pyvips.__version__, "libvips", ".".join(str(pyvips.version(i)) for i in range(3)))


def write(name, level):
    pixels = np.full((400, 400, 3), level, np.uint8)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gstr_type, "png-comment-0-Title", f"level {level}")
    image.write_to_file(name)


def seen(suffix, by_name):
    first, second = f"first{suffix}", f"second{suffix}"
    write(first, 60)
    write(second, 200)
    if by_name:
        image = pyvips.Image.new_from_file(first, access="sequential")
    else:
        file = open(first, "rb")
        source = pyvips.SourceCustom()
        source.on_read(file.read)
        source.on_seek(file.seek)
        image = pyvips.Image.new_from_source(source, "", access="sequential")
    os.replace(second, first)
    titles = [image.get("png-comment-0-Title") if suffix == ".png" else "-"]
    level = round(image.avg())
    titles += [image.get("png-comment-0-Title")] if suffix == ".png" else []
    how = "by name" if by_name else "one open file"
    print(f"{suffix} {how}: title {' then '.join(titles)}, pixels {level}")
    return level > 100


by_name = {suffix: seen(suffix, True) for suffix in (".png", ".jpg", ".webp", ".tif")}
once = {suffix: seen(suffix, False) for suffix in by_name}
if by_name != {".png": True, ".jpg": False, ".webp": False, ".tif": True} or any(once.values()):
    sys.exit("the behaviour has changed")
PYTHON
