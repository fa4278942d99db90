"""What lies in a file beside the picture that is read: frames, second pictures, videos.

libvips tells of pages alone. Animated PNG and AVIF, stereo pairs (MPO) and the videos of telephones
look like single pictures to it, and would be gone without a word where a file replaces itself.
"""

import functools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["Companions", "companions"]

_CHUNK = 2**20
_DAMAGE = (OSError, struct.error, ValueError, IndexError)
# What phones append for themselves, and what programs leave behind: nothing to look at.
_IDLE_BYTES = 4096
_GAIN_MAP = (b"hdrgm:", b"urn:iso:std:iso:ts:21496", b"HDRGainMap", b"hdrgainmap")
# CIPA DC-007, table 4: monitor-sized copies of the picture.
_MPF_COPIES = {0x010001, 0x010002}
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
# Numbers of a binary PNM's head, between which comments may stand, and one byte after the last.
_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
_PNM = re.compile(
    rb"\s*P(?:(4)%b(\d{1,9})%b(\d{1,9})|([56])%b(\d{1,9})%b(\d{1,9})%b(\d{1,5}))\s" % (5 * (_GAP,))
)
_LONGEST_PNM_HEAD = 4096


@dataclass(frozen=True)
class Companions:
    """What a file holds besides its first picture.

    Attributes:
        frames: of an animation, the first included; 1 for a still picture.
        pictures: of equal standing, the first included.
        video: whether there is one.
        unknown: bytes behind the picture that nobody here knows.
        gain_map: whether a further picture is one, by its own metadata.
    """

    frames: int = 1
    pictures: int = 1
    video: bool = False
    unknown: int = 0
    gain_map: bool = False


