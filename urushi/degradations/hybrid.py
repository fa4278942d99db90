"""Low resolution together with what else spoils small pictures: AdaptIR's hybrids."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from urushi.degradations.base import Degradation, Parameters, Range
from urushi.degradations.jpeg import JPEGCompression
from urushi.degradations.noise import GaussianNoise
from urushi.degradations.resize import Downsample


class _AfterDownsampling(Degradation):
    """Down-sampling, rounding to 8 bits as in a file, and then another degradation."""

    factor: int

    @abstractmethod
    def _second(self) -> Degradation:
        """What comes after the down-sampling."""

    def __post_init__(self) -> None:
        # Both check their values.
        self._first()
        self._second()

    def _first(self) -> Downsample:
        return Downsample(scales=(self.factor,))

    @property
    def scale(self) -> int:
        """See `Degradation.scale`."""
        return int(self.factor)

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch, channels, height, width = batch_shape
        small = (batch, channels, -(-height // self.scale), -(-width // self.scale))
        # The factor is fixed: nothing about it is drawn.
        return self._second().sample(small, generator)

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h2 w2"]:
        small = self._first().apply(images, {"scale": torch.full((len(images),), self.scale)})
        return self._second().apply((small * 255).round() / 255, parameters)


@dataclass(frozen=True)
class DownsampleNoise(_AfterDownsampling):
    """Bicubic down-sampling, then Gaussian noise on the small picture.

    Args:
        factor: a whole number of 2..16.
        sigma_255: standard deviation in units of 0..255, uniform; within [0, 255].

    Raises:
        DegradationError: a value outside its range.
    """

    factor: int = 4
    sigma_255: Range = (30.0, 30.0)

    name: ClassVar[str] = "downsample_noise"
    reference: ClassVar[str] = (
        "AdaptIR (NeurIPS 2024): low resolution by 4 and noise of 30; the noise is rounded, where"
        " theirs is cut to whole numbers"
    )

    def _second(self) -> Degradation:
        return GaussianNoise(sigma_255=self.sigma_255, grey_share=0.0)


@dataclass(frozen=True)
class DownsampleJPEG(_AfterDownsampling):
    """Bicubic down-sampling, then JPEG compression of the small picture, chroma of half the size.

    Args:
        factor: a whole number of 2..16.
        quality: libjpeg's, whole numbers, uniform; within [1, 100].

    Raises:
        DegradationError: a value outside its range.
    """

    factor: int = 4
    quality: tuple[int, int] = (30, 30)

    name: ClassVar[str] = "downsample_jpeg"
    reference: ClassVar[str] = (
        "AdaptIR (NeurIPS 2024): low resolution by 4 and JPEG of quality 30; red and blue stay in"
        " their places, which theirs exchange"
    )

    def _second(self) -> Degradation:
        return JPEGCompression(quality=self.quality, subsampled_share=1.0)
