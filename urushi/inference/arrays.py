"""Pictures held in memory: what can be restored, and what no network restores of them."""

import math

import numpy as np

from urushi.errors import PictureError
from urushi.image.enlarge import enlarge

__all__ = ["WHITE", "as_array", "as_layers", "enlarged_alpha"]

# Noise may leave [0, 1]; values beyond this are of another range, most likely 0..255.
PLAUSIBLE = 8.0
WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}


def enlarged_alpha(alpha: np.ndarray, scale: int) -> np.ndarray:
    """`(H, W, 1)` -> the same dtype and range, both sides `scale` times as long."""
    if scale == 1:
        return alpha
    white = WHITE[alpha.dtype.name]
    values = np.clip(enlarge(alpha.astype(np.float32), scale), 0.0, white)
    return np.rint(values) if alpha.dtype.kind == "u" else values


def as_array(image: object) -> np.ndarray:
    """A picture as a plain array: of subclasses such as `np.matrix` the pixels alone.

    Raises:
        PictureError: it cannot be one.
    """
    try:
        array = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        # RuntimeError: a tensor of torch that is being trained.
        message = f"a picture must be a numpy array, not {type(image).__name__}"
        raise PictureError(f"{message}: {error!s:.200}") from error
    if array.ndim == 0 or array.dtype == object:
        what = type(image).__name__
        if isinstance(image, np.ndarray):
            what = "one of objects" if array.dtype == object else "a single number"
        raise PictureError(f"a picture must be a numpy array, not {what}")
    return array


def as_layers(image: np.ndarray) -> np.ndarray:
    """A picture that can be restored, as `(H, W, 1 | 3 | 4)`."""
    if not isinstance(image, np.ndarray):
        raise PictureError(f"a picture must be a numpy array, not {type(image).__name__}")
    if image.dtype.name not in WHITE:
        raise PictureError(
            f"the picture's values are {image.dtype.name}, expected {', '.join(WHITE)}: "
            "convert it first"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise PictureError(
            f"the picture has the shape {image.shape}, expected (height, width) or "
            "(height, width, channels) with 1, 3 or 4 channels: reorder its axes"
        )
    if image.size == 0:
        raise PictureError(f"the picture is empty, its shape is {image.shape}")
    layers = image[:, :, None] if image.ndim == 2 else image
    if image.dtype.kind == "f":
        low, high = float(layers[:, :, :3].min()), float(layers[:, :, :3].max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise PictureError(
                "the picture holds NaN or infinite values, expected numbers in [0, 1]: "
                "replace them first"
            )
        if max(-low, high) > PLAUSIBLE:
            raise PictureError(
                f"the picture's values go from {low:g} to {high:g}, expected [0, 1]: "
                "divide them by their white, such as 255"
            )
    return layers
