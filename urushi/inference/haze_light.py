"""Pictures from which haze is taken: not much darker than daylight leaves them.

Below haze a scene is darker than it looks, and a network takes all of it: a road in fog becomes a
road at night. People who mend such a picture leave a rest of the haze there, or expose it anew.
Both are done by how bright the picture was, as a whole.
"""

import numpy as np
from jaxtyping import Float

__all__ = ["with_kept_light"]

# Of the light of a middling pixel at least so much stays; pairs of SOTS keep 0.37 to 0.95 of it.
_MIDDLE = 0.45
_BLACK, _DARK = 0.04, 0.09
# The brightest hundredth keeps so much, and no picture is made brighter by more than a stop.
_BRIGHTEST, _MOST = 0.85, 2.0
# What is exposed anew is compressed from here on, towards white.
_SHOULDER = np.float32(0.8)


def with_kept_light(
    tile: Float[np.ndarray, "3 h w"], restored: Float[np.ndarray, "3 h w"]
) -> Float[np.ndarray, "3 h w"]:
    """A restored picture that is not too dark: with a rest of its haze, or exposed anew.

    Light is the brightest channel of a pixel. Where its median falls below 0.45 of what it was, so
    much of the picture itself is added as leads there; less where it falls below 0.09, and nothing
    below 0.04: what becomes that black was black below its haze. Where what only a hundredth of
    the pixels exceed falls below 0.85 of what it was, all is multiplied, by 2 at most.

    Args:
        tile: the whole picture, nominally in [0, 1].
        restored: what came of it, of the same size.
    """
    before, after = tile.max(axis=0), restored.max(axis=0)
    middle, left = _at(before, 0.5), _at(after, 0.5)
    if left < _MIDDLE * middle:
        seen = np.clip((left - _BLACK) / (_DARK - _BLACK), 0, 1)
        share = np.float32(seen * (_MIDDLE * middle - left) / (middle - left))
        restored = restored + share * (tile - restored)
        after = restored.max(axis=0)
    brightest = _at(after, 0.99)
    gain = np.float32(min(_BRIGHTEST * _at(before, 0.99) / max(brightest, 1e-6), _MOST))
    if gain <= 1:
        return restored
    light = np.maximum(after, np.float32(1e-6))
    wanted = gain * light
    room = 1 - _SHOULDER
    above = np.maximum(wanted - _SHOULDER, 0)
    held = np.minimum(wanted, _SHOULDER) + room * np.tanh(above / room)
    # Lights beyond white stay what they are.
    return restored * (np.maximum(held, light) / light)


def _at(light: Float[np.ndarray, "h w"], share: float) -> float:
    """What so large a share of the pixels does not exceed."""
    place = int(share * (light.size - 1))
    return float(np.partition(light, place, axis=None)[place])
