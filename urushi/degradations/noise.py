"""Noise of sensors: Gaussian, Poisson (shot) and speckle."""

from dataclasses import dataclass
from typing import ClassVar

import torch
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

# Rec. 601 luma, the grey of JPEG and of the restoration literature.
_LUMA = (0.299, 0.587, 0.114)

# Below this rate the expansion for Poisson counts is inexact and they are counted one by one.
_SMALL_RATE = 10.0
# No count above this has a probability that float32 can see when the rate is at most _SMALL_RATE.
_LARGEST_SMALL_COUNT = 40


@dataclass(frozen=True)
class _NormalNoise(Degradation):
    """What noise of standard normal numbers is made of: a deviation, and colour or grey."""

    sigma_255: Range
    grey_share: float | int

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_range(name, "sigma_255", self.sigma_255, 0.0, 255.0)
        check_share(name, "grey_share", self.grey_share)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        return {
            "sigma_255": uniform(*self.sigma_255, batch, generator),
            "grey": coin(self.grey_share, batch, generator),
            "seed": draw_seeds(batch, generator),
        }


@dataclass(frozen=True)
class GaussianNoise(_NormalNoise):
    """White Gaussian noise: `image + sigma * n`, n of standard normal numbers.

    Args:
        sigma_255: standard deviation in units of 0..255, uniform; within [0, 255]. The default is
            the range blind denoisers are trained on; DegAE pre-trains with (2, 30).
        grey_share: share of images whose three channels get the same n; DegAE uses 0.4.

    Raises:
        DegradationError: a range or share is not one.
    """

    sigma_255: Range = (0.0, 50.0)
    grey_share: float | int = 0.2

    name: ClassVar[str] = "gaussian_noise"
    reference: ClassVar[str] = (
        "additive white Gaussian noise; sigma as in blind denoising (DnCNN, TIP 2017: up to 55;"
        " DegAE, CVPR 2023: 2 to 30)"
    )

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        field = _colour_or_grey_field(images, parameters)
        sigma = per_image(parameters["sigma_255"], images) / 255.0
        return field.mul_(sigma).add_(images).clamp_(0.0, 1.0)


@dataclass(frozen=True)
class PoissonNoise(Degradation):
    """Shot noise: counts of photons, `Poisson(peak * image) / peak`.

    Grey noise is that of the luma, the same in the three channels: `image + (y' - y)`.

    Args:
        peak: photons of a white pixel, log-uniform; within [0.1, 1e6]. Fewer is noisier: 100 is
            sigma 25.5/255 on white and 8.1/255 on a tenth of it.
        grey_share: share of images with grey noise.

    Raises:
        DegradationError: a range or share is not one.
    """

    peak: Range = (1e2, 1e4)
    grey_share: float | int = 0.5

    name: ClassVar[str] = "poisson_noise"
    reference: ClassVar[str] = (
        "photon counting; ranges of DegAE (CVPR 2023): peak 10^U[2, 4], half colour, half grey"
    )

    def __post_init__(self) -> None:
        check_range("PoissonNoise", "peak", self.peak, 0.1, 1e6)
        check_share("PoissonNoise", "grey_share", self.grey_share)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        return {
            "peak": log_uniform(*self.peak, batch, generator),
            "grey": coin(self.grey_share, batch, generator),
            "seed": draw_seeds(batch, generator),
        }

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        peak = per_image(parameters["peak"], images)
        grey = per_image(parameters["grey"], images)
        luma = torch.einsum("bchw,c->bhw", images, images.new_tensor(_LUMA))[:, None]
        signal = torch.where(grey, luma, images)
        # Grey images count the luma's photons once: the field and the signal repeat over channels.
        counts = _poisson(signal * peak, _colour_or_grey_field(images, parameters))
        return (images - signal).add_(counts.div_(peak)).clamp_(0.0, 1.0)


@dataclass(frozen=True)
class SpeckleNoise(_NormalNoise):
    """Multiplicative noise of coherent imaging and of gain: `image * (1 + sigma * n)`.

    Args:
        sigma_255: standard deviation on white in units of 0..255, uniform; within [0, 255].
        grey_share: share of images whose three channels get the same n.

    Raises:
        DegradationError: a range or share is not one.
    """

    sigma_255: Range = (2.0, 25.0)
    grey_share: float | int = 0.5

    name: ClassVar[str] = "speckle_noise"
    reference: ClassVar[str] = (
        "multiplicative Gaussian noise; sigma of DegAE (CVPR 2023): U[2, 25]/255"
    )

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h w"]:
        field = _colour_or_grey_field(images, parameters)
        sigma = per_image(parameters["sigma_255"], images) / 255.0
        return field.mul_(sigma).add_(1.0).mul_(images).clamp_(0.0, 1.0)


def _colour_or_grey_field(
    images: Float[Tensor, "b 3 h w"], parameters: Parameters
) -> Float[Tensor, "b 3 h w"]:
    """Standard normal numbers; in grey images the first channel's stand in all three."""
    field = noise_field(parameters["seed"], images.shape[1:], images.device).to(images.dtype)
    return torch.where(per_image(parameters["grey"], images), field[:, :1], field)


def _poisson(rate: Float[Tensor, "b 3 h w"], normal: Float[Tensor, "b 3 h w"]) -> Tensor:
    """The Poisson quantiles at the probabilities of standard normal numbers.

    Torch's sampler takes no seed per image, so counts come from the noise field. Where the rate is
    not small: Cornish and Fisher's expansion in powers of rate^-1/2, with the correction for whole
    numbers (M. Giles, Algorithm 955, TOMS 2016), floor(r + r^1/2 n + (n^2 + 2) / 6
    - n (n^2 + 2) / (72 r^1/2)). Where it is, probabilities are added up.
    """
    root = rate.clamp_min(1.0).sqrt_()
    counts = (normal * normal).add_(2.0)
    counts.mul_((normal / root).mul_(-1 / 72).add_(1 / 6))
    counts.addcmul_(root, normal).add_(rate).floor_().clamp_min_(0.0)
    small = torch.nonzero(rate < _SMALL_RATE, as_tuple=True)
    if len(small[0]):
        counts[small] = _small_poisson(rate[small], normal[small])
    return counts


def _small_poisson(rate: Float[Tensor, " n"], normal: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The smallest count whose cumulative probability reaches that of the normal number."""
    probability = torch.special.ndtr(normal)
    term = torch.exp(-rate)
    cumulative = term.clone()
    counts = torch.zeros_like(rate)
    for count in range(1, _LARGEST_SMALL_COUNT):
        above = probability > cumulative
        if not bool(above.any()):
            break
        counts += above
        term *= rate / count
        cumulative += term
    return counts
