"""Plain TIFF files for tests, tag by tag: what libvips and Pillow would not write."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from urushi.inference.restorer import Restorer

# Enough to tell what they are: type by tag.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}


@dataclass
class Page:
    """One directory: samples `(H, W)` or `(H, W, C)`, and tags besides what they need.

    Tags are numbers (a SHORT, or a LONG from 65536 on), tuples of them, bytes (ASCII), pairs of a
    type and bytes, and fractions as `("/", a, b)`.
    """

    pixels: np.ndarray
    photometric: int = 1
    tags: Mapping[int, object] = field(default_factory=dict)
    below: Sequence["Page"] = ()
    exif: Mapping[int, object] = field(default_factory=dict)


def write_tiff(path: Path, *pages: Page, order: str = "<", end: int = 0) -> Path:
    """Writes pages one after another; `end` stands where the place of a next one would."""
    data = bytearray({"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 0))
    link = 4
    for page in pages:
        start, following = _append(data, page, order)
        struct.pack_into(f"{order}I", data, link, start)
        link = following
    struct.pack_into(f"{order}I", data, link, end)
    path.write_bytes(data)
    return path


def _append(data: bytearray, page: Page, order: str) -> tuple[int, int]:
    """Where the directory begins, and where the place of the next one stands."""
    below = [_append(data, sub, order)[0] for sub in page.below]
    exif = _directory(data, page.exif, order)[0] if page.exif else 0
    pixels = page.pixels if page.pixels.ndim == 3 else page.pixels[..., None]
    height, width, samples = pixels.shape
    stored = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    place = len(data)
    data += stored + bytes(len(stored) % 2)
    kind = {"u": 1, "f": 3}[pixels.dtype.kind]
    tags: dict[int, object] = {
        256: width,
        257: height,
        258: (8 * pixels.dtype.itemsize,) * samples,
        259: 1,
        262: page.photometric,
        273: ("long", place),
        277: samples,
        278: height,
        279: ("long", len(stored)),
        339: (kind,) * samples,
        **({330: ("long", *below)} if below else {}),
        **({34665: ("long", exif)} if exif else {}),
        **page.tags,
    }
    return _directory(data, tags, order)


def _directory(data: bytearray, tags: Mapping[int, object], order: str) -> tuple[int, int]:
    start = len(data)
    values = start + 2 + 12 * len(tags) + 4
    directory, rest = struct.pack(f"{order}H", len(tags)), b""
    for tag, value in sorted(tags.items()):
        code, raw = _packed(value, order)
        field_ = raw.ljust(4, b"\0")
        if len(raw) > 4:
            field_ = struct.pack(f"{order}I", values + len(rest))
            rest += raw + bytes(len(raw) % 2)
        directory += struct.pack(f"{order}HHI", tag, code, len(raw) // _SIZES[code]) + field_
    data += directory + bytes(4) + rest
    return start, values - 4


def _packed(value: object, order: str) -> tuple[int, bytes]:
    if isinstance(value, bytes):
        return 2, value + b"\0"
    if isinstance(value, int):
        value = (value,)
    assert isinstance(value, tuple)
    if value[0] == "/":
        return 5, struct.pack(f"{order}2I", *value[1:])
    if value[0] == "long":
        return 4, struct.pack(f"{order}{len(value) - 1}I", *value[1:])
    if len(value) == 2 and isinstance(value[1], bytes):
        return value[0], value[1]
    return 3, struct.pack(f"{order}{len(value)}H", *value)


class Scene:
    """Pictures for pages: gradients with some grain, so that rows and columns are told apart."""

    def __init__(self, height: int = 24, width: int = 36, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        y, x = np.mgrid[:height, :width]
        noise = generator.normal(0, 6, (height, width, 3))
        colours = np.stack([20 + 5 * x, 30 + 7 * y, 210 - 4 * x], axis=-1) + noise
        self.rgb = np.clip(colours, 0, 255).astype(np.uint8)
        self.grey = self.rgb[..., 0].copy()
        self.other = np.where((x > width // 3) & (y < height // 2), 255, 7).astype(np.uint8)


class Untouched(Restorer):
    """A restorer that finds nothing to mend, without a network; it may enlarge."""

    scale = 1
    notes = ()

    def __init__(self, scale: int = 1) -> None:
        self.scale = scale

    def restore_rows(self, read, width, height, on_progress=None):
        done = 0
        while len(rows := read(7)):
            done += len(rows)
            if on_progress is not None:
                on_progress(done * width, width * height)
            yield rows.repeat(self.scale, axis=0).repeat(self.scale, axis=1)
