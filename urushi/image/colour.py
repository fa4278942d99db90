"""Between a file's own colours and the working space.

Without a profile, and with one that is sRGB in all but name, samples pass untouched. Profiles of
three primaries and curves, which nearly all RGB pictures have, are computed here; for the others
LittleCMS leads to CIE Lab in 16 bits. Neither clips to what sRGB can show: a saturated Display P3
red is about (1.09, -0.23, -0.15) in the working space.
"""

import functools

import numpy as np

from urushi.image.info import Header
from urushi.image.libvips import from_array, interpretation, to_array, vips
from urushi.image.matrix_profile import (
    XYZ_OF_RGB,
    MatrixColours,
    matrix_colours,
    srgb_decode,
    srgb_encode,
)

__all__ = ["Colours", "PlainColours", "colours_of"]

_WHITE = XYZ_OF_RGB.sum(axis=1)
# Lab's f() is linear below this value, CIE 15:2004 (8.2.1).
_KNEE = 6.0 / 29.0
_SLOPE = 3.0 * _KNEE**2


def scaled(samples: np.ndarray) -> np.ndarray:
    """Samples as float32 with full intensity 1."""
    if samples.dtype == np.float32:
        return samples
    return samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)


class PlainColours:
    """Grey or RGB samples that are sRGB already, or are to be taken as such."""

    def __init__(self, kind: str) -> None:
        assert kind in ("grey", "rgb"), kind
        self.kind = kind

    def exact_at(self, bits: int) -> bool:
        """Whether every sample of this depth comes back from the working space as it was."""
        return True

    def to_working(self, samples: np.ndarray) -> np.ndarray:
        """`(n, W, 1 | 3)` uint8, uint16, or float32 with full intensity 1 -> `(n, W, 3)`."""
        values = scaled(samples)
        return np.repeat(values, 3, axis=2) if self.kind == "grey" else values

    def from_working(self, pixels: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` -> `(n, W, 1 | 3)` float32, full intensity 1."""
        if self.kind == "grey":
            return _grey(pixels)
        return pixels.astype(np.float32, copy=False)


class ProfiledColours:
    """Samples that mean what an ICC profile of any kind says, as LittleCMS reads it.

    Both ways are relative colorimetric, with 16 bits on libvips' side of the conversion.

    Args:
        kind: of the picture.
        profile: its ICC profile, or None for CMYK without one, which libvips' own stands in for.
    """

    def __init__(self, kind: str, profile: bytes | None) -> None:
        self.kind = kind
        self._profile = profile

    def exact_at(self, bits: int) -> bool:
        """Never: the way through Lab is not exact."""
        return False

    def to_working(self, samples: np.ndarray) -> np.ndarray:
        """`(n, W, 1 | 3 | 4)` uint8, uint16, or float32 with full intensity 1 -> `(n, W, 3)`."""
        if samples.dtype == np.float32:
            samples = _to_16(samples)
        image = from_array(samples, interpretation(self.kind, samples.dtype))
        options = self._attach(image, "input_profile")
        lab = image.icc_import(intent="relative", pcs="lab", **options)
        pixels = _rgb_of_lab(to_array(lab, np.dtype(np.float32)))
        return np.repeat(_grey(pixels), 3, axis=2) if self.kind == "grey" else pixels

    def from_working(self, pixels: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` -> `(n, W, 1 | 3 | 4)` float32, full intensity 1."""
        image = from_array(_lab_of_rgb(pixels), "lab")
        options = self._attach(image, "output_profile")
        samples = image.icc_export(intent="relative", pcs="lab", depth=16, **options)
        return scaled(to_array(samples, np.dtype(np.uint16)))

    def _attach(self, image: object, option: str) -> dict[str, object]:
        if self._profile is None:
            return {option: "cmyk"}
        image.set_type(vips().GValue.blob_type, "icc-profile-data", self._profile)  # type: ignore[attr-defined]
        return {"embedded": True} if option == "input_profile" else {}


Colours = PlainColours | MatrixColours | ProfiledColours


def colours_of(header: Header) -> Colours:
    """How to convert the samples of this file."""
    return _colours(header.info.kind, header.profile)


@functools.lru_cache(maxsize=8)
def _colours(kind: str, profile: bytes | None) -> Colours:
    """See `colours_of`. A profile that is damaged or of another kind of picture says nothing."""
    if profile is not None and profile[16:20] != _SIGNATURES[kind]:
        profile = None
    if profile is None:
        return ProfiledColours(kind, None) if kind == "cmyk" else PlainColours(kind)
    candidate = ProfiledColours(kind, profile)
    try:
        probe = _probe(kind)
        candidate.from_working(candidate.to_working(probe))
    except vips().Error:
        return _colours(kind, None)
    if kind == "cmyk":
        return candidate
    quick = matrix_colours(profile) if kind == "rgb" and profile is not None else None
    found = quick if quick is not None and _agree(quick, candidate) else candidate
    plain = PlainColours(kind)
    # Half a level of 8 bits: as near to sRGB as 8 bits can say.
    same = np.abs(plain.to_working(probe) - found.to_working(probe)).max() < 0.5 / 255.0
    return plain if same else found


def _agree(quick: MatrixColours, reference: ProfiledColours) -> bool:
    """Whether both say the same of colours that sRGB and the profile share.

    LittleCMS has the last word on what a profile means. Only this way is compared: the other one it
    interpolates from a coarse grid, and wide gamuts do not fit into its 16 bits of Lab.
    """
    pixels = scaled(_probe("rgb")) * np.float32(0.9) + np.float32(0.05)
    meant = quick.from_working(pixels)
    shared = (meant >= 0.0).all(axis=-1) & (meant <= 1.0).all(axis=-1)
    difference = np.abs(reference.from_working(pixels) - meant)[shared]
    return difference.size > 0 and bool(difference.max() < 1e-3)


_SIGNATURES = {"grey": b"GRAY", "rgb": b"RGB ", "cmyk": b"CMYK"}


def _probe(kind: str) -> np.ndarray:
    """Samples all over what this kind of picture can hold, `(1, n, C)` uint16."""
    if kind == "grey":
        return np.arange(0, 65536, 257, dtype=np.uint16)[None, :, None]
    steps = np.linspace(0, 65535, 5 if kind == "cmyk" else 9).astype(np.uint16)
    channels = 4 if kind == "cmyk" else 3
    grid = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), axis=-1)
    greys = np.repeat(np.arange(0, 65536, 257, dtype=np.uint16)[:, None], channels, axis=1)
    return np.concatenate([grid.reshape(-1, channels), greys])[None]


def _grey(pixels: np.ndarray) -> np.ndarray:
    """The mean of three channels, `(n, W, 1)`; exact where the three are equal."""
    base = pixels[..., :1]
    rest = (pixels[..., 1:2] - base) + (pixels[..., 2:3] - base)
    return base + rest / np.float32(3.0)


def _to_16(samples: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(samples, 0.0, 1.0) * 65535.0).astype(np.uint16)


def _rgb_of_lab(lab: np.ndarray) -> np.ndarray:
    """CIE Lab under D50 -> sRGB encoding, unclipped: its curve goes on, odd-symmetric, below 0."""
    fy = (lab[..., 0] + 16.0) / 116.0
    f = np.stack([fy + lab[..., 1] / 500.0, fy, fy - lab[..., 2] / 200.0], axis=-1)
    ratio = np.where(f > _KNEE, f**3, _SLOPE * (f - 4.0 / 29.0))
    matrix = (np.linalg.inv(XYZ_OF_RGB) * _WHITE).astype(np.float32)
    return srgb_encode()(ratio @ matrix.T)


def _lab_of_rgb(pixels: np.ndarray) -> np.ndarray:
    """The inverse of `_rgb_of_lab`."""
    matrix = (XYZ_OF_RGB / _WHITE[:, None]).astype(np.float32)
    ratio = srgb_decode()(pixels) @ matrix.T
    f = np.where(ratio > _KNEE**3, np.cbrt(ratio), ratio / _SLOPE + 4.0 / 29.0)
    lightness = 116.0 * f[..., 1] - 16.0
    a = 500.0 * (f[..., 0] - f[..., 1])
    b = 200.0 * (f[..., 1] - f[..., 2])
    return np.stack([lightness, a, b], axis=-1).astype(np.float32)
