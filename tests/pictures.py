"""Small pictures as arrays and files; JPEG and TIFF files made byte by byte."""

import hashlib
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from urushi.image import write_picture
from urushi.inference.restorer import Restorer


def picture(height: int = 48, width: int = 64, shift: float = 0.0) -> np.ndarray:
    """A smooth picture with a bright square, `(H, W, 3)` in [0, 1]."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = 0.4 + 0.2 * np.sin(columns / 5 + shift) + 0.1 * np.cos(rows / 7)
    pixels = np.stack([waves, waves[::-1], 0.5 + 0.3 * np.sin(rows / 9 + shift)], axis=2)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 0.9
    return pixels.astype(np.float32)


def write_pictures(folder: Path, count: int = 3, suffix: str = ".png", **size) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"picture{i}{suffix}" for i in range(count)]
    for i, path in enumerate(paths):
        write_picture(path, picture(shift=float(i), **size))
    return paths


XMP, MORE = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"


RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def pixels(height: int = 96, width: int = 128) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([110 + 80 * np.sin(x / 9), 110 + 70 * np.cos(y / 7), 60 + x], -1).astype("u1")


def jpeg(picture: np.ndarray | None = None, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels() if picture is None else picture).save(
        file, "JPEG", **{"quality": 90, **options}
    )
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(*segments: bytes, data: bytes | None = None) -> bytes:
    data = jpeg() if data is None else data
    at = 4 + struct.unpack(">H", data[4:6])[0]
    return data[:at] + b"".join(segments) + data[at:]


def packet(said: str, inside: str = "") -> bytes:
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description'
        ' rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="archive 17"'
        f" {said}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def with_xmp(said: str, inside: str = "") -> bytes:
    return with_segments(segment(0xE1, XMP + packet(said, inside)))


def more_xmp(content: bytes) -> tuple[str, list[bytes]]:
    """The digest that the main packet has to name, and the segments of the extended one."""
    digest = hashlib.md5(content).hexdigest().upper()
    return digest, [
        segment(0xE1, MORE + digest.encode() + struct.pack(">II", len(content), at) + piece)
        for at in range(0, len(content), 65000)
        for piece in [content[at : at + 65000]]
    ]


def segments_of(path: Path, marker: int) -> list[bytes]:
    """Contents of the segments with this marker before the first scan."""
    data, at, found = path.read_bytes(), 2, []
    while data[at + 1] != 0xDA:
        size = struct.unpack_from(">H", data, at + 2)[0]
        if data[at + 1] == marker:
            found.append(data[at + 4 : at + 2 + size])
        at += 2 + size
    return found


def xmp_of(path: Path) -> bytes:
    return next(s[len(XMP) :] for s in segments_of(path, 0xE1) if s.startswith(XMP))


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


def reader(picture):
    """What gives the next rows of a picture, as many as asked for while there are any."""
    position = 0

    def read(count):
        nonlocal position
        rows = picture[position : position + count]
        position += len(rows)
        return rows

    return read


def light_of(values):
    """The light of values in [0, 1]."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def repeated(image, scale):
    return image.repeat(scale, axis=0).repeat(scale, axis=1)
