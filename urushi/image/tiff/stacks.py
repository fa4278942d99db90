"""Descriptions of stacks: what ImageJ, OME and tifffile write about planes of a microscope's file.

They count the planes of their file, and readers trust them more than the file itself.
"""

import json
import math
import re

__all__ = ["fitting_description", "planes_of", "stack_title"]

_COUNTS = re.compile(rb"^(images|channels|slices|frames)=(\d{1,9})\s*$", re.MULTILINE)
_STACK_LINES = re.compile(
    rb"^(?:images|channels|slices|frames|hyperstack|loop)=[^\n]*\n?", re.MULTILINE
)
_OME_SIZE = re.compile(rb"<(?:\w+:)?Pixels\b[^>]*>")
_ATTRIBUTE = re.compile(rb"\bSize([CZT])\s*=\s*[\"'](\d{1,9})[\"']")
_OME_FILE = re.compile(rb"\bFileName\s*=\s*[\"']([^\"']*)[\"']")
_OME_ROOT = re.compile(rb"<(?:\w+:)?OME\b")


def stack_title(description: bytes) -> str:
    """Whose description this is: 'ImageJ', 'OME', 'tifffile'; empty for all others."""
    start = description.lstrip()[:4096]
    if start.startswith(b"ImageJ="):
        return "ImageJ"
    if start.startswith(b"<") and _OME_ROOT.search(start):
        return "OME"
    return "tifffile" if start.startswith(b'{"shape":') else ""


def planes_of(description: bytes) -> int:
    """How many planes of its file a description tells of; 0 where it tells of none."""
    title = stack_title(description)
    if title == "ImageJ":
        counts = dict(_COUNTS.findall(description))
        if b"images" in counts:
            return int(counts[b"images"])
        return math.prod(int(count) for count in counts.values()) if counts else 0
    if title == "OME":
        if len(set(_OME_FILE.findall(description))) > 1:
            return 0  # the planes lie in several files
        total = 0
        for pixels in _OME_SIZE.findall(description):
            total += math.prod(int(size) for _, size in _ATTRIBUTE.findall(pixels))
        return total
    return _planes_of_shape(description) if title else 0


def _planes_of_shape(description: bytes) -> int:
    """Planes by tifffile's shape, whose last axes are rows, columns and perhaps samples."""
    try:
        shape = json.loads(description)["shape"]
        sizes = [int(side) for side in shape]
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
    rest = sizes[:-3] if sizes and sizes[-1] in (3, 4) else sizes[:-2]
    return math.prod(rest)


def fitting_description(description: bytes, complete: bool, same: bool) -> bytes | None:
    """What a result may say of what its source says.

    Args:
        description: of the source.
        complete: all planes are written, in order, into a TIFF.
        same: they have the source's size, channels and sample type.

    Returns:
        The description; without its claims where they would be wrong; None where nothing is left.
        Equal to `description` where it tells of no stack.
    """
    title = stack_title(description)
    if not title or (complete and same) or (complete and title == "ImageJ"):
        return description
    if title != "ImageJ":
        return None
    return _STACK_LINES.sub(b"", description)
