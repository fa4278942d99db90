#!/usr/bin/env bash
# A TIFF of RGB, infrared and associated transparency (ExtraSamples 0, 1). libvips divides the
# infrared channel by the transparency, too, as if it were a colour. In the other order (1, 0) it
# leaves infrared alone, and so it does beside straight transparency (0, 2). Whoever reads such a
# scan gets measurements that were never taken. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy==2.4.6 pyvips==3.2.0 pyvips-binary==8.18.7
"$folder/venv/bin/python" - "$folder/scan.tif" <<'PYTHON'
import struct
import sys

import pyvips

pyvips.cache_set_max(0)
print("pyvips", pyvips.__version__, "libvips", *(pyvips.version(k) for k in range(3)))
INFRARED, ALPHA = 50, 100


def read(order):
    """Pixels of a TIFF of 16 x 16, five samples of 8 bits, uncompressed (TIFF 6.0)."""
    last = {0: INFRARED, 1: ALPHA, 2: ALPHA}
    data = bytes([60, 60, 60, *(last[kind] for kind in order)]) * 256
    tags = [
        (256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 5, None), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 8), (277, 3, 1, 5), (278, 3, 1, 16), (279, 4, 1, len(data)),
        (284, 3, 1, 1), (338, 3, 2, order),
    ]
    start = 8 + len(data)
    rest = start + 2 + 12 * len(tags) + 4
    directory = struct.pack("<H", len(tags))
    for tag, kind, count, value in tags:
        field = (
            struct.pack("<I", rest) if value is None
            else struct.pack("<2H", *value) if isinstance(value, tuple)
            else struct.pack("<I", value)
        )
        directory += struct.pack("<HHI", tag, kind, count) + field
    with open(sys.argv[1], "wb") as file:
        file.write(b"II*\0" + struct.pack("<I", start) + data + directory + bytes(4))
        file.write(struct.pack("<5H", *[8] * 5))
    pixel = pyvips.Image.tiffload(sys.argv[1]).getpoint(3, 3)
    return [int(value) for value in pixel]


seen = {order: read(order) for order in ((0, 1), (1, 0), (0, 2))}
for order, pixel in seen.items():
    print("ExtraSamples", order, "given", INFRARED, "for infrared, read", pixel[3 + order.index(0)])
assert seen[1, 0][4] == INFRARED, "infrared behind the transparency changed, too"
assert seen[0, 2][3] == INFRARED, "infrared beside straight transparency changed"
if seen[0, 1][3] != int(INFRARED * 255 / ALPHA):
    sys.exit(f"behaviour changed: infrared before the transparency is {seen[0, 1][3]}")
PYTHON
