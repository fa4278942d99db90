"""Grey samples with a tone curve, as ICC profiles of one channel and linear light have it."""

import numpy as np

from urushi.image.curves import Tabulated, ToneCurve, read_curve
from urushi.image.matrix_profile import profile_tags, srgb_decode, srgb_encode

__all__ = ["GreyColours", "grey_colours", "grey_mean"]


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
