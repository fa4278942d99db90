"""What every degradation is: `sample` draws numbers, `apply` makes the worse image from them.

All randomness is in `sample`. A random field (noise, rain, snow) is not stored: its image carries
one int64 `seed`, and `uniform_field` or `noise_field` makes the field from it, by hashing the seed
with the index of the pixel. That is a few arithmetic operations on whole batches, gives the same
field on every device, and lets one image of a batch be made again alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from urushi.errors import DegradationError

Parameters = dict[str, Tensor]
"""One row of numbers per image: every tensor has the batch as first axis and is on the CPU."""

Range = tuple[float | int, float | int]
"""Lowest and highest value; a fixed value is written twice, `(25.0, 25.0)`."""


class Degradation(ABC):
    """Makes images worse. Implementations are frozen dataclasses whose fields are ranges.

    Attributes:
        name: the name in the table of degradations.
        reference: one line that says where the model and its ranges come from.
    """

    name: ClassVar[str]
    reference: ClassVar[str]

    @property
    def scale(self) -> int:
        """Sides of the images divided by those of the worse ones; 1 for those that keep the size.

        Raises:
            DegradationError: it is not the same for all images.
        """
        return 1

    @abstractmethod
    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        """Draws what `apply` needs for a batch of that shape.

        Args:
            batch_shape: (B, C, H, W) of the images.
            generator: a generator of the CPU; the only source of randomness.

        Returns:
            Tensors on the CPU with B as their first axis.
        """

    @abstractmethod
    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b c h2 w2"]:
        """Makes the worse images; no randomness in here.

        Args:
            images: RGB in [0, 1], on any device.
            parameters: what `sample` drew; a slice of its rows goes with the same slice of images.

        Returns:
            Images on the same device, clipped to [0, 1].
        """


def check_range(owner: str, field: str, value: Range, low: float | int, high: float | int) -> None:
    """Raises `DegradationError` unless `low <= value[0] <= value[1] <= high` and all are finite.

    Values may be from a file of anybody, and of any type.
    """
    if (
        not isinstance(value, tuple | list)
        or len(value) != 2
        or not all(_is_number(v) for v in value)
        or not low <= value[0] <= value[1] <= high
    ):
        raise DegradationError(
            f"{owner}: {field}={value} is not a range; give (lowest, highest)"
            f" with {low:g} <= lowest <= highest <= {high:g}"
        )


def check_share(owner: str, field: str, value: float | int) -> None:
    """Raises `DegradationError` unless `value` is a probability."""
    if not _is_number(value) or not 0.0 <= value <= 1.0:
        raise DegradationError(f"{owner}: {field}={value} is not a share; give 0 to 1")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def uniform(
    low: float | int, high: float | int, batch: int, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """One number per image, uniform in [low, high]."""
    return torch.rand(batch, generator=generator) * (high - low) + low


def log_uniform(
    low: float | int, high: float | int, batch: int, generator: torch.Generator
) -> Float[Tensor, " batch"]:
    """One number per image whose logarithm is uniform in [log low, log high]; low > 0."""
    drawn = uniform(math.log(low), math.log(high), batch, generator).exp()
    return drawn.clamp(low, high)


def integers(
    low: int, high: int, batch: int, generator: torch.Generator
) -> Int64[Tensor, " batch"]:
    """One whole number per image, uniform in {low, ..., high}, both included."""
    return torch.randint(low, high + 1, (batch,), generator=generator)


def choice(values: Sequence[float | int], batch: int, generator: torch.Generator) -> Tensor:
    """One of `values` per image, all equally likely."""
    drawn = torch.randint(len(values), (batch,), generator=generator)
    return torch.tensor(list(values))[drawn]


def coin(share: float | int, batch: int, generator: torch.Generator) -> Bool[Tensor, " batch"]:
    """True for each image with probability `share`."""
    return torch.rand(batch, generator=generator) < share


def draw_seeds(batch: int, generator: torch.Generator) -> Int64[Tensor, " batch"]:
    """One seed per image for `uniform_field` and `noise_field`."""
    return torch.randint(2**62, (batch,), generator=generator)


def per_image(parameter: Tensor, images: Tensor) -> Tensor:
    """`parameter` (B,) as (B, 1, 1, 1) on the device of `images`; numbers get their dtype."""
    parameter = parameter.to(images.device)
    if parameter.is_floating_point():
        parameter = parameter.to(images.dtype)
    return parameter.view(-1, *(1,) * (images.ndim - 1))


def uniform_field(
    seeds: Int64[Tensor, " b"], shape: Sequence[int], device: torch.device | str
) -> Float[Tensor, "b ..."]:
    """Fields of numbers uniform in the open interval (0, 1), one per seed.

    Args:
        seeds: one per image.
        shape: of one field, without the batch axis.
        device: where the fields are made.
    """
    fields = _uniform(_hashed(seeds, math.prod(shape), device))
    return fields.view(len(seeds), *shape)


def noise_field(
    seeds: Int64[Tensor, " b"], shape: Sequence[int], device: torch.device | str
) -> Float[Tensor, "b ..."]:
    """Fields of standard normal numbers (Box-Muller), one per seed; see `uniform_field`."""
    count = math.prod(shape)
    half = (count + 1) // 2
    numbers = _uniform(_hashed(seeds, 2 * half, device))
    radius, angle = numbers[:, :half], numbers[:, half:]
    radius = radius.log().mul_(-2.0).sqrt_()
    angle = angle.mul_(2 * math.pi)
    normal = torch.cat([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=1)
    return normal[:, :count].reshape(len(seeds), *shape)


def _uniform(bits: Int32[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """The upper 23 bits as the middles of 2^23 equal parts of (0, 1), exact in float32."""
    return bits.bitwise_right_shift_(9).bitwise_and_(0x7FFFFF).float().add_(0.5).mul_(2.0**-23)


def _hashed(
    seeds: Int64[Tensor, " b"], count: int, device: torch.device | str
) -> Int32[Tensor, "b n"]:
    """32 well-mixed bits for each pair of seed and index.

    Two rounds of xor-shift and multiply with the constants of the public-domain "lowbias32"
    (C. Wellons, hash prospector), keyed with one half of the seed before each round. 32-bit
    arithmetic wraps around and is what CPUs and GPUs do fastest.
    """
    seeds = seeds.to(device)
    low = _as_int32(seeds & 0xFFFFFFFF)[:, None]
    high = _as_int32((seeds >> 31) & 0xFFFFFFFF)[:, None]
    bits = torch.arange(count, dtype=torch.int32, device=device)[None] ^ low
    _shift_xor_(bits, 16).mul_(0x7FEB352D)
    bits.add_(high)
    _shift_xor_(bits, 15).mul_(0x846CA68B - 2**32)
    return _shift_xor_(bits, 16)


def _as_int32(words: Int64[Tensor, " b"]) -> Int32[Tensor, " b"]:
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def _shift_xor_(bits: Int32[Tensor, "b n"], by: int) -> Int32[Tensor, "b n"]:
    """`bits ^= bits >> by` with zeros shifted in (the shift of a signed tensor copies the sign)."""
    return bits.bitwise_xor_((bits >> by).bitwise_and_((1 << (32 - by)) - 1))
