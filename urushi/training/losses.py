"""Losses over `(B, C, H, W)` pictures, and of a router's logits; each the mean over the batch."""

import functools
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LOSSES", "class_loss", "frequency_loss", "grid_loss", "make_loss"]

# Of differences, of a shape as pictures have it, and where they count.
PictureLoss = Callable[[Tensor, Tensor | None], Float[Tensor, " b"]]
# NAFNet's: below 80 dB a picture counts as right.
NAFNET_FLOOR = 1e-8
# What a pixel that the eye takes for damaged differs by at least.
VISIBLE = 2 / 255


def psnr_loss(
    difference: Tensor, where: Tensor | None = None, floor: float = NAFNET_FLOOR
) -> Float[Tensor, " b"]:
    """Negative PSNR in dB, as NAFNet is trained (Chen et al., ECCV 2022).

    Averaging it over pictures weighs a hard and an easy picture alike, unlike the squared error.

    Args:
        floor: added to the mean squared error; bounds what a picture that is nearly right can still
            gain. Where clean pictures are among the inputs it must be large: to go from 50 to
            60 dB on those counts as much as ten dB of noise.
    """
    return 10 * torch.log10(_mean(difference.square(), where) + floor)


def charbonnier_loss(difference: Tensor, where: Tensor | None = None) -> Float[Tensor, " b"]:
    """`sqrt(d^2 + 1e-6)`: L1 without the kink (Charbonnier et al., ICIP 1994)."""
    return _mean((difference.square() + 1e-6).sqrt(), where)


def l1_loss(difference: Tensor, where: Tensor | None = None) -> Float[Tensor, " b"]:
    """Mean absolute difference."""
    return _mean(difference.abs(), where)


def l2_loss(difference: Tensor, where: Tensor | None = None) -> Float[Tensor, " b"]:
    """Mean squared difference."""
    return _mean(difference.square(), where)


def _mean(values: Tensor, where: Tensor | None) -> Float[Tensor, " b"]:
    """Of each picture, over the pixels that count: `where` is `(B, 1, H, W)`; 0 where none do."""
    if where is None:
        return values.mean((1, 2, 3))
    count = where.sum((1, 2, 3)) * values.shape[1]
    return torch.where(where, values, 0).sum((1, 2, 3)) / count.clamp_min(1)


LOSSES: dict[str, PictureLoss] = {
    "psnr": psnr_loss,
    "charbonnier": charbonnier_loss,
    "l1": l1_loss,
    "l2": l2_loss,
}


def frequency_loss(restored: Tensor, clean: Tensor) -> Float[Tensor, " b"]:
    """Mean absolute difference of the Fourier spectra, real and imaginary parts, per pixel.

    As in MIMO-UNet (Cho et al., ICCV 2021), with the orthonormal transform, so that its weight
    does not depend on the size of the patch.
    """
    spectrum = torch.fft.rfft2((restored - clean).float(), norm="ortho")
    return torch.view_as_real(spectrum).abs().mean((1, 2, 3, 4))


def grid_loss(restored: Tensor, clean: Tensor, period: int = 8) -> Float[Tensor, " b"]:
    """How strong the pattern is that a picture's error repeats every `period` pixels.

    Networks that shrink pictures by halves, and enlarge them again, can lay such a grid over even
    areas. It is of a level or two of 255, which the squared error does not notice where the rest is
    ten times as far off, and which the eye does.

    Args:
        period: in pixels; three halvings make 8. Pixels at the right and at the bottom that fill no
            period do not count.

    Returns:
        Root mean square of the mean pattern, in levels of 255; its own mean does not count.
    """
    height, width = (side // period for side in restored.shape[2:])
    error = (restored - clean)[:, :, : height * period, : width * period]
    cells = error.unflatten(3, (width, period)).unflatten(2, (height, period))
    pattern = cells.mean((2, 4))
    pattern = pattern - pattern.mean((2, 3), keepdim=True)
    # Without the small number the root's slope is infinite where there is no pattern.
    return 255 * (pattern.square().mean((1, 2, 3)) + 1e-10).sqrt()


def make_loss(
    name: str,
    frequency: float = 0.0,
    floor: float | None = None,
    grid: float = 0.0,
    damaged: float = 0.0,
) -> Callable[..., Float[Tensor, ""]]:
    """The loss `name`, plus `frequency` and `grid` times these losses, meaned over the batch.

    It takes the restored and the clean pictures, and the degraded ones where `damaged` needs them.
    `floor` is that of `psnr_loss`, and of no other. With `damaged` the loss is that of the pixels
    that were right, plus `damaged` times that of those that were not. Of a picture with a scratch
    all pixels but one in fifty are right from the beginning: a mean over all of them hardly tells
    whether the scratch went, nor, while it has not, whether the rest stayed.
    """
    picture_loss = LOSSES[name]
    if floor is not None:
        assert name == "psnr", name
        picture_loss = functools.partial(psnr_loss, floor=floor)

    def loss(restored: Tensor, clean: Tensor, degraded: Tensor | None = None) -> Float[Tensor, ""]:
        # Reductions in bf16 lose the digits that decide late in training.
        restored, clean = restored.float(), clean.float()
        difference = restored - clean
        if damaged:
            assert degraded is not None, "damaged pixels are told by the degraded picture"
            marks = (degraded.float() - clean).abs().amax(1, keepdim=True) > VISIBLE
            values = picture_loss(difference, ~marks) + damaged * picture_loss(difference, marks)
        else:
            values = picture_loss(difference, None)
        if frequency:
            values = values + frequency * frequency_loss(restored, clean)
        if grid:
            values = values + grid * grid_loss(restored, clean)
        return values.mean()

    return loss


def class_loss(
    logits: Float[Tensor, "b n"], truths: Tensor, mode: Literal["single", "multi"]
) -> Float[Tensor, ""]:
    """Cross-entropy of what a router takes pictures for.

    Args:
        logits: one for each class.
        truths: `(b, n)`, which classes are true. In mode `single` each counts by its share where
            several are, and a picture of none does not count.
        mode: whether one class is true of a picture, or any number.
    """
    own = truths.to(logits)
    if mode == "multi":
        return F.binary_cross_entropy_with_logits(logits, own)
    return F.cross_entropy(logits, own / own.sum(1, keepdim=True).clamp_min(1))
