"""Primaries of RGB spaces: the numbers that files name them by, and matrices between them."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from urushi.image.colour.profiles import XYZ_OF_RGB

__all__ = [
    "ADOBE_RGB", "PRIMARIES", "REC2020", "SRGB_PRIMARIES", "Chromaticities", "to_primaries",
    "xyz_of_primaries",
]  # fmt: skip

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""CIE x and y of red, green, blue and white, in this order."""

_D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)
SRGB_PRIMARIES: Chromaticities = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65)
REC2020: Chromaticities = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65)
ADOBE_RGB: Chromaticities = (0.640, 0.330, 0.210, 0.710, 0.150, 0.060, *_D65)
_SMPTE_170M: Chromaticities = (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65)

PRIMARIES: Mapping[int, Chromaticities] = MappingProxyType(
    {
        1: SRGB_PRIMARIES,
        4: (0.670, 0.330, 0.210, 0.710, 0.140, 0.080, *_C),
        5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, *_D65),
        6: _SMPTE_170M,
        7: _SMPTE_170M,
        8: (0.681, 0.319, 0.243, 0.692, 0.145, 0.049, *_C),
        9: REC2020,
        11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
        12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
        22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),
    }
)
"""By the number that ITU-T H.273 (table 2) gives them; cICP and nclx say these numbers."""

_D50 = np.array([0.96422, 1.0, 0.82521])
# Bradford's cone responses, as ICC.1:2022 (Annex E) uses them.
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def xyz_of_primaries(chromaticities: Chromaticities) -> np.ndarray | None:
    """The primaries as columns of CIE XYZ, `(3, 3)`, with their white adapted to D50.

    Returns:
        The matrix, or None for numbers that span no colours.
    """
    points = np.array(chromaticities).reshape(4, 2)
    if not (points[:, 1] > 0).all():
        return None
    columns = np.stack([[x / y, 1.0, (1.0 - x - y) / y] for x, y in points], axis=1)
    red_green_blue, white = columns[:, :3], columns[:, 3]
    if abs(np.linalg.det(red_green_blue)) < 1e-6:
        return None
    scaled = red_green_blue * np.linalg.solve(red_green_blue, white)
    gains = (_CONES @ _D50) / (_CONES @ white)
    return np.linalg.inv(_CONES) @ np.diag(gains) @ _CONES @ scaled


def to_primaries(chromaticities: Chromaticities) -> np.ndarray:
    """Linear light in sRGB's primaries -> in others, `(3, 3)`."""
    matrix = xyz_of_primaries(chromaticities)
    assert matrix is not None, chromaticities
    return np.linalg.solve(matrix, XYZ_OF_RGB)
