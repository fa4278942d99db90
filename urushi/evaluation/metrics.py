"""PSNR and SSIM by named protocols.

Two published scores can be set side by side only if they were computed alike, and there are several
habits in this field: colour or luma, luma rounded or not, borders cut or not, and three different
"SSIM". A :class:`Protocol` writes all of it down; ``PROTOCOLS`` names the usual ones.

Sources: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE TIP 2004 (SSIM); ITU-R BT.601 in the scaling of MATLAB's ``rgb2ycbcr``
(luma 16..235). All arithmetic is float64 in units of 0..255.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

from urushi.errors import DataError, nearest

__all__ = [
    "PROTOCOLS",
    "PSNR_CEILING",
    "Protocol",
    "Score",
    "filtered",
    "mean_psnr",
    "named_protocol",
    "psnr",
    "score",
    "ssim",
]

Picture = Float[np.ndarray, "_ _ 3"]
Planes = Float64[np.ndarray, "_ _ _"]

PSNR_CEILING = 100.0
"""What an infinite PSNR counts as in a mean."""

_WINDOW, _SIGMA = 11, 1.5
_LUMA = {
    "y": (np.array([65.481, 128.553, 24.966]) / 255.0, 16.0),
    "y-swapped": (np.array([24.966, 128.553, 65.481]) / 255.0, 16.0),
    "grey": (np.array([0.299, 0.587, 0.114]), 0.0),
}


@dataclass(frozen=True)
class Protocol:
    """Exactly how a score is computed.

    Both pictures are clipped to [0, 1], rounded, cut, converted to the colour, and compared.

    Attributes:
        name: what the result is labelled with.
        colour: ``rgb`` pools the three channels; ``y`` is MATLAB's BT.601 luma with its offset of
            16 and scale of 219/255 (for that scale alone an error scores 1.3 dB higher than in
            grey); ``y-swapped`` is the same with the weights of red and blue exchanged; ``grey`` is
            full-range luma, which leaves grey pictures as they are.
        round_8bit: pictures are rounded to multiples of 1/255 first, as if saved as 8-bit files.
        round_luma: luma is rounded to integers, as MATLAB does for 8-bit pictures.
        crop_border: pixels cut off on every side before the comparison.
        ssim: ``gaussian-valid`` is the original definition, an 11x11 Gaussian window of sigma 1.5
            evaluated where it fits, per channel; ``gaussian-replicate`` evaluates it everywhere
            with edge pixels repeated (BasicSR on luma); ``gaussian-3d`` lets an 11x11x11 window
            run across the colour channels as well, edges repeated (BasicSR's default on RGB);
            ``uniform-valid`` has an even window of 11x11 where it fits, with sample covariances
            (scikit-image's default).
    """

    name: str
    colour: Literal["rgb", "y", "y-swapped", "grey"] = "rgb"
    round_8bit: bool = True
    round_luma: bool = False
    crop_border: int = 0
    ssim: Literal["gaussian-valid", "gaussian-replicate", "gaussian-3d", "uniform-valid"] = (
        "gaussian-valid"
    )


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        # Colour, pictures as the network gave them; and as they would be saved.
        "rgb": Protocol("rgb", round_8bit=False),
        "rgb-8bit": Protocol("rgb-8bit"),
        # NAFNet's and Restormer's Python validation on colour.
        "rgb-basicsr": Protocol("rgb-basicsr", ssim="gaussian-3d"),
        # SwinIR, AdaptIR: luma from 8-bit pictures, not rounded again.
        "y-matlab": Protocol("y-matlab", colour="y"),
        # Restormer's published numbers: MATLAB's rgb2ycbcr on uint8 rounds the luma too.
        "y-matlab-rounded": Protocol("y-matlab-rounded", colour="y", round_luma=True),
        # BasicSR's luma option.
        "y-basicsr": Protocol("y-basicsr", colour="y", ssim="gaussian-replicate"),
        # LoRA-IR's released scorer: it reads blue, green, red, and weighs them as red, green, blue.
        "y-lora-ir": Protocol("y-lora-ir", colour="y-swapped", ssim="uniform-valid"),
        # Grey benchmarks (classic5) whose pictures are handled as three equal channels.
        "grey-8bit": Protocol("grey-8bit", colour="grey", round_luma=True),
    }
)


@dataclass(frozen=True)
class Score:
    """PSNR in dB (infinite for equal pictures) and SSIM (1 for equal pictures)."""

    psnr: float
    ssim: float


def named_protocol(name: str, crop_border: int = 0) -> Protocol:
    """The protocol of that name, with ``crop_border`` pixels cut off on every side.

    Raises:
        DataError: there is no such protocol, or the border is negative.
    """
    if name not in PROTOCOLS:
        hint = nearest(name, PROTOCOLS)
        raise DataError(
            f"there is no protocol {name!r}{hint}: known are {', '.join(PROTOCOLS)}", usage=True
        )
    if crop_border < 0:
        raise DataError(
            f"crop_border is {crop_border}: expected a number of pixels, 0 or more", usage=True
        )
    if crop_border == 0:
        return PROTOCOLS[name]
    return replace(PROTOCOLS[name], name=f"{name}-crop{crop_border}", crop_border=crop_border)


def psnr(picture: Picture, reference: Picture, protocol: Protocol = PROTOCOLS["rgb"]) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255^2 / mean squared error).

    Args:
        picture: RGB ``(H, W, 3)`` in [0, 1]; values outside are clipped.
        reference: the picture it should equal, same size.
        protocol: how to compare.

    Returns:
        dB; ``inf`` if the two are equal under the protocol.

    Raises:
        DataError: the sizes differ, nothing is left after cropping, or a value is not finite.
    """
    return _psnr(*_planes_of_both(picture, reference, protocol))


def ssim(picture: Picture, reference: Picture, protocol: Protocol = PROTOCOLS["rgb"]) -> float:
    """Structural similarity, the mean over the map and the channels; see :func:`psnr`.

    Raises:
        DataError: as :func:`psnr`, or the picture is smaller than the window of 11 pixels.
    """
    return _ssim(*_planes_of_both(picture, reference, protocol), protocol)


def score(picture: Picture, reference: Picture, protocol: Protocol = PROTOCOLS["rgb"]) -> Score:
    """Both scores of a picture; arguments and errors as for :func:`psnr` and :func:`ssim`."""
    a, b = _planes_of_both(picture, reference, protocol)
    return Score(_psnr(a, b), _ssim(a, b, protocol))


def mean_psnr(values: Sequence[float]) -> float:
    """Mean of PSNRs in dB, a picture equal to its reference counting as 100 dB, not as infinite.

    One perfect picture would otherwise hide all others. The value is ours; the usual scripts give
    infinity.
    """
    assert values
    return float(np.mean(np.minimum(values, PSNR_CEILING)))


def _planes_of_both(
    picture: Picture, reference: Picture, protocol: Protocol
) -> tuple[Planes, Planes]:
    if picture.shape != reference.shape:
        (h, w), (rh, rw) = picture.shape[:2], reference.shape[:2]
        raise DataError(
            f"a picture of {w}x{h} pixels cannot be compared with a reference of {rw}x{rh}: "
            "both must have the same size"
        )
    border = protocol.crop_border
    if min(picture.shape[:2]) <= 2 * border:
        raise DataError(
            f"nothing is left of {picture.shape[1]}x{picture.shape[0]} pixels after cutting "
            f"{border} from every side: use larger pictures or a smaller crop_border"
        )
    return _planes(picture, protocol), _planes(reference, protocol)


def _planes(picture: Picture, protocol: Protocol) -> Planes:
    """What is compared: float64 ``(H, W, C)`` in units of 0..255."""
    border = protocol.crop_border
    if border:
        picture = picture[border:-border, border:-border]
    if not np.isfinite(picture).all():
        raise DataError("a picture holds values that are not finite numbers: it cannot be scored")
    planes = np.clip(picture.astype(np.float64) * 255.0, 0.0, 255.0)
    if protocol.round_8bit:
        planes = np.rint(planes)
    if protocol.colour == "rgb":
        return planes
    weights, offset = _LUMA[protocol.colour]
    luma = (planes @ weights + offset)[:, :, None]
    return np.rint(luma) if protocol.round_luma else luma


def _psnr(a: Planes, b: Planes) -> float:
    error = float(np.mean(np.square(a - b)))
    return float("inf") if error == 0.0 else 10.0 * float(np.log10(255.0**2 / error))


def _ssim(a: Planes, b: Planes, protocol: Protocol) -> float:
    if min(a.shape[:2]) < _WINDOW:
        raise DataError(
            f"SSIM needs at least {_WINDOW}x{_WINDOW} pixels, and {a.shape[1]}x{a.shape[0]} are "
            "left to compare: use larger pictures"
        )
    if protocol.ssim == "gaussian-3d":
        return float(np.mean(_ssim_map(a, b, axes=(0, 1, 2), pad=True)))
    pad, even = protocol.ssim == "gaussian-replicate", protocol.ssim == "uniform-valid"
    # Channel by channel: the intermediate planes of one channel stay in the processor's cache.
    maps = [_ssim_map(a[..., c], b[..., c], (0, 1), pad, even) for c in range(a.shape[2])]
    return float(np.mean([found.mean() for found in maps]))


def _ssim_map(
    a: Float64[np.ndarray, "..."],
    b: Float64[np.ndarray, "..."],
    axes: tuple[int, ...],
    pad: bool,
    even: bool = False,
) -> Float64[np.ndarray, "..."]:
    """Equation 13 of the paper at every window, with K1 = 0.01, K2 = 0.03, L = 255."""
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2

    def blurred(plane: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
        for axis in axes:
            plane = filtered(plane, axis, pad, even)
        return plane

    mean_a, mean_b = blurred(a), blurred(b)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance = blurred(a * b) - product
    # The two variances appear only as a sum, so one filtering serves both.
    variances = blurred(a**2 + b**2) - squares
    if even:
        samples = _WINDOW ** len(axes)
        covariance, variances = (v * samples / (samples - 1) for v in (covariance, variances))
    return (2.0 * product + c1) * (2.0 * covariance + c2) / ((squares + c1) * (variances + c2))


def filtered(
    plane: Float64[np.ndarray, "..."], axis: int, pad: bool, even: bool
) -> Float64[np.ndarray, "..."]:
    """Filters along one axis with 11 taps, even or Gaussian, keeping what the window covers."""
    distance = np.arange(_WINDOW) - _WINDOW // 2
    taps = np.ones(_WINDOW) if even else np.exp(-(distance**2) / (2.0 * _SIGMA**2))
    taps /= taps.sum()
    plane = np.moveaxis(plane, axis, 0)
    half = _WINDOW // 2
    if pad:
        widths = [(half, half)] + [(0, 0)] * (plane.ndim - 1)
        plane = np.pad(plane, widths, mode="edge")
    count = len(plane) - _WINDOW + 1
    result = taps[half] * plane[half : half + count]
    for k in range(half):  # taps k and -k are equal
        mirrored = _WINDOW - 1 - k
        result += taps[k] * (plane[k : k + count] + plane[mirrored : mirrored + count])
    return np.moveaxis(result, 0, axis)
