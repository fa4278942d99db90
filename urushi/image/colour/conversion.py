"""Between a file's own colours and the working space.

Without a profile, and with one that is sRGB in all but name, samples pass untouched. Profiles of
three primaries and curves, which nearly all RGB pictures have, are computed here; for the others
LittleCMS leads to CIE Lab in 16 bits. Neither clips to what sRGB can show: a saturated Display P3
red is about (1.09, -0.23, -0.15) in the working space.

Pictures are restored in *primaries of their own*, under sRGB's curve, where that red is
(1.0, 0.0, 0.0): what is mended must lie where networks have learnt to mend.
"""

import functools
import io
from pathlib import Path

import numpy as np

from urushi.image.colour.curves import LINEAR
from urushi.image.colour.levels import levels_of
from urushi.image.colour.primaries import REC2020, to_primaries, xyz_of_primaries
from urushi.image.colour.profiles import (
    XYZ_OF_RGB,
    GreyColours,
    MatrixColours,
    grey_colours,
    grey_mean,
    matrix_colours,
    srgb_decode,
    srgb_encode,
)
from urushi.image.formats.jpeg_parts import read_jpeg_parts
from urushi.image.formats.png_chunks import read_png_parts
from urushi.image.info import Header
from urushi.image.libvips import from_array, interpretation, own_errors, to_array, vips
from urushi.image.tiff.exif_directory import read_tags

__all__ = [
    "Colours",
    "PlainColours",
    "ScaledColours",
    "UnscaledColours",
    "colours_of",
    "profile_colours",
    "profile_note",
    "scaled",
]

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

    to_srgb = None

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
            return grey_mean(pixels)
        return pixels.astype(np.float32, copy=False)


