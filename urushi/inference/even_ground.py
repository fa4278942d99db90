"""Even ground from which haze is taken: no rougher than it was.

Where a hazy picture is even, as a grey sky is, a network brings out what JPEG left there and adds
to it. Such ground gets the network's light and keeps its own detail: a linear function of the
picture, in every neighbourhood the one that leads to the network's result with the least squared
error (the guided filter of He, Sun and Tang, TPAMI 2013).
"""

import numpy as np
from jaxtyping import Float

from urushi.inference.overview import means_around

__all__ = ["with_even_ground"]

# Variance of even ground; with twice of it nothing is done. Two levels of 255: the mottle of JPEG.
_EVEN = (2 / 255) ** 2
# Variance that says little of how strong detail should be.
_FLAT = 2e-5
_STEEPEST = 4.0


def with_even_ground(
    tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"]
) -> Float[np.ndarray, "3 h w"]:
    """A restored tile that is as smooth as it was where it was even.

    Args:
        tile: what was restored, nominally in [0, 1].
        restored: what came of it, of the same size.
    """
    before = tile.astype(np.float64)
    means = [means_around(channel) for channel in before]
    variances = [
        np.maximum(means_around(channel * channel) - mean * mean, 0)
        for channel, mean in zip(before, means, strict=True)
    ]
    share = means_around(np.clip(2 - np.maximum.reduce(variances) / _EVEN, 0, 1))
    if not share.any():
        return restored
    result = np.empty_like(restored)
    for index, (channel, mean, variance) in enumerate(zip(before, means, variances, strict=True)):
        after = restored[index].astype(np.float64)
        aim = means_around(after)
        together = means_around(channel * after) - mean * aim
        gain = np.clip((together + _FLAT) / (variance + _FLAT), 0, _STEEPEST)
        smooth = means_around(gain) * channel + means_around(aim - gain * mean)
        result[index] = after + share * (smooth - after)
    return result
