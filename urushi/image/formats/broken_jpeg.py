"""JPEGs whose data are corrupt or end early: how much of the picture is there.

libjpeg decodes those with warnings and goes on with grey, or with what the wrong bits happen to
mean. libvips can be told to stop at the first warning (`fail_on`); what is then decoded without
that is looked through here, once.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from urushi.image.formats.jpeg_parts import read_jpeg_parts
from urushi.image.libvips import own_errors, reason, vips

__all__ = ["Damage", "damage_of"]

_END = b"\xff\xd9"
_STEP = 16
# Frames whose scans each add to all pixels.
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
# A JPEG that lacks more of its rows than this is not worth mending.
_MOST_MISSING = 0.5
# Warnings about what does no harm to pixels.
_HARMLESS = ("unknown jfif revision", "unknown adobe color transform", "inconsistent progression")


@dataclass(frozen=True)
class Damage:
    """What is wrong with a JPEG that does not decode without warnings.

    Attributes:
        note: one sentence; empty where nothing is.
        hopeless: whether most of the picture is missing.
        spoils: whether pixels are missing or wrong.
    """

    note: str
    hopeless: bool = False
    spoils: bool = True


def damage_of(path: Path) -> Damage:
    """Looks at a JPEG that libvips warned of; asking again about an unchanged file costs nothing.

    Raises:
        pyvips.Error: not even its header can be read.
    """
    stat = path.stat()
    return _damage(path, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))


@functools.lru_cache(maxsize=8)
def _damage(path: Path, identity: tuple[int, ...]) -> Damage:
    """See `damage_of`. `identity` tells one state of the file from another."""
    with own_errors():
        return _looked_through(path)


def _looked_through(path: Path) -> Damage:
    complaint = _first_complaint(vips().Image.jpegload, str(path))
    if not complaint or any(words in complaint.lower() for words in _HARMLESS):
        return Damage("", spoils=False)
    if _whole_but_for_its_end(path):
        if read_jpeg_parts(path).coding in _PROGRESSIVE:
            return Damage(
                "The JPEG lacks its end marker. It is progressive, so its last details may be"
                " missing; get a whole copy if there is one."
            )
        return Damage("The JPEG lacks its end marker; all its pixels are there.", spoils=False)
    height, missing = _missing_rows(vips().Image.jpegload(str(path), **_options("none")))
    if missing > _MOST_MISSING * height:
        return Damage(
            f"only {height - missing} of its {height} rows are there ({complaint})", hopeless=True
        )
    if missing:
        rows = f"the last of its {height} rows is missing and stays"
        if missing > 1:
            rows = f"the last {missing} of its {height} rows are missing and stay"
        return Damage(f"The JPEG is cut off: {rows} flat. Get a whole copy if there is one.")
    return Damage(
        f"The JPEG has corrupt data ({complaint}), so parts of it may be garbled, grey or coarse."
        " Look at the result, and get a whole copy if there is one."
    )


def _options(fail_on: str) -> dict[str, str]:
    return {"access": "sequential", "fail_on": fail_on}


def _first_complaint(load: Callable[..., Any], source: str | bytes) -> str:
    """What libvips stops at; empty if it does not."""
    try:
        for _ in _rows(load(source, **_options("warning"))):
            pass
    except vips().Error as error:
        return reason(error).removeprefix("VipsJpeg: ").removeprefix("Corrupt JPEG data: ")
    return ""


def _whole_but_for_its_end(path: Path) -> bool:
    """Whether a JPEG decodes without a warning once it has an end marker."""
    data = path.read_bytes()
    if data.endswith(_END):
        return False
    return not _first_complaint(vips().Image.jpegload_buffer, data + _END)


def _missing_rows(image: Any) -> tuple[int, int]:
    """How many rows there are, and how many at the end are one flat colour.

    Where data end, libjpeg repeats the last mean value, so that is what a missing part looks like.
    """
    flat, before = 0, None
    for rows in _rows(image):
        for row in rows:
            colour = row[0]
            even = bool((row == colour).all())
            same = before is not None and np.array_equal(before, colour)
            flat = 0 if not even else flat + 1 if same else 1
            before = colour if even else None
    return image.height, flat


def _rows(image: Any) -> Iterator[np.ndarray]:
    """The pixels in bands of a few rows."""
    region = vips().Region.new(image)
    for top in range(0, image.height, _STEP):
        count = min(_STEP, image.height - top)
        data = region.fetch(0, top, image.width, count)
        yield np.frombuffer(data, np.uint8).reshape(count, image.width, image.bands)
