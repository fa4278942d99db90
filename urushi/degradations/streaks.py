"""Many oriented specks at once: the common ground of rain streaks, snow flakes and scratches.

A sparse field of points is convolved with oriented line kernels. The kernels are written directly
as their Fourier transforms, so that the cost does not grow with the length of a line.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from urushi.degradations.fields import fast_length, scattered

__all__ = ["streak_field"]

# A streak's brightness falls off over the last tenth at either end; the rest is even.
_EVEN_PART = 0.8
_TAPER = 0.1


def _streak_transfer(
    angle: Tensor, length: Tensor, width: Tensor, height: int, breadth: int
) -> Tensor:
    """Fourier transform of a line kernel of peak 1, centred; (B, L) -> (B, L, height, breadth').

    The kernel is a box along the line, blurred by a Gaussian that is wider along than across.
    """
    radians = torch.deg2rad(angle)[..., None, None]
    box = (_EVEN_PART * length)[..., None, None]
    sigma = (width / 2.355).clamp_min(0.42)[..., None, None]
    taper = torch.hypot(_TAPER * length[..., None, None], sigma)
    down = torch.fft.fftfreq(height, device=angle.device)[:, None]
    right = torch.fft.rfftfreq(breadth, device=angle.device)[None, :]
    sine, cosine = radians.sin(), radians.cos()
    along = right * sine + down * cosine
    across = right * cosine - down * sine
    damping = -2 * math.pi**2 * ((sigma * across).square_() + (taper * along).square_())
    peak = torch.erf(box / (math.sqrt(8) * taper))
    mass = box * sigma * math.sqrt(2 * math.pi) / peak
    return mass * torch.sinc(box * along) * damping.exp_()


def streak_field(
    seeds: Int64[Tensor, " b"],
    angle: Float[Tensor, "b l"],
    length: Float[Tensor, "b l"],
    width: Float[Tensor, "b l"],
    coverage: Float[Tensor, " b"],
    size: tuple[int, int],
    margin: tuple[int, int],
    device: torch.device | str,
    peaks: Float[Tensor, " l"] | None = None,
) -> Float[Tensor, "b 1 h w"]:
    """Randomly placed, parallel streaks of peak brightness 0.25 to 1, which add where they cross.

    Args:
        seeds: one per picture; positions and brightness of its streaks follow from it.
        angle: degrees from the vertical, positive leaning to the right going down; one per layer.
        length: streak lengths in pixels, their faint ends included; one per layer.
        width: streak widths (full width at half maximum) in pixels; one per layer.
        coverage: mean number of streaks over a pixel, all layers together.
        size: height and width of the result.
        margin: rows and columns drawn beyond the picture, so that streaks enter from outside.
        device: where the result is made.
        peaks: factors on the brightness of the layers; all 1 if None.
    """
    batch, layers = angle.shape
    height, breadth = (fast_length(s + m) for s, m in zip(size, margin, strict=True))
    # Drops are drawn as a list, not as a dense field: hundreds of numbers instead of 10,000s.
    wanted = coverage[:, None] / layers * height * breadth / (length * width.clamp_min(1))
    drops, there = scattered(seeds, wanted.sum(1).round().long(), 4, device)
    # A drop falls in a layer with the probability of that layer's share of the drops.
    edges = (wanted.cumsum(1) / wanted.sum(1, keepdim=True)).to(device)
    layer = (drops[..., 2:3] > edges[:, None, :-1]).sum(2)
    row = (drops[..., 0] * height).long()
    col = (drops[..., 1] * breadth).long()
    brightness = (0.25 + 0.75 * drops[..., 3].square()) * there
    if peaks is not None:
        brightness = brightness * peaks.to(device)[layer]
    field = torch.zeros(batch, layers * height * breadth, device=device)
    field.scatter_add_(1, (layer * height + row) * breadth + col, brightness)
    spectrum = torch.fft.rfft2(field.view(batch, layers, height, breadth))
    transfer = _streak_transfer(
        angle.to(device), length.to(device), width.to(device), height, breadth
    )
    rain = torch.fft.irfft2((spectrum * transfer).sum(1, keepdim=True), s=(height, breadth))
    top, left = (height - size[0]) // 2, (breadth - size[1]) // 2
    return rain[..., top : top + size[0], left : left + size[1]].clamp_min(0)
