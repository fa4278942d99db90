"""Noise as it looks in finished photographs: coarse, blotched in colour, sharpened, uneven."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from urushi.degradations.base import (
    Degradation,
    Parameters,
    Range,
    check_range,
    check_share,
    coin,
    draw_seeds,
    log_uniform,
    noise_field,
    per_image,
    uniform,
)
from urushi.degradations.fields import smooth_field

__all__ = ["DevelopedNoise"]

# Weights of red, green and blue in luma, and the way back from colour differences (Rec. 601).
_LUMA = (0.299, 0.587, 0.114)
_FROM_DIFFERENCES = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))
# A Gaussian is cut at this many standard deviations.
_CUT = 2.5
# The least share of the noise that stays where tones or patches take it away.
_LEAST = 0.15
# Noise differs over patches of about this many pixels.
_PATCH = 24


@dataclass(frozen=True)
class DevelopedNoise(Degradation):
    """Noise that went through demosaicking, denoising, sharpening and a change of size.

    Two fields of noise, luma and colour differences, each blurred by a Gaussian of its own: what
    the steps before did to the correlation of neighbours, whatever they were. Denoising takes the
    colour away at fine scales first, so that its blotches are larger; sharpening surrounds the
    grains of luma with rims of the other sign; denoising that looks for flat places leaves patches
    of more and of less noise. The picture itself stays as sharp as it is. Compression comes after
    it: put `web` behind it in a chain.

    Reference:
        Guo et al., CBDNet, CVPR 2019, and Nam et al., A Holistic Approach to Cross-Channel Image
        Noise Modeling, CVPR 2016 (noise of finished pictures is correlated over pixels and
        channels, and depends on tone). The model and its ranges are ours, set beside photographs,
        whose luma noise correlates 0.4 to 0.6 with the next pixel and 0 to 0.2 with the one after,
        and whose colour noise 0.7 to 0.85 and 0.2 to 0.6.

    Args:
        sigma_255: standard deviation of the luma's noise before sharpening, in units of 0..255,
            log-uniform; above 0, up to 255.
        chroma: standard deviation of the colour differences' noise, relative; 0 to 3.
        grey_share: share of pictures without noise of colour.
        grain: standard deviation of the luma's blur in pixels, log-uniform; 0.05 to 8.
        blotch: standard deviation of the colour's blur, relative to `grain`; 0.5 to 8.
        sharpened_share: share of pictures whose noise is sharpened.
        sharpening: strength of that, an unsharp mask of three pixels; 0 to 3.
        tone: how much stronger the noise is in shadows than in lights: 0 equally, 1 nothing but a
            rest in white; below 0 the other way round; -1 to 1.
        patchy: how much of the noise is gone where it was taken away best; 0 to 1.

    Raises:
        DegradationError: a range is reversed or leaves its bounds, or a share is none.
    """

    name: ClassVar[str] = "developed_noise"
    reference: ClassVar[str] = "Guo et al., CVPR 2019; Nam et al., CVPR 2016; model and ranges ours"

    sigma_255: Range = (3.0, 30.0)
    chroma: Range = (0.2, 1.0)
    grey_share: float | int = 0.15
    grain: Range = (0.35, 1.3)
    blotch: Range = (1.0, 2.5)
    sharpened_share: float | int = 0.4
    sharpening: Range = (0.3, 1.5)
    tone: Range = (-0.2, 0.8)
    patchy: Range = (0.0, 0.6)

    def __post_init__(self) -> None:
        check_range(self.name, "sigma_255", self.sigma_255, 1e-3, 255.0)
        check_range(self.name, "chroma", self.chroma, 0.0, 3.0)
        check_share(self.name, "grey_share", self.grey_share)
        check_range(self.name, "grain", self.grain, 0.05, 8.0)
        check_range(self.name, "blotch", self.blotch, 0.5, 8.0)
        check_share(self.name, "sharpened_share", self.sharpened_share)
        check_range(self.name, "sharpening", self.sharpening, 0.0, 3.0)
        check_range(self.name, "tone", self.tone, -1.0, 1.0)
        check_range(self.name, "patchy", self.patchy, 0.0, 1.0)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        grain = log_uniform(*self.grain, batch, generator)
        coloured = ~coin(self.grey_share, batch, generator)
        sharpened = coin(self.sharpened_share, batch, generator)
        return {
            "sigma_255": log_uniform(*self.sigma_255, batch, generator),
            "chroma": uniform(*self.chroma, batch, generator) * coloured,
            "grain": grain,
            "blotch": grain * uniform(*self.blotch, batch, generator),
            "sharpening": uniform(*self.sharpening, batch, generator) * sharpened,
            "tone": uniform(*self.tone, batch, generator),
            "patchy": uniform(*self.patchy, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        size = (images.shape[2], images.shape[3])
        noise = self._noise(size, parameters, images.device).to(images.dtype)
        luma = torch.einsum("bchw,c->bhw", images, images.new_tensor(_LUMA))[:, None]
        tone = 1 - per_image(parameters["tone"], images) * (2 * luma - 1)
        cells = max(1, round(max(size) / _PATCH))
        uneven = smooth_field(parameters["seed"] ^ 3, size, cells, images.device).to(images.dtype)
        kept = 1 - per_image(parameters["patchy"], images) * (0.5 + 0.5 * uneven)
        sigma = per_image(parameters["sigma_255"], images) / 255.0
        strength = sigma * tone.clamp_min(_LEAST) * kept.clamp_min(_LEAST)
        return (images + noise * strength).clamp(0.0, 1.0)

    def _noise(
        self, size: tuple[int, int], parameters: Parameters, device: torch.device
    ) -> Float[Tensor, "b 3 h w"]:
        """Red, green and blue, for a luma of standard deviation 1 before sharpening."""
        # As wide as the range needs, so that a picture does not depend on its batch.
        reach = math.ceil(_CUT * self.grain[1] * max(1.0, self.blotch[1]))
        around = reach + 1  # one more for the mask
        shape = (3, size[0] + 2 * around, size[1] + 2 * around)
        field = noise_field(parameters["seed"], shape, device)
        grain, blotch = (parameters[name].float().to(device) for name in ("grain", "blotch"))
        luma = _grained(field[:, :1], grain, reach)
        beside = F.avg_pool2d(luma, 3, 1)
        luma = luma[..., 1:-1, 1:-1]
        luma = luma + per_image(parameters["sharpening"].float(), luma) * (luma - beside)
        chroma = _grained(field[:, 1:], blotch, reach)[..., 1:-1, 1:-1]
        chroma = chroma * per_image(parameters["chroma"].float(), chroma)
        back = torch.tensor(_FROM_DIFFERENCES, device=device)
        return torch.einsum("kc,bchw->bkhw", back, torch.cat([luma, chroma], 1))


def _grained(
    field: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"], reach: int
) -> Float[Tensor, "b c h2 w2"]:
    """White noise blurred, each picture by its own Gaussian, with a standard deviation of 1 again.

    The result is smaller by `reach` on every side.
    """
    batch, channels = field.shape[:2]
    line = torch.arange(-reach, reach + 1, device=field.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (line / sigma[:, None]).square())
    # Denormal numbers in a kernel make a convolution on a CPU slow.
    weights = torch.where(weights < 1e-9, 0.0, weights)
    # White noise keeps its variance where the squares of the weights add up to 1.
    weights = weights / weights.square().sum(1, keepdim=True).sqrt()
    kernels = weights.repeat_interleave(channels, 0)[:, None]
    stacked = field.reshape(1, batch * channels, *field.shape[2:])
    stacked = F.conv2d(stacked, kernels[..., None], groups=batch * channels)
    stacked = F.conv2d(stacked, kernels[:, :, None], groups=batch * channels)
    return stacked.view(batch, channels, *stacked.shape[2:])