def companions(path: Path, format: str) -> Companions:
    """Looks for them; asking again about an unchanged file costs nothing."""
    look = _LOOKS.get(format)
    if look is None:
        return Companions()
    try:
        stat = path.stat()
    except OSError:
        return Companions()
    return _companions(path, format, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _companions(path: Path, format: str, identity: tuple[int, ...]) -> Companions:
    """See `companions`. `identity` tells one state of the file from another."""
    try:
        with path.open("rb") as file:
            return _LOOKS[format](file, identity[2])
    except _DAMAGE:
        return Companions()  # whoever decodes the picture says what is damaged


# --- JPEG ---


def _of_jpeg(file: BinaryIO, size: int) -> Companions:
    """Follows the picture to its end marker and names what comes after it."""
    copies: set[int] = set()
    end, _ = _end_of_jpeg(file, 0, copies)
    pictures, video, unknown, gain_maps = 1, False, 0, False
    place = _skip_padding(file, end, size)
    while place < size:
        file.seek(place)
        head = file.read(12)
        if head[:3] == b"\xff\xd8\xff":
            following, gain_map = _end_of_jpeg(file, place, set())
            gain_maps = gain_maps or gain_map
            if not gain_map and place not in copies:
                pictures += 1
            place = _skip_padding(file, following, size)
            continue
        if head[4:8] == b"ftyp":
            video = True
            break
        following, video = _next_part(file, place, size)
        unknown += following - place
        place = following
        if video:
            break
    unknown = unknown if unknown > _IDLE_BYTES else 0
    return Companions(1, pictures, video, unknown, gain_maps)


def _end_of_jpeg(file: BinaryIO, start: int, copies: set[int]) -> tuple[int, bool]:
    """Where a JPEG ends that begins at `start`, and whether its metadata call it a gain map.

    Where an index of further pictures stands in it (MPF), the places of those that are copies of
    the first are added to `copies`.
    """
    place, gain_map = start + 2, False
    while True:
        file.seek(place)
        head = file.read(4)
        if len(head) < 2 or head[0] != 0xFF:
            raise ValueError("no marker")
        marker = head[1]
        if marker == 0xFF:
            place += 1
        elif marker == 0xD9:
            return place + 2, gain_map
        elif marker in _STANDALONE:
            place += 2
        else:
            length = struct.unpack(">H", head[2:4])[0]
            if marker == 0xDA:
                place = _end_of_scan(file, place + 2 + length)
                continue
            if marker in (0xE1, 0xE2):
                data = file.read(length - 2)
                gain_map = gain_map or (start > 0 and any(mark in data for mark in _GAIN_MAP))
                if data[:4] == b"MPF\0":
                    copies |= _copies_of_mpf(data[4:], place + 8)
            place += 2 + length


def _end_of_scan(file: BinaryIO, place: int) -> int:
    """Where the next marker stands that ends entropy-coded data."""
    file.seek(place)
    held = b""
    while True:
        data = file.read(_CHUNK)
        if not data:
            raise ValueError("no end")
        held += data
        at = held.find(b"\xff")
        while 0 <= at < len(held) - 1:
            if held[at + 1] not in (0x00, 0xFF, *range(0xD0, 0xD8)):
                return place + at
            at = held.find(b"\xff", at + (1 if held[at + 1] == 0xFF else 2))
        keep = 1 if held[-1:] == b"\xff" else 0
        place += len(held) - keep
        held = held[len(held) - keep :]


def _copies_of_mpf(data: bytes, base: int) -> set[int]:
    """Places of the pictures that an MPF index calls copies of the first (CIPA DC-007, 5.2)."""
    order = {b"II": "<", b"MM": ">"}[data[:2]]
    (first,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, first)
    for index in range(count):
        tag, _, length, place = struct.unpack_from(f"{order}HHII", data, first + 2 + 12 * index)
        if tag != 0xB002:
            continue
        found = set()
        for start in range(place, place + length, 16):
            kind, _, offset = struct.unpack_from(f"{order}III", data, start)
            if kind & 0xFFFFFF in _MPF_COPIES and offset:
                found.add(base + offset)
        return found
    return set()


def _skip_padding(file: BinaryIO, place: int, size: int) -> int:
    """The next place that holds something: not zeros, not a run of ones."""
    while place < size:
        file.seek(place)
        data = file.read(_CHUNK)
        rest = data.lstrip(b"\0")
        if rest[:3] != b"\xff\xd8\xff":
            rest = rest.lstrip(b"\xff") if rest[:2] == b"\xff\xff" else rest
        if rest:
            return place + len(data) - len(rest)
        place += len(data)
    return size


def _next_part(file: BinaryIO, place: int, size: int) -> tuple[int, bool]:
    """Where behind unknown bytes a picture or a video begins, and whether it is a video."""
    while place < size:
        file.seek(place)
        data = file.read(_CHUNK + 16)
        # Samsung's parts stand behind a name of their own, videos among them.
        marks = [(data.find(b"ftyp"), True), (data.find(b"\xff\xd8\xff", 1), False)]
        found = [(at, video) for at, video in marks if at > 0]
        if found:
            at, video = min(found)
            return place + at - (4 if video and at >= 4 else 0), video
        place += _CHUNK
    return size, False


# --- PNG ---


def _of_png(file: BinaryIO, size: int) -> Companions:
    """The frames of an animated PNG, which its first chunks announce, and what lies behind it.

    The picture that others show counts as a frame of its own where the animation does not begin
    with it, which an `fcTL` before its pixels would say.
    """
    place, frames, begins = 8, 0, False
    name = b""
    while place < size and name != b"IEND":
        file.seek(place)
        length, name = struct.unpack(">I4s", file.read(8))
        if name == b"acTL" and not frames:
            (frames,) = struct.unpack(">I", file.read(4))
        elif name == b"fcTL" and not begins:
            begins = True
        elif name == b"IDAT" and frames and not begins:
            frames, begins = frames + 1, True
        place += 12 + length
    place = _skip_padding(file, place, size)
    unknown, video = size - place, False
    if unknown > _IDLE_BYTES:
        file.seek(place)
        # The zeros before it may have been taken for padding.
        video = b"ftyp" in file.read(12)
    beyond = unknown if unknown > _IDLE_BYTES and not video else 0
    return Companions(max(frames, 1), 1, video, beyond)


# --- PNM ---


def _of_pnm(file: BinaryIO, size: int) -> Companions:
    """The pictures of a binary PNM, which may follow one another."""
    pictures, place = 0, 0
    while place < size:
        file.seek(place)
        found = _PNM.match(file.read(_LONGEST_PNM_HEAD))
        if found is None:
            break
        if found[1]:
            row, height = (int(found[2]) + 7) // 8, int(found[3])
        else:
            samples = 3 if found[4] == b"6" else 1
            row, height = samples * int(found[5]) * (1 + (int(found[7]) > 255)), int(found[6])
        pictures += 1
        place += found.end() + row * height
    return Companions(pictures=max(pictures, 1))


# --- AVIF and HEIF ---


def _of_heif(file: BinaryIO, size: int) -> Companions:
    """The frames of an image sequence, and the video that telephones put behind the picture."""
    frames, video = 1, False
    for name, start, end in _boxes(file, 0, size):
        if name == b"moov":
            frames = max(frames, *(_samples(file, *track) for track in _tracks(file, start, end)))
        elif name == b"mpvd":
            video = True
    return Companions(frames=frames, video=video)


def _tracks(file: BinaryIO, start: int, end: int) -> list[tuple[int, int]]:
    found = [(a, b) for name, a, b in _boxes(file, start, end) if name == b"trak"]
    return found or [(0, 0)]


def _samples(file: BinaryIO, start: int, end: int) -> int:
    """How many frames a track of an image sequence has; 1 for one of anything else."""
    inside = {name: (a, b) for name, a, b in _boxes(file, start, end)}
    for path in (b"mdia", b"minf", b"stbl", b"stsz"):
        if path not in inside:
            return 1
        start, end = inside[path]
        if path == b"stsz":
            file.seek(start)
            return max(struct.unpack(">III", file.read(12))[2], 1)
        inside = {name: (a, b) for name, a, b in _boxes(file, start, end)}
        if b"hdlr" in inside:
            file.seek(inside[b"hdlr"][0] + 8)
            if file.read(4) not in (b"pict", b"vide"):
                return 1
    return 1


def _boxes(file: BinaryIO, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, beginning and end of what stands in each box (ISO 14496-12, 4.2)."""
    for _ in range(4096):
        if place + 8 > end:
            return
        file.seek(place)
        head = file.read(16)
        size, name = struct.unpack(">I4s", head[:8])
        start = place + 8
        if size == 1:
            (size,) = struct.unpack(">Q", head[8:16])
            start += 8
        elif size == 0:
            size = end - place
        if size < start - place:
            return
        yield name, start, min(place + size, end)
        place += size


_LOOKS = {
    "jpeg": _of_jpeg,
    "png": _of_png,
    "pnm": _of_pnm,
    "avif": _of_heif,
    "heif": _of_heif,
}
