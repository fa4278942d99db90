"""The views of whole batches in torch, where training makes them: the geometry of `views`."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from urushi.files.router_file import ViewGeometry
from urushi.routing.views import plan_views

__all__ = ["batch_views"]


def batch_views(
    images: Float[Tensor, "b 3 h w"], geometry: ViewGeometry
) -> Float[Tensor, "b v 3 s s"]:
    """The views of pictures of one size; differs from `make_views` by roundings of resized pixels.

    Args:
        images: RGB in [0, 1], on any device.
        geometry: which views.
    """
    height, width = images.shape[-2:]
    plan = plan_views(geometry, height, width)
    size = plan.size
    views = [_squared(_resized(images, plan.whole), size)]
    large = _resized(images, plan.local)
    for top, left in plan.windows:
        views.append(_squared(large[..., top : top + size, left : left + size], size))
    return torch.stack(views, 1)


def _resized(images: Tensor, target: tuple[int, int]) -> Tensor:
    """As Pillow does it: along rows, then along columns, each time clipped and in 8 bits."""
    for size in ((images.shape[-2], target[1]), target):
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True)
            images = (images.clamp(0, 1) * 255).round() / 255
    return images


def _squared(images: Tensor, size: int) -> Tensor:
    """Filled up below and on the right with mirror images, as often as it takes."""
    for axis in (-2, -1):
        side = images.shape[axis]
        if side < size:
            period = torch.arange(size, device=images.device) % (2 * side)
            images = images.index_select(axis, torch.minimum(period, 2 * side - 1 - period))
    return images
