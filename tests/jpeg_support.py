"""JPEGs with segments of one's own making."""

import hashlib
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

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