class ProfiledColours:
    """Samples that mean what an ICC profile of any kind says, as LittleCMS reads it.

    Both ways are relative colorimetric, with 16 bits on libvips' side of the conversion.

    Args:
        kind: of the picture.
        profile: its ICC profile, or None for CMYK without one, which libvips' own stands in for.
        own: take primaries wide enough for inks, those of BT.2020, in place of the working space.

    Attributes:
        to_srgb: as `MatrixColours` has it.
    """

    def __init__(self, kind: str, profile: bytes | None, *, own: bool = False) -> None:
        self.kind = kind
        self._profile = profile
        own = own and kind != "grey"
        self.to_srgb = np.linalg.inv(to_primaries(REC2020)) if own else None
        wide = xyz_of_primaries(REC2020)
        assert wide is not None
        self._xyz_of_rgb = wide if own else XYZ_OF_RGB

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
        pixels = _rgb_of_lab(to_array(lab, np.dtype(np.float32)), self._xyz_of_rgb)
        return np.repeat(grey_mean(pixels), 3, axis=2) if self.kind == "grey" else pixels

    def from_working(self, pixels: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` -> `(n, W, 1 | 3 | 4)` float32, full intensity 1."""
        image = from_array(_lab_of_rgb(pixels, self._xyz_of_rgb), "lab")
        options = self._attach(image, "output_profile")
        samples = image.icc_export(intent="relative", pcs="lab", depth=16, **options)
        return scaled(to_array(samples, np.dtype(np.uint16)))

    def _attach(self, image: object, option: str) -> dict[str, object]:
        if self._profile is None:
            return {option: "cmyk"}
        image.set_type(vips().GValue.blob_type, "icc-profile-data", self._profile)  # type: ignore[attr-defined]
        return {"embedded": True} if option == "input_profile" else {}


class ScaledColours:
    """Samples whose white is another value than the greatest, or than 1.

    Args:
        inner: what they mean once white is 1.
        white: the value of white.
        full: the greatest value of such samples; 1 for floating point.
    """

    def __init__(self, inner: "UnscaledColours", white: float, full: float) -> None:
        self.inner, self.kind, self.to_srgb = inner, inner.kind, inner.to_srgb
        self._white, self._gain = np.float32(white), np.float32(white / full)

    def exact_at(self, bits: int) -> bool:
        """Never: the division rounds."""
        return False

    def unscaled(self, samples: np.ndarray) -> np.ndarray:
        """Samples -> float32 with white 1."""
        return samples.astype(np.float32) / self._white

    def to_working(self, samples: np.ndarray) -> np.ndarray:
        """`(n, W, C)` samples as they are stored -> `(n, W, 3)`."""
        return self.inner.to_working(self.unscaled(samples))

    def from_working(self, pixels: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` -> `(n, W, C)` float32, 1 being the greatest value of such samples."""
        return self.inner.from_working(pixels) * self._gain


UnscaledColours = PlainColours | MatrixColours | GreyColours | ProfiledColours
Colours = UnscaledColours | ScaledColours


def colours_of(header: Header, *, own: bool = False) -> Colours:
    """How to convert the samples of this file.

    Args:
        header: of the file.
        own: not to the working space but to primaries of its own; see above.

    Raises:
        UnreadableError: the samples cannot be those of a picture; see `levels_of`.
    """
    info, levels = header.info, levels_of(header)
    stated = info.stated.profile(info.kind) if info.stated is not None else None
    colours = profile_colours(info.kind, stated or header.profile, own=own)
    if levels.linear and isinstance(colours, PlainColours):
        colours = _linear(info.kind)
    if levels.white == info.full:
        return colours
    return ScaledColours(colours, levels.white, info.full)


@functools.cache
def _linear(kind: str) -> MatrixColours | GreyColours:
    """Linear light in sRGB's primaries."""
    return (
        GreyColours(LINEAR)
        if kind == "grey"
        else MatrixColours(np.eye(3), (LINEAR, LINEAR, LINEAR))
    )


@functools.lru_cache(maxsize=8)
def profile_colours(kind: str, profile: bytes | None, *, own: bool = False) -> UnscaledColours:
    """How to convert samples with this profile, or with none.

    A profile that is damaged or of another kind of picture says nothing.
    """
    if profile is not None and profile[16:20] != _SIGNATURES[kind]:
        profile = None
    if profile is None:
        return ProfiledColours(kind, None, own=own) if kind == "cmyk" else PlainColours(kind)
    candidate = ProfiledColours(kind, profile)
    probe = _probe(kind)
    try:
        with own_errors():
            candidate.from_working(candidate.to_working(probe))
    except vips().Error:
        return profile_colours(kind, None, own=own)
    if kind == "cmyk":
        return ProfiledColours(kind, profile, own=own)
    quick = matrix_colours(profile) if kind == "rgb" else grey_colours(profile)
    if quick is not None and not _agree(quick, candidate):
        quick = None
    plain = PlainColours(kind)
    # Half a level of 8 bits: as near to sRGB as 8 bits can say.
    seen = (quick or candidate).to_working(probe)
    if np.abs(plain.to_working(probe) - seen).max() < 0.5 / 255.0:
        return plain
    if quick is None:
        return ProfiledColours(kind, profile, own=own)
    return (matrix_colours(profile, own=True) if own and kind == "rgb" else None) or quick


def _agree(quick: MatrixColours | GreyColours, reference: ProfiledColours) -> bool:
    """Whether both say the same of colours that sRGB and the profile share.

    LittleCMS has the last word on what a profile means. Only this way is compared: the other one it
    interpolates from a coarse grid, and wide gamuts do not fit into its 16 bits of Lab.
    """
    probe = scaled(_probe(quick.kind))
    pixels = np.broadcast_to(probe, (*probe.shape[:2], 3)) * np.float32(0.9) + np.float32(0.05)
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


def _to_16(samples: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(samples, 0.0, 1.0) * 65535.0).astype(np.uint16)


def _rgb_of_lab(lab: np.ndarray, xyz_of_rgb: np.ndarray) -> np.ndarray:
    """CIE Lab under D50 -> sRGB's curve, unclipped: it goes on, odd-symmetric, below 0."""
    fy = (lab[..., 0] + 16.0) / 116.0
    f = np.stack([fy + lab[..., 1] / 500.0, fy, fy - lab[..., 2] / 200.0], axis=-1)
    ratio = np.where(f > _KNEE, f**3, _SLOPE * (f - 4.0 / 29.0))
    matrix = (np.linalg.inv(xyz_of_rgb) * _WHITE).astype(np.float32)
    return srgb_encode()(ratio @ matrix.T)


def _lab_of_rgb(pixels: np.ndarray, xyz_of_rgb: np.ndarray) -> np.ndarray:
    """The inverse of `_rgb_of_lab`."""
    matrix = (xyz_of_rgb / _WHITE[:, None]).astype(np.float32)
    ratio = srgb_decode()(pixels) @ matrix.T
    f = np.where(ratio > _KNEE**3, np.cbrt(ratio), ratio / _SLOPE + 4.0 / 29.0)
    lightness = 116.0 * f[..., 1] - 16.0
    a = 500.0 * (f[..., 0] - f[..., 1])
    b = 200.0 * (f[..., 1] - f[..., 2])
    return np.stack([lightness, a, b], axis=-1).astype(np.float32)


_PROFILE = 34675


def profile_note(header: Header) -> str:
    """A sentence on a profile that cannot be used; empty where it can be, or there is none."""
    info, profile = header.info, header.profile
    if profile is None:
        refused = _has_profile(info.path, info.format)
    else:
        refused = not _usable(info.kind, profile)
    if not refused:
        return ""
    usual = "the usual colours are" if info.stated is None else f"what {info.stated.by} states is"
    return (
        "Its colour profile is broken or made for other channels, so it is left out and"
        f" {usual} taken for granted."
    )


def _has_profile(path: Path, format: str) -> bool:
    """Whether a file has one after all; libvips leaves out what is broken beyond doubt."""
    if format == "jpeg":
        return read_jpeg_parts(path).profile
    if format == "png":
        return read_png_parts(path).profile
    return format == "tiff" and _PROFILE in read_tags(path, only=(_PROFILE,))


@functools.lru_cache(maxsize=8)
def _usable(kind: str, profile: bytes) -> bool:
    if profile[16:20] != _SIGNATURES[kind]:
        return False
    channels = {"grey": 1, "rgb": 3, "cmyk": 4}[kind]
    try:
        # libvips takes sRGB for a profile that LittleCMS cannot open, and says nothing.
        from PIL import ImageCms

        ImageCms.ImageCmsProfile(io.BytesIO(profile))
        with own_errors():
            ProfiledColours(kind, profile).to_working(np.zeros((1, 1, channels), np.uint16))
    except (vips().Error, OSError):
        return False
    return True
