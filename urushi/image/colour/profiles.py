"""Colour profiles of tone curves: RGB with three primaries, and grey with one curve.

Display P3, Adobe RGB, ProPhoto, Rec. 2020: a curve for each channel, then a matrix, leads to CIE
XYZ under D50; sRGB is such a space too. So both ways are two curves around one matrix of 3 x 3.
"""

import functools
import struct
from collections.abc import Callable

import numpy as np

from urushi.image.colour.curves import SRGB, Tabulated, ToneCurve, read_curve

__all__ = [
    "XYZ_OF_RGB",
    "GreyColours",
    "MatrixColours",
    "converted",
    "grey_colours",
    "grey_mean",
    "matrix_colours",
    "profile_tags",
    "srgb_decode",
    "srgb_encode",
]

# The primaries of sRGB as columns, adapted to the D50 white of ICC profiles (IEC 61966-2-1 Annex F
# as in the ICC's own sRGB profile).
XYZ_OF_RGB = np.array(
    [
        [0.4360657, 0.3851515, 0.1430784],
        [0.2224932, 0.7168870, 0.0606169],
        [0.0139160, 0.0970764, 0.7140961],
    ]
)
_BLOCK = 2**12
_LEVELS = (0, 1, 2, 3, 5, 8, 16, 32, 64, 128, 192, 254, 255)


@functools.cache
def srgb_encode() -> Tabulated:
    """Linear light -> sRGB's curve, unclipped."""
    return Tabulated(SRGB.encoded)


@functools.cache
def srgb_decode() -> Tabulated:
    """The inverse of `srgb_encode`."""
    return Tabulated(SRGB.linear)


