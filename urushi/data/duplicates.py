"""Which pictures are the same, or nearly: by a hash of their pixels and by a coarse look at them.

The coarse look is a difference hash (N. Krawetz, "Kind of like that", 2013): the picture is
averaged down to 17 x 16 grey values, and each is compared with its right neighbour, which gives 256
bits that outlive re-encoding and resizing. Pairs that differ in few bits count as near duplicates
if their grey values agree too. Crops and mirrored copies are not found.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8, UInt64

__all__ = ["Fingerprint", "equal_groups", "fingerprint", "near_pairs"]

_ROWS, _COLUMNS = 16, 17
# Ours. Copies of photographs halved in size or saved as JPEG of quality 10 differ in up to 44 bits,
# and correlate by 0.987 or more; the two most similar of 68 different ones by 81 bits and 0.885.
_MAX_BITS = 48
_MIN_CORRELATION = 0.97


@dataclass(frozen=True)
class Fingerprint:
    """What two pictures are compared by.

    Attributes:
        exact: hash of size and 8-bit pixels.
        bits: the 256 bits of the difference hash as 4 words.
        grey: the 272 grey values, mean 0 and length 1; None if the picture is too small or so flat
            that they say nothing.
    """

    exact: str
    bits: UInt64[np.ndarray, "4"]
    grey: Float32[np.ndarray, "272"] | None


def fingerprint(pixels: UInt8[np.ndarray, "h w 3"]) -> Fingerprint:
    """The fingerprint of an RGB picture of 8 bits."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{height}x{width}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    if height < _ROWS or width < _COLUMNS:
        return Fingerprint(digest.hexdigest(), np.zeros(4, np.uint64), None)
    luma = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    grey = _averaged(_averaged(pixels @ luma, _ROWS, 0), _COLUMNS, 1)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)
    centred = (grey - grey.mean()).reshape(-1)
    length = float(np.linalg.norm(centred))
    # Less than one grey level of contrast: rounding, not content.
    flat = length < np.sqrt(grey.size)
    unit = None if flat else (centred / length).astype(np.float32)
    return Fingerprint(digest.hexdigest(), bits, unit)


def equal_groups(prints: Mapping[str, Fingerprint]) -> list[list[str]]:
    """Names of pictures whose size and pixels are equal, in groups of two and more."""
    groups: dict[str, list[str]] = {}
    for name, own in prints.items():
        groups.setdefault(own.exact, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def near_pairs(
    prints: Mapping[str, Fingerprint], others: Mapping[str, Fingerprint] | None = None
) -> Iterator[tuple[str, str]]:
    """Pictures that look alike, each with the first it resembles; equal ones are left out.

    Args:
        prints: by name.
        others: what they are compared with; the ones before them in ``prints`` if not given.
    """
    names, words, greys = _table(prints)
    if others is None:
        other_names, other_words, other_greys = names, words, greys
    else:
        other_names, other_words, other_greys = _table(others)
    against = others if others is not None else prints
    for i, name in enumerate(names):
        end = i if others is None else len(other_names)
        if end == 0:
            continue
        distance = np.bitwise_count(other_words[:end] ^ words[i]).sum(axis=1)
        for j in np.flatnonzero(distance <= _MAX_BITS):
            other = other_names[j]
            if (
                against[other].exact != prints[name].exact
                and float(other_greys[j] @ greys[i]) >= _MIN_CORRELATION
            ):
                yield name, other
                break


def _table(
    prints: Mapping[str, Fingerprint],
) -> tuple[list[str], UInt64[np.ndarray, "n 4"], Float32[np.ndarray, "n 272"]]:
    """Names, words and grey values of all that have any."""
    names = [name for name, own in prints.items() if own.grey is not None]
    words = np.array([prints[name].bits for name in names], np.uint64).reshape(-1, 4)
    greys = np.array([prints[name].grey for name in names], np.float32)
    return names, words, greys.reshape(-1, _ROWS * _COLUMNS)


def _averaged(
    plane: Float32[np.ndarray, "_ _"], count: int, axis: int
) -> Float32[np.ndarray, "_ _"]:
    """Means over ``count`` parts of an axis, as equal as whole pixels allow."""
    edges = np.arange(count + 1) * plane.shape[axis] // count
    sums = np.add.reduceat(plane, edges[:-1], axis=axis)
    sizes = np.diff(edges).astype(np.float32)
    return sums / (sizes[:, None] if axis == 0 else sizes)
