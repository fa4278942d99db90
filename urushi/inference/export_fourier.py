"""AdaptIR's frequency branch without a Fourier transform: sums over waves, as matrix products.

ONNX has an operation for the transform, but engines do not agree on it: OpenVINO transforms along
another axis than is asked for and does not say so, and ONNX Runtime's is rough. Matrix products
every engine has.
They cost more the larger the picture: about as much as the transform at 256 x 256 pixels.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from urushi.adapters.adaptir import FrequencyBranch

__all__ = ["frequency_branch"]


def frequency_branch(self: FrequencyBranch, x: Float[Tensor, "b c h w"]) -> Tensor:
    """`FrequencyBranch.forward`, for sides that are known only when the graph runs."""
    height, width = x.shape[-2:]
    columns = width // 2 + 1  # the others are their mirror image, as in `torch.fft.rfft2`
    cos_y, sin_y = _waves(height, height)
    cos_x, sin_x = _waves(width, columns)
    count = _size(height) * _size(width)
    there, back = {
        "backward": (1.0, 1 / count),
        "ortho": (count.rsqrt(), count.rsqrt()),
        "forward": (1 / count, 1.0),
    }[self.norm or "backward"]
    real, imaginary = x @ cos_x, -(x @ sin_x)
    real, imaginary = cos_y @ real + sin_y @ imaginary, cos_y @ imaginary - sin_y @ real
    real, imaginary = real * there, imaginary * there
    amplitude = self.amplitude((real * real + imaginary * imaginary).sqrt())
    phase = self.phase(_angle(real, imaginary))
    real, imaginary = amplitude * phase.cos(), amplitude * phase.sin()
    real, imaginary = cos_y @ real - sin_y @ imaginary, cos_y @ imaginary + sin_y @ real
    # A column stands for its mirror image as well, but for those that have none.
    column = torch.arange(columns)
    alone = (column == 0) | (2 * column == _size(width))
    twice = torch.where(alone, 1.0, 2.0) * back
    result = (real * twice) @ cos_x.T - (imaginary * twice) @ sin_x.T
    result = result.abs() if self.rectify else result
    return result if self.scale is None else self.scale(result)


def _size(length: int) -> Tensor:
    """A length as a tensor, from which a graph can calculate."""
    return torch.arange(length)[-1:] + 1


def _waves(length: int, count: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine, `(length, count)`: each place of each wave.

    Sines that are zero are exactly so: where a picture's spectrum is real, an imaginary part that
    is nearly zero turns the angle of a negative number over.
    """
    size = _size(length)
    # Whole turns are left out while the numbers are integers, which have no rounding.
    places = torch.arange(length)[:, None] * torch.arange(count)[None]
    turned = torch.remainder(places, size)
    angle = turned.float() * (2 * math.pi / size.float())
    return angle.cos(), torch.where(2 * turned == size, 0.0, angle.sin())


def _angle(real: Tensor, imaginary: Tensor) -> Tensor:
    """`torch.atan2(imaginary, real)`; what the exporter makes of that is wrong on the axes."""
    upright = real == 0
    slope = torch.atan(imaginary / torch.where(upright, 1.0, real))
    turn = torch.where(real < 0, torch.where(imaginary < 0, -math.pi, math.pi), 0.0)
    return torch.where(upright, imaginary.sign() * (math.pi / 2), slope + turn)