def converted(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Pixels under sRGB's curve, `(..., 3)`, in other primaries; `matrix` is for linear light."""
    light = srgb_decode()(pixels) @ np.ascontiguousarray(matrix.T, np.float32)
    return srgb_encode()(light)


class MatrixColours:
    """Samples that mean what such a profile says; nothing is clipped on either way.

    Args:
        matrix: `(3, 3)`, linear light in the profile's primaries -> in those of sRGB.
        curves: one for each channel.
        own: stay in the profile's own primaries, under sRGB's curve, in place of the working space.

    Attributes:
        to_srgb: `(3, 3)`, linear light in the primaries of the pixels -> in those of sRGB; None
            where they are the same.
    """

    kind = "rgb"

    def __init__(
        self,
        matrix: np.ndarray,
        curves: tuple[ToneCurve, ToneCurve, ToneCurve],
        *,
        own: bool = False,
    ) -> None:
        self.to_srgb = matrix if own else None
        if own:
            matrix = np.eye(3)
        self._curves = curves
        self._forward = np.ascontiguousarray(matrix.T, np.float32)
        self._backward = np.ascontiguousarray(np.linalg.inv(matrix).T, np.float32)
        self._encode = _tabulated([curve.encoded for curve in curves])
        self._known_levels: dict[int, list[np.ndarray]] = {}
        self._known_pixels: dict[int, list[np.ndarray]] = {}
        self._known_returned: dict[int, list[np.ndarray]] = {}
        # Without a matrix between them, two curves are one, and of integers a table.
        self._own_encode = _tabulated([_after_srgb(curve) for curve in curves]) if own else None
        self._exact = self._returns()

    def exact_at(self, bits: int) -> bool:
        """Whether every sample of this depth comes back from the working space as it was."""
        return bits == 8 and self._exact

    def to_working(self, samples: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` uint8, uint16, or float32 with full intensity 1 -> `(n, W, 3)`."""
        if self._own_encode is not None and samples.dtype != np.float32:
            return _looked_up(self._pixels_of_levels(samples.dtype), samples)
        flat = samples.reshape(-1, 3)
        pixels = np.empty((len(flat), 3), np.float32)
        for start in range(0, len(flat), _BLOCK):
            linear = self._linear(flat[start : start + _BLOCK])
            # What is not finite stays so, and whoever restores it says so.
            with np.errstate(invalid="ignore"):
                pixels[start : start + _BLOCK] = srgb_encode()(linear @ self._forward)
        return pixels.reshape(samples.shape)

    def from_working(self, pixels: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` -> `(n, W, 3)` float32, full intensity 1."""
        if self._own_encode is not None:
            return _apply(self._own_encode, pixels.reshape(-1, 3)).reshape(pixels.shape)
        flat = pixels.reshape(-1, 3)
        values = np.empty((len(flat), 3), np.float32)
        for start in range(0, len(flat), _BLOCK):
            linear = srgb_decode()(flat[start : start + _BLOCK]) @ self._backward
            values[start : start + _BLOCK] = _apply(self._encode, linear)
        return values.reshape(pixels.shape)

    def returned(self, samples: np.ndarray) -> np.ndarray:
        """`from_working(to_working(samples))`."""
        if self._own_encode is None or samples.dtype == np.float32:
            return self.from_working(self.to_working(samples))
        full = int(np.iinfo(samples.dtype).max)
        if full not in self._known_returned:
            pixels = self._pixels_of_levels(samples.dtype)
            functions = self._own_encode
            if len(pixels) < len(functions):
                pixels = pixels * len(functions)
            if len(functions) < len(pixels):
                functions = functions * len(pixels)
            found = [function(p) for function, p in zip(functions, pixels, strict=True)]
            self._known_returned[full] = found
        return _looked_up(self._known_returned[full], samples)

    def _pixels_of_levels(self, dtype: np.dtype) -> list[np.ndarray]:
        """What becomes of each value of an integer sample in own primaries, by channel."""
        full = int(np.iinfo(dtype).max)
        if full not in self._known_pixels:
            self._known_pixels[full] = [srgb_encode()(level) for level in self._levels(full)]
        return self._known_pixels[full]

    def _linear(self, samples: np.ndarray) -> np.ndarray:
        """`(n, 3)` samples -> linear light in the profile's primaries."""
        if samples.dtype == np.float32:
            return _apply(self._decode, samples)
        return _looked_up(self._levels(int(np.iinfo(samples.dtype).max)), samples)

    @functools.cached_property
    def _decode(self) -> list[Tabulated]:
        return _tabulated([curve.linear for curve in self._curves])

    def _levels(self, full: int) -> list[np.ndarray]:
        """Linear light for each value of an integer sample, by channel."""
        if full not in self._known_levels:
            grid = np.arange(full + 1) / full
            levels = [curve.linear(grid).astype(np.float32) for curve in self._curves]
            self._known_levels[full] = levels[:1] if _alike(levels) else levels
        return self._known_levels[full]

    def _returns(self) -> bool:
        """See `exact_at`; a dark channel beside bright ones is where rounding weighs most."""
        levels = np.array(_LEVELS, np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
        greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        probe = np.concatenate([grid.reshape(-1, 3), greys])[None]
        error = self.from_working(self.to_working(probe)) * 255.0 - probe
        return bool(np.abs(error).max() < 0.4)


def _looked_up(tables: list[np.ndarray], samples: np.ndarray) -> np.ndarray:
    """`(..., 3)` integers -> what the tables, one or one for each channel, have for them."""
    found = np.empty(samples.shape, np.float32)
    if len(tables) == 1:
        return tables[0].take(samples, out=found, mode="clip")
    for channel, table in enumerate(tables):
        found[..., channel] = table.take(samples[..., channel])
    return found


def _after_srgb(curve: ToneCurve) -> Callable[[np.ndarray], np.ndarray]:
    """sRGB's encoding -> that of a profile."""
    return lambda values: curve.encoded(SRGB.linear(values))


def _alike(arrays: list[np.ndarray]) -> bool:
    return all(np.array_equal(array, arrays[0]) for array in arrays)


def _tabulated(functions: list[Callable[[np.ndarray], np.ndarray]]) -> list[Tabulated]:
    """One for each channel, or a single one where they are the same."""
    grid = np.concatenate([[0.0], np.geomspace(1e-9, 16.0, 4096)])
    if _alike([function(grid) for function in functions]):
        functions = functions[:1]
    return [Tabulated(function) for function in functions]


def _apply(functions: list[Tabulated], values: np.ndarray) -> np.ndarray:
    """`(n, 3)` -> `(n, 3)`, each channel through its own function."""
    if len(functions) == 1:
        return functions[0](values)
    channels = [function(values[:, i]) for i, function in enumerate(functions)]
    return np.stack(channels, axis=-1)


def matrix_colours(profile: bytes, *, own: bool = False) -> MatrixColours | None:
    """Reads an ICC profile of versions 2 and 4 (ICC.1:2001-04, ICC.1:2022).

    Args:
        profile: the whole of it.
        own: see `MatrixColours`.

    Returns:
        The conversion, or None for a profile of another kind: one with tables in place of or
        beside primaries and curves, or whose curves cannot be undone.
    """
    if profile[16:24] != b"RGB XYZ ":
        return None
    tags = profile_tags(profile)
    if any(name[:3] in (b"A2B", b"B2A", b"D2B", b"B2D") for name in tags):
        return None
    columns = [_xyz(tags.get(name, b"")) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    curves = [read_curve(tags.get(name, b"")) for name in (b"rTRC", b"gTRC", b"bTRC")]
    red, green, blue = curves
    if red is None or green is None or blue is None or any(c is None for c in columns):
        return None
    matrix = np.linalg.solve(XYZ_OF_RGB, np.array(columns).T)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-3:
        return None
    return MatrixColours(matrix, (red, green, blue), own=own)


def profile_tags(profile: bytes) -> dict[bytes, bytes]:
    """The tags of an ICC profile, by name; none of one that is cut short within their table."""
    tags = {}
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        for i in range(min(count, 100)):
            name, start, size = struct.unpack_from(">4sII", profile, 132 + 12 * i)
            tags[name] = profile[start : start + size]
    except struct.error:
        return {}
    return tags


def _xyz(tag: bytes) -> list[float] | None:
    if tag[:4] != b"XYZ " or len(tag) < 20:
        return None
    return [v / 65536.0 for v in struct.unpack_from(">3i", tag, 8)]


def grey_mean(pixels: np.ndarray) -> np.ndarray:
    """The mean of three channels, `(n, W, 1)`; exact where the three are equal."""
    base = pixels[..., :1]
    rest = (pixels[..., 1:2] - base) + (pixels[..., 2:3] - base)
    return base + rest / np.float32(3.0)


class GreyColours:
    """Grey samples that mean what a curve says; nothing is clipped on either way.

    Args:
        curve: encoded -> linear, white being 1 in both.
    """

    kind = "grey"
    to_srgb = None

    def __init__(self, curve: ToneCurve) -> None:
        self._decode, self._encode = Tabulated(curve.linear), Tabulated(curve.encoded)

    def exact_at(self, bits: int) -> bool:
        """Never: where one curve is flat, samples share a value of the other."""
        return False

    def to_working(self, samples: np.ndarray) -> np.ndarray:
        """`(n, W, 1)` uint8, uint16, or float32 with full intensity 1 -> `(n, W, 3)`."""
        if samples.dtype != np.float32:
            samples = samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)
        return np.repeat(srgb_encode()(self._decode(samples)), 3, axis=2)

    def from_working(self, pixels: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` -> `(n, W, 1)` float32, full intensity 1."""
        return self._encode(srgb_decode()(grey_mean(pixels)))


def grey_colours(profile: bytes) -> GreyColours | None:
    """Reads a grey ICC profile; None where it is not a curve alone, or cannot be undone."""
    if profile[16:24] != b"GRAYXYZ ":
        return None
    tags = profile_tags(profile)
    if any(name[:3] in (b"A2B", b"B2A", b"D2B", b"B2D") for name in tags):
        return None
    curve = read_curve(tags.get(b"kTRC", b""))
    return None if curve is None else GreyColours(curve)
