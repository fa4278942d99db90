"""Bicubic resizing as MATLAB's `imresize` does it, and the degradation of low resolution."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from urushi.degradations.base import Degradation, Parameters, choice
from urushi.errors import DegradationError

_LARGEST_SCALE = 16


@dataclass(frozen=True)
class Downsample(Degradation):
    """Bicubic down-sampling by a whole factor, and back up again if wished.

    Args:
        scales: factors, one of which is drawn: for each image if `restore_size`, else one for the
            batch, whose images must stay of one size; each within 2..16.
        restore_size: resize back, bicubic, to the size of the input.

    Raises:
        DegradationError: no factor, or one that is not a whole number of 2..16; in `apply`, a batch
            with several factors without `restore_size`.
    """

    scales: tuple[int, ...] = (2, 3, 4)
    restore_size: bool = False

    name: ClassVar[str] = "downsample"
    reference: ClassVar[str] = (
        "antialiased bicubic of MATLAB's imresize by 2, 3, 4, the standard of super-resolution"
        " (Set5, Set14, DIV2K)"
    )

    def __post_init__(self) -> None:
        wrong = [s for s in self.scales if s != int(s) or not 2 <= s <= _LARGEST_SCALE]
        if wrong or not self.scales:
            raise DegradationError(
                f"Downsample: scales={self.scales} has no usable factors; give one or more whole"
                f" numbers from 2 to {_LARGEST_SCALE}"
            )

    @property
    def scale(self) -> int:
        """See `Degradation.scale`."""
        if self.restore_size:
            return 1
        if len(set(self.scales)) > 1:
            raise DegradationError(
                f"Downsample: with scales {list(self.scales)} pictures become of several sizes;"
                " give one, or restore_size"
            )
        return int(self.scales[0])

    def sample(
        self, batch_shape: tuple[int, int, int, int], generator: torch.Generator
    ) -> Parameters:
        batch = batch_shape[0]
        if self.restore_size:
            return {"scale": choice(self.scales, batch, generator)}
        return {"scale": choice(self.scales, 1, generator).repeat(batch)}

    def apply(
        self, images: Float[Tensor, "b 3 h w"], parameters: Parameters
    ) -> Float[Tensor, "b 3 h2 w2"]:
        scales = parameters["scale"].tolist()
        different = sorted(set(scales))
        if len(different) == 1:
            return self._by(images, different[0])
        if not self.restore_size:
            raise DegradationError(
                f"Downsample: a batch cannot have several scales {different} without restore_size;"
                " apply it to the images of each scale"
            )
        out = torch.empty_like(images)
        for scale in different:
            rows = [row for row, own in enumerate(scales) if own == scale]
            index = torch.tensor(rows, device=images.device)
            out[index] = self._by(images[index], scale)
        return out

    def _by(self, images: Float[Tensor, "b 3 h w"], scale: int) -> Float[Tensor, "b 3 h2 w2"]:
        small = resize(images, scale=1 / scale).clamp_(0.0, 1.0)
        if not self.restore_size:
            return small
        return resize(small, size=(images.shape[-2], images.shape[-1])).clamp_(0.0, 1.0)


def resize(
    images: Float[Tensor, "b c h w"],
    *,
    scale: float | int | None = None,
    size: tuple[int, int] | None = None,
    antialias: bool = True,
) -> Float[Tensor, "b c h2 w2"]:
    """Bicubic resizing equal to MATLAB's `imresize`: Keys' kernel (a = -1/2), symmetric borders.

    Args:
        images: on any device; not clipped.
        scale: output size over input size, above 0; the output's sides are rounded up.
        size: (height, width) of the output, instead of `scale`.
        antialias: widen the kernel where the output is smaller.

    Returns:
        The resized images, which may overshoot [0, 1] a little.

    Raises:
        DegradationError: both or neither of `scale` and `size` are given, or one is not positive.
    """
    height, width = images.shape[-2:]
    if scale is not None and size is None and scale > 0 and math.isfinite(scale):
        size, scales = (math.ceil(height * scale), math.ceil(width * scale)), (scale, scale)
    elif scale is None and size is not None and min(size) > 0:
        scales = (size[0] / height, size[1] / width)
    else:
        raise DegradationError(
            f"resize: scale={scale} and size={size} do not say a size; give one of them, positive"
        )
    out = images
    for axis, length, factor in ((-2, size[0], scales[0]), (-1, size[1], scales[1])):
        indices, weights = _taps(images.shape[axis], length, factor, antialias)
        out = _gather(out, axis, indices.to(out.device), weights.to(out.device, out.dtype))
    return out


def _taps(
    before: int, after: int, scale: float | int, antialias: bool
) -> tuple[Int64[Tensor, "taps n"], Float[Tensor, "taps n"]]:
    """Which pixels of the input make each pixel of the output along one axis, and how much."""
    shrink = min(scale, 1.0) if antialias else 1.0
    width = 4.0 / shrink
    # Centres of the output's pixels in the coordinates of the input; both begin at 0.
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) / scale - 0.5
    first = torch.floor(centres - width / 2)
    positions = first + torch.arange(math.ceil(width) + 2, dtype=torch.float64)[:, None]
    weights = _cubic((centres - positions) * shrink)
    weights = weights / weights.sum(dim=0)
    used = weights.abs().amax(dim=1) > 1e-12
    # Symmetric borders repeat the edge pixel: ... 1 0 | 0 1 2 ...
    folded = positions[used].long().remainder(2 * before)
    return torch.minimum(folded, 2 * before - 1 - folded), weights[used]


def _cubic(distance: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """R. Keys, "Cubic convolution interpolation" (TASSP 1981), a = -1/2."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _gather(
    images: Float[Tensor, "b c h w"],
    axis: int,
    indices: Int64[Tensor, "taps n"],
    weights: Float[Tensor, "taps n"],
) -> Float[Tensor, "b c h2 w2"]:
    shape = (1, 1, -1, 1) if axis == -2 else (1, 1, 1, -1)
    out = images.index_select(axis, indices[0]) * weights[0].view(shape)
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        out.addcmul_(images.index_select(axis, index), weight.view(shape))
    return out
